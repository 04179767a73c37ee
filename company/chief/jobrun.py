"""One job's progress: which fragments are made, leased, done, failed, and what comes next (pure).

Only ranges and a few numbers: never an object per fragment. `company.chief.state` decides with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, cast

import numpy as np

from company.chief.batcher import Batcher, Kind, RateModel, new_batcher
from company.chief.eta import Estimator
from company.chief.events import JobAdded, JobSpec, Range
from company.chief.health import SlownessRule, new_slowness
from company.chief.pending import Costs, Pending
from company.chief.ranges import RangeSet
from p2p.base.clock import Monotonic
from p2p.base.errors import InvariantBroken, Reason
from p2p.base.frames import Sizes

Phase = Literal["queued", "splitting", "running", "merging", "done", "failed", "cancelled"]
ENDED: frozenset[str] = frozenset({"done", "failed", "cancelled"})
MAX_INFRA_TRIES = 5  # losses of one single fragment before it counts as the killer of its workers


@dataclass(frozen=True, slots=True)
class Batch:
    """Fragments about to be sent together. ``avoid``: the worker on which they failed last."""

    first: int
    count: int
    attempt: int
    size_bytes: int
    avoid: str | None = None


@dataclass(slots=True)
class JobRun:
    """The live part of a job."""

    spec: JobSpec
    phase: Phase = "queued"
    paused: bool = False
    reason: Reason | None = None
    split: Literal["none", "running", "ended"] = "none"
    produced: int = 0
    total: int | None = None
    expected: int | None = None
    restarts: int = 0
    pending: Pending = field(default_factory=Pending)
    again: list[Batch] = field(default_factory=list)
    done: RangeSet = field(default_factory=RangeSet)
    dead: RangeSet = field(default_factory=RangeSet)
    uncommitted: int = 0
    tries: dict[int, tuple[int, int]] = field(default_factory=dict)
    held_back: RangeSet = field(default_factory=RangeSet)  # leases adopted after a restart, before split came this far again
    blocked: dict[str, Reason] = field(default_factory=dict)
    batcher: Batcher = field(init=False)
    slowness: SlownessRule = field(init=False)
    model: RateModel = field(default_factory=RateModel)
    estimator: Estimator = field(default_factory=Estimator)
    added_at: Monotonic = Monotonic(0.0)
    merge_prepared: bool = False
    started: Monotonic | None = None
    first_lease: Monotonic | None = None
    first_result: Monotonic | None = None
    last_result: Monotonic | None = None
    run_us: int = 0

    def __post_init__(self) -> None:
        self.batcher = new_batcher(cast(Kind, self.spec.batching))
        self.slowness = new_slowness(cast(Literal["log-z", "seed-z4"], self.spec.failure))

    @classmethod
    def from_disk(cls, event: JobAdded) -> JobRun:
        """A job as it was submitted, or as an earlier run of the chief left it."""
        job = cls(event.spec, paused=event.paused, restarts=event.restarts)
        for first, count in event.done:
            job.done.add(first, count)
        for index in event.dead:
            job.dead.add(index, 1)
        job.tries = {index: (tries, infra) for index, tries, infra in event.tries}
        job.total = event.total
        if event.total is not None and job.settled >= event.total:  # only merge is left
            job.split, job.produced, job.phase = "ended", event.total, "running"
        return job

    @property
    def is_active(self) -> bool:
        return self.phase in ("splitting", "running")

    @property
    def settled(self) -> int:
        """Fragments with a result or a final failure."""
        return self.done.total + self.dead.total

    @property
    def remaining(self) -> int | None:
        """Fragments without a result as far as the total is known, else None."""
        total = self.total if self.total is not None else self.expected
        return None if total is None else max(0, total - self.settled)

    @property
    def unbatched(self) -> int | None:
        """Fragments that no batch holds yet, those not yet made included; None while the total is unknown."""
        total = self.total if self.total is not None else self.expected
        if total is None:
            return None
        return max(0, total - self.produced) + self.pending.count

    @property
    def is_complete(self) -> bool:
        """Whether every fragment is settled and on disk."""
        return self.split == "ended" and self.total is not None and self.settled >= self.total and self.uncommitted == 0

    def add_fragments(self, first: int, sizes: Sizes, costs: list[float] | None) -> None:
        """Take what split made; ranges that are settled already are left out."""
        if first != self.produced:
            raise InvariantBroken(f"{self.spec.id}: split went from {self.produced} to {first}")
        count = len(sizes)
        self.produced = first + count
        cost_array: Costs | None = None if costs is None else np.asarray(costs, dtype=np.float64)
        for a, n in self._unsettled(first, count):
            at = a - first
            self.pending.add(a, sizes[at : at + n], None if cost_array is None else cost_array[at : at + n])

    def _unsettled(self, first: int, count: int) -> list[Range]:
        """The parts of a range that have neither a result nor a final failure nor a live adopted lease."""
        return [
            part for a, n in self.done.missing(first, count) for b, m in self.dead.missing(a, n) for part in self.held_back.missing(b, m)
        ]

    def next_batch(self, slots: int) -> Batch | None:
        """What to send next: fragments to try again before new ones. ``slots``: how many share what remains."""
        while self.again:
            batch = self.again.pop(0)
            parts = self._unsettled(batch.first, batch.count)
            if not parts:
                continue
            for first, count in reversed(parts[1:]):
                self.again.insert(0, Batch(first, count, batch.attempt, batch.size_bytes, batch.avoid))
            return Batch(parts[0][0], parts[0][1], batch.attempt, batch.size_bytes, batch.avoid)
        head = self.pending.head()
        if head is None:
            return None
        first, sizes, costs = head
        count = min(len(sizes), self.batcher.next_batch(sizes, costs, self.unbatched, slots))
        if count <= 0:  # the open batch may still grow, unless nothing more will come
            if self.split != "ended":
                return None
            count = len(sizes)
        size = int(sizes[:count].sum(dtype=np.int64))
        self.pending.take(count)
        return Batch(first, count, 0, size)

    def try_again(self, batch: Batch) -> None:
        """Put a range in front of the queue, once per call."""
        self.held_back.discard(batch.first, batch.count)
        made = min(batch.count, self.produced - batch.first)  # what split has not made again yet comes with it
        if made > 0:
            self.again.append(replace(batch, count=made))

    def take_back(self, first: int, count: int) -> None:
        """A range that waits to be run again is held after all."""
        kept: list[Batch] = []
        for batch in self.again:
            waiting = RangeSet([(batch.first, batch.count)])
            waiting.discard(first, count)
            kept += [Batch(a, n, batch.attempt, batch.size_bytes, batch.avoid) for a, n in waiting]
        self.again = kept

    @property
    def has_work(self) -> bool:
        return bool(self.again) or self.pending.count > 0

    def forget_progress(self) -> None:
        """Start over: every result and failure is dropped."""
        self.done, self.dead, self.held_back = RangeSet(), RangeSet(), RangeSet()
        self.tries.clear()
        self.again.clear()
        self.forget_split()

    def forget_split(self) -> None:
        """Split will run again from the beginning; settled ranges stay settled."""
        self.pending.clear()
        self.produced = 0
        self.split = "none"

    def validate(self) -> None:
        """Raises `InvariantBroken` when the numbers contradict each other."""
        if self.total is not None and self.split == "ended" and self.settled > self.total:
            raise InvariantBroken(f"{self.spec.id}: {self.settled} settled of {self.total}")
        for first, count in self.dead:
            if self.done.missing(first, count) != [(first, count)] and tuple(self.done.missing(first, count)) != ((first, count),):
                raise InvariantBroken(f"{self.spec.id}: {first}+{count} is both done and failed")
        if self.uncommitted < 0:
            raise InvariantBroken(f"{self.spec.id}: {self.uncommitted} uncommitted")
