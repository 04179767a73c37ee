"""Fragment path 4/9 - which batch goes to which slot (pure).

Empty slots first; a slot that runs gets a batch ahead only while batches are short, so that nothing long waits behind something
long. The user furthest behind goes first, then that user's shortest job; every batch is booked when it is handed out, so that
one user cannot take all slots in one sweep. A slot stays with its job for a moment, because another job means another child.
Only slots and jobs are looked at about which something has changed: one answer never costs a look at a thousand slots.
"""

from __future__ import annotations

from dataclasses import dataclass

from company.chief import events as ev
from company.chief.again import Batch
from company.chief.batcher import Adaptive
from company.chief.books import Books
from company.chief.jobrun import JobRun
from company.chief.leases import SlotKey
from company.chief.matcher import stable_match
from company.chief.queue import QueuedJob, own_rank
from company.chief.slots import WorkerRun
from p2p.base.clock import Monotonic

AHEAD_MAX_US = 2_000_000.0  # a batch that takes longer is not queued behind another
STICK_S = 1.0  # a slot changes its job at most this often: another job means another sandboxed child, about 30 ms
RANK_EVERY_S = 0.25  # one user's jobs are sorted anew at most this often; expectations move slowly
MAX_MATCHED = 64  # slots matched at once; deferred acceptance may need the square of it


@dataclass(slots=True)
class _Proposal:
    """A batch cut for a slot, not yet leased."""

    slot: SlotKey
    job: JobRun
    batch: Batch
    charged_s: float
    is_fixed: bool  # not to be exchanged with another slot's


