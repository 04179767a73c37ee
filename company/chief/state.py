"""The chief's machine: every decision about jobs, slots and leases (pure).

Events in, effects out (`company.chief.events`); the service performs them. This file is the table: which part handles which event,
and what follows every event. The parts: `lifecycle` (jobs, split, merge), `presence` (workers), `verdicts` (results and failures),
`assign` and `tail` (who gets what), `reasons` (words), all over the same `books`. Nothing is done once per fragment: machines see
batches; and nothing is looked at that has not changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

from company.chief import events as ev
from company.chief.assign import Assigner
from company.chief.books import Books
from company.chief.jobrun import JobRun
from company.chief.leases import LeaseTable
from company.chief.lifecycle import Lifecycle
from company.chief.long_leases import LongLease
from company.chief.presence import Presence
from company.chief.queue import FairShare
from company.chief.reasons import Reasons
from company.chief.slots import Slots
from company.chief.tail import Tail
from company.chief.verdicts import Verdicts
from p2p.base.clock import Monotonic


class ChiefState:
    """All live jobs and workers of one company. Callers pass ``now``; not thread-safe; one owner."""

    def __init__(self, *, boot: int) -> None:
        """``boot``: how often this chief has started, 1 or more, persisted."""
        self._books = Books(boot=boot)
        self._assigner = Assigner(self._books)
        self._tail = Tail(self._books)
        self._lifecycle = Lifecycle(self._books, self._assigner)
        self._verdicts = Verdicts(self._books, self._lifecycle)
        self._presence = Presence(self._books, self._verdicts)
        self._reasons = Reasons(self._books)

    # ---- for views -----------------------------------------------------------------------------------------------------
    @property
    def jobs(self) -> dict[str, JobRun]:
        """Live jobs by id."""
        return self._books.jobs

    @property
    def slots(self) -> Slots:
        return self._books.slots

    @property
    def leases(self) -> LeaseTable:
        return self._books.leases

    @property
    def boot(self) -> int:
        return self._books.boot

    @property
    def own_worker(self) -> ev.OwnWorker | None:
        """What was last heard of the chief's own worker; nil where it has none."""
        return self._books.own

    # ---- the machine's three calls -------------------------------------------------------------------------------------
    def handle(self, event: ev.Event, now: Monotonic) -> tuple[ev.Effect, ...]:
        """Apply one event; then hand out what can be handed out."""
        if isinstance(event, ev.Heartbeat):
            self._books.slots.heard(event.worker, now)
            return ()
        effects = self._apply(event, now)
        effects += self._lifecycle.go_on(now)
        books = self._books
        if books.hold_until is not None and not books.awaited:
            books.hold_until = None
            books.stir()
        if self._hands_out:
            effects += self._assigner.assign(now)
            self._tail.notice()
            late = self._tail.look(now)
            if late:
                effects += [*late, *self._assigner.assign(now)]
        long, gone = books.long.grown_old(now), books.long.gone()
        if long or gone:
            effects.append(ev.KeepLeases(long=long, gone=gone))
        return tuple(effects)

    def next_deadline(self) -> Monotonic | None:
        """When a grace, a hold, a rest, a kick or a look at late leases is due."""
        tail = self._tail.next_deadline() if self._hands_out else None
        return min((at for at in (self._presence.next_deadline(), tail) if at is not None), default=None)

    @property
    def _hands_out(self) -> bool:
        """Whether work is handed out at all: not just after a start, not while results cannot be written."""
        return self._books.hold_until is None and not self._books.disk_full

    def validate(self) -> None:
        """Check every invariant: no slot locked by nobody, no fragment lost or both waiting and settled, numbers add up."""
        self._books.validate()

    def hold_for(self, workers: set[str], now: Monotonic) -> None:
        """After a start: hand nothing out until these workers are back, or the hold is over."""
        self._presence.hold_for(workers, now)

    def remember_usage(self, usage: Mapping[str, float], now: Monotonic) -> None:
        """After a start: what users had used before, decayed slot-seconds."""
        self._books.share = FairShare(usage, now=now)

    def usage(self, now: Monotonic) -> dict[str, float]:
        """Decayed slot-seconds of every user."""
        return self._books.share.usage(now)

    def hold_back(self, rows: Iterable[LongLease], now: Monotonic) -> None:
        """After a start, before jobs are added: ranges of long leases wait for their workers through the grace."""
        self._presence.hold_back(rows, now)

    def leases_of_before(self, worker: str) -> list[LongLease]:
        """After a start: the long leases that a worker may still be running."""
        return self._books.long.of_worker(worker)

    # ---- the table -----------------------------------------------------------------------------------------------------
    def _apply(self, event: ev.Event, now: Monotonic) -> list[ev.Effect]:
        match event:
            case ev.OutcomeArrived():
                return self._verdicts.outcome(event, now)
            case ev.Committed():
                return self._lifecycle.committed(event)
            case ev.FragmentDied():
                return self._verdicts.died(event, now)
            case ev.SplitProduced():
                return self._lifecycle.produced(event, now)
            case ev.SplitCounted():
                return self._lifecycle.counted(event)
            case ev.SplitEnded():
                return self._lifecycle.split_ended(event, now)
            case ev.SplitFailed():
                return self._lifecycle.split_failed(event, now)
            case ev.SplitDiffers():
                return self._lifecycle.split_differs(event, now)
            case ev.MergeEnded():
                return self._lifecycle.merge_ended(event, now)
            case ev.MergeFailed():
                return self._lifecycle.merge_failed(event, now)
            case ev.JobAdded():
                effects = self._lifecycle.added(event, now)
                self._books.jobs[event.spec.id].explain = self._reasons.of
                return effects
            case ev.JobChanged():
                return self._lifecycle.changed(event, now)
            case ev.WorkerHere():
                return self._presence.here(event, now)
            case ev.WorkerGone():
                return self._presence.gone(event, now)
            case ev.WorkerChanged():
                return self._presence.changed(event, now)
            case ev.WorkerBlocked():
                return self._presence.blocked(event, now)
            case ev.WorkerLent():
                return self._presence.lent(event, now)
            case ev.AbroadJudged():
                return self._lifecycle.judged(event)
            case ev.Believed():
                return self._lifecycle.believed(event)
            case ev.JobSetAside():
                return self._lifecycle.set_aside(event, now)
            case ev.Recalled():
                return self._presence.recalled(event, now)
            case ev.DiskState():
                self._books.disk_full = event.full
                self._books.stir()
                return []
            case ev.OwnWorker():
                self._books.own = event
                return []
            case ev.Tick():
                return self._presence.tick(now)
            case ev.Heartbeat():
                return []
            case _:
                assert_never(event)
