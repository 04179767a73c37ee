"""The chief's machine: every decision about jobs, slots and leases (pure).

Events in, effects out (`company.chief.events`); the service performs them. Composes the parts that hold the rules: ranges,
batcher, matcher, leases, roster, health, queue. Nothing here is done once per fragment: machines see batches.
"""

from __future__ import annotations

from typing import assert_never

from company.chief import events as ev
from company.chief.jobrun import ENDED, MAX_INFRA_TRIES, Batch, JobRun
from company.chief.leases import COUNTER_BITS, Lease, LeaseTable
from company.chief.slots import Slots, WorkerRun
from company.chief.assign import Assigner
from company.chief.retries import MaxFails
from p2p.base.clock import Monotonic
from p2p.base.errors import Action, InvariantBroken, Reason

MAX_ACTIVE_JOBS = 16  # splits that may stand open at once; each holds a sandbox and a window
GRACE_S = 30.0  # a worker that comes back within this keeps its leases
RESTART_HOLD_S = 4.0  # after a start, known workers get this long to come back with what they hold before work is handed out


class ChiefState:
    """All live jobs and workers of one company. Callers pass ``now``; not thread-safe; one owner."""

    def __init__(self, *, boot: int, assigner: Assigner | None = None) -> None:
        self.jobs: dict[str, JobRun] = {}
        self.slots = Slots()
        self.leases = LeaseTable(boot=boot)
        self._assigner = assigner or Assigner()
        self._disk_full = False
        self._hold_until: Monotonic | None = None
        self._awaited: set[str] = set()
        self._boot = boot
        self._orphans: set[int] = set()  # leases of workers that are away: run elsewhere already, kept through the grace

    # ---- the machine's three calls -------------------------------------------------------------------------------------
    def handle(self, event: ev.Event, now: Monotonic) -> tuple[ev.Effect, ...]:
        """Apply one event; then hand out what can be handed out."""
        effects = self._apply(event, now)
        if not isinstance(event, ev.Heartbeat):
            effects += self._go_on(now)
        return tuple(effects)

    def next_deadline(self) -> Monotonic | None:
        """When a grace, a hold or a lateness check is due."""
        times = [w.grace_until for w in self.slots.workers.values() if w.grace_until is not None]
        if self._hold_until is not None:
            times.append(self._hold_until)
        late = self._assigner.next_check(self.jobs, self.slots, self.leases)
        if late is not None:
            times.append(late)
        return min(times, default=None)

    def validate(self) -> None:
        """Check every invariant: no slot locked by nobody, no fragment both waiting and settled, numbers add up."""
        for job in self.jobs.values():
            job.validate()
        self.leases.validate()
        for lease in self.leases:
            if lease.job not in self.jobs:
                raise InvariantBroken(f"lease {lease.token} belongs to no live job")
            if lease.worker not in self.slots.workers:
                raise InvariantBroken(f"lease {lease.token} locks a slot of nobody")

    def hold_for(self, workers: set[str], now: Monotonic) -> None:
        """After a start: hand nothing out until these workers are back, or the hold is over."""
        self._awaited = set(workers)
        self._hold_until = Monotonic(now + RESTART_HOLD_S) if workers else None

    # ---- dispatch ------------------------------------------------------------------------------------------------------
    def _apply(self, event: ev.Event, now: Monotonic) -> list[ev.Effect]:
        match event:
            case ev.JobAdded():
                return self._job_added(event, now)
            case ev.JobChanged():
                return self._job_changed(event, now)
            case ev.SplitCounted():
                self._job(event.job).expected = event.total
                return []
            case ev.SplitProduced():
                return self._split_produced(event, now)
            case ev.SplitEnded():
                return self._split_ended(event, now)
            case ev.SplitFailed():
                return self._end(self._job(event.job), "failed", event.reason, now)
            case ev.SplitDiffers():
                return self._split_differs(event, now)
            case ev.WorkerHere():
                return self._worker_here(event, now)
            case ev.WorkerGone():
                return self._worker_gone(event, now)
            case ev.WorkerChanged():
                return self._worker_changed(event, now)
            case ev.WorkerBlocked():
                return self._worker_blocked(event, now)
            case ev.Heartbeat():
                self.slots.heard(event.worker, now)
                return []
            case ev.OutcomeArrived():
                return self._outcome(event, now)
            case ev.FragmentDied():
                return self._fragment_died(event, now)
            case ev.Recalled():
                return self._recalled(event, now)
            case ev.Committed():
                return self._committed(event)
            case ev.MergeEnded():
                return self._end(self._job(event.job), "done", None, now)
            case ev.MergeFailed():
                return self._end(self._job(event.job), "failed", event.reason, now)
            case ev.DiskState():
                self._disk_full = event.full
                return []
            case ev.Tick():
                return self._tick(now)
            case _:
                assert_never(event)

    def _job(self, job: str) -> JobRun:
        run = self.jobs.get(job)
        if run is None:
            raise InvariantBroken(f"no live job {job}")
        return run

    # ---- jobs ----------------------------------------------------------------------------------------------------------
    def _job_added(self, event: ev.JobAdded, now: Monotonic) -> list[ev.Effect]:
        if event.spec.id in self.jobs:
            raise InvariantBroken(f"job {event.spec.id} was added twice")
        job = JobRun.from_disk(event)
        job.added_at = now
        job.reason = Reason("waiting-for-turn", "The job waits for its turn.")
        self.jobs[event.spec.id] = job
        return []

    def _job_changed(self, event: ev.JobChanged, now: Monotonic) -> list[ev.Effect]:
        job = self._job(event.job)
        if job.phase in ENDED:
            return []
        match event.action:
            case "pause":
                job.paused = True
                job.reason = Reason("paused", event.reason or "Paused by its owner.", {}, (Action("resume it", f"company job resume {job.spec.id}"),))
                effects: list[ev.Effect] = []
                for lease in self.leases.of_job(job.spec.id):
                    if lease.running_since is None:
                        effects.append(ev.SendRecall(worker=lease.worker, token=lease.token))
                return [*effects, ev.SaveJob(job=job.spec.id), ev.Tell(job=job.spec.id, kind="paused", text=job.reason.text)]
            case "resume":
                job.paused = False
                return [ev.SaveJob(job=job.spec.id), ev.Tell(job=job.spec.id, kind="resumed", text="Resumed.")]
            case "cancel":
                return self._end(job, "cancelled", Reason("cancelled", event.reason or "Cancelled by its owner."), now)
            case "edit":
                job.spec = self._assigner.edited(job.spec, event.args)
                return [ev.SaveJob(job=job.spec.id)]
            case other:
                raise InvariantBroken(f"unknown job action {other}")

    def _end(self, job: JobRun, phase: str, reason: Reason | None, now: Monotonic) -> list[ev.Effect]:
        """Take a job to an end: leases are revoked at once, workers told, the row written."""
        if job.phase in ENDED:
            return []
        job.phase = phase  # type: ignore[assignment]
        job.reason = reason
        job.paused = False
        effects: list[ev.Effect] = []
        for lease in self.leases.of_job(job.spec.id):
            effects.append(ev.SendCancel(worker=lease.worker, token=lease.token, reason=f"job-{phase}"))
            self._release(lease, now)
        job.pending.clear()
        job.again.clear()
        text = {"done": "Done.", "failed": "Failed.", "cancelled": "Cancelled."}[phase]
        effects += [
            ev.Tell(job=job.spec.id, kind=phase, text=reason.text if reason else text),
            ev.JobOver(
                job=job.spec.id, phase=phase, reason=reason, total=job.total, done=job.done.total, failed=job.dead.total
            ),
        ]
        del self.jobs[job.spec.id]
        self._assigner.forget_job(job.spec.id)
        return effects

    # ---- split ---------------------------------------------------------------------------------------------------------
    def _split_produced(self, event: ev.SplitProduced, now: Monotonic) -> list[ev.Effect]:
        job = self._job(event.job)
        job.add_fragments(event.first, event.sizes, event.costs)
        if job.phase == "splitting":
            job.phase = "running"
            if job.started is None:
                job.started = now
            return [ev.SaveJob(job=job.spec.id)]
        return []

    def _split_ended(self, event: ev.SplitEnded, now: Monotonic) -> list[ev.Effect]:
        job = self._job(event.job)
        if event.total != job.produced:
            reason = Reason("split-miscounted", f"split said {event.total} fragments and yielded {job.produced}.")
            return self._end(job, "failed", reason, now)
        job.split = "ended"
        job.total = event.total
        job.phase = "running"
        told = ev.Tell(job=job.spec.id, kind="split-ended", text=f"split made {event.total} fragments.")
        return [ev.SaveJob(job=job.spec.id), told]

    def _split_differs(self, event: ev.SplitDiffers, now: Monotonic) -> list[ev.Effect]:
        job = self._job(event.job)
        if job.restarts >= 1:
            reason = Reason(
                "split-not-deterministic",
                "split yielded other fragments each time it ran, so results of different runs would be mixed.",
                {"restarts": job.restarts},
                (Action("make split depend on its data and parameters only (sort what it lists, seed its randomness)"),),
            )
            return self._end(job, "failed", reason, now)
        job.restarts += 1
        effects: list[ev.Effect] = [ev.StopSplit(job=job.spec.id)]
        for lease in self.leases.of_job(job.spec.id):
            effects.append(ev.SendCancel(worker=lease.worker, token=lease.token, reason="job-starts-over"))
            self._release(lease, now)
        job.forget_progress()
        job.uncommitted = 0
        job.phase = "queued"
        job.total = None
        text = "split yielded other fragments than before the restart: the job starts over once."
        return [*effects, ev.DropResults(job=job.spec.id), ev.SaveJob(job=job.spec.id), ev.Tell(job=job.spec.id, kind="starts-over", text=text)]

    # ---- workers -------------------------------------------------------------------------------------------------------
    def _worker_here(self, event: ev.WorkerHere, now: Monotonic) -> list[ev.Effect]:
        worker = self.slots.here(event.spec, now, paused=event.paused, quarantined=event.quarantined)
        self._awaited.discard(event.spec.id)
        keep: list[int] = []
        drop: list[tuple[int, str]] = []
        for token, job_id, first, count in event.held:
            why = self._keep_or_why_not(worker, token, job_id, first, count, now)
            if why is None:
                keep.append(token)
            else:
                drop.append((token, why))
        effects: list[ev.Effect] = [ev.SendResumed(worker=worker.spec.id, keep=tuple(keep), drop=tuple(drop))]
        for lease in self.leases.of_worker(worker.spec.id):
            if lease.token not in keep:  # the worker lost it: a restart of its own, or a message that never arrived
                effects += self._give_back(lease, now)
        return effects

    def _keep_or_why_not(self, worker: WorkerRun, token: int, job_id: str, first: int, count: int, now: Monotonic) -> str | None:
        job = self.jobs.get(job_id)
        if job is None:
            return "job-over"
        if job.restarts and token >> COUNTER_BITS != self._boot:
            return "job-started-over"
        slot = next((s for s in range(worker.spec.slots) if not self.leases.depth((worker.spec.id, s))), 0)
        held = self.leases.adopt(token, (worker.spec.id, slot), job_id, first, count, attempt=0, accepted=job.done, now=now)
        if isinstance(held, str):
            return held
        if token in self._orphans:
            self._orphans.discard(token)
            job.take_back(held.first, held.count)
        else:
            job.held_back.add(first, count)
            job.take_back(first, count)
        return None

    def _worker_gone(self, event: ev.WorkerGone, now: Monotonic) -> list[ev.Effect]:
        worker = self.slots.workers.get(event.worker)
        if worker is None or not worker.connected:
            return []
        worker.connected = False
        effects: list[ev.Effect] = []
        held = self.leases.of_worker(event.worker)
        if event.said_bye:
            for lease in held:
                effects += self._give_back(lease, now)
            return effects
        worker.grace_until = Monotonic(now + GRACE_S)
        for lease in held:  # may be run elsewhere at once; the lease itself lives on through the grace (first result wins)
            job = self._job(lease.job)
            job.try_again(Batch(lease.first, lease.count, lease.attempt, 0, avoid=event.worker))
            self._orphans.add(lease.token)
        return effects

    def _worker_changed(self, event: ev.WorkerChanged, now: Monotonic) -> list[ev.Effect]:
        worker = self.slots.workers.get(event.worker)
        if worker is None:
            return []
        effects: list[ev.Effect] = []
        match event.action:
            case "pause":
                worker.paused = True
                effects.append(ev.SendDrain(worker=event.worker, pause=True))
            case "resume" | "release":
                worker.paused = worker.quarantined = worker.draining = False
                worker.strikes = 0
                effects.append(ev.SendDrain(worker=event.worker, pause=None))
            case "drain":
                worker.draining = True
                effects.append(ev.SendDrain(worker=event.worker, pause=False))
            case "quarantine" | "rm":
                worker.quarantined = True
                for lease in self.leases.of_worker(event.worker):
                    effects.append(ev.SendCancel(worker=event.worker, token=lease.token, reason="worker-quarantined"))
                    effects += self._give_back(lease, now)
            case other:
                raise InvariantBroken(f"unknown worker action {other}")
        return effects

    def _worker_blocked(self, event: ev.WorkerBlocked, now: Monotonic) -> list[ev.Effect]:
        job = self.jobs.get(event.job)
        if job is None:
            return []
        job.blocked[event.worker] = event.reason
        effects: list[ev.Effect] = [ev.Tell(job=event.job, kind="worker-cannot", text=f"{event.worker}: {event.reason.text}")]
        for lease in self.leases.of_worker(event.worker):
            if lease.job == event.job:
                effects += self._give_back(lease, now)
        return effects

    # ---- outcomes ------------------------------------------------------------------------------------------------------
    def _outcome(self, event: ev.OutcomeArrived, now: Monotonic) -> list[ev.Effect]:
        self.slots.heard(event.worker, now)
        lease = self.leases.get(event.token)
        if lease is None or lease.worker != event.worker or lease.job != event.job:
            return [
                ev.Refuse(token=event.token, worker=event.worker),
                ev.SendStale(worker=event.worker, token=event.token, reason="This lease is over; the work was done elsewhere or dropped."),
            ]
        if not lease.first <= event.first <= event.first + event.count <= lease.first + lease.count:
            return [*self._give_back(lease, now), ev.Refuse(token=event.token, worker=event.worker)]
        job = self._job(lease.job)
        accepted: list[ev.Range] = []
        for first, count in event.ok:
            for part in job.done.missing(first, count):
                for a, n in job.dead.missing(*part):
                    job.done.add(a, n)
                    job.uncommitted += n
                    accepted.append((a, n))
        if job.first_result is None and accepted:
            job.first_result = now
        job.last_result = now
        job.run_us += event.run_us
        job.batcher.observe(event.count, event.bytes_in, None, event.run_us)
        self._assigner.observe(job, self.slots.workers[event.worker], lease, event, now)
        effects: list[ev.Effect] = []
        if accepted:
            effects.append(
                ev.Accept(job=event.job, token=event.token, worker=event.worker, attempt=lease.attempt, ranges=tuple(accepted))
            )
        else:
            effects.append(ev.Refuse(token=event.token, worker=event.worker))
        for index in event.raised:
            effects += self._failed(job, index, "raised", event.worker, now, infra=False)
            if event.job not in self.jobs:
                return effects
        self.leases.complete(event.token, event.first, event.count)
        if event.last:
            self._release(lease, now)
            missing = job.done.missing(lease.first, lease.count)
            raised = set(event.raised)
            for a, n in missing:  # a worker that says "last" without having reported all: run the rest again
                for part in job.dead.missing(a, n):
                    if not (part[1] == 1 and part[0] in raised) and not self._queued_again(job, part):
                        job.try_again(Batch(part[0], part[1], lease.attempt, 0))
        if accepted:
            effects += self._cancel_copies(job, lease, now)
        return effects

    def _queued_again(self, job: JobRun, part: ev.Range) -> bool:
        return any(b.first <= part[0] and part[0] + part[1] <= b.first + b.count for b in job.again)

    def _cancel_copies(self, job: JobRun, winner: Lease, now: Monotonic) -> list[ev.Effect]:
        """First result wins: other leases all of whose fragments are settled now are ended."""
        effects: list[ev.Effect] = []
        for other in self.leases.overlapping(job.spec.id, winner.first, winner.count):
            if other.token != winner.token and not job.done.missing(other.first, other.count):
                effects.append(ev.SendCancel(worker=other.worker, token=other.token, reason="done-elsewhere"))
                self._release(other, now)
        return effects

    def _fragment_died(self, event: ev.FragmentDied, now: Monotonic) -> list[ev.Effect]:
        self.slots.heard(event.worker, now)
        lease = self.leases.get(event.token)
        if lease is None or lease.worker != event.worker:
            return [ev.SendStale(worker=event.worker, token=event.token, reason="This lease is over.")]
        job = self._job(lease.job)
        self._release(lease, now)
        index = event.index if lease.first <= event.index < lease.first + lease.count else lease.first
        infra = event.infra
        effects = self._failed(job, index, event.cause, event.worker, now, infra=infra)
        if lease.job not in self.jobs:
            return effects
        for a, n in ((lease.first, index - lease.first), (index + 1, lease.first + lease.count - index - 1)):
            if n > 0:
                job.try_again(Batch(a, n, lease.attempt, 0))
        return effects

    def _failed(self, job: JobRun, index: int, cause: str, worker: str, now: Monotonic, *, infra: bool) -> list[ev.Effect]:
        """Count a try of one fragment; run it again alone, or give it up."""
        if job.done.contains(index) or job.dead.contains(index):
            return []
        tries, losses = job.tries.get(index, (0, 0))
        tries, losses = (tries, losses + 1) if infra else (tries + 1, losses)
        job.tries[index] = (tries, losses)
        final = tries >= job.spec.retries or losses >= MAX_INFRA_TRIES
        effects: list[ev.Effect] = [
            ev.KeepFailure(job=job.spec.id, index=index, tries=tries, infra_tries=losses, final=final, worker=worker, cause=cause)
        ]
        if not final:
            job.try_again(Batch(index, 1, tries + losses, 0, avoid=worker))
            return effects
        job.dead.add(index, 1)
        limit = MaxFails.parse(job.spec.max_fails)
        if limit.is_exceeded(failed=job.dead.total, total=job.total):
            reason = Reason(
                "too-many-failed",
                f"{job.dead.total} of the fragments failed for good; allowed are {job.spec.max_fails}.",
                {"failed": job.dead.total, "max_fails": job.spec.max_fails, "fragment": index, "cause": cause},
                (
                    Action("see what failed", f"company job failures {job.spec.id}"),
                    Action("run one here", f"company job reproduce {job.spec.id}/{index}"),
                    Action("allow more and go on", f"company job retry {job.spec.id} --max-fails 10%"),
                ),
            )
            effects += self._end(job, "failed", reason, now)
        return effects

    def _recalled(self, event: ev.Recalled, now: Monotonic) -> list[ev.Effect]:
        lease = self.leases.get(event.token)
        if lease is None or lease.worker != event.worker or not event.given_back:
            return []
        return self._give_back(lease, now)

    def _committed(self, event: ev.Committed) -> list[ev.Effect]:
        job = self.jobs.get(event.job)
        if job is not None:
            job.uncommitted -= sum(n for _, n in event.ranges)
        return []

    # ---- leases --------------------------------------------------------------------------------------------------------
    def _release(self, lease: Lease, now: Monotonic) -> None:
        self.leases.release(lease.token, now=now)
        self._orphans.discard(lease.token)
        self._assigner.forget(lease.token)

    def _give_back(self, lease: Lease, now: Monotonic) -> list[ev.Effect]:
        """End a lease without result; what of it nobody else holds is run again."""
        was_orphan = lease.token in self._orphans
        rest = self.leases.unfinished(lease.token)
        self._release(lease, now)
        job = self.jobs.get(lease.job)
        if job is not None and not was_orphan:
            for first, count in rest:
                if not self.leases.overlapping(lease.job, first, count):
                    job.try_again(Batch(first, count, lease.attempt, 0))
        return []

    def _tick(self, now: Monotonic) -> list[ev.Effect]:
        effects: list[ev.Effect] = []
        if self._hold_until is not None and now >= self._hold_until:
            self._hold_until = None
        for worker in list(self.slots.workers.values()):
            if worker.grace_until is not None and now >= worker.grace_until:
                worker.grace_until = None
                for lease in self.leases.of_worker(worker.spec.id):
                    effects += self._give_back(lease, now)
                if not worker.connected:
                    self.slots.forget(worker.spec.id)
        return effects

    # ---- going on ------------------------------------------------------------------------------------------------------
    def _go_on(self, now: Monotonic) -> list[ev.Effect]:
        """Start what may start, finish what is complete, fill free slots."""
        effects: list[ev.Effect] = []
        for job in list(self.jobs.values()):
            if job.is_active and job.is_complete and not job.paused:
                effects += self._complete(job)
            elif job.split == "ended" and not job.merge_prepared and job.is_active and job.remaining == 0:
                job.merge_prepared = True
                effects.append(ev.PrepareMerge(job=job.spec.id))
        effects += self._start_splits(now)
        if self._hold_until is not None and not self._awaited:
            self._hold_until = None
        if self._hold_until is None and not self._disk_full:
            effects += self._assigner.assign(self.jobs, self.slots, self.leases, now)
        self._assigner.explain(self.jobs, self.slots, self.leases, disk_full=self._disk_full, holding=self._hold_until is not None)
        return effects

    def _complete(self, job: JobRun) -> list[ev.Effect]:
        job.phase = "merging"
        job.reason = Reason("merging", "All fragments are done; merge is running.")
        return [
            ev.SaveJob(job=job.spec.id),
            ev.Tell(job=job.spec.id, kind="merging", text=f"{job.done.total} results are being merged."),
            ev.StartMerge(job=job.spec.id),
        ]

    def _start_splits(self, now: Monotonic) -> list[ev.Effect]:
        effects: list[ev.Effect] = []
        active = sum(1 for j in self.jobs.values() if j.is_active)
        for job in self._assigner.order(self.jobs, now):
            if active >= MAX_ACTIVE_JOBS:
                break
            if job.phase == "queued" and not job.paused:
                job.phase = "splitting"
                job.split = "running"
                job.reason = Reason("splitting", "split is making the first fragments.")
                active += 1
                effects += [ev.SaveJob(job=job.spec.id), ev.StartSplit(job=job.spec.id)]
        return effects
