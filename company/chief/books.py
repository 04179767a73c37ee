"""What all parts of the chief's machine share: jobs, slots, leases, and the few moves that keep them in step (pure).

The rule kept here: every fragment that split has made is settled, or waits, or is held by a lease of a worker that is not away.
`requeue` is the only way back into the queue, and it looks at who else has the range; so nothing is lost and nothing waits twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from company.chief import events as ev
from company.chief.again import Batch
from company.chief.eligible import why_not
from company.chief.jobrun import JobRun
from company.chief.leases import Lease, LeaseTable, SlotKey
from company.chief.long_leases import LongLease, LongLeases
from company.chief.queue import FairShare
from company.chief.ranges import RangeSet
from company.chief.retries import pieces_after_loss
from company.chief.slots import Slots, WorkerRun
from company.chief.waiting import WaitingLine
from p2p.base.clock import Monotonic
from p2p.base.errors import InvariantBroken

DEFAULT_CHARGE_S = 0.2  # what a batch is booked at before anything is known of its job: the length batches aim at


@dataclass(slots=True)
class LeaseNote:
    """What is remembered of a lease beside the lock itself. ``batch`` is as it was sent."""

    batch: Batch
    predicted_us: float | None  # on this worker
    charged_s: float
    is_warm: bool  # its slot was empty and had run this job before: its time shows what a batch costs by itself
    spent_us: int = 0
    is_adopted: bool = False  # granted before: its size is not known
    is_copy: bool = False
    original: int | None = None  # token of the lease that this one copies, as long as that lives
    copy: int | None = None  # token of the copy of this one
    is_long: bool = False  # a copy took just as long: the fragment is to blame, not the worker
    is_recalled: bool = False

    @property
    def predicted_s(self) -> float | None:
        return None if self.predicted_us is None else self.predicted_us / 1e6


class Books:
    """The state of `ChiefState`, for the classes it is composed of."""

    def __init__(self, *, boot: int) -> None:
        self.boot = boot
        self.jobs: dict[str, JobRun] = {}
        self.active: dict[str, JobRun] = {}  # those whose fragments are or may be handed out, paused ones too
        self.line = WaitingLine()
        self.leases = LeaseTable(boot=boot)
        self.long = LongLeases(self.leases)
        self.slots = Slots(self.leases)
        self.notes: dict[int, LeaseNote] = {}
        self.orphans: set[int] = set()  # leases of workers that are away: run elsewhere already, kept through the grace
        self.copies: set[int] = set()  # leases that run what another slot runs late
        self.share = FairShare()
        self.disk_full = False
        self.own: ev.OwnWorker | None = None  # what was last heard of the chief's own worker, if it has one
        self.hold_until: Monotonic | None = None
        self.awaited: set[str] = set()
        self.staying: set[str] = set()  # jobs whose own runs disagree: no other company may compute them
        self.give_up_at: Monotonic | None = None  # those of them, where no own worker came by then
        self.stirred: set[str] = set()  # jobs with new work since the assigner last looked
        self.touched: set[str] = set()  # jobs that may be complete
        self.is_line_moved = False
        self.fencing: set[str] = set()  # active jobs under --failure seed-z4
        self._able: dict[tuple[str, str], bool] = {}

    # ---- jobs ----------------------------------------------------------------------------------------------------------
    def job(self, job: str) -> JobRun | None:
        return self.jobs.get(job)

    def stir(self, jobs: Iterable[str] | None = None) -> None:
        """These jobs (None: all) may have something for slots that they had nothing for before."""
        self.stirred.update(self.active if jobs is None else jobs)

    def set_active(self, job: JobRun) -> None:
        """File the job by its phase."""
        if job.is_active:
            self.active[job.id] = job
        else:
            self.active.pop(job.id, None)
        if job.is_active and job.slowness.fences:
            self.fencing.add(job.id)
        else:
            self.fencing.discard(job.id)
        if job.phase == "queued" and not job.paused:
            self.line.put(job)
        else:
            self.line.drop(job.id)
        self.is_line_moved = True
        self.stirred.add(job.id)
        self.touched.add(job.id)

    # ---- who may run what ----------------------------------------------------------------------------------------------
    def is_able(self, job: JobRun, worker: WorkerRun) -> bool:
        """Whether nothing stands against it, from memory."""
        key = (job.id, worker.spec.id)
        found = self._able.get(key)
        if found is None:
            found = self._able[key] = why_not(job, worker) is None
        return found

    def forget_ability(self) -> None:
        """Something about workers or what a job asks of them has changed."""
        self._able.clear()
        self.stir()

    # ---- leases --------------------------------------------------------------------------------------------------------
    def lease(self, job: JobRun, slot: SlotKey, batch: Batch, now: Monotonic, *, charged_s: float, is_warm: bool = False) -> ev.SendRun:
        """Lock a slot for a batch."""
        lease = self.leases.acquire(slot, job.id, batch.first, batch.count, attempt=batch.attempt, now=now)
        is_warm = is_warm and lease.running_since is not None
        self.long.granted(lease.token, now)
        self.notes[lease.token] = LeaseNote(batch, self.predict_us(job, slot, batch), charged_s, is_warm)
        self.slots.mark(slot, now)
        if job.first_lease is None:
            job.first_lease = now
        return ev.SendRun(
            worker=slot[0],
            slot=slot[1],
            token=lease.token,
            job=job.id,
            first=batch.first,
            count=batch.count,
            attempt=min(batch.attempt, 65535),
        )

    def predict_us(self, job: JobRun, slot: SlotKey, batch: Batch) -> float | None:
        """Expected run time on this slot's worker."""
        usual = job.model.predict_us(batch.count, batch.size_bytes, batch.cost)
        return None if usual is None else usual / self.slots.workers[slot[0]].speed

    def charge(self, job: JobRun, slot: SlotKey, batch: Batch, now: Monotonic) -> float:
        """Book a batch to its user before it runs; returns the slot-seconds, which `release` corrects."""
        predicted = self.predict_us(job, slot, batch)
        seconds = DEFAULT_CHARGE_S if predicted is None else min(86_400.0, predicted / 1e6)
        self.share.charge(job.spec.owner, seconds, now)
        return seconds

    def release(self, lease: Lease, now: Monotonic) -> None:
        """End a lease, whatever became of it."""
        self.leases.release(lease.token, now=now)
        self.long.released(lease.token)
        self.orphans.discard(lease.token)
        self.copies.discard(lease.token)
        note = self.notes.pop(lease.token)
        job = self.jobs.get(lease.job)
        if job is not None:
            self.share.charge(job.spec.owner, note.spent_us / 1e6 - note.charged_s, now)
            if note.is_copy and lease.running_since is not None:
                job.copied_us += (now - lease.running_since) * 1e6
            self.touched.add(lease.job)
        for token in (note.original, note.copy):
            other = None if token is None else self.notes.get(token)
            if other is not None:
                other.original = None if other.original == lease.token else other.original
                other.copy = None if other.copy == lease.token else other.copy
        self.slots.mark(lease.slot, now)

    def give_back(self, lease: Lease, now: Monotonic, *, is_loss: bool = False, attempt: int | None = None) -> None:
        """End a lease without a result; what of it nobody else holds is run again, as this attempt."""
        note = self.notes[lease.token]
        was_orphan = lease.token in self.orphans
        self.release(lease, now)
        if not was_orphan:
            self.requeue(lease, note.batch if attempt is None else replace(note.batch, attempt=attempt), is_loss=is_loss)

    def requeue(self, lease: Lease | LongLease, batch: Batch, *, is_loss: bool = False) -> None:
        """What of a lease is unsettled, does not wait already and is held by nobody who is here, is run again."""
        job = self.jobs.get(lease.job)
        if job is None:
            return
        losses = batch.losses + is_loss
        free = self._free_parts(job, lease)
        for first, count in free:
            job.held_back.discard(first, count)
            made = min(count, job.produced - first)  # what split has not made again yet comes with it
            for a, n in pieces_after_loss(first, made, losses=losses) if is_loss and made > 0 else [(first, made)]:
                if n > 0:
                    part = batch.part(a, n)
                    job.again.add(
                        Batch(
                            first=a, count=n, attempt=batch.attempt, size_bytes=part.size_bytes, cost=part.cost, losses=losses,
                            avoid=batch.avoid if n == 1 else (), alone=losses >= 2 or (batch.alone and n == 1),
                        )
                    )  # fmt: skip
        self.stirred.add(job.id)
        self.touched.add(job.id)

    def _free_parts(self, job: JobRun, lease: Lease | LongLease) -> list[ev.Range]:
        parts = [x for a, n in job.unsettled(lease.first, lease.count) for x in job.again.missing(a, n)]
        others = RangeSet(
            (x.first, x.count)
            for x in self.leases.overlapping(lease.job, lease.first, lease.count)
            if x.token not in self.orphans and x.token != lease.token
        )
        return [x for a, n in parts for x in others.missing(a, n)] if others else parts

    # ---- checking ------------------------------------------------------------------------------------------------------
    def validate(self) -> None:
        """Check every invariant. Raises `InvariantBroken`; costly, for tests and the simulator."""
        self.leases.validate()
        self.slots.validate()
        if set(self.notes) != {lease.token for lease in self.leases}:
            raise InvariantBroken("notes and leases disagree", tokens=sorted(set(self.notes) ^ {x.token for x in self.leases}))
        for lease in self.leases:
            if lease.job not in self.active:
                raise InvariantBroken(f"lease {lease.token} belongs to no live job")
            worker = self.slots.workers.get(lease.worker)
            if worker is None or not (worker.connected or lease.worker in self.slots.away):
                raise InvariantBroken(f"lease {lease.token} locks a slot of nobody")
            if worker.connected == (lease.token in self.orphans):
                raise InvariantBroken(f"lease {lease.token} is filed wrongly: its worker is here {worker.connected}")
        if {j.id for j in self.jobs.values() if j.is_active} != set(self.active):
            raise InvariantBroken("active jobs are filed wrongly")
        for job in self.jobs.values():
            job.validate()
            if (job.id in self.line) != (job.phase == "queued" and not job.paused):
                raise InvariantBroken(f"{job.id} stands in line or does not, wrongly")
            self._validate_cover(job)

    def _validate_cover(self, job: JobRun) -> None:
        if not job.is_active:
            return
        waiting = RangeSet([*job.pending.ranges(), *((b.first, b.count) for b in job.again)])
        for first, count in [*job.done, *job.dead]:
            if waiting.intersection(first, count):
                raise InvariantBroken(f"{job.id}: settled fragments of {first}+{count} wait to be run")
        found = job.waiting()
        held = [(x.first, x.count) for x in self.leases.of_job(job.id) if x.token not in self.orphans]
        held += [(x.first, x.count) for x in self.long.of_job(job.id)]
        for first, count in [*job.done, *job.dead, *held]:
            found.add(first, count)
        if not found.covers(0, job.produced):
            raise InvariantBroken(f"{job.id}: nobody has fragments {found.missing(0, job.produced)[:3]}")
