"""A file that only grows: appended to in memory, written and fsynced together in a thread (I/O).

Every piece has its offset as soon as it is appended, so a write that failed (full disk) is simply done again at the same place
once there is room. `append` is for the owning task; `sync` may run in a thread at the same time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from company.chief.page_cache import LET_GO_BYTES, sync_and_let_go
from company.chief.store.writer import is_disk_full, storage_full
from p2p.base.errors import InvariantBroken

Buffer = bytes | bytearray | memoryview
_IOV_MAX = 1024  # buffers in one system call; Linux's limit


class AppendFile:
    """One growing file. Nothing is created before the first `sync`."""

    def __init__(self, path: Path, head: bytes, *, end: int | None = None) -> None:
        """``head`` opens a new file. ``end``: where an existing one ends; what lies behind is cut off."""
        self.path = path
        self._head = head
        self._is_new = end is None
        self._lock = threading.Lock()  # guards _pending, _pending_bytes, _written and _end
        self._sync_lock = threading.Lock()  # one sync at a time: it owns _fd
        self._fd = -1
        self._written = self._end = len(head) if end is None else end
        self._pending: list[Buffer] = []
        self._pending_bytes = 0
        self.is_let_go = False  # whether large pieces leave the page cache here

    @property
    def end(self) -> int:
        """Where the next piece will lie."""
        return self._end

    @property
    def pending_bytes(self) -> int:
        """Bytes appended and not yet written."""
        return self._pending_bytes

    def append(self, *buffers: Buffer) -> int:
        """Add the buffers, which must not change any more, as one piece; return its offset."""
        size = sum(map(len, buffers))
        with self._lock:
            at = self._end
            self._pending += buffers
            self._pending_bytes += size
            self._end = at + size
        return at

    def sync(self) -> None:
        """Write what was appended before this call and make it survive a power cut. Blocks.

        Raises: `Unavailable` ("storage-full") or OSError; everything stays pending at its offset: sync again when there is room.
        """
        with self._sync_lock:
            with self._lock:
                taken, size, at = self._pending, self._pending_bytes, self._written
                self._pending, self._pending_bytes = [], 0
            if not taken:
                return
            try:
                self._open(at)
                _write_all(self._fd, taken, at)
                self.is_let_go = sync_and_let_go(self._fd, at, size) or (self.is_let_go and size < LET_GO_BYTES)
            except OSError as error:
                self._put_back(taken, size, at)
                if is_disk_full(error):
                    raise storage_full(self.path) from error
                raise
            with self._lock:
                self._written = at + size

    def close(self) -> None:
        """Give the file back; what was not synced is lost."""
        with self._sync_lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open(self, written: int) -> None:
        if self._fd < 0:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._prepare(fd, written)
            except BaseException:
                os.close(fd)
                raise
            self._fd = fd

    def _prepare(self, fd: int, written: int) -> None:
        if self._is_new:
            _write_all(fd, [self._head], 0)
            os.fsync(fd)
            sync_directory(self.path.parent)
            self._is_new = False
        size = os.fstat(fd).st_size
        if size < written:
            raise InvariantBroken(f"{self.path} has {size} bytes, committed are {written}")
        os.ftruncate(fd, written)

    def _put_back(self, taken: list[Buffer], size: int, at: int) -> None:
        with self._lock:
            self._pending = taken + self._pending
            self._pending_bytes += size
        if self._fd >= 0:
            os.ftruncate(self._fd, at)  # gives the disk back what a half-done write took


def sync_directory(directory: Path) -> None:
    """Make names created, renamed or removed in ``directory`` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, buffers: Sequence[Buffer], offset: int) -> None:
    for start in range(0, len(buffers), _IOV_MAX):
        rest = [memoryview(b).cast("B") for b in buffers[start : start + _IOV_MAX] if len(b)]
        while rest:
            done = os.pwritev(fd, rest, offset)
            offset += done
            while rest and done >= len(rest[0]):
                done -= len(rest.pop(0))
            if done:
                rest[0] = rest[0][done:]