class Assigner:
    """Hands out work. Owns the order of jobs; all else it works on is in the books."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._ranked: dict[str, list[JobRun]] = {}
        self._ranked_at = Monotonic(float("-inf"))
        self._last: dict[SlotKey, tuple[str, Monotonic]] = {}  # job a slot ran last, and since when
        self._others: dict[tuple[str, tuple[str, ...]], bool] = {}
        self._has_filled = False

    def assign(self, now: Monotonic) -> list[ev.Effect]:
        """Fill free slots as far as there is work for them."""
        books = self._books
        slots = books.slots
        if not slots.changed and not books.stirred:
            return []
        effects: list[ev.Effect] = []
        self._rank(now)
        if self._ranked:
            self._others.clear()
            self._has_filled = True
            while self._has_filled:  # a round of `--matching seed` fills queues of slots that were passed already
                self._has_filled = False
                effects += self._fill(0, slots.idle, now)
                effects += self._fill(1, slots.ahead, now)
        slots.changed.clear()
        books.stirred.clear()
        return effects

    def forget_job(self, job: str) -> None:
        """A job is over."""
        self._ranked_at = Monotonic(float("-inf"))
        for slot in [s for s, (name, _) in self._last.items() if name == job]:
            del self._last[slot]

    # ---- order ---------------------------------------------------------------------------------------------------------
    def _rank(self, now: Monotonic) -> None:
        """Sort each user's jobs that have something to hand out."""
        if now - self._ranked_at < RANK_EVERY_S and not self._books.stirred:
            return
        self._ranked_at = now
        self._ranked = {}
        for job in self._books.active.values():
            if job.is_open and job.has_work:
                self._ranked.setdefault(job.spec.owner, []).append(job)
        self._books.share.note_active(self._ranked)
        for jobs in self._ranked.values():
            if len(jobs) > 1:
                jobs.sort(key=lambda j: own_rank(queued(j), now))

    # ---- filling -------------------------------------------------------------------------------------------------------
    def _fill(self, depth: int, free: set[SlotKey], now: Monotonic) -> list[ev.Effect]:
        books = self._books
        todo = free if books.stirred else free & books.slots.changed
        if not todo:
            return []
        workers = books.slots.workers
        proposals: list[_Proposal] = []
        for slot in sorted(todo, key=lambda s: (-workers[s[0]].speed, s)):
            found = self._propose(slot, depth, now)
            if found is not None:
                proposals.append(found)
            elif not any(j.has_work for jobs in self._ranked.values() for j in jobs):
                break
        return [self._send(p, now) for p in self._match(proposals)]

    def _propose(self, slot: SlotKey, depth: int, now: Monotonic) -> _Proposal | None:
        """The next batch for this slot, or None."""
        books = self._books
        only = None if slot in books.slots.changed else books.stirred
        worker = books.slots.workers[slot[0]]
        if depth and not self._is_short(slot, worker, now):
            return None
        users = sorted(self._ranked, key=books.share.rank) if len(self._ranked) > 1 else list(self._ranked)
        order = self._ranked[users[0]] if len(users) == 1 else [job for user in users for job in self._ranked[user]]
        if len(order) > 1:
            order = self._stay(slot, order, now)
        for job in order:
            if not (job.is_open and job.has_work) or (only is not None and job.id not in only):
                continue
            if not books.is_able(job, worker):
                continue
            batch, is_fixed = self._batch_for(job, slot, worker, depth)
            if batch is not None:
                return _Proposal(slot, job, batch, books.charge(job, slot, batch, now), is_fixed)
        return None

    def _stay(self, slot: SlotKey, order: list[JobRun], now: Monotonic) -> list[JobRun]:
        """Move the job that this slot has a warm child for to the front, unless it has had its moment or is outranked."""
        job_id, since = self._last.get(slot, ("", now))
        job = self._books.active.get(job_id)
        if job is None or order[0] is job or now - since >= STICK_S or not (job.is_open and job.has_work) or job not in order:
            return order
        for other in order:
            if other is job or not other.has_work:
                continue
            is_new = other.model.batches == 0 and not self._books.leases.has_job(other.id)
            if is_new or (other.spec.owner == job.spec.owner and other.spec.priority > job.spec.priority):
                return order
        return [job, *(j for j in order if j is not job)]

    def _is_short(self, slot: SlotKey, worker: WorkerRun, now: Monotonic) -> bool:
        """Whether what the slot runs is known to end soon: then a batch may wait behind it, whatever that one is."""
        books = self._books
        running = books.leases.running(slot)
        job = None if running is None else books.active.get(running.job)
        if running is None or job is None or running.running_since is None:
            return False
        batch = books.notes[running.token].batch
        usual = job.model.predict_us(batch.count, batch.size_bytes, batch.cost)
        return usual is not None and max(usual / worker.speed, (now - running.running_since) * 1e6) <= AHEAD_MAX_US

    def _batch_for(self, job: JobRun, slot: SlotKey, worker: WorkerRun, depth: int) -> tuple[Batch | None, bool]:
        """A batch, and whether it is meant for this very slot."""
        slots = self._books.slots
        share = max(1, slots.total)

        def is_fit(batch: Batch) -> bool:
            is_avoided = worker.spec.id in batch.avoid or worker.spec.origin in batch.avoid
            return not is_avoided or not self._has_other(job, batch.avoid)

        if worker.is_on_probation:
            return job.next_batch(share, worker.speed, is_fit, at_most=1), True
        if job.seeding is None:
            waits = len(job.again)
            return job.next_batch(share, worker.speed, is_fit), waits > 0
        again = job.again.take(is_fit, lambda b: b.count)
        if again is not None:
            return again, True
        job.seeding.keep_only({(w.spec.id, n) for w in slots.workers.values() if self._books.is_able(job, w) for n in range(w.own_slots)})
        batch, filled = job.seeding.next_for(slot, is_idle=depth == 0, make=lambda: job.fresh_batch(share, 1.0), speeds=self._speeds)
        for other in filled & (slots.idle | slots.ahead):
            slots.changed.add(other)
            self._has_filled = True
        return batch, True

    def _speeds(self) -> dict[SlotKey, float]:
        return {(w.spec.id, n): w.speed for w in self._books.slots.workers.values() if w.takes_work for n in range(w.own_slots)}

    def _has_other(self, job: JobRun, avoid: tuple[str, ...]) -> bool:
        """Whether a worker that is here can take what failed on these."""
        key = (job.id, avoid)
        if key not in self._others:
            books = self._books
            self._others[key] = any(
                w.spec.id not in avoid and w.spec.origin not in avoid and w.takes_work and books.is_able(job, w)
                for w in books.slots.workers.values()
            )
        return self._others[key]

    # ---- matching ------------------------------------------------------------------------------------------------------
    def _match(self, proposals: list[_Proposal]) -> list[_Proposal]:
        """Exchange batches of one job between slots, so that fast slots get large ones (stable marriages on z-scores)."""
        by_job: dict[str, list[_Proposal]] = {}
        for proposal in proposals:
            if not proposal.is_fixed:
                by_job.setdefault(proposal.job.id, []).append(proposal)
        for group in by_job.values():
            for at in range(0, len(group), MAX_MATCHED):
                self._exchange(group[at : at + MAX_MATCHED])
        return proposals

    def _exchange(self, group: list[_Proposal]) -> None:
        speeds = [self._books.slots.workers[p.slot[0]].speed for p in group]
        weights = [self._weight(p) for p in group]
        if len(group) < 2 or min(speeds) == max(speeds) or min(weights) == max(weights):
            return
        matched = stable_match(list(enumerate(speeds)), list(enumerate(weights)))
        batches = [(p.batch, p.charged_s) for p in group]
        for place, chosen in matched.items():
            group[place].batch, group[place].charged_s = batches[chosen]

    @staticmethod
    def _weight(proposal: _Proposal) -> float:
        """How much work a batch is: predicted time where there is a prediction, else bytes."""
        batch = proposal.batch
        predicted = proposal.job.model.predict_us(batch.count, batch.size_bytes, batch.cost)
        return float(batch.size_bytes) if predicted is None or not isinstance(proposal.job.batcher, Adaptive) else predicted

    def _send(self, proposal: _Proposal, now: Monotonic) -> ev.Effect:
        slot, job = proposal.slot, proposal.job
        last = self._last.get(slot)
        is_warm = last is not None and last[0] == job.id
        if not is_warm or (last is not None and now - last[1] >= STICK_S):
            self._last[slot] = (job.id, now)
        return self._books.lease(job, slot, proposal.batch, now, charged_s=proposal.charged_s, is_warm=is_warm)


def queued(job: JobRun) -> QueuedJob:
    """A job as the queue's rules see it."""
    return QueuedJob(
        id=job.id, owner=job.spec.owner, priority=job.spec.priority, submitted_at=job.added_at, expected_s=job.expected_s,
        wants_slot=job.has_work,
    )  # fmt: skip
