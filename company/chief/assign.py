"""Fragment path 4/9 - which batch goes to which slot, and which slow one is copied (pure).

Idle slots first; a slot that runs gets a batch ahead only while batches are short, so that nothing long waits behind
something long. When nothing is left to hand out, an unbegun batch ahead is asked back for an idle slot, and the slowest
running lease is copied to one (backup tasks: Dean, Ghemawat 2004).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from company.chief import events as ev
from company.chief.eligible import why_not
from company.chief.jobrun import Batch, JobRun
from company.chief.leases import DEPTH, Lease, LeaseTable, SlotKey
from company.chief.matcher import stable_match
from company.chief.queue import FairShare, QueuedJob
from company.chief.slots import Slots, WorkerRun
from p2p.base.clock import Monotonic
from p2p.base.errors import Action, Reason

AHEAD_MAX_US = 2_000_000.0  # a batch that takes longer is not queued behind another
BACKUP_SHARE = 0.05  # of the fragments of a job may be run twice because they were slow


class Assigner:
    """Owns the queue between jobs and what is known of slowness; the state it works on is passed in."""

    def __init__(self) -> None:
        self._share = FairShare()
        self._copied: dict[int, int] = {}  # token of the original -> token of its copy
        self._copies: dict[str, int] = {}  # job -> fragments run twice
        self._predicted_s: dict[int, float | None] = {}
        self._recalled: set[int] = set()

    # ---- order and assignment ------------------------------------------------------------------------------------------
    def order(self, jobs: Mapping[str, JobRun], now: Monotonic) -> list[JobRun]:
        """Live jobs, the one to serve first in front."""
        queued = [
            QueuedJob(
                id=j.spec.id, owner=j.spec.owner, priority=j.spec.priority, submitted_at=j.added_at,
                expected_s=None if j.remaining is None else j.estimator.expected_s(j.remaining),
            )
            for j in jobs.values()
            if not j.paused
        ]  # fmt: skip
        return [jobs[q.id] for q in self._share.order(queued, now)]

    def assign(self, jobs: Mapping[str, JobRun], slots: Slots, leases: LeaseTable, now: Monotonic) -> list[ev.Effect]:
        """Fill free slots; then look after the tail."""
        effects: list[ev.Effect] = []
        ready = [j for j in self.order(jobs, now) if j.is_active and not j.paused and j.has_work]
        for depth in range(DEPTH):
            if not ready:
                break
            free = _slots_of_depth(slots, leases, depth)
            for job in ready:
                if not free:
                    break
                if depth and not self._is_short(job, slots.total):
                    continue
                effects += self._fill(job, free, slots, leases, now)
        effects += self._tail(jobs, slots, leases, now)
        return effects

    def _is_short(self, job: JobRun, slots: int) -> bool:
        """Whether the job's next batch is so short that waiting behind another one costs nothing."""
        per_fragment = job.model.us_per_fragment
        if per_fragment is None:
            return False
        return per_fragment <= AHEAD_MAX_US and not job.again

    def _fill(self, job: JobRun, free: list[SlotKey], slots: Slots, leases: LeaseTable, now: Monotonic) -> list[ev.Effect]:
        """Give this job's batches to free slots that may run it; slots used are taken off ``free``."""
        able = [s for s in free if why_not(job, slots.workers[s[0]]) is None]
        batches: list[Batch] = []
        postponed: list[Batch] = []
        others = {w for w, run in slots.workers.items() if run.takes_work and why_not(job, run) is None}
        while len(batches) < len(able):
            batch = job.next_batch(max(1, slots.total))
            if batch is None:
                break
            if batch.avoid is not None and others - {batch.avoid} and all(s[0] == batch.avoid for s in able):
                postponed.append(batch)  # another worker can take it, only not at this moment
                continue
            batches.append(batch)
        for batch in postponed:
            job.try_again(batch)
        effects: list[ev.Effect] = []
        for slot, batch in self._pair(job, able, batches, slots):
            free.remove(slot)
            effects.append(self._send(job, slot, batch, leases, now))
        return effects

    def _pair(self, job: JobRun, able: list[SlotKey], batches: list[Batch], slots: Slots) -> list[tuple[SlotKey, Batch]]:
        pairs: list[tuple[SlotKey, Batch]] = []
        left = list(able)
        ordinary: list[Batch] = []
        for batch in batches:  # what failed on a worker goes to another one first
            slot = next((s for s in left if s[0] != batch.avoid), None) if batch.avoid is not None else None
            if slot is None:
                ordinary.append(batch)
            else:
                left.remove(slot)
                pairs.append((slot, batch))
        chosen = left[: len(ordinary)]
        if len(chosen) > 1:
            rates = [(i, slots.workers[s[0]].rate or 1.0) for i, s in enumerate(chosen)]
            match = stable_match(rates, [(i, float(b.size_bytes)) for i, b in enumerate(ordinary)])
            return pairs + [(chosen[i], ordinary[k]) for i, k in sorted(match.items())]
        return pairs + list(zip(chosen, ordinary, strict=True))

    def _send(self, job: JobRun, slot: SlotKey, batch: Batch, leases: LeaseTable, now: Monotonic) -> ev.Effect:
        lease = leases.acquire(slot, job.spec.id, batch.first, batch.count, attempt=batch.attempt, now=now)
        predicted = job.model.predict_us(batch.count, batch.size_bytes)
        self._predicted_s[lease.token] = None if predicted is None else predicted / 1e6
        if job.first_lease is None:
            job.first_lease = now
        return ev.SendRun(
            worker=slot[0], slot=slot[1], token=lease.token, job=job.spec.id, first=batch.first, count=batch.count, attempt=batch.attempt
        )

    # ---- the tail ------------------------------------------------------------------------------------------------------
    def _tail(self, jobs: Mapping[str, JobRun], slots: Slots, leases: LeaseTable, now: Monotonic) -> list[ev.Effect]:
        idle = _slots_of_depth(slots, leases, 0)
        if not idle:
            return []
        effects: list[ev.Effect] = []
        wanted = len(idle)
        for lease in leases:
            if wanted <= 0:
                break
            job = jobs.get(lease.job)
            if job is None or lease.running_since is not None or lease.token in self._recalled or job.has_work:
                continue
            if now - lease.granted_at > 0.05:  # it has waited: an idle slot would have begun it by now
                self._recalled.add(lease.token)
                effects.append(ev.SendRecall(worker=lease.worker, token=lease.token))
                wanted -= 1
        for slot in idle:
            copy = self._slow_lease(jobs, slots, leases, slot, now)
            if copy is not None:
                effects.append(copy)
        return effects

    def _slow_lease(
        self, jobs: Mapping[str, JobRun], slots: Slots, leases: LeaseTable, slot: SlotKey, now: Monotonic
    ) -> ev.Effect | None:
        """The running lease that is latest and may be copied to this slot, sent there."""
        worst: tuple[float, Lease] | None = None
        for lease in leases:
            job = jobs.get(lease.job)
            due = self._slow_at(job, lease)
            if job is None or due is None or now < due or lease.token in self._copied or job.paused:
                continue
            if lease.worker == slot[0] or why_not(job, slots.workers[slot[0]]) is not None:
                continue
            if worst is None or now - due > worst[0]:
                worst = (now - due, lease)
        if worst is None:
            return None
        lease = worst[1]
        job = jobs[lease.job]
        rest = leases.unfinished(lease.token)
        first = rest[0][0]
        count = rest[-1][0] + rest[-1][1] - first
        budget = max(1.0, BACKUP_SHARE * max(job.settled + count, job.total or 0))
        if self._copies.get(lease.job, 0) + count > budget and self._copies.get(lease.job, 0):
            return None
        self._copies[lease.job] = self._copies.get(lease.job, 0) + count
        effect = self._send(job, slot, Batch(first, count, lease.attempt + 1, 0), leases, now)
        assert isinstance(effect, ev.SendRun)
        self._copied[lease.token] = effect.token
        self._copied[effect.token] = lease.token  # no copy of a copy
        return effect

    def _slow_at(self, job: JobRun | None, lease: Lease) -> Monotonic | None:
        if job is None or lease.running_since is None:
            return None
        after = job.slowness.slow_after_s(self._predicted_s.get(lease.token), lease.attempt)
        return None if after is None else Monotonic(lease.running_since + after)

    def next_check(self, jobs: Mapping[str, JobRun], slots: Slots, leases: LeaseTable) -> Monotonic | None:
        """When the first lease becomes slow or can be asked back, as long as a slot idles."""
        if not len(leases) or not _slots_of_depth(slots, leases, 0):
            return None
        times: list[Monotonic] = []
        for lease in leases:
            if lease.running_since is None and lease.token not in self._recalled:
                times.append(Monotonic(lease.granted_at + 0.051))
            due = self._slow_at(jobs.get(lease.job), lease)
            if due is not None and lease.token not in self._copied:
                times.append(due)
        return min(times, default=None)

    # ---- learning ------------------------------------------------------------------------------------------------------
    def observe(self, job: JobRun, worker: WorkerRun, lease: Lease, event: ev.OutcomeArrived, now: Monotonic) -> None:
        """A part of a lease came back: learn the job's rate, the worker's speed, the distribution of run times."""
        expected = job.model.predict_us(event.count, event.bytes_in)
        job.model.observe(event.count, event.bytes_in, None, event.run_us)
        if expected and event.run_us:
            worker.observe_rate(expected / event.run_us)
        job.estimator.observe(event.count, event.run_us)
        if event.last and lease.running_since is not None:
            job.slowness.observe(self._predicted_s.get(lease.token), now - lease.running_since)
        self._share.charge(job.spec.owner, event.run_us / 1e6, now)

    def forget(self, token: int) -> None:
        """A lease is over."""
        self._predicted_s.pop(token, None)
        self._recalled.discard(token)
        other = self._copied.pop(token, None)
        if other is not None:
            self._copied.pop(other, None)

    def forget_job(self, job: str) -> None:
        """A job is over."""
        self._copies.pop(job, None)

    # ---- words ---------------------------------------------------------------------------------------------------------
    def explain(self, jobs: Mapping[str, JobRun], slots: Slots, leases: LeaseTable, *, disk_full: bool, holding: bool) -> None:
        """Give every live job the reason for which it is where it is."""
        for job in jobs.values():
            if job.paused or job.phase in ("merging", "splitting", "queued"):
                continue
            job.reason = self._reason(job, slots, leases, disk_full=disk_full, holding=holding)

    def _reason(self, job: JobRun, slots: Slots, leases: LeaseTable, *, disk_full: bool, holding: bool) -> Reason:
        if disk_full:
            free = Action("free space; the job goes on by itself")
            return Reason("storage-full", "The chief's disk is full; results cannot be written.", {}, (free,))
        if leases.of_job(job.spec.id):
            return Reason("running", "Fragments are being computed.")
        if holding:
            return Reason("waiting-for-workers", "The chief has just started; workers that hold work of before are coming back.")
        if not job.has_work:
            if job.split == "running":
                return Reason("waiting-for-split", "Every slot waits for split to yield more fragments.")
            return Reason("finishing", "The last results are being written.")
        refusals = {w.spec.name: why_not(job, w) for w in slots.workers.values() if w.connected}
        reasons = [r for r in refusals.values() if r is not None]
        if refusals and len(reasons) == len(refusals):
            first = reasons[0]
            return Reason(first.code, f"No worker can take it: {first.text}", {**first.facts, "workers": len(refusals)}, first.actions)
        if not refusals:
            return Reason(
                "no-workers", "No worker is connected.", {}, (Action("add one", "company token create --role worker"),)
            )
        return Reason("slots-busy", "Every slot that could run it is busy.", {"slots": slots.total})

    def edited(self, spec: ev.JobSpec, args: Mapping[str, Any]) -> ev.JobSpec:
        """The job's fixed part with what a user may change later."""
        allowed = {"priority", "max_fails", "time_limit_s", "memory_bytes", "retries"}
        return replace(spec, **{k: v for k, v in args.items() if k in allowed})


def _slots_of_depth(slots: Slots, leases: LeaseTable, depth: int) -> list[SlotKey]:
    """Slots that take work and hold exactly ``depth`` leases, by worker and number."""
    return [
        (worker.spec.id, n)
        for worker in sorted(slots.workers.values(), key=lambda w: w.spec.id)
        if worker.takes_work
        for n in range(worker.spec.slots)
        if leases.depth((worker.spec.id, n)) == depth
    ]
