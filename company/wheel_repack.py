"""An installed distribution as the wheel it came from, and this project's source tree as a wheel (I/O).

Offline and deterministic: files in the order of their names, one fixed time, a RECORD made anew; no byte code, no launchers (pip
makes them again from entry_points.txt), nothing that says where the wheel was installed from.
Source: PEP 427 (the format), PEP 376 (RECORD).
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import itertools
import json
import os
import re
import stat
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from p2p.base.errors import Unavailable
from p2p.base.record import record

OWN_FOLDERS = ("p2p", "company", "simulator")
_DROPPED_INFO = frozenset(
    ("RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json", "provenance_url.json", "uv_cache.json")
)
_CACHES = frozenset(("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"))
FAST = 1  # of zlib: a third of the time of its usual 6, and a tenth more bytes
_TIME = (1980, 1, 1, 0, 0, 0)


@record(kw_only=True)
class WheelFile:
    """One wheel on disk."""

    name: str  # canonical name of the distribution
    version: str
    file: str
    size: int
    sha256: str  # hex
    path: Path


@record
class _Entry:
    content: bytes
    is_executable: bool = False


def read_wheel_file(path: Path) -> WheelFile:
    """Describe a wheel by its file name and content."""
    name, version = path.name.split("-")[:2]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return WheelFile(
        name=canonicalize_name(name), version=version, file=path.name, size=path.stat().st_size, sha256=digest.hexdigest(), path=path
    )


def repack(distribution: Distribution, folder: Path) -> WheelFile:
    """Write the wheel of an installed distribution into ``folder``.

    Raises `Unavailable` wheel-not-repackable for one that no wheel was installed for, or that is damaged.
    """
    name, version = distribution.metadata["Name"], distribution.version
    wheel_text = distribution.read_text("WHEEL")
    # not distribution.files: from Python 3.12 on it hides files that are missing
    files = [PurePosixPath(row[0]) for row in csv.reader((distribution.read_text("RECORD") or "").splitlines()) if row]
    record = next((f for f in files if f.name == "RECORD" and f.parent.name.endswith(".dist-info")), None)
    if wheel_text is None or record is None:
        raise _not_repackable(name, "it was not installed from a wheel")
    info = record.parent.name
    launchers = {entry.name for entry in distribution.entry_points if entry.group in ("console_scripts", "gui_scripts")}
    entries: dict[str, _Entry] = {}
    for file in files:
        target = _path_in_wheel(file, info, launchers)
        if target is None:
            continue
        located = Path(str(distribution.locate_file(str(file))))
        try:
            content = located.read_bytes()
            is_executable = bool(located.stat().st_mode & stat.S_IXUSR)
        except OSError:
            raise _not_repackable(name, f"{file} is missing; reinstall it") from None
        if ".data/scripts/" in target:
            content = re.sub(rb"\A#!\S*python[^\n]*", b"#!python", content)  # pip puts its own interpreter there
        entries[target] = _Entry(content, is_executable)
    return write_wheel(folder, name, version, _tag_of(wheel_text), info, entries)


def _not_repackable(name: str, why: str) -> Unavailable:
    hint = f"pip install --force-reinstall {name}"
    return Unavailable("wheel-not-repackable", f"{name} cannot be handed on: {why}", hint=hint, distribution=name)


def _path_in_wheel(file: PurePosixPath, info: str, launchers: set[str]) -> str | None:
    parts = list(file.parts)
    if file.suffix in (".pyc", ".pyo") or "__pycache__" in parts or file.is_absolute():
        return None
    if parts[0] == info and len(parts) == 2 and parts[1] in _DROPPED_INFO:
        return None
    if parts[0] != "..":
        return "/".join(parts)
    outside = list(itertools.dropwhile(lambda part: part == "..", parts))  # bin/x, share/man/man1/x.1, include/…
    if ".." in outside or outside[0] == "include":
        return None  # headers serve compilers only
    data = info.removesuffix(".dist-info") + ".data"
    if outside[0] in ("bin", "Scripts"):
        stem = outside[-1].removesuffix(".exe")
        return None if stem in launchers or len(outside) != 2 else f"{data}/scripts/{outside[1]}"
    return f"{data}/data/" + "/".join(outside)


def _tag_of(wheel_text: str) -> str:
    """The tags of a WHEEL file in the short form of file names: py2.py3-none-any."""
    tags = re.findall(r"^Tag:\s*(\S+)\s*$", wheel_text, re.MULTILINE)
    triples = [tuple(tag.split("-")) for tag in tags if tag.count("-") == 2] or [("py3", "none", "any")]
    short = [sorted(set(column)) for column in zip(*triples, strict=True)]
    if set(itertools.product(*short)) != set(triples):
        return "-".join(triples[0])
    return "-".join(".".join(column) for column in short)


def write_wheel(folder: Path, name: str, version: str, tag: str, info: str, entries: Mapping[str, _Entry]) -> WheelFile:
    """Write a wheel with a fresh RECORD; the file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{re.sub(r'[-_.]+', '_', name).lower()}-{version}-{tag}.whl"
    partial = path.with_suffix(f".{os.getpid()}.part")
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    # metadata last, as the format advises; else by name
    ordered = sorted(entries, key=lambda p: (p.startswith(info + "/"), p))
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for target in ordered:
            entry = entries[target]
            _add(archive, target, entry)
            digest = base64.urlsafe_b64encode(hashlib.sha256(entry.content).digest()).rstrip(b"=").decode()
            rows.writerow((target, f"sha256={digest}", len(entry.content)))
        rows.writerow((f"{info}/RECORD", "", ""))
        _add(archive, f"{info}/RECORD", _Entry(record.getvalue().encode()))
    partial.replace(path)
    return read_wheel_file(path)


