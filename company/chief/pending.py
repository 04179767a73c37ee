"""Fragment path 3/9 - the fragments that split has made and no batch holds yet, as size arrays (pure).

Runs of consecutive indices; after a restart there are gaps where results are already on disk. Arrays grow by doubling, so that
a generator that yields one fragment at a time costs no copy per fragment.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from p2p.base.frames import Sizes

Costs = npt.NDArray[np.float64]


class _Run:
    __slots__ = ("costs", "end", "first", "sizes", "start")

    def __init__(self, first: int, sizes: Sizes, costs: Costs | None) -> None:
        self.first = first  # fragment index of sizes[0]
        self.sizes: Sizes = sizes
        self.costs = costs
        self.start = 0
        self.end = len(sizes)

    def append(self, sizes: Sizes, costs: Costs | None) -> None:
        need = self.end + len(sizes)
        if need > len(self.sizes) or not (self.sizes.flags.owndata and self.sizes.flags.writeable):  # never write into another's array
            self._grow(len(sizes))
            need = self.end + len(sizes)
        self.sizes[self.end : need] = sizes
        if self.costs is not None and costs is not None:
            self.costs[self.end : need] = costs
        self.end = need

    def _grow(self, extra: int) -> None:
        """Move what is left to arrays of twice its length; what was taken is dropped."""
        left = self.end - self.start
        room = max(left + extra, 2 * left)
        grown: Sizes = np.empty(room, dtype="<u4")
        grown[:left] = self.sizes[self.start : self.end]
        if self.costs is not None:
            wider: Costs = np.empty(room, dtype=np.float64)
            wider[:left] = self.costs[self.start : self.end]
            self.costs = wider
        self.sizes = grown
        self.first += self.start
        self.start, self.end = 0, left


class Pending:
    """Fragments waiting for a batch, oldest first."""

    def __init__(self) -> None:
        self._runs: deque[_Run] = deque()
        self.count = 0

    def add(self, first: int, sizes: Sizes, costs: Costs | None = None) -> None:
        """Append a run. ``sizes``: uint32, shape (n,); ``costs``: float64, shape (n,), or None."""
        if not len(sizes):
            return
        last = self._runs[-1] if self._runs else None
        if last is not None and last.first + last.end == first and (last.costs is None) == (costs is None):
            last.append(sizes, costs)
        else:
            self._runs.append(_Run(first, sizes, costs))
        self.count += len(sizes)

    def head(self) -> tuple[int, Sizes, Costs | None] | None:
        """First index, sizes and costs of the oldest run; views, not copies."""
        if not self._runs:
            return None
        run = self._runs[0]
        costs = None if run.costs is None else run.costs[run.start : run.end]
        return run.first + run.start, run.sizes[run.start : run.end], costs

    def take(self, count: int) -> None:
        """Remove ``count`` fragments from the head run; it must hold that many."""
        run = self._runs[0]
        run.start += count
        self.count -= count
        if run.start >= run.end:
            self._runs.popleft()

    def discard(self, first: int, count: int) -> None:
        """Remove what is here of a range: somebody holds it already."""
        stop = first + count
        kept: deque[_Run] = deque()
        for run in self._runs:
            start, end = run.first + run.start, run.first + run.end
            low, high = max(first, start), min(stop, end)
            if low >= high:
                kept.append(run)
                continue
            self.count -= high - low
            for a, b in ((start, low), (high, end)):
                if a < b:
                    at, to = a - run.first, b - run.first
                    kept.append(_Run(a, run.sizes[at:to], None if run.costs is None else run.costs[at:to]))
        self._runs = kept

    def ranges(self) -> list[tuple[int, int]]:
        """What is here, as (first, count), oldest first."""
        return [(run.first + run.start, run.end - run.start) for run in self._runs]

    def clear(self) -> None:
        """Forget all."""
        self._runs.clear()
        self.count = 0
