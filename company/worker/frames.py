"""Fragment path 6/9 - cheap checks of what a sandboxed child says about a batch (pure).

A child runs a stranger's code, so its frames are hostile: counts, lengths and indices are compared with the lease, with numpy
and without a step per fragment. The results themselves are never opened here.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from p2p.base.errors import MalformedMessage
from p2p.base.frames import Frame
from p2p.base.record import record

MAX_LOG_BYTES = 4 << 20
MAX_BLOB_BYTES = 2**32 - 1
MAX_TEXT_BYTES = 1024
PREVIEW_BYTES = 512


@record
class ChildOutcome:
    """A checked OUTCOME header. ``blobs``: (offset in this part, size)."""

    token: int
    first: int
    count: int
    last: bool
    run_us: int
    cpu_us: int
    peak_bytes: int
    log_dropped: int
    blobs: tuple[tuple[int, int], ...]


@record
class Expected:
    """What the lease allows next: ``at`` is the first fragment not yet answered."""

    token: int
    at: int
    end: int


def outcome_untrusted(frame: Frame, want: Expected) -> ChildOutcome:
    """Check an OUTCOME frame against the lease. Raises only `MalformedMessage`."""
    head = frame.header
    if len(head) != 10 or any(type(head[i]) is not int or not 0 <= head[i] < 2**64 for i in (1, 2, 3, 5, 6, 7, 8)):
        raise MalformedMessage("OUTCOME header is not nine integers")
    _, token, first, count, last, run_us, cpu_us, peak, dropped, blobs = head
    if type(last) is not bool:
        raise MalformedMessage("OUTCOME last must be a bool")
    if token != want.token:
        raise MalformedMessage(f"OUTCOME for token {token}, expected {want.token}")
    if first != want.at or first + count > want.end or (last and first + count != want.end):
        raise MalformedMessage(f"OUTCOME covers {first}+{count}, expected from {want.at} to at most {want.end}")
    sizes = frame.sizes
    if len(sizes) != 3 + count or int(sizes[0]) != count or int(sizes[1]) != 4 * count or int(sizes[2]) > MAX_LOG_BYTES:
        raise MalformedMessage(f"OUTCOME of {count} fragments has wrong arrays")
    if not bool((np.frombuffer(frame.body[:count], dtype=np.uint8) <= 1).all()):
        raise MalformedMessage("OUTCOME status must be 0 or 1")
    return ChildOutcome(token, first, count, last, run_us, cpu_us, peak, dropped, _blobs_untrusted(blobs, count, sizes))


def _blobs_untrusted(blobs: Any, count: int, sizes: Any) -> tuple[tuple[int, int], ...]:
    if type(blobs) is not list or len(blobs) > 256:
        raise MalformedMessage("OUTCOME blobs must be an array of at most 256")
    out: list[tuple[int, int]] = []
    before = -1
    for blob in blobs:
        if type(blob) is not list or len(blob) != 2 or type(blob[0]) is not int or type(blob[1]) is not int:
            raise MalformedMessage("OUTCOME blob must be [offset, size]")
        offset, size = blob
        if not before < offset < count or not 0 <= size <= MAX_BLOB_BYTES or int(sizes[3 + offset]) != 0:
            raise MalformedMessage(f"OUTCOME blob {offset} of {size} bytes is refused")
        out.append((offset, size))
        before = offset
    return tuple(out)


def words_untrusted(frame: Frame, types: tuple[type, ...], items: int) -> list[Any]:
    """The fields behind the code of a small frame, their exact types checked. Raises only `MalformedMessage`."""
    values = frame.header[1:]
    if len(values) != len(types) or len(frame.sizes) != items:
        raise MalformedMessage(f"frame {frame.header[0]} has {len(values)} fields and {len(frame.sizes)} items")
    for value, kind in zip(values, types, strict=True):
        if kind is float:
            if value is not None and type(value) not in (int, float):
                raise MalformedMessage("expected a number or nil")
        elif type(value) is not kind or (type(value) is int and not 0 <= value < 2**64):
            raise MalformedMessage(f"expected {kind.__name__}, got {type(value).__name__}")
    return values


def short_text(text: str, limit_bytes: int = MAX_TEXT_BYTES) -> str:
    """``text`` cut to a number of UTF-8 bytes, with what cannot be encoded replaced."""
    return text.encode("utf-8", "replace")[:limit_bytes].decode("utf-8", "ignore")


def item_of(sizes: Any, body: bytes | memoryview, offset: int) -> memoryview:
    """One item of a frame, for the rare case that a single one is wanted."""
    ends = np.cumsum(sizes, dtype=np.int64)
    start = int(ends[offset]) - int(sizes[offset])
    return memoryview(body)[start : int(ends[offset])]


def preview_of(data: bytes | memoryview) -> str:
    """A short text that shows one encoded value to a person. Extension types are named, not built, so nothing but msgpack runs."""
    if len(data) > 64 << 10:
        return f"{len(data)} bytes, beginning {bytes(data[:48]).hex()}"
    try:
        value = _plain_untrusted(data, 0)
        return short_text(repr(value), PREVIEW_BYTES)
    except (MalformedMessage, ValueError, RecursionError):
        return f"{len(data)} bytes, beginning {bytes(data[:48]).hex()}"


class _Word:
    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _plain_untrusted(data: bytes | memoryview, depth: int) -> Any:
    """Decode without building what an extension stands for; tuples (1) are opened. Raises only `MalformedMessage`."""

    def hook(code: int, inner: bytes) -> Any:
        if code == 1 and depth < 4:
            parts = _plain_untrusted(inner, depth + 1)
            return tuple(parts) if type(parts) is list else _Word("(…)")
        return _Word(f"<value of kind {code}, {len(inner)} bytes>")

    try:
        return msgpack.unpackb(data, ext_hook=hook, strict_map_key=False, raw=False, unicode_errors="replace")
    except Exception as error:  # noqa: BLE001 - msgpack raises a wide set; all of it is the sender's fault
        raise MalformedMessage(f"value cannot be decoded: {type(error).__name__}") from None