def _add(archive: zipfile.ZipFile, target: str, entry: _Entry) -> None:
    info = zipfile.ZipInfo(target, _TIME)
    info.create_system = 3
    info.external_attr = (stat.S_IFREG | (0o755 if entry.is_executable else 0o644)) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, entry.content, compresslevel=FAST)


# -- this project itself, when it runs from its source tree


def source_tree_of(distribution: Distribution) -> Path | None:
    """The folder that an editable installation points to, nil for an ordinary one."""
    try:
        direct = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return None
    url = urlsplit(str(direct.get("url", "")))
    if url.scheme != "file" or not direct.get("dir_info", {}).get("editable"):
        return None
    tree = Path(unquote(url.path))
    return tree if (tree / "pyproject.toml").is_file() else None


def project_table(tree: Path) -> dict[str, Any]:
    """The [project] table of a source tree."""
    table: dict[str, Any] = tomllib.loads((tree / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def source_files(tree: Path) -> Iterable[Path]:
    """Every file that belongs into our own wheel, in the order of names."""
    for top in OWN_FOLDERS:
        for folder, folders, names in os.walk(tree / top):
            folders[:] = sorted(f for f in folders if f not in _CACHES)
            yield from (Path(folder, name) for name in sorted(names) if not name.endswith((".pyc", ".pyo")))


def build_own_wheel(tree: Path, folder: Path) -> WheelFile:
    """Write the wheel of the source tree ``tree``: what `pip wheel` would make, without a build backend or network."""
    project = project_table(tree)
    name, version = project["name"], project["version"]
    info = f"{re.sub(r'[-_.]+', '_', name).lower()}-{version}.dist-info"
    entries = {path.relative_to(tree).as_posix(): _Entry(path.read_bytes()) for path in source_files(tree)}
    entries[f"{info}/METADATA"] = _Entry(metadata_text(project, tree).encode())
    entries[f"{info}/WHEEL"] = _Entry(b"Wheel-Version: 1.0\nGenerator: company-compute\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    scripts = "".join(f"{command} = {target}\n" for command, target in sorted(project.get("scripts", {}).items()))
    if scripts:
        entries[f"{info}/entry_points.txt"] = _Entry(f"[console_scripts]\n{scripts}".encode())
    for pattern in project.get("license-files", ()):
        for path in sorted(tree.glob(pattern)):
            entries[f"{info}/licenses/{path.relative_to(tree).as_posix()}"] = _Entry(path.read_bytes())
    return write_wheel(folder, name, version, "py3-none-any", info, entries)


def metadata_text(project: Mapping[str, Any], tree: Path) -> str:
    """The METADATA of our own wheel."""
    lines = ["Metadata-Version: 2.4", f"Name: {project['name']}", f"Version: {project['version']}"]
    for key, field in (("description", "Summary"), ("requires-python", "Requires-Python"), ("license", "License-Expression")):
        if isinstance(project.get(key), str):
            lines.append(f"{field}: {project[key]}")
    lines += [f"Classifier: {classifier}" for classifier in project.get("classifiers", ())]
    for pattern in project.get("license-files", ()):
        lines += [f"License-File: {path.relative_to(tree).as_posix()}" for path in sorted(tree.glob(pattern))]
    lines += [f"Requires-Dist: {requirement}" for requirement in project.get("dependencies", ())]
    for extra, requirements in sorted(project.get("optional-dependencies", {}).items()):
        lines.append(f"Provides-Extra: {extra}")
        for requirement in requirements:
            base, _, marker = requirement.partition(";")
            condition = f'({marker.strip()}) and extra == "{extra}"' if marker else f'extra == "{extra}"'
            lines.append(f"Requires-Dist: {base.strip()}; {condition}")
    return "\n".join(lines) + "\n"
