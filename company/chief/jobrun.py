"""One job's progress: which fragments are made, leased, done, failed, and what comes next (pure).

Only ranges and a few numbers: never an object per fragment, but for those that failed. `company.chief.state` decides with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np

from company.chief.again import Again, Batch
from company.chief.batcher import MAX_BATCH_BYTES, MAX_BATCH_COUNT, TAIL_PARTS, Adaptive, Batcher, Kind, RateModel, new_batcher, within
from company.chief.eta import Estimator
from company.chief.events import JobAdded, JobSpec, Range
from company.chief.health import SlownessRule, new_slowness
from company.chief.pending import Costs, Pending
from company.chief.ranges import RangeSet
from company.chief.retries import RetryBook, Trouble
from company.chief.secondment.foreign import Foreign
from company.chief.seeding import Seeding
from p2p.base.clock import Monotonic
from p2p.base.errors import InvariantBroken, Reason
from p2p.base.frames import Sizes

Phase = Literal["queued", "splitting", "running", "merging", "done", "failed", "cancelled"]
ENDED: frozenset[str] = frozenset({"done", "failed", "cancelled"})
ORIGIN = Monotonic(0.0)
NEARLY_S = 1.0  # starting a merge child takes about a tenth of this
MUCH_BYTES = 16 << 20  # of results, which take a while to merge,
MERGE_BYTES_PER_S = 200e6  # at about this speed on its way to a merge that does nothing
STREAM_PARTS = 2  # of what has come from a client, a slot takes half of its share: it will ask again long before more has come
AGAIN_LOOK = 65_536  # fragments of a range to run again that are offered to the batcher at once


@dataclass(slots=True, eq=False)
class JobRun:
    """The live part of a job."""

    spec: JobSpec
    phase: Phase = "queued"
    paused: bool = False
    ended_reason: Reason | None = None
    pause_reason: Reason | None = None
    paused_at: Monotonic | None = None
    split: Literal["none", "running", "ended"] = "none"
    produced: int = 0
    total: int | None = None
    expected: int | None = None
    restarts: int = 0
    pending: Pending = field(default_factory=Pending)
    again: Again = field(default_factory=Again)
    done: RangeSet = field(default_factory=RangeSet)
    dead: RangeSet = field(default_factory=RangeSet)
    held_back: RangeSet = field(default_factory=RangeSet)  # leases adopted after a restart, before split came this far again
    doubled: RangeSet = field(default_factory=RangeSet)  # may be leased more than once: copies, workers that are away
    foreign: Foreign = field(default_factory=Foreign)
    uncommitted: int = 0
    stale_commits: int = 0  # results of before the job started over, whose Committed is still to come
    fence: int = 0  # tokens up to this one count no more: the job started over since
    failed_once: int = 0  # fragments that failed at least once, for `explain`
    blocked: dict[str, Reason] = field(default_factory=dict)
    kicked: dict[str, Monotonic] = field(default_factory=dict)  # --failure seed-z4: worker -> when it may take work again
    added_at: Monotonic = ORIGIN  # moved forward by the time the job was paused
    merge_prepared: bool = False
    started: Monotonic | None = None
    first_lease: Monotonic | None = None
    first_result: Monotonic | None = None
    last_result: Monotonic | None = None
    result_bytes: int = 0
    run_us: int = 0
    own: tuple[int, int] = (0, 0)  # fragments that own workers ran since this start, and their run time, us
    copied_us: float = 0.0  # spent on backup copies that are over
    explain: Callable[[JobRun], Reason | None] | None = field(default=None, repr=False)
    batcher: Batcher = field(init=False)
    model: RateModel = field(init=False)
    slowness: SlownessRule = field(init=False)
    book: RetryBook = field(init=False)
    seeding: Seeding | None = field(init=False)
    estimator: Estimator = field(default_factory=Estimator)

    def __post_init__(self) -> None:
        self.batcher = new_batcher(cast(Kind, self.spec.batching))
        self.model = self.batcher.model if isinstance(self.batcher, Adaptive) else RateModel()
        self.slowness = new_slowness(cast(Literal["log-z", "seed-z4"], self.spec.failure))
        self.book = RetryBook(tries=self.spec.retries)
        self.seeding = Seeding() if self.spec.matching == "seed" else None

    @classmethod
    def from_disk(cls, event: JobAdded, now: Monotonic) -> JobRun:
        """A job as it was submitted, or as an earlier run of the chief left it."""
        job = cls(event.spec, paused=event.paused, restarts=event.restarts)
        job.added_at = Monotonic(now - max(0.0, event.waited_s))
        job.paused_at = now if event.paused else None
        for first, count in event.done:
            job.done.add(first, count)
        for index in event.dead:
            job.dead.add(index, 1)
        for origin, first, count in event.believed:
            job.foreign.came(origin, [(first, count)])
        for origin in job.foreign.origins():
            job.foreign.believe(origin)
        unsettled = {i: Trouble(t, infra) for i, t, infra in event.tries if not (job.done.contains(i) or job.dead.contains(i))}
        job.book = RetryBook(tries=event.spec.retries, known=unsettled.items())
        job.failed_once = len(event.tries)
        job.total = event.total
        if event.total is not None and job.settled >= event.total:  # only merge is left
            job.split, job.produced, job.phase = "ended", event.total, "running"
        return job

    # ---- how far it is -------------------------------------------------------------------------------------------------
    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def reason(self) -> Reason | None:
        """Why the job is where it is, said at the moment of asking, so that it is never out of date."""
        if self.phase in ENDED or self.explain is None:
            return self.ended_reason
        return self.explain(self)

    @property
    def is_active(self) -> bool:
        return self.phase in ("splitting", "running")

    @property
    def is_open(self) -> bool:
        """Whether its work may be handed out."""
        return not self.paused and self.phase in ("splitting", "running")

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
        return max(0, total - self.produced) + self.pending.count + self.again.count

    @property
    def expected_s(self) -> float | None:
        """Slot-seconds of work left. While the total is unknown as much again is expected as was seen so far (Lindy's law)."""
        left = self.remaining
        if left is None:
            left = self.produced - self.settled + self.produced
        return self.estimator.expected_s(left)

    @property
    def is_complete(self) -> bool:
        """Whether every fragment is settled, on disk, and believed."""
        is_settled = self.split == "ended" and self.total is not None and self.settled >= self.total
        return is_settled and self.uncommitted == 0 and not self.foreign.is_open

    @property
    def has_work(self) -> bool:
        return self.pending.count > 0 or len(self.again) > 0 or (self.seeding is not None and self.seeding.held > 0)

    # ---- work ----------------------------------------------------------------------------------------------------------
    def add_fragments(self, first: int, sizes: Sizes, costs: list[float] | None) -> None:
        """Take what split made; ranges that are settled already are left out."""
        if first != self.produced:
            raise InvariantBroken(f"{self.spec.id}: split went from {self.produced} to {first}")
        count = len(sizes)
        self.produced = first + count
        array: Costs | None = None
        if costs is not None:  # a module's numbers: nonsense counts as no work
            array = np.nan_to_num(np.asarray(costs, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(0.0, 1e15)
        for a, n in self.unsettled(first, count):
            for b, m in self.held_back.missing(a, n):
                at = b - first
                self.pending.add(b, sizes[at : at + m], None if array is None else array[at : at + m])

    def unsettled(self, first: int, count: int) -> list[Range]:
        """The parts of a range that have neither a result nor a final failure."""
        missing = self.done.missing(first, count)
        return [part for a, n in missing for part in self.dead.missing(a, n)] if self.dead else missing

    def next_batch(self, slots: int, speed: float, is_fit: Callable[[Batch], bool], at_most: int | None = None) -> Batch | None:
        """What to send next to a slot of this ``speed``: fragments to try again before new ones.

        ``slots``: how many share what remains; ``is_fit``: whether a range to try again may go to that slot.
        """
        batch = self.again.take(is_fit, lambda b: min(at_most or b.count, self._again_length(b, slots, speed)))
        if batch is not None:
            return batch
        fresh = self.fresh_batch(slots, speed)
        if fresh is None or at_most is None or fresh.count <= at_most:
            return fresh
        self.again.add(fresh.part(fresh.first + at_most, fresh.count - at_most))
        return fresh.part(fresh.first, at_most)

    def fresh_batch(self, slots: int, speed: float) -> Batch | None:
        """The next batch of fragments that were never sent, None while there is none or the open one may still grow."""
        head = self.pending.head()
        if head is None:
            return None
        first, sizes, costs = head
        left = self.unbatched
        if isinstance(self.batcher, Adaptive):
            if self.split != "ended":  # share what is here, or one slot takes it all and the others wait for split
                here = (STREAM_PARTS if self.spec.is_stream else TAIL_PARTS) * self.pending.count
                left = here if left is None else min(left, here)
        elif left is not None:
            left -= self.again.count  # those rules close the last batch when all that is left is on offer
        count = min(len(sizes), self.batcher.next_batch(sizes, costs, left, slots, speed))
        if count <= 0:
            if self.split != "ended":
                return None
            count = within(sizes, MAX_BATCH_BYTES, min(len(sizes), MAX_BATCH_COUNT))
        size = int(sizes[:count].sum(dtype=np.int64))
        cost = None if costs is None else float(costs[:count].sum())
        self.pending.take(count)
        return Batch(first=first, count=count, size_bytes=size, cost=cost)

    def _again_length(self, batch: Batch, slots: int, speed: float) -> int:
        """How many fragments of a range to run again make one batch. Sizes are known as a sum only: they count as equal."""
        if not isinstance(self.batcher, Adaptive):
            return batch.count
        look = min(batch.count, AGAIN_LOOK)
        sizes: Sizes = np.full(look, -(-batch.size_bytes // batch.count), dtype="<u4")
        costs = None if batch.cost is None else np.full(look, batch.cost / batch.count)
        return self.batcher.next_batch(sizes, costs, self.unbatched, slots, speed)

    def may_begin_merge(self, slots: int) -> bool:
        """Whether merge may begin beside the rest of the work.

        What remains takes less than `NEARLY_S`, or, where there is much to merge, no longer than merging what is there already.
        """
        is_much = self.result_bytes >= MUCH_BYTES and not self.foreign.is_open
        if self.remaining is None and not is_much:
            return False
        left_s = self.expected_s
        allowed_s = max(NEARLY_S, self.result_bytes / MERGE_BYTES_PER_S) if is_much else NEARLY_S
        return self.remaining == 0 or (left_s is not None and left_s / max(1, slots) < allowed_s)

    def observe(self, count: int, size_bytes: int, cost: float | None, run_us: int, *, is_own: bool = True) -> None:
        """Learn what a finished batch, or part of one, took. is_own: on a worker of this company."""
        if is_own:
            self.own = self.own[0] + count, self.own[1] + run_us
        self.batcher.observe(count, size_bytes, cost, run_us)
        if not isinstance(self.batcher, Adaptive):
            self.model.observe(count, size_bytes, cost, run_us)
        self.estimator.observe(count, run_us)
        self.run_us += run_us

    # ---- beginning anew ------------------------------------------------------------------------------------------------
    def start_over(self, last_token: int) -> None:
        """Drop every result and failure; leases up to ``last_token`` count no more. Split runs from its beginning."""
        self.restarts += 1
        self.fence = last_token
        self.stale_commits += self.uncommitted
        self.uncommitted = 0
        self.done, self.dead, self.held_back, self.doubled = RangeSet(), RangeSet(), RangeSet(), RangeSet()
        self.foreign = Foreign(self.foreign.abroad, self.foreign.why, caught=self.foreign.caught)
        self.book = RetryBook(tries=self.spec.retries)
        self.failed_once = self.result_bytes = 0
        self.batcher = new_batcher(cast(Kind, self.spec.batching))
        self.model = self.batcher.model if isinstance(self.batcher, Adaptive) else RateModel()
        self.drop_work()
        self.produced = 0
        self.total = self.expected = None
        self.split = "none"
        self.phase = "queued"
        self.merge_prepared = False

    def drop_work(self) -> None:
        """The job is over: nothing of it will be handed out."""
        self.pending.clear()
        self.again.clear()
        self.seeding = Seeding() if self.spec.matching == "seed" else None

    def waiting(self) -> RangeSet:
        """Fragments that nobody holds and that will be handed out; for tests and `validate`."""
        found = RangeSet(self.pending.ranges())
        for batch in [*self.again, *(self.seeding.batches() if self.seeding is not None else ())]:
            found.add(batch.first, batch.count)
        return found

    def validate(self) -> None:
        """Raises `InvariantBroken` when the numbers contradict each other."""
        if self.total is not None and self.split == "ended" and self.settled > self.total:
            raise InvariantBroken(f"{self.spec.id}: {self.settled} settled of {self.total}")
        for first, count in self.dead:
            if self.done.intersection(first, count):
                raise InvariantBroken(f"{self.spec.id}: {first}+{count} is both done and failed")
        if self.uncommitted < 0 or self.stale_commits < 0:
            raise InvariantBroken(f"{self.spec.id}: {self.uncommitted} uncommitted, {self.stale_commits} of before")
        self.again.validate()
        for ranges in (self.done, self.dead, self.held_back, self.doubled):
            ranges.validate()
