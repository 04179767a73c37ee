"""The chief's own wheelhouse: what a second machine needs beyond Python, made from what is installed here (I/O).

The closure of company-compute's requirements, each distribution packed into a wheel again (`company.wheel_repack`), and an index
with every wheel's SHA-256. Building takes some seconds of CPU once; afterwards only what changed is packed again. Blocking, so a daemon
lets ``python -m company.wheelhouse FOLDER NICE`` do it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from company.wheel_repack import WheelFile, build_own_wheel, project_table, read_wheel_file, repack, source_files, source_tree_of
from p2p.base.errors import Unavailable
from p2p.base.record import record

ROOT = "company-compute"
FORMAT = 1
INSTALLER = "/install.py"
Answer = tuple[int, str, bytes]  # HTTP status, media type, body


@record
class Closure:
    """Distributions that requirements lead to, sorted by name, and the requirements that nothing here satisfies."""

    found: tuple[Distribution, ...]
    missing: tuple[str, ...]  # "name>=2 (needed by x; 1.0 is installed)"


@record
class Wheelhouse:
    """A folder of wheels with its index."""

    folder: Path
    wheels: tuple[WheelFile, ...]
    index: bytes  # JSON, what install_remote.py reads

    def get(self, path: str) -> Answer:
        """Answer one GET of the RPC port (`p2p.net.http_get`): /install.py, /wheels/index.json and the wheels themselves."""
        if path == INSTALLER:
            return installer()
        if path == "/wheels/index.json":
            return 200, "application/json", self.index
        wheel = next((w for w in self.wheels if path == f"/wheels/{w.file}"), None)
        if wheel is None:
            return 404, "text/plain; charset=utf-8", b"there is /install.py and /wheels/index.json\n"
        return 200, "application/octet-stream", wheel.path.read_bytes()


def installer() -> Answer:
    """What the install line fetches and runs."""
    return 200, "text/x-python; charset=utf-8", Path(__file__).with_name("install_remote.py").read_bytes()


def installed_distributions(search: Iterable[str] | None = None) -> dict[str, Distribution]:
    """Canonical name to distribution, the one that imports would find; ``search``: folders, default sys.path."""
    found: dict[str, Distribution] = {}
    for distribution in distributions(path=list(search if search is not None else sys.path)):
        name = distribution.metadata["Name"]
        before = found.get(canonicalize_name(name)) if name else None
        # an .egg-info beside the sources (there when the current folder is on the path) must not hide the real installation
        if name and (before is None or (before.read_text("WHEEL") is None and distribution.read_text("WHEEL") is not None)):
            found[canonicalize_name(name)] = distribution
    return found


def closure(requirements: Iterable[str], installed: Mapping[str, Distribution]) -> Closure:
    """Follow requirements through the installed distributions, as markers hold on this machine."""
    found: dict[str, Distribution] = {}
    missing: dict[str, None] = {}
    done: set[tuple[str, str]] = set()
    stack = [(Requirement(text), "", "") for text in requirements]
    while stack:
        requirement, extra, parent = stack.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        distribution = installed.get(name)
        if distribution is None or not requirement.specifier.contains(distribution.version, prereleases=True):
            notes = [f"needed by {parent}"] if parent else []
            notes += [f"{distribution.version} is installed"] if distribution is not None else []
            missing[f"{name}{requirement.specifier}" + (f" ({'; '.join(notes)})" if notes else "")] = None
            continue
        found[name] = distribution
        for wanted in ("", *sorted(requirement.extras)):
            if (name, wanted) not in done:
                done.add((name, wanted))
                stack += [(Requirement(text), wanted, name) for text in requires_of(distribution)]
    return Closure(tuple(found[name] for name in sorted(found)), tuple(sorted(missing)))


def requires_of(distribution: Distribution) -> list[str]:
    """What a distribution requires; an editable one is asked by its pyproject.toml, because its metadata is of the day it was installed."""
    tree = source_tree_of(distribution)
    return list(distribution.requires or ()) if tree is None else list(project_table(tree).get("dependencies", ()))


def build_wheelhouse(folder: Path, *, root: str = ROOT, installed: Mapping[str, Distribution] | None = None) -> Wheelhouse:
    """Bring ``folder`` up to date and return it. Raises `Unavailable` wheel-not-repackable or requirement-missing."""
    installed = installed_distributions() if installed is None else installed
    needed = closure((root,), installed)
    if needed.missing:
        raise Unavailable("requirement-missing", "not installed here: " + ", ".join(needed.missing), missing=list(needed.missing))
    folder.mkdir(parents=True, exist_ok=True)
    before = _read_cache(folder)
    cache: dict[str, str] = {}
    wheels: list[WheelFile] = []
    for distribution in needed.found:
        key = _key_of(distribution)
        kept = folder / before.get(key, "")
        wheel = read_wheel_file(kept) if before.get(key) and kept.is_file() else pack_again(distribution, folder)
        cache[key] = wheel.file
        wheels.append(wheel)
    index = json.dumps(_index_of(root, installed[canonicalize_name(root)], wheels), indent=1).encode() + b"\n"
    _write(folder / "index.json", index)
    _write(folder / "cache.json", json.dumps(cache, indent=1).encode())
    for path in folder.glob("*.whl"):
        if path.name not in cache.values():
            path.unlink()
    return Wheelhouse(folder, tuple(wheels), index)


def open_wheelhouse(folder: Path) -> Wheelhouse:
    """The wheelhouse that `build_wheelhouse` left in ``folder``. Raises `Unavailable` wheelhouse-missing."""
    try:
        index = (folder / "index.json").read_bytes()
        found = [(str(w["file"]), int(w["size"]), str(w["sha256"])) for w in json.loads(index)["wheels"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable("wheelhouse-missing", f"there is no wheelhouse in {folder}: {error}") from None
    wheels = []
    for file, size, sha256 in found:
        name, version = file.split("-")[:2]
        wheels.append(WheelFile(name=canonicalize_name(name), version=version, file=file, size=size, sha256=sha256, path=folder / file))
    return Wheelhouse(folder, tuple(wheels), index)


def pack_again(distribution: Distribution, folder: Path) -> WheelFile:
    """Write the wheel of an installed distribution, from its sources if it is installed from them."""
    tree = source_tree_of(distribution)
    return repack(distribution, folder) if tree is None else build_own_wheel(tree, folder)


def _key_of(distribution: Distribution) -> str:
    """What a wheel depends on: the installed RECORD, or every source file's size and time."""
    tree = source_tree_of(distribution)
    if tree is None:
        text = distribution.read_text("RECORD") or ""
    else:
        stats = [(path.relative_to(tree).as_posix(), path.stat()) for path in (*source_files(tree), tree / "pyproject.toml")]
        text = "\n".join(f"{name} {s.st_size} {s.st_mtime_ns}" for name, s in stats)
    return hashlib.sha256(f"{FORMAT} {distribution.metadata['Name']} {distribution.version}\n{text}".encode()).hexdigest()


def _read_cache(folder: Path) -> dict[str, str]:
    try:
        cache = json.loads((folder / "cache.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in cache.items() if "/" not in str(v)} if isinstance(cache, dict) else {}


def _write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)


def _index_of(root: str, distribution: Distribution, wheels: Iterable[WheelFile]) -> dict[str, Any]:
    compiled = [w.file for w in wheels if not w.file.endswith("-any.whl")]
    return {
        "format": FORMAT,
        "root": root,
        "version": distribution.version,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "implementation": sys.implementation.name,
        "system": platform.system(),
        "machine": platform.machine(),
        "compiled": len(compiled),  # 0: any Python will do
        "wheels": [{"file": w.file, "size": w.size, "sha256": w.sha256} for w in wheels],
    }


def main(argv: Sequence[str]) -> int:
    """Build into ``argv[0]`` with the niceness ``argv[1]``."""
    os.nice(int(argv[1]))
    try:
        build_wheelhouse(Path(argv[0]))
    except Unavailable as error:
        print(error.text, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
