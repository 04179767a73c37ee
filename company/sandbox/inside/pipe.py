"""Frames on the child's two pipes, with the standard library alone (I/O).

The same layout as `p2p.base.frames`, which needs numpy; here the sender is the daemon and is trusted.
"""

from __future__ import annotations

import os
import struct
from _thread import RLock
from array import array

import msgpack

from company.sandbox import wire

TYPE_CHECKING = False  # for type checkers: `typing` and what it imports would cost a blank sandbox a third of its start
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_PREAMBLE = struct.Struct("<IIQ")
_READ_BYTES = 256 << 10
MAX_U32 = (1 << 32) - 1  # most that a size can say
CHUNK_BYTES = 1 << 20
LARGE_BYTES, MAX_PARTS = 64 << 10, 256  # such a message is written from where its items lie, not put together before


class Pipe:
    """Reads the daemon's frames, writes ours. Writing is safe from several threads."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self._reader = open(fd_in, "rb", buffering=_READ_BYTES, closefd=False)  # noqa: SIM115 - held until the process ends
        self._fd_out = fd_out
        self.lock = RLock()  # held across a CHUNK run and the message that names its blobs
        self._blobs: dict[int, bytearray] = {}

    def read(self) -> tuple[list[Any], array[int], memoryview] | None:
        """The next frame (header, sizes, body) that is not a CHUNK, or None when the daemon is gone."""
        while True:
            preamble = self._reader.read(_PREAMBLE.size)
            if len(preamble) < _PREAMBLE.size:
                return None
            header_len, count, body_len = _PREAMBLE.unpack(preamble)
            header = msgpack.unpackb(self._reader.read(header_len))
            sizes = array("I", self._reader.read(4 * count))
            body = memoryview(self._reader.read(body_len))
            if len(body) < body_len:
                return None
            if header[0] != wire.CHUNK:
                return header, sizes, body
            self._blobs.setdefault(header[1], bytearray()).extend(body)

    def take_blobs(self) -> dict[int, bytearray]:
        """The large items that came before this message, by their number in it."""
        blobs, self._blobs = self._blobs, {}
        return blobs

    def write(self, header: Sequence[Any], items: Sequence[bytes] = (), sizes: array[int] | None = None) -> None:
        """Send one frame; waits while the daemon does not read. ``sizes``: of the items, where the caller has them already."""
        packed = msgpack.packb(list(header))
        if sizes is None:
            sizes = sizes_of(items)
        size = sum(sizes)
        head = _PREAMBLE.pack(len(packed), len(items), size) + packed + sizes.tobytes()
        is_large = size >= LARGE_BYTES and len(items) <= MAX_PARTS
        with self.lock:
            _write_all(self._fd_out, (head, *items) if is_large else (head, b"".join(items)))

    def write_large(self, items: list[bytes], sizes: array[int]) -> list[list[int]]:
        """Send items too large to inline as CHUNKs, empty them and their sizes in place, return [[offset, size], …]. Hold `lock`."""
        blobs: list[list[int]] = []
        if not sizes or max(sizes) <= wire.INLINE_BYTES:
            return blobs
        for at, item in enumerate(items):
            if len(item) <= wire.INLINE_BYTES:
                continue
            view = memoryview(item)
            for start in range(0, len(item), CHUNK_BYTES):
                part = view[start : start + CHUNK_BYTES]
                self.write([wire.CHUNK, len(blobs), start + len(part) == len(item)], [bytes(part)])
            blobs.append([at, len(item)])
            items[at] = b""
            sizes[at] = 0
        return blobs


def sizes_of(items: Sequence[bytes]) -> array[int]:
    """How long each is. One that goes as CHUNKs may be longer than a size can say."""
    try:
        return array("I", map(len, items))
    except OverflowError:
        return array("I", (min(len(item), MAX_U32) for item in items))


def _write_all(fd: int, parts: Sequence[bytes]) -> None:
    written = os.writev(fd, parts)
    if written == sum(map(len, parts)):
        return
    for part in parts:  # a signal came between, or the kernel takes no more than 2 GiB at once
        rest = memoryview(part)[written:]
        written = max(0, written - len(part))
        while rest:
            rest = rest[os.write(fd, rest) :]
