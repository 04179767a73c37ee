"""Fragment path 4/9 - match batches with workers' slots: Gale-Shapley on z-scores (pure).

Fast slots get large batches. Both sides prefer whoever stands nearest to them in z-score: p(w, m) = (z_w − z_m)², smaller is better,
ties break by id. Slots propose, so the matching is the best stable one for them.

Source: Parallel papers (P13); Gale, Shapley 1962, "College Admissions and the Stability of Marriage".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from p2p.base.errors import UsageError


class Id(Hashable, Protocol):
    """Anything that names one thing and can be sorted: int, str, or a tuple of those."""

    def __lt__(self, other: Any, /) -> bool: ...


W = TypeVar("W", bound=Id)  # a slot
B = TypeVar("B", bound=Id)  # a batch


@dataclass(frozen=True, slots=True)
class Matching(Generic[W, B]):
    """Who got what, and how many proposals it took."""

    pairs: dict[W, B]
    proposals: int


def stable_match(workers: Sequence[tuple[W, float]], batches: Sequence[tuple[B, float]]) -> dict[W, B]:
    """Match each worker (id, rate) with at most one batch (id, size), stably; the shorter side is matched completely."""
    return propose(workers, batches).pairs


def propose(workers: Sequence[tuple[W, float]], batches: Sequence[tuple[B, float]]) -> Matching[W, B]:
    """Run deferred acceptance; at most len(workers)·len(batches) proposals. Raises `UsageError` for an id named twice."""
    workers = sorted(workers, key=lambda pair: pair[0])
    batches = sorted(batches, key=lambda pair: pair[0])
    for side in (workers, batches):
        if len({name for name, _ in side}) != len(side):
            raise UsageError("match-id-twice", "an id stands twice on one side of a matching")
    if not workers or not batches:
        return Matching({}, 0)
    z_workers = z_scores([rate for _, rate in workers])
    z_batches = z_scores([size for _, size in batches])
    distance = (z_workers[:, None] - z_batches[None, :]) ** 2
    wishes = np.argsort(distance, axis=1, kind="stable")  # both sides are sorted by id, so a stable sort breaks ties by id
    next_wish = [0] * len(workers)
    held: dict[int, int] = {}  # batch → worker
    proposals = 0
    free = list(reversed(range(len(workers))))  # the lowest id proposes first; the outcome does not depend on it
    while free:
        worker = free.pop()
        if next_wish[worker] == len(batches):
            continue  # refused by every batch
        batch = int(wishes[worker, next_wish[worker]])
        next_wish[worker] += 1
        proposals += 1
        rival = held.get(batch)
        if rival is None:
            held[batch] = worker
        elif (distance[worker, batch], worker) < (distance[rival, batch], rival):
            held[batch] = worker
            free.append(rival)
        else:
            free.append(worker)
    return Matching({workers[w][0]: batches[m][0] for m, w in sorted(held.items(), key=lambda pair: pair[1])}, proposals)


def z_scores(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """(x − μ)/σ over these values, population σ; all 0 when σ = 0, that is when all are equal."""
    x = np.asarray(values, dtype=np.float64)
    sigma = x.std() if len(x) and x.max() > x.min() else 0.0  # equal values may give a σ of 1e-17, so compare them themselves
    return (x - x.mean()) / sigma if sigma > 0 else np.zeros(len(x))


class SeedRound(Generic[W, B]):
    """The books of ``--matching seed``: the papers' rounds, with unbounded queues per slot and a cache of unmatched batches.

    Start: every slot gets a batch outside any matching (`starting`). A round begins when a slot has answered, its queue is empty and at
    least min(2, slots) slots have ever answered; w new batches are then made, w being the slots that have answered, and matched together
    with the cache over those slots. A match goes to the end of the slot's queue; the rest stays in the cache.
    Unbounded queues cost 2.5-3.2 × the lower bound when one worker is 4 times slower (simulated): hence not the default.
    """

    def __init__(self) -> None:
        self.starting: set[W] = set()  # slots that wait for their first batch
        self._answered: set[W] = set()
        self._queues: dict[W, deque[B]] = {}
        self._sizes: dict[B, float] = {}  # of everything queued or cached
        self._cache: list[B] = []

    @property
    def cached(self) -> int:
        """How many batches wait unmatched."""
        return len(self._cache)

    def queued(self, slot: W) -> int:
        """How many batches wait in this slot's queue."""
        return len(self._queues.get(slot, ()))

    def add_slot(self, slot: W) -> None:
        """A slot joined: it is to get a first batch, whatever that is. Idempotent."""
        if slot not in self._queues:
            self._queues[slot] = deque()
            self.starting.add(slot)

    def on_started(self, slot: W) -> None:
        """Note that the slot got its first batch."""
        self.starting.discard(slot)

    def remove_slot(self, slot: W) -> None:
        """A slot left: what its queue held is matched again."""
        self._cache.extend(self._queues.pop(slot, ()))
        self.starting.discard(slot)
        self._answered.discard(slot)

    def on_answer(self, slot: W) -> int | None:
        """A slot answered. Return how many new batches to make for the round that begins now, or None: no round."""
        if slot not in self._queues:
            return None
        self._answered.add(slot)
        if self._queues[slot] or len(self._answered) < min(2, len(self._queues)):
            return None
        return len(self._answered)

    def match(self, rates: Mapping[W, float], fresh: Sequence[tuple[B, float]]) -> dict[W, B]:
        """Match ``fresh`` batches (id, size) and the cache over all slots that have answered, and queue what was matched.

        A slot without a rate counts as 0. ``fresh`` may be shorter than asked for, or empty, when the generator is exhausted.
        """
        self._sizes.update(fresh)
        self._cache.extend(batch for batch, _ in fresh)
        pairs = stable_match([(w, rates.get(w, 0.0)) for w in self._answered], [(b, self._sizes[b]) for b in self._cache])
        for slot, batch in pairs.items():
            self._queues[slot].append(batch)
        taken = set(pairs.values())
        self._cache = [batch for batch in self._cache if batch not in taken]
        return pairs

    def pop(self, slot: W) -> B | None:
        """Take the next batch out of this slot's queue, to be leased; None when it is empty."""
        queue = self._queues.get(slot)
        if not queue:
            return None
        batch = queue.popleft()
        del self._sizes[batch]
        return batch
