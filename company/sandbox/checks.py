"""What a child's frames must look like, checked once for all who read them (pure).

After `check_frame_untrusted` a reader may take the header apart without looking: every field has its type and bounds, the
items agree with the counts. What lies inside the items (values, log records) is still the child's word.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from company.sandbox import wire
from p2p.base.errors import MalformedMessage
from p2p.base.frames import MAX_COUNT, Frame

MAX_U64 = (1 << 64) - 1
MAX_ITEM_BYTES = (1 << 32) - 1
_Check = Callable[[Any], bool]


def _u64(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_U64


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNT


def _flag(value: Any) -> bool:
    return type(value) is bool


def _text(limit: int) -> _Check:
    return lambda value: type(value) is str and len(value) <= limit


def _optional(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _fraction(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _costs(value: Any) -> bool:
    return type(value) is list and all(type(cost) is float and math.isfinite(cost) and cost > 0 for cost in value)


def _blobs(value: Any) -> bool:
    if type(value) is not list:
        return False
    for pair in value:
        if type(pair) is not list or len(pair) != 2 or not _count(pair[0]):
            return False
        if type(pair[1]) is not int or not 0 <= pair[1] <= MAX_ITEM_BYTES:
            return False
    offsets = [offset for offset, _ in value]
    return offsets == sorted(set(offsets))


def _words(value: Any) -> bool:
    return type(value) is list and len(value) <= 16 and all(type(word) is str and len(word) <= 64 for word in value)


def is_file_name(value: Any) -> bool:
    """Whether ``value`` is a plain name for a file, which an artifact's must be."""
    if type(value) is not str or any(c in value for c in "/\\\0") or value in (".", ".."):
        return False
    return 1 <= len(value.encode("utf-8", "surrogatepass")) <= 200


_HEADERS: dict[int, tuple[_Check, ...]] = {
    wire.CHUNK: (_count, _flag),
    wire.READY: (_words, _text(200)),
    wire.COUNT: (_optional(_u64),),
    wire.FRAGS: (_u64, _optional(_costs), _blobs),
    wire.SPLIT_END: (_u64,),
    wire.OUTCOME: (_u64, _u64, _count, _flag, _u64, _u64, _u64, _u64, _blobs),
    wire.FAILED: (_text(16), _text(400), _text(4000), _text(16 << 10)),
    wire.STATUS: (_u64, _u64, _text(1000), _optional(_fraction)),
    wire.ARTIFACT: (_u64, _u64, is_file_name, _flag),
    wire.MERGED: (_flag,),
}
_ITEMS = {wire.CHUNK: 1, wire.READY: 0, wire.COUNT: 0, wire.SPLIT_END: 0, wire.FAILED: 0, wire.STATUS: 0, wire.ARTIFACT: 1, wire.MERGED: 1}


def check_frame_untrusted(frame: Frame) -> None:
    """Raise `MalformedMessage` unless ``frame`` is a well-formed message of a child."""
    code, *fields = frame.header
    checks = _HEADERS.get(code) if type(code) is int else None
    if checks is None:
        raise MalformedMessage(f"a child sends no message {str(code)[:20]!r}")
    if len(fields) != len(checks):
        raise MalformedMessage(f"message {code} has {len(checks)} fields, got {len(fields)}")
    for at, (check, value) in enumerate(zip(checks, fields, strict=True)):
        if not check(value):
            raise MalformedMessage(f"field {at + 1} of message {code} is {type(value).__name__} {str(value)[:40]!r}")
    items = len(frame.sizes)
    if items != _ITEMS.get(code, items):
        raise MalformedMessage(f"message {code} has {_ITEMS[code]} items, got {items}")
    if code == wire.OUTCOME:
        count = fields[2]
        if items != count + 3 or frame.sizes[0] != count or frame.sizes[1] != 4 * count:
            raise MalformedMessage(f"an OUTCOME of {count} fragments has {items} items")
        _check_blobs(fields[8], count)
        if bytes(frame.body[:count]).translate(None, b"\0\1"):
            raise MalformedMessage("a status is neither 0 nor 1")
    elif code == wire.FRAGS:
        if fields[1] is not None and len(fields[1]) != items:
            raise MalformedMessage(f"{len(fields[1])} costs for {items} fragments")
        _check_blobs(fields[2], items)


def _check_blobs(blobs: list[list[int]], count: int) -> None:
    if blobs and blobs[-1][0] >= count:
        raise MalformedMessage(f"blob at {blobs[-1][0]} of {count} items")
