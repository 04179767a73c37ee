"""Small distributions as pip would have installed them, for tests of wheels and requirements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def install_tiny(
    site: Path, name: str, version: str = "1.0", *, requires: Sequence[str] = (), files: Mapping[str, str] | None = None,
    tag: str = "py3-none-any", scripts: str = "",
) -> Path:  # fmt: skip
    """Write a distribution into ``site``, a site-packages folder; ``files`` may lead out of it with "../". Returns the dist-info folder."""
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    content = {f"{stem}/__init__.py": f"version = {version!r}\n"} if files is None else dict(files)
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(
        f"Requires-Dist: {r}\n" for r in requires
    )
    content[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n" + "".join(
        f"Tag: {t}\n" for t in tag.split(",")
    )
    content[f"{info}/INSTALLER"] = "pip\n"
    content[f"{info}/direct_url.json"] = "{}"
    if scripts:
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{scripts}\n"
    content[f"{info}/RECORD"] = "".join(f'"{path}",,\n' for path in [*content, f"{info}/RECORD"])
    for path, text in content.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    return site / info
