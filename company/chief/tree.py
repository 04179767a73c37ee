"""A directory that travels as tar: unpacked in bounds, or refused whole (I/O).

Only plain files and folders with relative names come out; links, devices, sparse files and names that leave the folder or come
twice are refused. Everything is bounded before it is believed: files, bytes, name length, depth, and the hidden headers that
`tarfile` reads into memory.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from p2p.base.errors import MalformedMessage
from p2p.base.record import record

MAX_FILES = 1_000_000
MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255
MAX_DEPTH = 64
_MAX_HEADER_READ = 1 << 20  # what tarfile may read in one go: a stranger's "long name" may claim gigabytes
_COPY_BYTES = 1 << 20


@record
class TreeFile:
    """One file of a tree. ``path``: relative, with "/"."""

    path: str
    size: int
    digest: bytes


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Seekable(_Readable, Protocol):
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class _BoundedReader(io.RawIOBase):
    """Lets tarfile read little at once."""

    def __init__(self, file: _Seekable) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MAX_HEADER_READ:
            raise MalformedMessage(f"archive has a header of {size} bytes; the limit is {_MAX_HEADER_READ}")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def manifest_of(files: list[TreeFile]) -> bytes:
    """The canonical list of a tree: JSON lines [path, size, hex SHA-256], sorted by path. Its SHA-256 is the tree's digest."""
    rows = sorted(files, key=lambda file: file.path)
    return b"".join(json.dumps([f.path, f.size, f.digest.hex()], ensure_ascii=False).encode() + b"\n" for f in rows)


def parse_manifest(data: bytes) -> list[TreeFile]:
    """The files of a manifest of our own."""
    return [TreeFile(path, size, bytes.fromhex(digest)) for path, size, digest in map(json.loads, data.splitlines())]


def extract_tar_untrusted(
    source: BinaryIO, target: Path, *, max_bytes: int, max_files: int = MAX_FILES, modes: tuple[int, int] = (0o644, 0o755)
) -> list[TreeFile]:
    """Unpack a tar or tar.gz into the empty folder ``target``; every file is fsynced. Raises only `MalformedMessage` and OSError.

    A hit bound has ``limit`` and ``actual`` in its facts. On an error the caller throws ``target`` away.
    """
    magic = source.read(2)
    source.seek(0)
    try:
        stream: _Seekable = gzip.GzipFile(fileobj=source, mode="rb") if magic == b"\x1f\x8b" else source
        with tarfile.open(fileobj=_BoundedReader(stream), mode="r:", encoding="utf-8", errors="strict") as archive:
            return _extract(archive, target, max_bytes, max_files, modes)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, RecursionError, OverflowError, ValueError) as error:
        raise MalformedMessage(f"not a readable tar archive: {error or type(error).__name__}") from None


def _extract(archive: tarfile.TarFile, target: Path, max_bytes: int, max_files: int, modes: tuple[int, int]) -> list[TreeFile]:
    files: list[TreeFile] = []
    folders: set[str] = {""}
    names: set[str] = set()
    left = max_bytes
    for member in _members(archive):
        path = safe_tree_path(member.name)
        if len(files) + len(folders) > max_files:
            raise MalformedMessage(f"archive holds more than {max_files} files and folders", limit=max_files, actual=max_files + 1)
        if not (member.isdir() or member.isreg()) or member.issparse():
            raise MalformedMessage(f"archive holds {_kind(member)} {path[:200]!r}; only files and folders are taken")
        _make_folders(target, path if member.isdir() else path.rpartition("/")[0], folders, names, modes[1])
        if member.isdir():
            continue
        if path in names or path in folders or not path:
            raise MalformedMessage(f"archive holds {path[:200]!r} twice")
        if member.size > left:
            actual = max_bytes - left + member.size
            raise MalformedMessage(f"archive unpacks to more than {max_bytes} bytes", limit=max_bytes, actual=actual)
        left -= member.size
        names.add(path)
        content = archive.extractfile(member)
        if content is None:
            raise MalformedMessage(f"archive holds no content for {path[:200]!r}")
        files.append(TreeFile(path, member.size, _write_file(content, target / path, member.size, modes[0])))
    for folder in folders:
        os.chmod(target / folder, modes[1])
    return files


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        yield member
        archive.members = []  # type: ignore[attr-defined]  # tarfile keeps them all; a million files would be a gigabyte


def safe_tree_path(name: str) -> str:
    """``name`` as a relative path, "" for the top folder. Raises only `MalformedMessage`."""
    if name.startswith("/") or "\0" in name:
        raise MalformedMessage(f"archive holds an absolute path or a null byte in a name: {name[:200]!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise MalformedMessage(f"archive holds a path with '..': {name[:200]!r}")
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise MalformedMessage(f"archive holds a name that is not UTF-8: {name[:200]!r}") from None
    if len(parts) > MAX_DEPTH or sum(lengths) + len(parts) > MAX_PATH_BYTES or any(n > MAX_NAME_BYTES for n in lengths):
        raise MalformedMessage(
            f"archive holds a path of more than {MAX_DEPTH} levels, {MAX_PATH_BYTES} bytes, or {MAX_NAME_BYTES} in one name: {name[:200]!r}"
        )
    return "/".join(parts)


def _make_folders(target: Path, folder: str, folders: set[str], names: set[str], mode: int) -> None:
    missing = []
    while folder not in folders:
        if folder in names:
            raise MalformedMessage(f"archive holds {folder[:200]!r} as a file and as a folder")
        missing.append(folder)
        folder = folder.rpartition("/")[0]
    for path in reversed(missing):
        try:
            (target / path).mkdir(mode=0o700)
        except FileExistsError:  # this file system takes two of the names for one
            raise MalformedMessage(f"archive holds {path[:200]!r} twice") from None
        folders.add(path)


def _write_file(content: _Readable, path: Path, size: int, mode: int) -> bytes:
    digest = hashlib.sha256()
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise MalformedMessage(f"archive holds {path.name[:200]!r} twice") from None
    with os.fdopen(fd, "wb", buffering=0) as file:
        left = size
        while left:
            chunk = content.read(min(left, _COPY_BYTES))
            if not chunk:
                raise MalformedMessage(f"archive ends within {path.name[:200]!r}")
            digest.update(chunk)
            file.write(chunk)
            left -= len(chunk)
        os.fchmod(fd, mode)
        os.fsync(fd)
    return digest.digest()


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link"
    if member.isdev():
        return "a device or pipe"
    return "a sparse file" if member.issparse() else "an entry of unknown kind"
