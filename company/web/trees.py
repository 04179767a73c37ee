"""Several files of a form as one tar, which is how a directory travels (I/O: writes one temporary file).

A part's size is known only when it has been read, so its header is written afterwards into the room left for it; nothing is kept in memory.
"""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator
from typing import IO, Final

import trio

from company.chief.api.filenames import is_plain_path
from company.chief.facade import Invalid, TooLarge
from p2p.net.http_types import Part

MAX_FILES: Final = 100_000
_BLOCK: Final = 512
_CHUNK: Final = 1 << 20


class TarSpool:
    """A tar that grows by one part after another. ``file`` is open for reading and writing and belongs to the caller."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._paths: set[str] = set()

    @property
    def count(self) -> int:
        """How many files it has."""
        return len(self._paths)

    async def add(self, part: Part) -> None:
        """Append one file. Raises `Invalid` for a path that must not be or came before, `TooLarge`."""
        path = part.filename or ""
        if not is_plain_path(path) or path in self._paths:
            raise Invalid(
                "path-forbidden",
                f"The file name {path[:100]!r} is forbidden or came twice.",
                errors=[{"path": path[:200], "detail": "path"}],
            )
        if self.count >= MAX_FILES:
            raise TooLarge("too-many-files", f"A form may bring {MAX_FILES} files.", limit=MAX_FILES, actual=self.count + 1)
        self._paths.add(path)
        header_at = self._file.tell()
        self._file.write(_header(path, 0))
        size = 0
        async for chunk in part.chunks():
            size += len(chunk)
            if header_at + size > self._max_bytes:
                raise TooLarge(
                    "data-too-large", f"The files have more than {self._max_bytes} bytes.", limit=self._max_bytes, actual=header_at + size
                )
            await trio.to_thread.run_sync(self._file.write, chunk)
        self._file.write(bytes(-size % _BLOCK))
        end = self._file.tell()
        self._file.seek(header_at)
        self._file.write(_header(path, size))
        self._file.seek(end)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The whole tar; nothing can be added afterwards."""
        self._file.write(bytes(2 * _BLOCK))
        self._file.seek(0)
        while chunk := await trio.to_thread.run_sync(self._file.read, _CHUNK):
            yield chunk


def _header(path: str, size: int) -> bytes:
    """The blocks before a file. GNU's form has the same length for any size, which is why it may be written twice."""
    info = tarfile.TarInfo(path)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.GNU_FORMAT)
