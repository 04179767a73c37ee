"""One layout for pipes, RPC, REST bodies and segment files: a small header and many byte strings in one run (pure).

``u32 header_len | u32 n | u64 body_len | header (msgpack array) | sizes u32[n] | body``, little endian, with
``sum(sizes) == body_len``. Thousands of fragments travel as one frame and are cut with numpy, so that nothing is done
once per fragment outside a sandboxed child. Every length is checked against its bound before anything is allocated.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from p2p.base.errors import MalformedMessage
from p2p.base.record import record

PREAMBLE = struct.Struct("<IIQ")
MAX_HEADER_BYTES = 64 << 10
MAX_COUNT = 1 << 20
MAX_BODY_BYTES = 16 << 20
SMALL_PIECE_BYTES = 4 << 10  # pieces of an unfinished frame below it are put together at once
Sizes = npt.NDArray[np.uint32]
NO_SIZES: Sizes = np.empty(0, dtype="<u4")


@record
class Frame:
    """A parsed frame. ``sizes``: uint32, shape (n,); ``body``: the n byte strings, one after the other."""

    header: list[Any]
    sizes: Sizes
    body: memoryview

    def cut(self) -> list[memoryview]:
        """The n byte strings. For small n only: bulk paths slice ``body`` by cumulative sizes."""
        ends = np.cumsum(self.sizes, dtype=np.int64).tolist()
        starts = [0, *ends][: len(ends)]
        return [self.body[a:b] for a, b in zip(starts, ends, strict=True)]


def encode_frame(header: Sequence[Any], sizes: Sizes = NO_SIZES, body: bytes | memoryview = b"") -> tuple[bytes, bytes | memoryview]:
    """Return (preamble + header + sizes, body): two buffers, so that a large body is never copied."""
    packed = msgpack.packb(list(header), use_bin_type=True)
    if len(packed) > MAX_HEADER_BYTES:
        raise MalformedMessage(f"frame header of {len(packed)} bytes; the limit is {MAX_HEADER_BYTES}")
    raw_sizes = np.ascontiguousarray(sizes, dtype="<u4").tobytes()
    return PREAMBLE.pack(len(packed), len(sizes), len(body)) + packed + raw_sizes, body


def encode_frame_of(header: Sequence[Any], items: Sequence[bytes | memoryview]) -> tuple[bytes, bytes]:
    """Return a frame of separate byte strings, joined. For small counts and control messages."""
    sizes = np.fromiter((len(item) for item in items), dtype="<u4", count=len(items))
    head, body = encode_frame(header, sizes, b"".join(items))
    return head, bytes(body)


class FrameParser:
    """Turns a stream of bytes into frames; holds at most one unfinished frame.

    ``max_body``: bytes, the bound of this channel. After `MalformedMessage` the stream is lost and must be closed.
    """

    def __init__(self, *, max_body: int = MAX_BODY_BYTES, max_count: int = MAX_COUNT) -> None:
        self._max_body = max_body
        self._max_count = max_count
        self._pieces: list[bytearray | memoryview] = []  # of the unfinished frame: joined once, when all of it is here
        self._held = 0
        self._need = PREAMBLE.size

    @property
    def missing_bytes(self) -> int:
        """How many bytes are wanted before another frame can be complete, at least 1."""
        return max(1, self._need - self._held)

    @property
    def is_idle(self) -> bool:
        """Whether the stream stands between two frames."""
        return not self._held

    def feed_untrusted(self, data: bytes | memoryview) -> list[Frame]:
        """Take bytes, return the frames they complete. Raises only `MalformedMessage`. What never changes is not copied before that."""
        if self._held + len(data) < self._need:
            self._keep(data)
            return []
        view = _constant(data)
        if self._held:
            view = memoryview(b"".join((*self._pieces, view)))
            self._pieces, self._held = [], 0
        frames: list[Frame] = []
        position = 0
        total = len(view)
        while True:
            left = total - position
            self._need = PREAMBLE.size
            if left < PREAMBLE.size:
                break
            header_len, count, body_len = PREAMBLE.unpack_from(view, position)
            self._check_lengths(header_len, count, body_len)
            self._need = need = PREAMBLE.size + header_len + 4 * count + body_len
            if left < need:
                break
            frames.append(_parse_untrusted(view[position : position + need], header_len, count))
            position += need
        rest = view[position:]
        self._keep(rest if 2 * len(rest) > total else bytes(rest))  # a few bytes do not keep megabytes alive
        return frames

    def _keep(self, data: bytes | memoryview) -> None:
        self._held += len(data)
        last = self._pieces[-1] if self._pieces else None
        if len(data) >= SMALL_PIECE_BYTES:
            self._pieces.append(_constant(data))
        elif isinstance(last, bytearray):
            last += data
        elif data:
            self._pieces.append(bytearray(data))

    def _check_lengths(self, header_len: int, count: int, body_len: int) -> None:
        if header_len > MAX_HEADER_BYTES or header_len < 1:
            raise MalformedMessage(f"frame header must be 1..{MAX_HEADER_BYTES} bytes, got {header_len}")
        if count > self._max_count:
            raise MalformedMessage(f"frame may hold {self._max_count} items, got {count}")
        if body_len > self._max_body:
            raise MalformedMessage(f"frame body may have {self._max_body} bytes, got {body_len}")


def parse_frame_untrusted(data: bytes | memoryview, *, max_body: int = MAX_BODY_BYTES) -> Frame:
    """Parse exactly one frame. Raises only `MalformedMessage`, also for bytes left over."""
    parser = FrameParser(max_body=max_body)
    frames = parser.feed_untrusted(data)
    if len(frames) != 1 or not parser.is_idle:
        raise MalformedMessage(f"expected exactly one frame in {len(data)} bytes")
    return frames[0]


def _constant(data: bytes | memoryview) -> memoryview:
    """The same bytes, which nobody can change any more."""
    if type(data) is bytes or (type(data) is memoryview and type(data.obj) is bytes):
        return memoryview(data)
    return memoryview(bytes(data))


def _parse_untrusted(view: memoryview, header_len: int, count: int) -> Frame:
    at = PREAMBLE.size
    try:
        header = msgpack.unpackb(view[at : at + header_len], use_list=True, strict_map_key=True, raw=False)
    except Exception as error:  # noqa: BLE001 - msgpack raises a wide set; all of it is the sender's fault
        raise MalformedMessage(f"frame header cannot be decoded: {type(error).__name__}") from None
    if type(header) is not list or not header:
        raise MalformedMessage("frame header must be a non-empty array")
    at += header_len
    sizes = np.frombuffer(view, dtype="<u4", count=count, offset=at)
    body = view[at + 4 * count :]
    total = int(sizes.sum(dtype=np.uint64)) if count else 0
    if total != len(body):
        raise MalformedMessage(f"frame sizes add up to {total} bytes, body has {len(body)}")
    return Frame(header, sizes, body)
