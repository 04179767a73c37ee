"""Fragment path 4/9 - the end of a job: what waits behind a long batch is asked back, what runs late is copied (pure).

When slots idle and nothing is left to hand out, a batch that has not begun is recalled for one of them, and the latest running
lease is copied to one; the first result wins. A copy that takes just as long clears its worker and is withdrawn: the fragment
is long, and nobody else is bothered with it. Copies cost at most a twentieth of the job's work, but for the first.
`--failure seed-z4` is the papers' rule instead: a late lease is taken away, and its worker gets none of the job for a while.

Source: backup tasks: Dean, Ghemawat 2004, section 3.6; giving queues back: algorithms page, Matching.
"""

from __future__ import annotations

from company.chief import events as ev
from company.chief.books import Books, LeaseNote
from company.chief.jobrun import JobRun
from company.chief.leases import Lease, SlotKey
from p2p.base.clock import Monotonic

LOOK_EVERY_S = 0.05  # a look costs a few microseconds per lease
RECALL_AFTER_S = 0.05  # a batch ahead that has waited this long: an idle slot would have begun it by now
RECALL_WORTH_S = 0.3  # about what a new child costs on a busy machine
BACKUP_SHARE = 0.05  # of the job's run time may be spent on copies
MAX_CHASED = 3  # --failure seed-z4 takes the same fragments away this often; the papers' rule has no end
KICK_S = 30.0  # how long --failure seed-z4 keeps a worker from the job


