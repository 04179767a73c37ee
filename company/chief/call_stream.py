"""Fragment path 2/9, without a split - a file of calls that a client goes on appending to while its job runs (I/O).

An executor's fragments are not made by a `split` but come from its client, one frame after the other. The file is the truth: what was
acknowledged is in it and fsynced, so that after a restart the same fragments come again in the same order. Bytes are looked at as
frames only: what is in them is opened in a sandbox.
"""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import BinaryIO

import numpy as np

from company.chief.facade import Conflict, Invalid
from company.chief.window import Large
from p2p.base.errors import MalformedMessage
from p2p.base.frames import NO_SIZES, PREAMBLE, Frame, encode_frame, parse_frame_untrusted
from p2p.base.record import record

MAX_FRAME_BYTES = 256 << 20  # one call may be as large; usual frames are far smaller
MAX_STREAM_BYTES = 1 << 40
INLINE_BYTES = 4 << 20  # a larger one goes to a worker as a file, as large fragments of a split do
IDLE_S = 24 * 3600.0  # a stream that nobody has appended to for so long is at its end
_END = "end"
_CALLS = "calls"


@record
class Piece:
    """One frame of calls read back. ``after``: where the next one begins in the file."""

    frame: Frame
    large: dict[int, Large]
    after: int


class CallStream:
    """The calls of one job. Every method that touches the file blocks: call it in a thread."""

    def __init__(self, path: Path, spool: Path) -> None:
        self._path = path
        self._spool = spool
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self.end = 0  # calls so far
        self.size_bytes = 0
        self.is_over = False

    def open(self) -> None:
        """Open the file; what a crash left half written at its end was never acknowledged and is cut off."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()
        file = self._path.open("r+b")
        total = os.fstat(file.fileno()).st_size
        at = 0
        while total - at >= PREAMBLE.size:
            file.seek(at)
            header_len, count, body_len = PREAMBLE.unpack(file.read(PREAMBLE.size))
            need = PREAMBLE.size + header_len + 4 * count + body_len
            if at + need > total:
                break
            self.end += count
            self.is_over = count == 0
            at += need
        file.truncate(at)
        file.seek(at)
        self.size_bytes = at
        self._file = file

    def append_untrusted(self, first: int, data: bytes) -> int:
        """Add one frame of calls, the first of which is number ``first``; returns how many there are now.

        Sending the same frame again changes nothing. Raises `MalformedMessage`; `Conflict` when it does not follow the one before.
        """
        frame = parse_frame_untrusted(data, max_body=MAX_FRAME_BYTES)
        count = len(frame.sizes)
        if count == 0 or frame.header != [_CALLS]:
            raise MalformedMessage("a frame of calls has the header ['calls'] and at least one call")
        with self._lock:
            if first + count <= self.end:
                return self.end
            if first != self.end:
                raise Conflict("calls-out-of-order", f"the next call of this job is number {self.end}, not {first}", end=self.end)
            if self.is_over:
                raise Conflict("calls-ended", "This job takes no more calls: its client has ended it.")
            if self.size_bytes + len(data) > MAX_STREAM_BYTES:
                raise Invalid("calls-too-large", f"the calls of one job may have {MAX_STREAM_BYTES} bytes")
            self._write(data)
            self.end += count
            return self.end

    def finish(self) -> None:
        """No more calls will come. Idempotent."""
        with self._lock:
            if not self.is_over:
                head, _ = encode_frame([_END], NO_SIZES)
                self._write(head)
                self.is_over = True

    def read(self, at: int, first: int) -> Piece | None:
        """The frame at ``at``, whose first call is number ``first``; nil at the end of what was appended so far."""
        with self._lock:
            if at >= self.size_bytes:
                return None
        with self._path.open("rb") as file:
            file.seek(at)
            head = file.read(PREAMBLE.size)
            header_len, count, body_len = PREAMBLE.unpack(head)
            rest = header_len + 4 * count + body_len
            frame = parse_frame_untrusted(head + file.read(rest), max_body=MAX_FRAME_BYTES)
        if count == 0:
            return None
        after = at + PREAMBLE.size + rest
        if not len(frame.sizes) or int(frame.sizes.max()) <= INLINE_BYTES:
            return Piece(frame, {}, after)
        return Piece(*self._spooled(frame, first), after)

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, data: bytes) -> None:
        if self._file is None:
            raise Conflict("job-over", "This job is over and takes no more calls.")
        try:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self.size_bytes)
            self._file.seek(self.size_bytes)
            raise
        self.size_bytes += len(data)

    def _spooled(self, frame: Frame, first: int) -> tuple[Frame, dict[int, Large]]:
        """Large calls as files, as `company.chief.window` wants them, and the frame without them."""
        self._spool.mkdir(parents=True, exist_ok=True)
        sizes = frame.sizes.copy()
        kept: list[memoryview] = []
        large: dict[int, Large] = {}
        for offset, item in enumerate(frame.cut()):
            if len(item) <= INLINE_BYTES:
                kept.append(item)
                continue
            path = self._spool / f"call-{first + offset}"
            path.write_bytes(item)
            large[first + offset] = Large(path, len(item), hashlib.blake2b(item, digest_size=32).digest())
            sizes[offset] = 0
        return Frame(frame.header, np.ascontiguousarray(sizes), memoryview(b"".join(kept))), large
