"""What a module prints, by fragment, without ever blocking it (I/O).

Each write goes twice: to the log memory shared with the parent, so that a crash keeps the tail, and to the list that
travels with the next OUTCOME. Raw writes of C code to descriptors 1 and 2 land in the same memory, between ours; they are
found by their position and reported with the part of the batch they fell into.
"""

from __future__ import annotations

import io
import os

import msgpack

from company.sandbox import wire
from company.sandbox.page_slots import PAGE_LOG_END, PAGE_LOG_INDEX

TYPE_CHECKING = False  # for type checkers: `typing` and what it imports would cost a blank sandbox a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FRAGMENT_BYTES = 64 << 10
BATCH_BYTES = 1 << 20
STDOUT, STDERR = 1, 2


class Logs:
    """The lines of one batch; bounded per fragment and per batch, the rest is counted."""

    def __init__(self, fd: int, page: Any) -> None:
        self._fd = fd
        self._page = page
        self._records: list[tuple[int, int, bytearray]] = []
        self._end = 0  # where our last write ended; whatever lies behind it is C code's
        self._of = -1
        self._left = FRAGMENT_BYTES
        self._batch_left = BATCH_BYTES
        self.dropped = 0
        self.index: Callable[[], int] = lambda: int(page[wire.PAGE_INDEX])  # of the fragment that runs

    def begin_batch(self) -> None:
        """A new batch has a new allowance."""
        self._of = -1
        self._batch_left = BATCH_BYTES

    def add(self, stream: int, data: bytes) -> None:
        """Take what the fragment on the page has printed."""
        index = self.index()
        if index != self._of:
            self._collect_raw()
            self._of, self._left = index, FRAGMENT_BYTES
            self._page[wire.PAGE_LOGGED] = self._end
            self._page[PAGE_LOG_INDEX] = index
        self._keep(index, stream, data)
        self._write_through(data)

    def take(self) -> tuple[bytes, int]:
        """Return (msgpack arrays one after the other, bytes dropped) since the last call."""
        self._collect_raw()
        records, self._records = self._records, []
        dropped, self.dropped = self.dropped, 0
        return b"".join(msgpack.packb([index, stream, bytes(data)]) for index, stream, data in records), dropped

    def _keep(self, index: int, stream: int, data: bytes) -> None:
        room = max(0, min(self._left, self._batch_left))
        kept = data[:room]
        self._left -= len(kept)
        self._batch_left -= len(kept)
        self.dropped += len(data) - len(kept)
        if not kept:
            return
        if self._records and self._records[-1][0] == index and self._records[-1][1] == stream:
            self._records[-1][2].extend(kept)
        else:
            self._records.append((index, stream, bytearray(kept)))

    def _write_through(self, data: bytes) -> None:
        data = data[-wire.LOG_BYTES // 2 :]
        try:
            at = os.lseek(self._fd, 0, os.SEEK_CUR)
            if at + len(data) > wire.LOG_BYTES:
                # Full: begin again in front. The last lines are worth more than the first when something crashes.
                os.lseek(self._fd, 0, os.SEEK_SET)
                self._page[wire.PAGE_LOGGED] = 0
            os.write(self._fd, data)
            self._end = os.lseek(self._fd, 0, os.SEEK_CUR)
        except OSError:  # the module closed or replaced our descriptor; its loss
            return
        self._page[PAGE_LOG_END] = self._end

    def _collect_raw(self) -> None:
        """Pick up what was written to the descriptors behind our back."""
        try:
            at = os.lseek(self._fd, 0, os.SEEK_CUR)
            if at > self._end:
                raw = os.pread(self._fd, at - self._end, self._end)
                self._keep(self.index() if self._of < 0 else self._of, STDOUT, raw)
            if at >= wire.LOG_BYTES:
                at = os.lseek(self._fd, 0, os.SEEK_SET)
        except OSError:
            return
        self._end = at
        self._page[PAGE_LOG_END] = at


class Stream(io.RawIOBase):
    """The binary face of ``sys.stdout`` or ``sys.stderr``."""

    def __init__(self, logs: Logs, stream: int) -> None:
        self._logs = logs
        self._stream = stream

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._logs.add(self._stream, raw)
        return len(raw)


def text_stream(logs: Logs, stream: int) -> io.TextIOWrapper:
    """A text stream without a buffer: what is printed is kept even if the next line crashes."""
    return io.TextIOWrapper(
        Stream(logs, stream),  # type: ignore[arg-type]  # write_through needs no more than a raw stream
        encoding="utf-8",
        errors="backslashreplace",
        newline="\n",
        write_through=True,
    )
