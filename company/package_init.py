"""A new package from a template, working as it stands, with sample data (I/O)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from p2p.base.errors import UsageError

TEMPLATES: Mapping[str, str] = {
    "map": "one function over the lines of a text",
    "csv": "sums and means over the rows of a CSV file, by group",
    "montecarlo": "the same random experiment many times, with seeds",
}
_FOLDER = Path(__file__).parent / "package_templates"
_CITIES = ("Aarhus", "Bergen", "Cork", "Delft", "Espoo", "Faro")


def init_package(target: Path, template: str = "map", *, name: str | None = None) -> tuple[Path, ...]:
    """Write the template's files and sample data below ``target`` and return their paths, sorted.

    Raises `UsageError` unknown-template, or not-empty when ``target`` already holds something; nothing is written then.
    """
    if template not in TEMPLATES:
        known = ", ".join(TEMPLATES)
        raise UsageError("unknown-template", f"there is no template {template!r}", hint=f"templates are {known}", template=template)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError("not-empty", f"{target} is there and not an empty folder", hint="name a new folder", path=str(target))
    shown = re.sub(r"[^A-Za-z0-9._ -]", "-", name or target.resolve().name).lstrip("._ -")[:100] or "package"
    files = {path.relative_to(_FOLDER / template).as_posix(): path.read_text("utf-8") for path in _template_files(template)}
    written: list[Path] = []
    for relative, text in (files | sample_data(template)).items():
        path = target / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("@NAME@", shown).replace("@DIR@", str(target)), encoding="utf-8")
        written.append(path)
    return tuple(sorted(written))


def sample_data(template: str) -> dict[str, str]:
    """The sample dataset of a template, file name to text; the same each time."""
    if template == "csv":
        rows = (f"{n},{_CITIES[n * 7 % 6]},{(n * 37 % 1000) / 10:.1f}" for n in range(1, 5001))
        return {"sample.csv": "id,city,amount\n" + "\n".join(rows) + "\n"}
    if template == "montecarlo":
        return {"sample.json": '{"seed": 42}\n'}
    return {"sample.txt": "".join(f"line {n}: the quick brown fox jumps over the lazy dog\n" for n in range(1, 1001))}


def _template_files(template: str) -> list[Path]:
    return sorted(p for p in (_FOLDER / template).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
