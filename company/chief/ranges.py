"""Sets of fragment numbers kept as few, merged, half-open ranges (pure).

A job with a million fragments is a handful of ranges here, never a million objects: done, leased, failed and pending are
each one `RangeSet`. Ranges never touch and never overlap, so equal sets have equal representations.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise

from p2p.base.errors import InvariantBroken, UsageError

Piece = tuple[int, int]  # (first, count)


class RangeSet:
    """A set of integers >= 0. Every operation costs O(log r) plus the ranges it touches, r being the number of ranges."""

    __slots__ = ("_starts", "_stops", "_total")

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._total = 0
        for first, count in pieces:
            self.add(first, count)

    def add(self, first: int, count: int) -> bool:
        """Put ``count`` numbers from ``first`` in; return whether at least one of them was not there yet."""
        stop = _stop(first, count)
        if count == 0:
            return False
        low = bisect_left(self._stops, first)  # a range that ends exactly at ``first`` is joined too
        high = bisect_right(self._starts, stop)
        covered = sum(b - a for a, b in zip(self._starts[low:high], self._stops[low:high], strict=True))
        if low < high:
            first = min(first, self._starts[low])
            stop = max(stop, self._stops[high - 1])
        self._starts[low:high] = [first]
        self._stops[low:high] = [stop]
        self._total += stop - first - covered
        return stop - first > covered

    def discard(self, first: int, count: int) -> bool:
        """Take ``count`` numbers from ``first`` out; return whether at least one of them was there."""
        stop = _stop(first, count)
        low = bisect_right(self._stops, first)
        high = bisect_left(self._starts, stop)
        if low >= high or count == 0:
            return False
        left, right = self._starts[low], self._stops[high - 1]
        removed = sum(b - a for a, b in zip(self._starts[low:high], self._stops[low:high], strict=True))
        kept = [(a, b) for a, b in ((left, first), (stop, right)) if a < b]
        self._starts[low:high] = [a for a, _ in kept]
        self._stops[low:high] = [b for _, b in kept]
        self._total -= removed - sum(b - a for a, b in kept)
        return True

    def contains(self, number: int) -> bool:
        """Whether ``number`` is in the set."""
        return self.covers(number, 1)

    def covers(self, first: int, count: int) -> bool:
        """Whether all ``count`` numbers from ``first`` are in the set (True for count 0)."""
        stop = _stop(first, count)
        at = bisect_right(self._starts, first) - 1
        return count == 0 or (at >= 0 and stop <= self._stops[at])

    def intersection(self, first: int, count: int) -> list[Piece]:
        """The pieces of this range that are in the set, in order."""
        stop = _stop(first, count)
        if count == 0:
            return []
        low = bisect_right(self._stops, first)
        high = bisect_left(self._starts, stop)
        pairs = zip(self._starts[low:high], self._stops[low:high], strict=True)
        return [(max(a, first), min(b, stop) - max(a, first)) for a, b in pairs]

    def missing(self, first: int, count: int) -> list[Piece]:
        """The pieces of this range that are not in the set, in order."""
        stop = _stop(first, count)
        gaps: list[Piece] = []
        for start, size in self.intersection(first, count):
            if start > first:
                gaps.append((first, start - first))
            first = start + size
        if first < stop:
            gaps.append((first, stop - first))
        return gaps

    def first_gap(self, at_least: int = 0) -> int:
        """The smallest number >= ``at_least`` that is not in the set."""
        at = bisect_right(self._starts, at_least) - 1
        return self._stops[at] if at >= 0 and self._stops[at] > at_least else at_least

    @property
    def total(self) -> int:
        """How many numbers are in the set."""
        return self._total

    @property
    def range_count(self) -> int:
        """How many ranges the set is made of; what memory and time depend on."""
        return len(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[Piece]:
        """The ranges as (first, count), in order. Changing the set while iterating is the caller's mistake."""
        return ((a, b - a) for a, b in zip(self._starts, self._stops, strict=True))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeSet):
            return NotImplemented
        return self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        shown = ", ".join(f"{a}..{b - 1}" for a, b in zip(self._starts[:8], self._stops[:8], strict=True))
        return f"RangeSet({shown}{', …' if len(self._starts) > 8 else ''})"

    def validate(self) -> None:
        """Check that ranges are sorted, apart and counted. Raises `InvariantBroken`."""
        edges = [edge for pair in zip(self._starts, self._stops, strict=True) for edge in pair]
        if any(a >= b for a, b in pairwise(edges)):
            raise InvariantBroken("ranges must be sorted and apart", ranges=repr(self))
        if self._total != sum(self._stops) - sum(self._starts):
            raise InvariantBroken("total does not match the ranges", total=self._total, ranges=repr(self))


def _stop(first: int, count: int) -> int:
    if first < 0 or count < 0:
        raise UsageError("range-negative", f"a range needs first >= 0 and count >= 0, got first {first}, count {count}")
    return first + count
