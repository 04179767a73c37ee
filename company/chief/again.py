"""Fragment path 3/9 - batches, and the ranges that must be run once more (pure).

What a lost worker held, what was given back and what failed waits here, in front of what split has made. Whole ranges whose
worker was lost once are joined and cut anew, so that a lost batch of sixty thousand fragments is spread over all slots; what
is suspected of killing its worker, and what failed by itself, stays apart (`alone`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace

from company.chief.ranges import Piece, RangeSet
from p2p.base.errors import InvariantBroken
from p2p.base.record import record

LOOK_AHEAD = 64  # entries looked at for one that may go to a given worker


@record(kw_only=True)
class Batch:
    """Fragments that travel together. ``size_bytes`` and ``cost`` of a part are taken pro rata."""

    first: int
    count: int
    attempt: int = 0
    size_bytes: int = 0
    cost: float | None = None
    losses: int = 0  # workers lost while they ran it
    avoid: tuple[str, ...] = ()  # workers where it failed, the newest last
    alone: bool = False  # never joined with its neighbours

    def part(self, first: int, count: int) -> Batch:
        """The piece ``first .. first+count`` of this batch."""
        if (first, count) == (self.first, self.count):
            return self
        share = count / self.count
        cost = None if self.cost is None else self.cost * share
        return replace(self, first=first, count=count, size_bytes=round(self.size_bytes * share), cost=cost)

    def joins(self, other: Batch) -> bool:
        """Whether ``other``, which begins where this one ends, may be made one with it."""
        return (
            self.first + self.count == other.first and not (self.alone or other.alone) and self.avoid == other.avoid
            and (self.cost is None) == (other.cost is None)
        )  # fmt: skip


class Again:
    """Ranges to run again, by first fragment; no two overlap."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._batches: list[Batch] = []
        self._all = RangeSet()

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    @property
    def count(self) -> int:
        """How many fragments wait here."""
        return self._all.total

    def missing(self, first: int, count: int) -> list[Piece]:
        """The pieces of this range that do not wait here."""
        return self._all.missing(first, count)

    def add(self, batch: Batch) -> None:
        """Put a range in. Raises `InvariantBroken` when part of it is here already."""
        if self._all.intersection(batch.first, batch.count):
            raise InvariantBroken(f"fragments {batch.first}+{batch.count} wait to be run again already")
        self._all.add(batch.first, batch.count)
        at = bisect_left(self._firsts, batch.first)
        if at < len(self._batches) and batch.joins(self._batches[at]):
            batch = _joined(batch, self._batches[at])
            del self._batches[at], self._firsts[at]
        if at and self._batches[at - 1].joins(batch):
            at -= 1
            batch = _joined(self._batches[at], batch)
            del self._batches[at], self._firsts[at]
        self._batches.insert(at, batch)
        self._firsts.insert(at, batch.first)

    def take(self, is_fit: Callable[[Batch], bool], length: Callable[[Batch], int]) -> Batch | None:
        """Remove and return the front of the first range that fits: ``length`` of its fragments."""
        for at, batch in enumerate(self._batches[:LOOK_AHEAD]):
            if is_fit(batch):
                count = batch.count if batch.alone else max(1, min(batch.count, length(batch)))
                del self._batches[at], self._firsts[at]
                if count < batch.count:
                    rest = batch.part(batch.first + count, batch.count - count)
                    self._batches.insert(at, rest)
                    self._firsts.insert(at, rest.first)
                self._all.discard(batch.first, count)
                return batch.part(batch.first, count)
        return None

    def remove(self, first: int, count: int) -> None:
        """What is in this range need not be run again."""
        for a, n in self._all.intersection(first, count):
            self._cut(a, n)

    def _cut(self, first: int, count: int) -> None:
        stop = first + count
        at = max(0, bisect_left(self._firsts, first) - 1)
        while at < len(self._batches) and self._batches[at].first < stop:
            batch = self._batches[at]
            end = batch.first + batch.count
            if end <= first:
                at += 1
                continue
            ends = ((batch.first, first - batch.first), (stop, end - stop))
            kept = [batch.part(a, n) for a, n in ends if n > 0]
            self._batches[at : at + 1] = kept
            self._firsts[at : at + 1] = [b.first for b in kept]
            at += len(kept)
        self._all.discard(first, count)

    def clear(self) -> None:
        """Forget all."""
        self._firsts.clear()
        self._batches.clear()
        self._all = RangeSet()

    def validate(self) -> None:
        """Raises `InvariantBroken` when ranges overlap or are counted wrongly."""
        found = RangeSet()
        for first, batch in zip(self._firsts, self._batches, strict=True):
            if first != batch.first or batch.count < 1 or found.intersection(first, batch.count):
                raise InvariantBroken("ranges to run again overlap or are filed wrongly", first=first)
            found.add(first, batch.count)
        if found != self._all:
            raise InvariantBroken("ranges to run again are counted wrongly")


def _joined(left: Batch, right: Batch) -> Batch:
    cost = None if left.cost is None or right.cost is None else left.cost + right.cost
    return replace(
        left, count=left.count + right.count, size_bytes=left.size_bytes + right.size_bytes, cost=cost,
        attempt=max(left.attempt, right.attempt), losses=max(left.losses, right.losses),
    )  # fmt: skip
