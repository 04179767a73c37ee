"""A dataset as a stream of bytes: one file as it is, a directory as a deterministic tar (I/O).

The same directory gives the same bytes on every machine: sorted names, no times, no owners. Memory stays flat: one block is filled
again and again, so a block must be used before the next one is asked for. A stream can begin anywhere, for uploads that resume.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from company.errors import CompanyError, ConflictError
from p2p.base.errors import UsageError
from p2p.base.record import record

BLOCK_BYTES = 1 << 20
_TAR_BLOCK = 512
_TAR_RECORD = 10240  # a tar ends with two empty blocks, filled up to a record
Progress = Callable[[str, int, int], None]  # phase, bytes done, bytes in total


@record
class _Entry:
    """One file or directory of a tree; ``size`` is nil for a directory."""

    name: str  # relative, with slashes
    path: Path
    size: int | None

    def header(self) -> bytes:
        """The tar header: pax, so that names of any length and alphabet fit."""
        import tarfile

        info = tarfile.TarInfo(self.name)
        info.type = tarfile.DIRTYPE if self.size is None else tarfile.REGTYPE
        info.size = self.size or 0
        info.mode = 0o755 if self.size is None else 0o644
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")

    def padding(self) -> int:
        """Zero bytes after the content, up to a whole block."""
        return -(self.size or 0) % _TAR_BLOCK


@record
class Source:
    """What will be uploaded. ``size``: bytes of the stream. ``entries`` is empty for a single file."""

    name: str
    kind: Literal["file", "tree"]
    path: Path
    size: int
    entries: tuple[_Entry, ...] = ()

    def blocks(self, start: int = 0) -> Iterator[memoryview]:
        """The bytes from ``start`` on, in blocks of at most 1 MiB, each valid until the next one."""
        buffer = memoryview(bytearray(BLOCK_BYTES))
        try:
            if self.kind == "file":
                with open(self.path, "rb") as file:
                    file.seek(start)
                    yield from _content(file, self.size - start, self.path, buffer)
            else:
                yield from _gather(self._tar_pieces(start), buffer)
        except OSError as error:
            raise CompanyError("cannot-read", f"{error.filename or self.path} cannot be read: {error.strerror}") from None

    def digest(self, progress: Progress | None = None) -> str:
        """The dataset's hex digest, as the chief makes it.

        A file's is the SHA-256 of its bytes; a tree's that of its manifest: JSON lines [path, size, hex SHA-256], sorted by path.
        """
        files = [entry for entry in self.entries if entry.size is not None]
        if self.kind == "file":
            files = [_Entry(self.name, self.path, self.size)]
        total = sum(entry.size or 0 for entry in files)
        buffer = memoryview(bytearray(BLOCK_BYTES))
        manifest, digest, done = hashlib.sha256(), "", 0
        try:
            for entry in files:
                one = hashlib.sha256()
                with open(entry.path, "rb") as file:
                    for block in _content(file, entry.size or 0, entry.path, buffer):
                        one.update(block)
                        done += len(block)
                        if progress is not None:
                            progress("hash", done, total)
                digest = one.hexdigest()
                row = json.dumps([entry.name, entry.size, digest], ensure_ascii=False)
                manifest.update(row.encode("utf-8", "surrogateescape") + b"\n")
        except OSError as error:
            raise CompanyError("cannot-read", f"{error.filename or self.path} cannot be read: {error.strerror}") from None
        return digest if self.kind == "file" else manifest.hexdigest()

    def _tar_pieces(self, start: int) -> Iterator[bytes | memoryview]:
        """Pieces of the tar from ``start`` on; files that lie wholly before it are not opened."""
        position = 0
        inner = memoryview(bytearray(BLOCK_BYTES))
        for entry in self.entries:
            header = entry.header()
            total = len(header) + (entry.size or 0) + entry.padding()
            if position + total > start:
                yield from _from(_entry_pieces(entry, header, inner), start - position)
            position += total
        yield bytes(self.size - max(position, start))


def open_source(path: Path, name: str | None = None) -> Source:
    """Look at a file or directory. Raises `UsageError` for links out of the tree and special files, `CompanyError` when unreadable."""
    try:
        if path.is_dir():
            entries = tuple(_walk(path))
            size = sum(len(e.header()) + (e.size or 0) + e.padding() for e in entries) + 2 * _TAR_BLOCK
            return Source(name or path.resolve().name, "tree", path, size + -size % _TAR_RECORD, entries)
        if not path.is_file():
            raise UsageError("no-such-data", f"{path} is neither a file nor a directory")
        return Source(name or path.name, "file", path, path.stat().st_size)
    except OSError as error:
        raise CompanyError("cannot-read", f"{error.filename or path} cannot be read: {error.strerror}") from None


def _walk(root: Path) -> Iterator[_Entry]:
    """Every file and directory below ``root``, sorted by name."""
    real_root = os.path.realpath(root)
    pending = [""]
    found: list[_Entry] = []
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(real_root, folder)) as entries:
            for item in entries:
                name = f"{folder}/{item.name}" if folder else item.name
                if item.is_symlink():
                    _check_link(item.path, real_root, name)
                if item.is_dir():
                    found.append(_Entry(name, Path(item.path), None))
                    pending.append(name)
                elif item.is_file():
                    found.append(_Entry(name, Path(item.path), item.stat().st_size))
                else:
                    raise UsageError("special-file", f"{name} is neither a file nor a directory", hint="move it out of the data directory")
    found.sort(key=lambda entry: entry.name)
    return iter(found)


def _check_link(path: str, real_root: str, name: str) -> None:
    """A link to a file of the same tree travels as that file; any other link is refused, for it would carry something else away."""
    target = os.path.realpath(path)
    if not target.startswith(real_root + os.sep) or os.path.isdir(target) or not os.path.exists(target):
        raise UsageError(
            "link-out-of-tree",
            f"{name} is a link to {target}",
            hint="replace it by what it points to; only links to files inside the data directory are followed",
        )


def _entry_pieces(entry: _Entry, header: bytes, inner: memoryview) -> Iterator[bytes | memoryview]:
    yield header
    if entry.size:
        with open(entry.path, "rb") as file:
            yield from _content(file, entry.size, entry.path, inner)
        yield bytes(entry.padding())


def _content(file: BinaryIO, size: int, path: Path, buffer: memoryview) -> Iterator[memoryview]:
    """Exactly ``size`` bytes of a file. Raises `ConflictError` when it has become shorter or longer."""
    left = size
    while left > 0:
        count = file.readinto(buffer[: min(left, len(buffer))])  # type: ignore[attr-defined]
        if not count:
            break
        left -= count
        yield buffer[:count]
    if left > 0 or file.read(1):
        raise ConflictError("file-changed", f"{path} changed while it was read", hint="upload it again when nothing writes to it")


def _from(pieces: Iterator[bytes | memoryview], skip: int) -> Iterator[bytes | memoryview]:
    for piece in pieces:
        if skip >= len(piece):
            skip -= len(piece)
        else:
            yield piece[skip:] if skip > 0 else piece
            skip = 0


def _gather(pieces: Iterator[bytes | memoryview], buffer: memoryview) -> Iterator[memoryview]:
    """Many small pieces as few full blocks: thousands of small files are not thousands of writes to the socket."""
    filled = 0
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            count = min(len(rest), len(buffer) - filled)
            buffer[filled : filled + count] = rest[:count]
            filled += count
            rest = rest[count:]
            if filled == len(buffer):
                yield buffer
                filled = 0
    if filled:
        yield buffer[:filled]
