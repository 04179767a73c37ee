"""Why a job is where it is, in words, with facts and what can be done (pure, B4).

Said at the moment of asking from the state as it is, never stored, so that it is never out of date.
"""

from __future__ import annotations

from company.chief import staying
from company.chief.books import Books
from company.chief.eligible import why_not
from company.chief.events import OwnWorker
from company.chief.jobrun import JobRun
from company.chief.lifecycle import MAX_ACTIVE_JOBS, MAX_OPEN_SPLITS
from p2p.base.errors import Action, Reason

ADD_WORKER = Action("add a worker", "company token create --role worker")
SEE_WORKERS = Action("see the workers", "company worker list")
TAKE_BACK = Action("take every slot back within seconds", "company lend stop --now")
LOOK = Action("see what its machine can do", "company doctor")
MAX_NAMED = 5  # workers or jobs named in one sentence


class Reasons:
    """Explains live jobs."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def of(self, job: JobRun) -> Reason | None:
        """The reason for the state of a live job."""
        if job.paused:
            return self._paused(job)
        match job.phase:
            case "queued":
                return self._queued(job)
            case "splitting" | "running":
                return self._running(job)
            case "merging":
                facts = {"results": job.done.total, "failed": job.dead.total}
                return Reason("merging", f"All fragments are settled; merge is reading {job.done.total} results.", facts, (_follow(job),))
            case _:
                return job.ended_reason

    def _paused(self, job: JobRun) -> Reason:
        said = job.pause_reason.text if job.pause_reason is not None else "Paused by its owner."
        running = sum(1 for x in self._books.leases.of_job(job.id) if x.running_since is not None)
        more = f" {running} batches that had begun still finish." if running else ""
        return Reason("paused", said + more, {"batches_running": running}, (Action("let it go on", f"company job resume {job.id}"),))

    def _queued(self, job: JobRun) -> Reason:
        books = self._books
        before = books.line.place(job.id)
        opened = sum(1 for j in books.active.values() if j.split == "running")
        facts = {"jobs_active": len(books.active), "own_jobs_before": before, "limit": min(MAX_ACTIVE_JOBS, MAX_OPEN_SPLITS)}
        actions = (_hurry(job), Action("see what runs", "company job list"))
        text = f"{opened} jobs are making fragments and {len(books.active)} have begun; it begins when one of them ends"
        return Reason("waiting-for-turn", f"{text}, after {before} of its owner's jobs." if before else f"{text}.", facts, actions)

    def _running(self, job: JobRun) -> Reason:
        books = self._books
        if books.disk_full:
            free = Action("free space on the chief's disk; the job goes on by itself", "company doctor")
            return Reason("storage-full", "The chief's disk is full: results cannot be written, so nothing is handed out.", {}, (free,))
        mine = books.leases.of_job(job.id)
        here = [x for x in mine if x.token not in books.orphans]
        if here:
            workers = sorted({books.slots.workers[x.worker].spec.name for x in here})
            slots = len({x.slot for x in here})
            facts = {"batches": len(here), "slots": slots, "workers": len(workers), "fragments": sum(x.count for x in here)}
            return Reason("running", f"{slots} slots of {_named(workers)} work on it.", facts, (_follow(job),))
        if books.hold_until is not None:
            awaited = sorted(books.awaited)
            text = f"The chief has just started and waits a moment for {len(awaited)} workers that may still hold work of before."
            return Reason("waiting-for-workers", text, {"workers": len(awaited)}, (SEE_WORKERS,))
        if not job.has_work:
            return self._without_work(job, away=len(mine))
        return self._unplaced(job)

    def _without_work(self, job: JobRun, *, away: int) -> Reason:
        books = self._books
        if job.split == "running" and job.spec.is_stream:
            text = f"All {job.produced} calls so far are settled or on their way; its client may send more."
            return Reason("waiting-for-calls", text, {"calls": job.produced, "settled": job.settled}, (_logs(job),))
        if job.split == "running" and not job.produced:
            return Reason("splitting", "split has begun and not yet made a fragment.", {"fragments": 0}, (_logs(job),))
        if job.split == "running":
            facts = {"fragments": job.produced, "settled": job.settled}
            return Reason(
                "waiting-for-split", f"All {job.produced} fragments made so far are settled or on their way; split is making more.", facts,
                (_logs(job),),
            )  # fmt: skip
        away += len(books.long.of_job(job.id))
        if away:
            return Reason("worker-away", "The last fragments are held by a worker that is away.", {"batches": away}, (SEE_WORKERS,))
        if job.foreign.is_open:
            waiting = {"provisional": job.foreign.waiting, "companies": sorted(job.foreign.provisional)}
            text = f"{job.foreign.waiting} results of other companies wait until enough of them were computed again here."
            return Reason("checking-results", text, waiting, (_follow(job),))
        facts = {"uncommitted": job.uncommitted}
        return Reason("finishing", f"{job.uncommitted} results are being written to disk.", facts, (_follow(job),))

    def _unplaced(self, job: JobRun) -> Reason:
        """There is work, and no slot has any of it."""
        books = self._books
        here = [w for w in books.slots.workers.values() if w.connected]
        if job.id in books.staying and books.give_up_at is not None:
            return staying.waits(job)
        if not here:
            away = sorted(books.slots.workers[w].spec.name for w in books.slots.away)
            if away:
                text = f"No worker is connected; {_named(away)} went away moments ago and may come back."
                return Reason("no-workers", text, {"workers": 0, "away": len(away)}, (SEE_WORKERS, ADD_WORKER))
            if books.own is not None:
                return own_reason(books.own)
            return Reason("no-workers", "No worker is connected.", {"workers": 0}, (ADD_WORKER,))
        refusals = [r for w in sorted(here, key=lambda w: w.spec.id) if (r := why_not(job, w)) is not None]
        if len(refusals) == len(here):
            first = refusals[0]
            more = f" ({len(refusals) - 1} more workers cannot either.)" if len(refusals) > 1 else ""
            facts = {**first.facts, "workers": len(refusals), "codes": sorted({r.code for r in refusals})}
            return Reason(first.code, f"No worker can take it: {first.text}{more}", facts, (*first.actions, ADD_WORKER))
        able = [w for w in here if books.is_able(job, w)]
        trial = sorted(w.spec.name for w in able if w.is_on_probation)
        if len(trial) == len(able):
            text = f"{_named(trial)} fell silent several times in a row and must finish one fragment before it gets more."
            return Reason("worker-on-probation", text, {"workers": len(trial)}, (SEE_WORKERS, ADD_WORKER))
        if all(books.slots.is_resting(w.spec.id) for w in able):
            names = sorted(w.spec.name for w in able)
            text = f"{_named(names)} gave work back because it could not start a sandbox; it is asked again soon."
            return Reason("worker-resting", text, {"workers": len(names)}, (LOOK, ADD_WORKER))
        if not any(w.own_slots for w in able):
            lent = sum(w.lent for w in able)
            what = "The slot that could run it is" if lent == 1 else f"All {lent} slots that could run it are"
            text = f"{what} lent to other companies, until their contracts end or you take slots back."
            return Reason("slots-lent", text, {"slots": lent, "workers_able": len(able)}, (TAKE_BACK, ADD_WORKER))
        others = sorted({x.job for x in books.leases if x.job != job.id})
        facts = {"slots": books.slots.total, "workers_able": len(able), "jobs_running": len(others)}
        busy = f"Every slot that could run it is busy with {_named(others) if others else 'other work'}."
        return Reason("slots-busy", busy, facts, (_hurry(job), ADD_WORKER))


def own_reason(own: OwnWorker) -> Reason:
    """Why nobody works although the chief has a worker of its own."""
    slots = f"{own.slots} slot{'s' if own.slots != 1 else ''}"
    if own.ended is not None:
        text = f"The chief's own worker ({slots}) ended with status {own.ended} and is started again; the chief's log has its last words."
        return Reason("own-worker-ended", text, {"workers": 0, "slots": own.slots, "status": own.ended}, (LOOK, ADD_WORKER))
    text = f"The chief's own worker ({slots}) is starting and not connected yet."
    return Reason("own-worker-starting", text, {"workers": 0, "slots": own.slots}, (SEE_WORKERS,))


def _hurry(job: JobRun) -> Action:
    return Action("let it go before your other jobs", f"company job edit {job.id} --priority 10")


def _logs(job: JobRun) -> Action:
    return Action("see its output", f"company job logs {job.id}")


def _follow(job: JobRun) -> Action:
    return Action("follow it", f"company job watch {job.id}")


def _named(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    return f"{shown} and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else shown
