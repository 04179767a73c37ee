"""Fragment path 7/9 - what a worker's answer means: which results count, what failed, what is run again (pure).

A result counts once, from a lease that lives; the first one wins and ends the copies. A fragment that failed runs again alone, rather
elsewhere, until it has had its tries. One that was lost with its worker five times running is given up as the killer of its workers.
"""

from __future__ import annotations

from company.chief import events as ev
from company.chief.again import Batch
from company.chief.batcher import Adaptive
from company.chief.books import Books
from company.chief.jobrun import JobRun
from company.chief.leases import Lease
from company.chief.lifecycle import Lifecycle
from company.chief.retries import Verdict
from p2p.base.clock import Monotonic

MAX_OVERHEAD_US = 10_000.0  # slower answers than this come from a slow line or a busy machine, which longer batches do not mend


class Verdicts:
    """Handles outcomes and deaths."""

    def __init__(self, books: Books, lifecycle: Lifecycle) -> None:
        self._books = books
        self._lifecycle = lifecycle

    # ---- outcomes ------------------------------------------------------------------------------------------------------
    def outcome(self, event: ev.OutcomeArrived, now: Monotonic) -> list[ev.Effect]:
        books = self._books
        books.slots.heard(event.worker, now)
        lease = books.leases.get(event.token)
        if lease is None or lease.worker != event.worker or lease.job != event.job:
            return [
                ev.Refuse(token=event.token, worker=event.worker),
                ev.SendStale(worker=event.worker, token=event.token, reason=self._why_stale(event)),
            ]
        if not (event.count > 0 and lease.first <= event.first <= event.first + event.count <= lease.first + lease.count):
            books.give_back(lease, now)
            stale = ev.SendStale(worker=event.worker, token=event.token, reason="outside-lease")
            return [ev.Refuse(token=event.token, worker=event.worker), stale]
        job = books.jobs[lease.job]
        batch = books.notes[lease.token].batch
        accepted = self._accept(job, event, now)
        guest = books.slots.workers[event.worker].spec.guest
        if accepted and guest is not None:
            job.foreign.came(guest.origin, accepted, is_checked=guest.is_checked)
        self._learn(job, lease, event, now)
        effects: list[ev.Effect] = []
        if accepted:
            books.slots.proved(books.slots.workers[event.worker], lease.slot, now)
            effects.append(ev.Accept(job=event.job, token=event.token, worker=event.worker, attempt=lease.attempt, ranges=tuple(accepted)))
        else:
            effects.append(ev.Refuse(token=event.token, worker=event.worker))
        for index in event.raised:
            effects += self._failed(job, lease, batch, index, "raised", now)
            if job.id not in books.jobs:
                return effects
        if accepted and job.doubled and job.doubled.intersection(event.first, event.count):
            effects += self._end_copies(job, lease, now)
        books.leases.complete(event.token, event.first, event.count)
        if event.last:
            books.release(lease, now)
            if job.unsettled(lease.first, lease.count):  # it says "last" without having reported all: run the rest again
                books.requeue(lease, batch)
        return effects

    def _why_stale(self, event: ev.OutcomeArrived) -> str:
        job = self._books.jobs.get(event.job)
        if job is None:
            return "job-over"
        return "job-started-over" if event.token <= job.fence else "lease-over"

    def _accept(self, job: JobRun, event: ev.OutcomeArrived, now: Monotonic) -> list[ev.Range]:
        """The ranges that are new, noted as done."""
        fresh = [part for first, count in event.ok for part in job.unsettled(first, count)]
        if event.is_whole_only and fresh != [(event.first, event.count)]:
            return []
        for first, count in fresh:
            job.done.add(first, count)
            job.uncommitted += count
            if len(job.again):
                job.again.remove(first, count)
            if len(job.book):
                self._forgive(job, first, count)
        if fresh:
            job.first_result = now if job.first_result is None else job.first_result
            job.last_result = now
            job.result_bytes += event.result_bytes
            self._books.touched.add(job.id)
        return fresh

    def _forgive(self, job: JobRun, first: int, count: int) -> None:
        for index in range(first, first + count) if count <= len(job.book) else job.book.fragments():
            if first <= index < first + count:
                job.book.on_success(index)

    def _learn(self, job: JobRun, lease: Lease, event: ev.OutcomeArrived, now: Monotonic) -> None:
        """The job's rate, the worker's speed, the spread of run times, what a batch costs beside its run time."""
        books = self._books
        note = books.notes[lease.token]
        note.spent_us += event.run_us
        if not note.is_adopted:
            part = note.batch.part(event.first, event.count)
            usual = job.model.predict_us(part.count, part.size_bytes, part.cost)
            worker = books.slots.workers[event.worker]
            if usual and event.run_us:
                worker.observe_rate(usual / event.run_us)
            job.observe(part.count, part.size_bytes, part.cost, event.run_us, is_own=worker.spec.guest is None)
            if job.model.batches == 1:
                books.stirred.add(job.id)  # from now on batches may be queued ahead
        if not event.last or lease.running_since is None:
            return
        job.slowness.observe(note.predicted_s, now - lease.running_since)
        is_whole = (event.first, event.count) == (lease.first, lease.count)
        if note.is_warm and is_whole and isinstance(job.batcher, Adaptive):
            overhead = (now - lease.running_since) * 1e6 - event.run_us
            if 0 < overhead <= MAX_OVERHEAD_US:
                job.batcher.observe_overhead(overhead)

    def _end_copies(self, job: JobRun, winner: Lease, now: Monotonic) -> list[ev.Effect]:
        """First result wins: other leases all of whose fragments are settled now are ended."""
        effects: list[ev.Effect] = []
        for other in self._books.leases.overlapping(job.id, winner.first, winner.count):
            if other.token != winner.token and not job.unsettled(other.first, other.count):
                effects.append(ev.SendCancel(worker=other.worker, token=other.token, reason="done-elsewhere"))
                self._books.release(other, now)
        return effects

    # ---- failures ------------------------------------------------------------------------------------------------------
    def died(self, event: ev.FragmentDied, now: Monotonic) -> list[ev.Effect]:
        """A child died at one fragment: its neighbours run again, it runs again alone."""
        books = self._books
        books.slots.heard(event.worker, now)
        lease = books.leases.get(event.token)
        if lease is None or lease.worker != event.worker or lease.job != event.job:
            return [ev.SendStale(worker=event.worker, token=event.token, reason="lease-over")]
        job = books.jobs[lease.job]
        batch = books.notes[lease.token].batch
        index = event.index if lease.first <= event.index < lease.first + lease.count else lease.first
        books.release(lease, now)
        effects = self._failed(job, lease, batch, index, event.cause, now, is_loss=event.infra)
        if job.id in books.jobs:
            books.requeue(lease, batch)
        return effects

    def lost_alone(self, job: JobRun, lease: Lease, now: Monotonic) -> list[ev.Effect]:
        """The worker was lost while it ran this single fragment."""
        return self._failed(job, lease, self._books.notes[lease.token].batch, lease.first, "worker-lost", now, is_loss=True)

    def _failed(
        self, job: JobRun, lease: Lease, batch: Batch, index: int, cause: str, now: Monotonic, *, is_loss: bool = False
    ) -> list[ev.Effect]:
        """Count a try of one fragment; run it again, or give it up."""
        if not job.unsettled(index, 1) or not job.again.missing(index, 1):
            return []
        if self._goes_home(job, lease, batch, index):
            return []
        known = job.book.of(index)
        job.failed_once += not (known.tries or known.infra_tries)
        worker = lease.worker
        verdict = job.book.on_loss(index, worker=worker) if is_loss else job.book.on_failure(index, worker=worker, cause=cause)
        trouble = verdict.trouble
        said = verdict.cause if verdict.final else cause
        kept = ev.KeepFailure(
            job=job.id, index=index, tries=trouble.tries, infra_tries=trouble.infra_tries, final=verdict.final, worker=worker, cause=said
        )
        self._books.touched.add(job.id)
        if verdict.final:
            job.dead.add(index, 1)
            return [kept, *self._lifecycle.check_max_fails(job, now)]
        if not self._runs_elsewhere(job, lease, index):
            self._run_again(job, batch, index, verdict, alone=is_loss or cause != "raised")
        return [kept]

    def _goes_home(self, job: JobRun, lease: Lease, batch: Batch, index: int) -> bool:
        """What another company says has failed costs no try: it runs again with someone else, if there is anybody."""
        origin = self._books.slots.workers[lease.worker].spec.origin
        others = (w for w in self._books.slots.workers.values() if w.takes_work and w.spec.origin != origin)
        if not origin or not any(self._books.is_able(job, w) for w in others):
            return False
        if index >= job.produced:
            job.held_back.discard(index, 1)  # split will make it again
        elif not self._runs_elsewhere(job, lease, index):
            part = batch.part(index, 1)
            avoid = (*(x for x in batch.avoid if x != origin), origin)
            job.again.add(
                Batch(first=index, count=1, attempt=batch.attempt, avoid=avoid, alone=True, size_bytes=part.size_bytes, cost=part.cost)
            )
        self._books.stirred.add(job.id)
        self._books.touched.add(job.id)
        return True

    def _runs_elsewhere(self, job: JobRun, lease: Lease, index: int) -> bool:
        """Whether a copy of this fragment runs already."""
        if not job.doubled.contains(index):
            return False
        books = self._books
        others = (x for x in books.leases.overlapping(job.id, index, 1) if x.token != lease.token and x.token not in books.orphans)
        return any(books.leases.unfinished(x.token) for x in others)

    def _run_again(self, job: JobRun, batch: Batch, index: int, verdict: Verdict, *, alone: bool) -> None:
        """Queue it. What raised does no harm to its neighbours; what killed its child or its worker runs alone."""
        if index >= job.produced:
            job.held_back.discard(index, 1)  # split will make it again
            return
        trouble, part = verdict.trouble, batch.part(index, 1)
        job.again.add(
            Batch(
                first=index, count=1, attempt=trouble.tries + trouble.infra_tries, avoid=trouble.avoid, alone=alone,
                size_bytes=part.size_bytes, cost=part.cost, losses=trouble.infra_tries,
            )
        )  # fmt: skip
        self._books.stirred.add(job.id)
