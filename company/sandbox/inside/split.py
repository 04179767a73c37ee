"""Fragment path 2/9, inside - the generator that makes fragments on demand (I/O).

Back-pressure is the pipe: when the parent does not read, writing waits, and with it the generator. A second thread sends
what has lain for 50 ms, so that a fragment never waits for a slow successor.
"""

from __future__ import annotations

import time
from _thread import start_new_thread
from array import array
from collections import deque
from itertools import islice

from company.fragment import Fragment
from company.sandbox import wire
from company.sandbox.inside import package
from company.sandbox.inside.pipe import MAX_U32, Pipe, sizes_of
from p2p.base import codec

TYPE_CHECKING = False  # for type checkers: `typing` and what it imports would cost a blank sandbox a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

_pack = codec._pack_hot  # encode_value's own frame would cost 45 ns more
MAX_COUNT = 65_536
MAX_COUNT_WITH_COSTS = 4096  # 9 bytes each in a header of at most 64 KiB
FLUSH_BYTES = 256 << 10
FIRST_COUNT, MORE = 64, 8  # the first message is small, so that workers begin; each of the next may be that many times as long
MAX_AGE_S = 0.05
MAX_PULL = 4096  # fragments taken from the generator at once
ENCODE_AT_ONCE = 512
PULL_NS = 2_000_000  # as long as that many take less than this


class Splitter:
    """Gathers fragments into FRAGS.

    Values go from the generator through a deque, which is safe between threads: while the main thread waits inside the
    generator, the ticking thread can send what it has yielded so far. Nothing is locked once per fragment.
    """

    def __init__(self, pipe: Pipe, page: Any) -> None:
        self._pipe = pipe
        self._page = page
        self._values: deque[Any] = deque()
        self._items: list[bytes] = []
        self._sizes = array("I")  # theirs
        self._costs: list[float] = []
        self._has_costs = False
        self._bytes = 0
        self._first = 0
        self._total = 0
        self._sent = 0  # FRAGS messages
        self._enough = FIRST_COUNT  # fragments of the next one
        self._error: BaseException | None = None  # met by the ticking thread

    def count(self, function: Callable[..., Any] | None, data: Path) -> None:
        """Send COUNT with what the package's ``count`` says, nil when it has none."""
        self._page[wire.PAGE_STARTED_NS] = time.monotonic_ns()
        self._page[wire.PAGE_IN_USER] = 1
        total = function(data) if function else None
        self._page[wire.PAGE_IN_USER] = 0
        if total is not None and (isinstance(total, bool) or not isinstance(total, int) or not 0 <= total < 1 << 63):
            raise package.PackageError(f"count must return an int >= 0 or None, got {total!r:.80}")
        self._pipe.write([wire.COUNT, total])

    def run(self, function: Callable[..., Any], data: Path) -> None:
        """Run the generator to its end."""
        page, lock, values, clock = self._page, self._pipe.lock, self._values, time.monotonic_ns
        page[wire.PAGE_STARTED_NS] = clock()
        page[wire.PAGE_IN_USER] = 1
        fragments = iter(function(data))
        start_new_thread(self._tick, ())
        pull = 1
        seen = 0
        while True:
            before = clock()
            values.extend(islice(fragments, pull))
            took = clock() - before
            with lock:
                made = self._total + len(values)
                if made == seen:
                    break
                seen = made
                sent = self._sent
                self._take()
                if self._error is not None:
                    raise self._error
                is_much = self._sent - sent > 1
            pull = min(MAX_PULL, pull * 2) if took < PULL_NS and not is_much else max(1, pull // 2)
        page[wire.PAGE_IN_USER] = 0
        with lock:
            self._flush()
            self._pipe.write([wire.SPLIT_END, self._total])

    def _take(self, *, beside: bool = False) -> None:
        """Encode what the generator has yielded. Hold the pipe's lock. ``beside``: the generator may be adding at this moment."""
        values = self._values
        if beside:
            all_of_them = [values.popleft() for _ in range(len(values))]
        else:
            all_of_them = list(values)
            values.clear()
        for at in range(0, len(all_of_them), ENCODE_AT_ONCE):
            got = all_of_them[at : at + ENCODE_AT_ONCE]
            if Fragment in set(map(type, got)):
                for value in got:
                    is_fragment = type(value) is Fragment
                    self._add(codec.encode_value(value.value if is_fragment else value), value.cost if is_fragment else None)
            else:
                self._add_all(got)
        if len(self._items) >= self._enough:
            self._flush()
            self._enough = min(MAX_COUNT, self._enough * MORE)
        self._page[wire.PAGE_INDEX] = self._total
        self._page[wire.PAGE_STARTED_NS] = time.monotonic_ns()

    def _add_all(self, values: list[Any]) -> None:
        """Values without a cost, in bulk."""
        try:
            packed = list(map(_pack, values))
        except (TypeError, ValueError, OverflowError, RecursionError):
            packed = list(map(codec.encode_value, values))  # raises the same in words
        sizes = sizes_of(packed)
        size = sum(sizes)
        if self._has_costs or self._bytes + size > FLUSH_BYTES or len(self._items) + len(packed) > MAX_COUNT:
            for item in packed:
                self._add(item, None)
            return
        self._items += packed
        self._sizes += sizes
        self._bytes += size
        self._total += len(packed)

    def _add(self, packed: bytes, cost: float | None) -> None:
        if cost is not None and not self._has_costs:
            self._has_costs = True
            if len(self._items) >= MAX_COUNT_WITH_COSTS:
                self._flush()
            self._costs = [1.0] * len(self._items)
        self._items.append(packed)
        self._sizes.append(min(len(packed), MAX_U32))
        if self._has_costs:
            self._costs.append(1.0 if cost is None else cost)
        self._total += 1
        self._bytes += len(packed)
        if self._bytes >= FLUSH_BYTES or len(self._items) >= (MAX_COUNT_WITH_COSTS if self._has_costs else MAX_COUNT):
            self._flush()

    def _flush(self) -> None:
        if not self._items:
            return
        page = self._page
        in_user = page[wire.PAGE_IN_USER]
        page[wire.PAGE_IN_USER] = 0  # waiting for the parent is not the generator's time
        blobs = self._pipe.write_large(self._items, self._sizes)
        self._pipe.write([wire.FRAGS, self._first, self._costs if self._has_costs else None, blobs], self._items, self._sizes)
        self._sent += 1
        self._first = self._total
        self._items, self._sizes, self._costs, self._bytes = [], array("I"), [], 0
        page[wire.PAGE_STARTED_NS] = time.monotonic_ns()
        page[wire.PAGE_IN_USER] = in_user

    def _tick(self) -> None:
        while True:
            time.sleep(MAX_AGE_S)
            with self._pipe.lock:
                try:
                    self._take(beside=True)
                except BaseException as error:  # noqa: BLE001 - a value that cannot travel is told by the main thread
                    self._error = error
                    return
                self._flush()
