"""A job's way from submission to its end, split and merge included: the part of `ChiefState` that moves phases (pure).

queued → splitting → running → merging → done | failed; cancelled from anywhere. Events of tasks that ended in the meantime (a split
that was stopped, a merge of a cancelled job) may still come: they find no live job and change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from company.chief import events as ev
from company.chief import staying
from company.chief.assign import Assigner
from company.chief.books import Books
from company.chief.jobrun import ENDED, JobRun
from company.chief.retries import MaxFails
from p2p.base.clock import Monotonic
from p2p.base.errors import Action, InvariantBroken, Reason

MAX_OPEN_SPLITS = 16  # split children at once; each holds a sandbox and a window
KEPT_SPLITS = 4  # of them are kept for users who have no job running
MAX_ACTIVE_JOBS = 64  # jobs whose fragments may be in memory
EDITABLE = frozenset({"priority", "max_fails", "time_limit_s", "memory_bytes", "retries"})
Ended = Literal["done", "failed", "cancelled"]


class Lifecycle:
    """Handles every event that is about one job as a whole."""

    def __init__(self, books: Books, assigner: Assigner) -> None:
        self._books = books
        self._assigner = assigner

    # ---- wishes --------------------------------------------------------------------------------------------------------
    def added(self, event: ev.JobAdded, now: Monotonic) -> list[ev.Effect]:
        books = self._books
        if event.spec.id in books.jobs:
            raise InvariantBroken(f"job {event.spec.id} was added twice")
        job = JobRun.from_disk(event, now)
        books.jobs[job.id] = job
        for row in books.long.job_added(job.id):
            for first, count in job.unsettled(row.first, row.count):
                job.held_back.add(first, count)
        books.set_active(job)
        return []

    def changed(self, event: ev.JobChanged, now: Monotonic) -> list[ev.Effect]:
        job = self._books.job(event.job)
        if job is None or job.phase in ENDED:
            return []
        match event.action:
            case "pause":
                return self._pause(job, event.reason, now)
            case "resume":
                return self._resume(job, now)
            case "cancel":
                return self.end(job, "cancelled", Reason("cancelled", event.reason or "Cancelled by its owner."), now)
            case "edit":
                return self._edit(job, event.args, now)
            case other:
                raise InvariantBroken(f"unknown job action {other}")

    def _pause(self, job: JobRun, why: str, now: Monotonic) -> list[ev.Effect]:
        """Batches that run may finish; those ahead are asked back."""
        if job.paused:
            return []
        if job.phase == "merging":
            return [ev.Tell(job=job.id, kind="not-paused", text="All fragments are done and merge is running: there is nothing to pause.")]
        books = self._books
        job.paused, job.paused_at = True, now
        job.pause_reason = Reason("paused", why or "Paused by its owner.")
        books.set_active(job)
        effects: list[ev.Effect] = []
        for lease in books.leases.of_job(job.id):
            note = books.notes[lease.token]
            if lease.running_since is None and not note.is_recalled:
                note.is_recalled = True
                effects.append(ev.SendRecall(worker=lease.worker, token=lease.token))
        return [*effects, ev.SaveJob(job=job.id), ev.Tell(job=job.id, kind="paused", text=job.pause_reason.text)]

    def _resume(self, job: JobRun, now: Monotonic) -> list[ev.Effect]:
        if not job.paused:
            return []
        job.paused = False
        if job.paused_at is not None:
            job.added_at = Monotonic(job.added_at + (now - job.paused_at))  # time spent paused is no waiting
        job.paused_at = job.pause_reason = None
        self._books.set_active(job)
        return [ev.SaveJob(job=job.id), ev.Tell(job=job.id, kind="resumed", text="Resumed.")]

    def _edit(self, job: JobRun, args: Mapping[str, Any], now: Monotonic) -> list[ev.Effect]:
        job.spec = replace(job.spec, **{k: v for k, v in args.items() if k in EDITABLE})
        job.book.allow(job.spec.retries)
        self._books.forget_ability()
        self._books.set_active(job)
        return [ev.SaveJob(job=job.id), *self.check_max_fails(job, now)]

    # ---- split ---------------------------------------------------------------------------------------------------------
    def counted(self, event: ev.SplitCounted) -> list[ev.Effect]:
        job = self._books.job(event.job)
        if job is not None:
            job.expected = event.total
        return []

    def produced(self, event: ev.SplitProduced, now: Monotonic) -> list[ev.Effect]:
        job = self._books.job(event.job)
        if job is None or job.split != "running":
            return []
        job.add_fragments(event.first, event.sizes, event.costs)
        self._books.stirred.add(job.id)
        if job.phase != "splitting":
            return []
        job.phase = "running"
        job.started = job.started if job.started is not None else now
        self._books.touched.add(job.id)
        return [ev.SaveJob(job=job.id)]

    def split_ended(self, event: ev.SplitEnded, now: Monotonic) -> list[ev.Effect]:
        job = self._books.job(event.job)
        if job is None or job.split != "running":
            return []
        if event.total != job.produced:
            reason = Reason(
                "split-miscounted", f"split said {event.total} fragments and yielded {job.produced}.",
                {"said": event.total, "yielded": job.produced}, (Action("run it once more", f"company job retry {job.id}"),),
            )  # fmt: skip
            return self.end(job, "failed", reason, now)
        job.split = "ended"
        job.total = event.total
        job.phase = "running"
        job.started = job.started if job.started is not None else now
        self._books.set_active(job)
        beyond = [x for x in self._books.leases.of_job(job.id) if x.first + x.count > event.total]  # adopted, of a longer split
        for lease in beyond:
            self._books.give_back(lease, now)
        told = ev.Tell(job=job.id, kind="split-ended", text=f"split made {event.total} fragments.")
        cancels = [ev.SendCancel(worker=x.worker, token=x.token, reason="range-differs") for x in beyond]
        return [ev.SaveJob(job=job.id), told, *cancels, *self.check_max_fails(job, now)]

    def split_failed(self, event: ev.SplitFailed, now: Monotonic) -> list[ev.Effect]:
        job = self._books.job(event.job)
        return [] if job is None else self.end(job, "failed", event.reason, now)

    def split_differs(self, event: ev.SplitDiffers, now: Monotonic) -> list[ev.Effect]:
        """Results of two splits must never be mixed: once the job starts over, then it fails."""
        job = self._books.job(event.job)
        if job is None or not job.is_active:
            return []
        if job.restarts >= 1:
            reason = Reason(
                "split-not-deterministic",
                "split yielded other fragments each time it ran, so results of different runs would be mixed.",
                {"restarts": job.restarts},
                (Action("make split depend on its data and parameters only (sort what it lists, seed its randomness)"),),
            )
            return self.end(job, "failed", reason, now)
        effects: list[ev.Effect] = [ev.StopSplit(job=job.id), *self._drop_leases(job, "job-starts-over", now)]
        job.start_over(self._books.leases.last_token)
        self._books.set_active(job)
        text = "split yielded other fragments than before: the job starts over once."
        return [*effects, ev.DropResults(job=job.id), ev.SaveJob(job=job.id), ev.Tell(job=job.id, kind="starts-over", text=text)]

    # ---- results on disk, merge ----------------------------------------------------------------------------------------
    def committed(self, event: ev.Committed) -> list[ev.Effect]:
        """Commits come in the order of acceptance, so those of before a start-over come first."""
        job = self._books.job(event.job)
        if job is None:
            return []
        count = sum(n for _, n in event.ranges)
        stale = min(count, job.stale_commits)
        job.stale_commits -= stale
        job.uncommitted -= count - stale
        if job.uncommitted == 0:
            self._books.touched.add(job.id)
        return [] if stale else [ev.FreeWindow(job=job.id, ranges=event.ranges)]

    def merge_ended(self, event: ev.MergeEnded, now: Monotonic) -> list[ev.Effect]:
        job = self._books.job(event.job)
        return self.end(job, "done", None, now) if job is not None and job.phase == "merging" else []

    def merge_failed(self, event: ev.MergeFailed, now: Monotonic) -> list[ev.Effect]:
        job = self._books.job(event.job)
        return self.end(job, "failed", event.reason, now) if job is not None and job.phase == "merging" else []

    # ---- other companies -----------------------------------------------------------------------------------------------
    def judged(self, event: ev.AbroadJudged) -> list[ev.Effect]:
        """Whether answers of the job can be compared at all."""
        job = self._books.job(event.job)
        if job is None:
            return []
        job.foreign.caught.update(event.caught)
        if job.foreign.abroad is event.may:
            return []
        job.foreign.abroad, job.foreign.why = event.may, event.why
        self._books.forget_ability()
        if not event.may:
            self._books.staying.add(job.id)
        text = "Two own runs agree: other companies may compute it." if event.may else f"It stays at home: {event.why}"
        return [ev.Tell(job=job.id, kind="abroad", text=text)]

    def believed(self, event: ev.Believed) -> list[ev.Effect]:
        """Provisional results count from now on."""
        job = self._books.job(event.job)
        if job is not None and job.foreign.believe(event.origin):
            self._books.touched.add(job.id)
        return []

    def set_aside(self, event: ev.JobSetAside, now: Monotonic) -> list[ev.Effect]:
        """Leases end, split stops, the machine knows it no more."""
        books = self._books
        job = books.job(event.job)
        if job is None:
            return []
        effects = self._drop_leases(job, "job-starts-over", now)
        job.phase = "cancelled"  # for whoever still holds it
        job.drop_work()
        books.set_active(job)
        del books.jobs[job.id]
        books.stirred.discard(job.id)
        books.touched.discard(job.id)
        self._assigner.forget_job(job.id)
        return [*effects, ev.StopSplit(job=job.id)]

    # ---- ends ----------------------------------------------------------------------------------------------------------
    def check_max_fails(self, job: JobRun, now: Monotonic) -> list[ev.Effect]:
        """End the job when more of its fragments failed for good than it allows."""
        if not job.dead.total or not MaxFails.parse(job.spec.max_fails).is_exceeded(failed=job.dead.total, total=job.total):
            return []
        index = next(iter(job.dead))[0]
        share = f" of {job.total}" if job.total is not None else ""
        reason = Reason(
            "too-many-failed",
            f"{job.dead.total} fragments{share} failed for good; {job.spec.max_fails} may.",
            {"failed": job.dead.total, "max_fails": job.spec.max_fails, "fragment": index},
            (
                Action("see what failed", f"company job failures {job.id}"),
                Action("run one here", f"company job reproduce {job.id}/{index}"),
                Action("allow more and go on", f"company job retry {job.id} --max-fails 10%"),
            ),
        )
        return self.end(job, "failed", reason, now)

    def end(self, job: JobRun, phase: Ended, reason: Reason | None, now: Monotonic) -> list[ev.Effect]:
        """Take a job to an end: leases are revoked at once, workers told, the row written."""
        if job.phase in ENDED:
            return []
        books = self._books
        effects = self._drop_leases(job, f"job-{phase}", now)
        job.phase, job.ended_reason, job.paused = phase, reason, False
        job.drop_work()
        books.set_active(job)
        del books.jobs[job.id]
        books.stirred.discard(job.id)
        books.touched.discard(job.id)
        self._assigner.forget_job(job.id)
        text = {"done": "Done.", "failed": "Failed.", "cancelled": "Cancelled."}[phase]
        over = ev.JobOver(job=job.id, phase=phase, reason=reason, total=job.total, done=job.done.total, failed=job.dead.total)
        return [*effects, ev.Tell(job=job.id, kind=phase, text=reason.text if reason else text), over]

    def _drop_leases(self, job: JobRun, why: str, now: Monotonic) -> list[ev.Effect]:
        effects: list[ev.Effect] = []
        self._books.long.let_go(job=job.id)
        for lease in self._books.leases.of_job(job.id):
            effects.append(ev.SendCancel(worker=lease.worker, token=lease.token, reason=why))
            self._books.release(lease, now)
        return effects

    # ---- going on ------------------------------------------------------------------------------------------------------
    def go_on(self, now: Monotonic) -> list[ev.Effect]:
        """Start what may start, merge what is complete."""
        books = self._books
        effects: list[ev.Effect] = []
        if books.staying:
            for name in staying.look(books, now):
                effects += self.end(books.jobs[name], "failed", staying.given_up(books.jobs[name]), now)
        touched, books.touched = sorted(books.touched), set()
        for name in touched:
            job = books.active.get(name)
            if job is None:
                continue
            if job.is_complete and not job.paused:
                effects += [*self._drop_leases(job, "done-elsewhere", now), *self._merge(job)]
            elif not job.merge_prepared and job.may_begin_merge(books.slots.total):
                job.merge_prepared = True
                effects.append(ev.PrepareMerge(job=job.id))
        if books.is_line_moved:
            books.is_line_moved = False
            effects += self._start_splits()
        return effects

    def _merge(self, job: JobRun) -> list[ev.Effect]:
        job.phase = "merging"
        self._books.set_active(job)
        text = f"{job.done.total} results are being merged."
        return [ev.SaveJob(job=job.id), ev.Tell(job=job.id, kind="merging", text=text), ev.StartMerge(job=job.id)]

    def _start_splits(self) -> list[ev.Effect]:
        """Let queued jobs begin while there is room for their windows. Paused and stuck jobs keep theirs, so some is kept for others."""
        books = self._books
        if not len(books.line):
            return []
        opened = sum(1 for j in books.active.values() if j.split == "running" and not j.spec.is_stream)
        busy = {j.spec.owner for j in books.active.values()}
        effects: list[ev.Effect] = []
        for user, name in list(books.line.in_order(books.share)):
            job = books.jobs[name]
            if len(books.active) >= MAX_ACTIVE_JOBS:
                break
            if opened >= MAX_OPEN_SPLITS - (KEPT_SPLITS if user in busy else 0) and not job.spec.is_stream:
                continue
            job.phase, job.split = "splitting", "running"
            books.set_active(job)
            opened += not job.spec.is_stream
            busy.add(user)
            effects += [ev.SaveJob(job=name), ev.StartSplit(job=name)]
        books.is_line_moved = False
        return effects
