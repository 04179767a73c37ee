"""Workers come, go, fall silent, are paused or refuse a job: the part of `ChiefState` that keeps their leases right (pure).

A worker that is away keeps its leases through the grace, but what it held is run elsewhere at once; the first result wins. One that
comes back says what it still has, also after a restart of the chief, and is told of each lease whether it counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from company.chief import events as ev
from company.chief.again import Batch
from company.chief.books import Books, LeaseNote
from company.chief.leases import COUNTER_BITS, Lease
from company.chief.long_leases import LongLease
from company.chief.slots import GRACE_S, WorkerRun
from company.chief.verdicts import Verdicts
from p2p.base.clock import Monotonic
from p2p.base.errors import Action, InvariantBroken, Reason
from p2p.base.frames import MAX_COUNT

RESTART_HOLD_S = 4.0  # after a start, known workers get this long to come back with what they hold before work is handed out


class Presence:
    """Handles every event that is about one worker as a whole."""

    def __init__(self, books: Books, verdicts: Verdicts) -> None:
        self._books = books
        self._verdicts = verdicts

    def hold_for(self, workers: set[str], now: Monotonic) -> None:
        """After a start: hand nothing out until these workers are back, or the hold is over."""
        books = self._books
        books.awaited = set(workers)
        books.hold_until = Monotonic(now + RESTART_HOLD_S) if workers else None

    def hold_back(self, rows: Iterable[LongLease], now: Monotonic) -> None:
        """After a start, before jobs are added: ranges that workers had been running for long are theirs through the grace."""
        self._books.long.remember(rows, Monotonic(now + GRACE_S))

    def _release(self, rows: list[LongLease]) -> None:
        for row in rows:
            self._books.requeue(row, Batch(first=row.first, count=row.count, attempt=row.attempt))

    # ---- coming --------------------------------------------------------------------------------------------------------
    def here(self, event: ev.WorkerHere, now: Monotonic) -> list[ev.Effect]:
        books = self._books
        worker = books.slots.here(event.spec, now, paused=event.paused, quarantined=event.quarantined)
        books.awaited.discard(event.spec.id)
        for job in books.active.values():
            job.blocked.pop(event.spec.id, None)  # it may have been mended; if not, it says so again
        books.forget_ability()
        keep: list[int] = []
        drop: list[tuple[int, str]] = []
        for token, job_id, first, count in event.held:
            why = self._keep_or_why_not(worker, token, job_id, first, count, now)
            if why is None:
                keep.append(token)
            else:
                drop.append((token, why))
        kept = set(keep)
        self._release(books.long.let_go(worker=event.spec.id))
        for lease in books.leases.of_worker(worker.spec.id):
            if lease.token not in kept:  # the worker lost it: a restart of its own, or a message that never arrived
                books.give_back(lease, now)
        books.slots.refresh(worker, now)
        effects: list[ev.Effect] = [ev.SendResumed(worker=worker.spec.id, keep=tuple(keep), drop=tuple(drop))]
        for token in keep:  # while it was away its job may have been paused
            held = books.leases.get(token)
            if held is not None and held.running_since is None and books.jobs[held.job].paused:
                effects.append(ev.SendRecall(worker=held.worker, token=token))
        return effects

    def _keep_or_why_not(self, worker: WorkerRun, token: int, job_id: str, first: int, count: int, now: Monotonic) -> str | None:
        """Take a lease back, or say in a word why it does not count any more."""
        books = self._books
        job = books.active.get(job_id)
        if job is None:
            return "job-over"
        if token <= job.fence or (job.restarts and token >> COUNTER_BITS != books.boot):
            return "job-started-over"
        if count > MAX_COUNT or (job.split == "ended" and first + count > job.produced):
            return "range-differs"
        known = books.leases.get(token)
        if known is not None and not job.unsettled(first, count):  # run elsewhere while it was away
            return "already-accepted"
        free = sorted(range(worker.spec.slots), key=lambda n: (books.leases.depth((worker.spec.id, n)), n))
        slot = known.slot if known is not None else (worker.spec.id, free[0] if free else 0)
        held = books.leases.adopt(token, slot, job_id, first, count, attempt=0, accepted=job.done, now=now)
        if isinstance(held, str):
            return held
        if known is None:
            books.notes[token] = LeaseNote(Batch(first=first, count=count), None, 0.0, is_warm=False, is_adopted=True)
            job.pending.discard(first, count)
            job.held_back.add(first, count)
            books.long.adopted(token, now)
        elif token in books.orphans:
            books.orphans.discard(token)
            if count == 1:
                job.book.on_kept(first)
        job.again.remove(first, count)
        job.doubled.add(first, count)
        return None

    # ---- going ---------------------------------------------------------------------------------------------------------
    def gone(self, event: ev.WorkerGone, now: Monotonic) -> list[ev.Effect]:
        books = self._books
        worker = books.slots.workers.get(event.worker)
        if worker is None or not worker.connected:
            return []
        books.slots.left(worker, now, said_bye=event.said_bye)
        books.forget_ability()
        effects: list[ev.Effect] = []
        for lease in books.leases.of_worker(event.worker):
            if books.leases.get(lease.token) is None:
                continue  # its job ended in this very loop
            if event.said_bye:
                books.give_back(lease, now)
            else:
                effects += self._leave_behind(lease, now)
        return effects

    def _leave_behind(self, lease: Lease, now: Monotonic) -> list[ev.Effect]:
        """May be run elsewhere at once; the lease itself lives on through the grace (first result wins)."""
        books = self._books
        job = books.jobs[lease.job]
        note = books.notes[lease.token]
        books.orphans.add(lease.token)
        job.doubled.add(lease.first, lease.count)
        is_guest = books.slots.workers[lease.worker].spec.guest is not None  # a contract's end is nobody's loss
        has_begun = lease.running_since is not None and not is_guest
        rest = books.leases.unfinished(lease.token)
        if has_begun and lease.count == 1 and rest and job.unsettled(lease.first, 1):
            return self._verdicts.lost_alone(job, lease, now)
        books.requeue(lease, note.batch, is_loss=has_begun)
        return []

    def lent(self, event: ev.WorkerLent, now: Monotonic) -> list[ev.Effect]:
        """What runs on a slot that is lent now may finish; nothing new comes."""
        worker = self._books.slots.workers.get(event.worker)
        if worker is not None and worker.lent != event.slots:
            worker.lent = event.slots
            self._books.slots.refresh(worker, now)
            self._books.stir()
        return []

    # ---- being told ----------------------------------------------------------------------------------------------------
    def changed(self, event: ev.WorkerChanged, now: Monotonic) -> list[ev.Effect]:
        books = self._books
        worker = books.slots.workers.get(event.worker)
        if worker is None:
            return []
        effects: list[ev.Effect] = []
        match event.action:
            case "pause":
                worker.paused = True
                effects.append(ev.SendDrain(worker=event.worker, pause=True))
            case "resume" | "release":
                books.slots.release(worker, now)
                effects.append(ev.SendDrain(worker=event.worker, pause=None))
            case "drain":
                worker.draining = True
                effects.append(ev.SendDrain(worker=event.worker, pause=False))
            case "quarantine" | "rm":
                worker.quarantined = True
                for lease in books.leases.of_worker(event.worker):
                    effects.append(ev.SendCancel(worker=event.worker, token=lease.token, reason="worker-quarantined"))
                    books.give_back(lease, now)
            case other:
                raise InvariantBroken(f"unknown worker action {other}")
        books.slots.refresh(worker, now)
        books.forget_ability()
        if worker.paused or worker.draining:
            effects += self._recall_ahead(event.worker)
        return effects

    def _recall_ahead(self, worker: str) -> list[ev.Effect]:
        """What it has not begun goes to others."""
        effects: list[ev.Effect] = []
        for lease in self._books.leases.of_worker(worker):
            note = self._books.notes[lease.token]
            if lease.running_since is None and not note.is_recalled:
                note.is_recalled = True
                effects.append(ev.SendRecall(worker=worker, token=lease.token))
        return effects

    def blocked(self, event: ev.WorkerBlocked, now: Monotonic) -> list[ev.Effect]:
        """The worker cannot run this job at all."""
        books = self._books
        job = books.active.get(event.job)
        worker = books.slots.workers.get(event.worker)
        if job is None or worker is None:
            return []
        job.blocked[event.worker] = _with_action(event.reason, worker)
        books.forget_ability()
        for lease in books.leases.of_worker(event.worker):
            if lease.job == event.job:
                books.give_back(lease, now)
        return [ev.Tell(job=event.job, kind="worker-cannot", text=f"{worker.spec.name}: {event.reason.text}")]

    def recalled(self, event: ev.Recalled, now: Monotonic) -> list[ev.Effect]:
        """A batch comes back unbegun; one that nobody asked for means that its slot cannot work now."""
        books = self._books
        lease = books.leases.get(event.token)
        if lease is None or lease.worker != event.worker or not event.given_back:
            return []
        was_asked = books.notes[lease.token].is_recalled
        books.give_back(lease, now)
        if not was_asked:
            books.slots.rest(lease.slot, now)
        return []

    # ---- time ----------------------------------------------------------------------------------------------------------
    def tick(self, now: Monotonic) -> list[ev.Effect]:
        books = self._books
        if books.hold_until is not None and now >= books.hold_until:
            books.hold_until = None
            books.stir()
        self._release(books.long.run_out(now))
        for name in sorted(books.slots.away):
            worker = books.slots.workers[name]
            if worker.grace_until is not None and now >= worker.grace_until:
                for lease in books.leases.of_worker(name):
                    books.give_back(lease, now)
                books.slots.lost(worker, now)
        books.slots.wake(now)
        for job in books.active.values():
            for name in [w for w, until in job.kicked.items() if until <= now]:
                del job.kicked[name]
                books.forget_ability()
        return []

    def next_deadline(self) -> Monotonic | None:
        """When a grace, a rest, a hold or a kick is over."""
        books = self._books
        times = [until for name in books.fencing for until in books.jobs[name].kicked.values()]
        for at in (books.slots.next_deadline(), books.hold_until, books.give_up_at, books.long.next_deadline()):
            if at is not None:
                times.append(at)
        return min(times, default=None)


def _with_action(reason: Reason, worker: WorkerRun) -> Reason:
    """What a worker said it lacks, with what can be done about it."""
    if reason.actions:
        return reason
    actions = [Action("see what its machine can do", "company doctor")]
    if reason.code == "requirements-not-allowed":
        actions = [Action("let it take wheels from its chief", f"company worker join --name {worker.spec.name} --allow-requirements")]
    facts = {**reason.facts, "worker": worker.spec.name, "requirements_allowed": worker.spec.requirements_allowed}
    return Reason(reason.code, reason.text, facts, tuple(actions))
