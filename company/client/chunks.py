"""Calls as bytes and results as values, and how many calls travel together (I/O free, but opens pickles of own results).

A result's pickle comes from a sandbox of the company's own workers, for a call that this client sent: nobody else's pickle is opened.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any

from company.client import calls_entry as entry
from company.client.functions import check_safe, dumps, module_names
from p2p.base.record import record

TARGET_NS = 100_000_000  # a chunk takes about this long: short enough to spread, long enough to be worth its way (at 50 ms slots ran dry)
TARGET_BYTES = 1 << 20
LONG_NS = 250_000_000  # where it is known how many there are: fewer ways, and the last ones are shorter anyway
MIN_NS = 5_000_000  # dividing less than this among workers takes longer than it
MAX_CALLS = 32_768
_GLOBALS = (type, FunctionType, BuiltinFunctionType)
UNKNOWN_LENGTH = 1 << 60
GROWTH = 8  # from one chunk to the next, while what was measured is little


@dataclass(slots=True)
class Pace:
    """What calls of one function have taken lately."""

    ns: float = 0.0
    bytes: float = 0.0
    largest: int = 1  # chunk that was measured

    def observe(self, calls: int, ns: int, size_bytes: int) -> None:
        """Learn from a chunk that came back."""
        per_call = ns / max(1, calls)
        weight = 0.3 if self.ns else 1.0
        self.ns += weight * (per_call - self.ns)
        self.bytes += (0.3 if self.bytes else 1.0) * (size_bytes / max(1, calls) - self.bytes)
        self.largest = max(self.largest, calls)

    def count(self, target_ns: int = TARGET_NS) -> int:
        """How many calls the next chunk should have."""
        if not self.ns and not self.bytes:
            return 1
        by_time = target_ns / max(50.0, self.ns)
        by_bytes = TARGET_BYTES / max(1.0, self.bytes)
        return max(1, int(min(by_time, by_bytes, self.largest * GROWTH, MAX_CALLS)))

    def count_of(self, left: int, parts: int) -> int:
        """How many of the last ``left`` calls the next chunk should have, where ``parts`` such chunks would keep all workers busy."""
        least = MIN_NS / max(50.0, self.ns) if self.ns else 1
        return min(self.count(LONG_NS if left < UNKNOWN_LENGTH // 2 else TARGET_NS), max(1, left // parts, int(least)))


@record
class Opened:
    """The results of one chunk. ``failed``: positions whose value is what is told of an exception.

    ``unopened``: why its function or arguments could not be opened, so that nothing of it was run, "" for all others.
    """

    ns: int
    values: list[Any]
    failed: frozenset[int]
    printed: str
    unopened: str = ""


def packed_calls(kind: int, calls: list[Any]) -> tuple[Any, frozenset[str]]:
    """Calls as they travel, and the modules that opening their arguments imports. Raises `NotPortable` naming what cannot travel."""
    if kind & entry.SAFE:
        for call in calls:
            check_safe(call, "argument")
        return calls, frozenset()
    try:
        payload, modules = _pickled(calls)
        is_whole = b"__main__" not in payload  # classes of the script itself are not there where it is opened
    except Exception:  # noqa: BLE001 - by value, or with the name of what cannot
        is_whole = False
    if not is_whole:
        payload = dumps(calls)
        modules = frozenset(module_names(payload))
    return payload, modules


def chunk_body(key: bytes, source: bytes | str | None, kind: int, payload: Any) -> bytes:
    """The bytes of one fragment. ``source``: nil for a function that lies in the package."""
    from p2p.base.codec import encode_value

    return encode_value([key, source, kind, payload])


class _Noting(pickle.Pickler):
    """A pickler that notes the modules of the classes and functions that it names; numbers, texts and their lists it never asks about."""

    def __init__(self, buffer: io.BytesIO) -> None:
        super().__init__(buffer, 5)
        self.modules: set[str] = set()

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, _GLOBALS):
            self.modules.add(str(value.__module__))
        return NotImplemented


def _pickled(calls: list[Any]) -> tuple[bytes, frozenset[str]]:
    buffer = io.BytesIO()
    pickler = _Noting(buffer)
    pickler.dump(calls)
    return buffer.getvalue(), frozenset(pickler.modules)


def opened(body: bytes | memoryview, calls: int | None, *, is_sliced: bool = False) -> Opened:
    """Open a chunk's result; ``is_sliced``: it may hold only the first of them. Raises `IntegrityError` for one that is none of ours."""
    from company.errors import IntegrityError
    from p2p.base.codec import decode_value_untrusted

    found = decode_value_untrusted(body)
    if type(found) is not list or len(found) != 4:
        raise IntegrityError("bad-result", "a result of calls cannot be read")
    ns, failed, payload, printed = found
    if failed is None:  # nothing could be run: every call has the same trouble
        count = calls if calls is not None else 1 << 16
        return Opened(ns, [payload] * count, frozenset(range(count)), printed, f"{payload[1]}: {payload[2]}")
    values = payload if type(payload) is list else pickle.loads(payload)
    least = 1 if is_sliced and calls else calls
    if type(values) is not list or (calls is not None and least is not None and not least <= len(values) <= calls):
        raise IntegrityError("bad-result", f"{len(values)} results came for {calls} calls")
    return Opened(ns, values, frozenset(failed), printed)
