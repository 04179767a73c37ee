"""A package out of a folder or archive of this machine's user (I/O).

Symbolic links are not followed: a package must be whole wherever it goes, and a link may lead to what nobody meant to send.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from company.package.archive import MAX_BYTES, MAX_FILES, read_archive_untrusted
from company.package.errors import PackageInvalid, too_large, too_many_files
from company.package.paths import UnsafePath, is_ignored, path_key, safe_path, show
from p2p.base.errors import UsageError
from p2p.base.record import record


@record
class PackageFiles:
    """The files of a package, path to content, and what a person should know about how they were read."""

    files: dict[str, bytes]
    warnings: tuple[str, ...]


def read_package(path: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> PackageFiles:
    """Read a package folder or archive. Raises `UsageError`, `PackageInvalid` or `ArchiveRefused`."""
    if path.is_file():
        return PackageFiles(read_archive_untrusted(path, max_bytes=max_bytes, max_files=max_files), ())
    return read_package_dir(path, max_bytes=max_bytes, max_files=max_files)


def read_package_dir(path: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> PackageFiles:
    """Read every file below ``path`` but caches, version control and links, which become warnings.

    Raises `UsageError` when it is no folder, `TooLarge`, and `PackageInvalid` for names that cannot travel.
    """
    if not path.is_dir():
        code, what = ("package-not-a-folder", "not a folder") if path.exists() else ("package-not-found", "not there")
        raise UsageError(code, f"{path} is {what}", hint="company package init DIR makes one", path=str(path))
    files: dict[str, bytes] = {}
    left_out: dict[str, int] = {}
    warnings: list[str] = []
    total = seen = 0
    for folder, folders, names in os.walk(path, followlinks=False, onerror=_stop):
        inside = Path(folder).relative_to(path).as_posix()
        prefix = "" if inside == "." else inside + "/"
        for name in sorted(folders + names):
            seen += 1
            if seen > max_files:
                raise too_many_files(max_files)
            relative, full = prefix + name, Path(folder, name)
            mode = full.lstat().st_mode
            if is_ignored(relative):
                kind = name if stat.S_ISDIR(mode) or "." not in name[1:] else "*" + full.suffix
                left_out[kind] = left_out.get(kind, 0) + 1
            elif not stat.S_ISDIR(mode):
                if not stat.S_ISREG(mode):
                    what = "a symbolic link" if stat.S_ISLNK(mode) else "no ordinary file"
                    warnings.append(f"left out {show(relative)}: it is {what}")
                    continue
                files[_checked(relative)] = content = _read(full, max_bytes - total)
                total += len(content)
                if total > max_bytes:
                    raise too_large(max_bytes, total, {p: len(c) for p, c in files.items()} | {relative: full.stat().st_size})
        folders[:] = sorted(f for f in folders if not is_ignored(prefix + f))
    _refuse_twins(files)
    if left_out:
        warnings.append("left out " + ", ".join(f"{kind} ({count})" for kind, count in sorted(left_out.items())))
    return PackageFiles(dict(sorted(files.items())), tuple(warnings))


def _stop(error: OSError) -> None:
    raise UsageError("package-unreadable", f"{error.filename}: {error.strerror}", path=str(error.filename))


def _read(path: Path, room: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(max(0, room) + 1)  # one byte more than fits tells a file that is too large, whatever its size says
    except OSError as error:
        raise UsageError("package-unreadable", f"{path}: {error.strerror}", path=str(path)) from None


def _checked(relative: str) -> str:
    try:
        path = safe_path(relative)
    except UnsafePath as error:
        raise PackageInvalid([{"path": show(relative), "line": None, "detail": f"this name cannot travel: {error}"}]) from None
    if path != relative:
        raise PackageInvalid([{"path": show(relative), "line": None, "detail": "this name cannot travel: it contains a backslash"}])
    return path


def _refuse_twins(files: dict[str, bytes]) -> None:
    seen: dict[str, str] = {}
    for path in files:
        other = seen.setdefault(path_key(path), path)
        if other != path:
            detail = f"{show(other)} has the same name on some file systems; rename one"
            raise PackageInvalid([{"path": path, "line": None, "detail": detail}])