class Tail:
    """Looks after running leases while slots idle. All state is in the books, but for when to look next."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._looked_at = Monotonic(float("-inf"))
        self._due: Monotonic | None = None

    def next_deadline(self) -> Monotonic | None:
        """When to look again, None while there is nothing to look after."""
        return self._due

    def notice(self) -> None:
        """Something happened: look soon, if there is anything to look after."""
        books = self._books
        if self._due is None or self._due > self._looked_at + LOOK_EVERY_S:
            has_tail = bool(books.slots.idle or books.fencing or books.copies)
            self._due = Monotonic(self._looked_at + LOOK_EVERY_S) if has_tail and len(books.leases) else None

    def look(self, now: Monotonic) -> list[ev.Effect]:
        """Recall, copy, withdraw or fence what is due."""
        if self._due is None or now < self._due:
            return []
        self._looked_at = now
        self._due = None
        books = self._books
        effects: list[ev.Effect] = []
        times: list[float] = []
        free = sorted(books.slots.idle)
        late: list[tuple[float, int]] = []
        for lease in books.leases:
            job = books.jobs.get(lease.job)
            note = books.notes.get(lease.token)
            if job is None or note is None or lease.token in books.orphans:
                continue
            due = self._due_of(job, lease, note)
            if due is None:
                continue
            if now < due:
                times.append(due)
            else:
                late.append((due, lease.token))
        for _, token in sorted(late):
            effects += self._act(token, free, now)
        if effects:
            self._due = Monotonic(now + LOOK_EVERY_S)  # what was just begun has a time of its own
        elif times and (free or books.fencing or books.copies):
            self._due = Monotonic(max(min(times), now + LOOK_EVERY_S))
        return effects

    # ---- when ----------------------------------------------------------------------------------------------------------
    def _due_of(self, job: JobRun, lease: Lease, note: LeaseNote) -> float | None:
        """When something is to be done about this lease, as far as is known now."""
        if lease.running_since is None:
            return None if note.is_recalled or job.paused else max(lease.granted_at + RECALL_AFTER_S, self._worth_at(job, lease))
        if note.copy is not None or note.is_long or (job.paused and note.original is None):
            return None
        if job.slowness.fences and note.batch.attempt >= MAX_CHASED:
            return None
        if note.original is None:
            after = job.slowness.slow_after_s(note.predicted_s, note.batch.attempt)
            return None if after is None else lease.running_since + after
        usual = note.predicted_s or 0.0
        budget = max(2 * usual, (BACKUP_SHARE * job.run_us - job.copied_us) / 1e6)
        return lease.running_since + min(budget, job.slowness.slow_after_s(note.predicted_s, 0) or budget)

    def _worth_at(self, job: JobRun, lease: Lease) -> float:
        """From when on asking it back is worth the child that ends when the batch stands in its pipe.

        At a job's end that child has nothing left to do. Where more may come, the one that it waits behind must have long to go.
        """
        books = self._books
        ahead = books.leases.running(lease.slot)
        if job.unbatched == 0 or ahead is None or ahead.running_since is None:
            return float("-inf")
        usual = books.notes[ahead.token].predicted_s or 0.0
        return lease.granted_at if usual >= RECALL_WORTH_S else ahead.running_since + RECALL_WORTH_S

    # ---- what ----------------------------------------------------------------------------------------------------------
    def _act(self, token: int, free: list[SlotKey], now: Monotonic) -> list[ev.Effect]:
        books = self._books
        lease = books.leases.get(token)
        job = None if lease is None else books.jobs.get(lease.job)
        if lease is None or job is None:
            return []
        note = books.notes[token]
        if lease.running_since is None:
            return self._recall(job, lease, note, free)
        if job.slowness.fences:
            return self._fence(job, lease, now)
        if note.original is not None:
            return self._withdraw(lease, note, now)
        return self._copy(job, lease, note, free, now)

    def _recall(self, job: JobRun, lease: Lease, note: LeaseNote, free: list[SlotKey]) -> list[ev.Effect]:
        """Ask a batch ahead back for an idle slot that may run it."""
        slot = self._free_for(job, free, but_not=None)
        if slot is None:
            return []
        free.remove(slot)
        note.is_recalled = True
        return [ev.SendRecall(worker=lease.worker, token=lease.token)]

    def _copy(self, job: JobRun, lease: Lease, note: LeaseNote, free: list[SlotKey], now: Monotonic) -> list[ev.Effect]:
        """Run what is left of a late lease on an idle slot of another worker too."""
        books = self._books
        rest = books.leases.unfinished(lease.token)
        slot = self._free_for(job, free, but_not=lease.worker)
        if slot is None or not rest or lease.running_since is None:
            return []
        first, count = rest[0]
        if count > 1:  # the first of them is what it is at; those behind it have not begun
            first, count = first + 1, count - 1
        batch = note.batch.part(first, count)
        usual = books.predict_us(job, slot, batch) or 0.0
        cost_us = max(usual, (now - lease.running_since) * 1e6 if count == 1 else 0.0)
        if not self._is_affordable(job, cost_us, now):
            return []
        free.remove(slot)
        charged = books.charge(job, slot, batch, now)
        effect = books.lease(job, slot, batch, now, charged_s=charged)
        copy = books.notes[effect.token]
        copy.original, copy.is_copy, note.copy = lease.token, True, effect.token
        books.copies.add(effect.token)
        job.doubled.add(first, count)
        slow, other = (books.slots.workers[w].spec.name for w in (lease.worker, slot[0]))
        text = f"{count} fragments from {first} on are late on {slow}; {other} runs them too, the first result counts."
        return [effect, ev.Tell(job=job.id, kind="copied", text=text)]

    def _is_affordable(self, job: JobRun, cost_us: float, now: Monotonic) -> bool:
        books = self._books
        running = [self._may_cost_us(lease, now) for lease in books.leases.of_job(job.id) if lease.token in books.copies]
        if not running and job.copied_us == 0:
            return True
        return job.copied_us + sum(running) + cost_us <= BACKUP_SHARE * job.run_us

    def _may_cost_us(self, copy: Lease, now: Monotonic) -> float:
        """A copy may take as long as it has run, as is usual, or as its original has run: counted from its start, not its end."""
        note = self._books.notes[copy.token]
        original = None if note.original is None else self._books.leases.get(note.original)
        since = [x.running_since for x in (copy, original) if x is not None and x.running_since is not None]
        return max([note.predicted_s or 0.0, *(now - at for at in since)]) * 1e6

    def _withdraw(self, lease: Lease, note: LeaseNote, now: Monotonic) -> list[ev.Effect]:
        """A copy is as late as its original: that worker is well, and the fragment long."""
        books = self._books
        if note.original is not None:
            books.notes[note.original].is_long = True
        books.give_back(lease, now)
        return [ev.SendCancel(worker=lease.worker, token=lease.token, reason="long-fragment")]

    def _fence(self, job: JobRun, lease: Lease, now: Monotonic) -> list[ev.Effect]:
        """seed-z4: the worker has failed; all it holds of this job goes elsewhere."""
        books = self._books
        job.kicked[lease.worker] = Monotonic(now + KICK_S)
        effects: list[ev.Effect] = []
        for held in books.leases.of_worker(lease.worker):
            if held.job == job.id:
                effects.append(ev.SendCancel(worker=held.worker, token=held.token, reason="too-slow"))
                if held.running_since is not None:
                    # It took at least that: a rule that never saw late answers would kick for ever.
                    job.slowness.observe(None, now - held.running_since)
                books.give_back(held, now, attempt=held.attempt + (held.running_since is not None))
        books.forget_ability()
        name = books.slots.workers[lease.worker].spec.name
        text = f"{name} was more than four standard deviations late: it gets none of this job for {KICK_S:g} s."
        return [*effects, ev.Tell(job=job.id, kind="worker-kicked", text=text)]

    def _free_for(self, job: JobRun, free: list[SlotKey], *, but_not: str | None) -> SlotKey | None:
        """The first idle slot that may run the job."""
        books = self._books
        was = "" if but_not is None else books.slots.workers[but_not].spec.origin
        for slot in free:
            worker = books.slots.workers[slot[0]]
            is_same_company = bool(was) and worker.spec.origin == was  # two copies in one company say no more than one
            if slot[0] != but_not and not is_same_company and slot in books.slots.idle and books.is_able(job, worker):
                return slot
        return None
