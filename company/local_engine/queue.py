"""The local engine's queue: which fragments run next, which again, which are done (pure).

Like the chief's machine without leases, workers and durability: a batch is out with one slot or it is not. A fragment that fails is
tried again alone, three times, so that its neighbours are kept; what a dead child had not answered goes back to the front.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from company.chief.batcher import Adaptive
from company.chief.ranges import RangeSet
from company.chief.retries import MAX_TRIES, RetryBook, Verdict
from p2p.base.errors import InvariantBroken
from p2p.base.frames import NO_SIZES, Sizes

HERE = "here"  # the one worker of a local run, as the retry rules want a name
NO_COSTS: npt.NDArray[np.float64] = np.empty(0, dtype=np.float64)


@dataclass(slots=True)
class Out:
    """A batch that a slot holds. ``answered``: fragments of it that are settled, from its beginning."""

    token: int
    first: int
    count: int
    attempt: int
    size_bytes: int
    cost: float | None
    answered: int = 0

    @property
    def at(self) -> int:
        return self.first + self.answered

    @property
    def end(self) -> int:
        return self.first + self.count


class LocalQueue:
    """The fragments of one run."""

    def __init__(self, slots: int, *, tries: int = MAX_TRIES) -> None:
        self._slots = slots
        self._batcher = Adaptive()
        self._retries = RetryBook(tries=tries)
        self._sizes: Sizes = NO_SIZES  # of fragments not yet in a batch
        self._costs: npt.NDArray[np.float64] | None = NO_COSTS  # nil once split has yielded some without
        self._next = 0
        self._again: deque[tuple[int, int, int]] = deque()  # first, count, attempt
        self._out: dict[int, Out] = {}
        self._tokens = count(1)
        self.produced = 0
        self.total: int | None = None
        self.expected: int | None = None
        self.done = RangeSet()
        self.dead = RangeSet()

    def add(self, sizes: Sizes, costs: list[float] | None) -> None:
        """Split made further fragments."""
        self._sizes = np.concatenate((self._sizes, sizes)) if len(self._sizes) else sizes
        if costs is None:
            self._costs = None
        elif self._costs is not None:
            self._costs = np.concatenate((self._costs, np.asarray(costs)))
        self.produced += len(sizes)

    def end(self, total: int) -> None:
        """Split has ended. Raises `InvariantBroken` when it counted otherwise."""
        if total != self.produced:
            raise InvariantBroken("split's count differs from its fragments", said=total, made=self.produced)
        self.total = total

    @property
    def is_settled(self) -> bool:
        """Whether every fragment is done or given up."""
        return self.total is not None and self.done.total + self.dead.total >= self.total

    def take(self) -> Out | None:
        """The next batch for a slot, or nil while there is none."""
        if self._again:
            first, number, attempt = self._again.popleft()
            out = Out(next(self._tokens), first, number, attempt, 0, None)
        else:
            known = self.total if self.total is not None else self.expected
            remaining = None if known is None else max(len(self._sizes), known - self._next)
            number = self._batcher.next_batch(self._sizes, self._costs, remaining, self._slots)
            if number == 0:
                return None
            cost = float(self._costs[:number].sum()) if self._costs is not None else None
            out = Out(next(self._tokens), self._next, number, 1, int(self._sizes[:number].sum(dtype=np.int64)), cost)
            self._sizes = self._sizes[number:]
            self._costs = None if self._costs is None else self._costs[number:]
            self._next += number
        self._out[out.token] = out
        return out

    def out(self, token: int) -> Out | None:
        """The batch behind a token, while a slot holds it."""
        return self._out.get(token)

    def on_done(self, token: int, first: int, number: int) -> None:
        """Results of ``first .. first+number`` are kept."""
        self.done.add(first, number)
        if len(self._retries):
            for index in range(first, first + number):
                self._retries.on_success(index)

    def on_part(self, token: int, first: int, number: int, *, last: bool, run_us: int) -> None:
        """All of ``first .. first+number`` is answered, well or badly; with ``last`` the slot is rid of the batch."""
        out = self._out[token]
        out.answered = first + number - out.first
        if out.count and number and out.size_bytes:
            share = number / out.count
            self._batcher.observe(number, int(out.size_bytes * share), None if out.cost is None else out.cost * share, run_us)
        if last:
            del self._out[token]

    def on_failure(self, index: int, cause: str) -> Verdict:
        """A fragment failed by itself: it is tried again alone, or given up."""
        verdict = self._retries.on_failure(index, worker=HERE, cause=cause)
        if verdict.final:
            self.dead.add(index, 1)
        else:
            self._again.append((index, 1, verdict.trouble.tries + 1))
        return verdict

    def on_death(self, token: int, index: int, cause: str) -> Verdict:
        """The child died at ``index``: that fragment is guilty, the unanswered others of its batch go on as before."""
        out = self._out.pop(token)
        if index + 1 < out.end:
            self._again.appendleft((index + 1, out.end - index - 1, out.attempt))
        if out.at < index:
            self._again.appendleft((out.at, index - out.at, out.attempt))
        return self.on_failure(index, cause)

    def give_back(self, token: int) -> None:
        """The slot never began the batch."""
        out = self._out.pop(token, None)
        if out is not None and out.at < out.end:
            self._again.appendleft((out.at, out.end - out.at, out.attempt))

    def validate(self) -> None:
        """Check that every fragment is in exactly one place. Raises `InvariantBroken`."""
        places = RangeSet()
        pieces = [*self.done, *self.dead, *((a, n) for a, n, _ in self._again), *((o.at, o.end - o.at) for o in self._out.values())]
        pieces.append((self._next, len(self._sizes)))
        if sum(n for _, n in pieces) != self.produced:
            raise InvariantBroken("fragments are lost or twice in the queue", pieces=pieces, produced=self.produced)
        for first, number in pieces:
            places.add(first, number)
        if places.total != self.produced:
            raise InvariantBroken("a fragment is in two places", pieces=pieces)
