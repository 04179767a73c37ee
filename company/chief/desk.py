"""Jobs as users handle them: submit, look, explain, change, wait, read results (I/O).

Part of the port `company.chief.facade.Chief`. Live jobs are read from the machine's memory, ended ones from their rows.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import trio
from sqlalchemy import Connection

from company import views
from company.chief import events as ev
from company.chief.call_stream import CallStream
from company.chief.commit import Committer
from company.chief.digests import SplitCheck
from company.chief.ended_jobs import Ended, load_jobs
from company.chief.engine import Engine
from company.chief.facade import Conflict, Invalid, NotFound, Principal, Refused
from company.chief.heatmap import cell_of, ranges_of
from company.chief.job_views import as_json, check_where, live_view, options_of, row_view
from company.chief.library import Library
from company.chief.result_check import forget_damaged
from company.chief.retries import MaxFails
from company.chief.runtime import JobRuntime, segment_id
from company.chief.secondment import worked
from company.chief.secondment.believed import is_shown, load_believed
from company.chief.secondment.showing import show_shares, show_slots
from company.chief.segments import LogStore, SegmentStore
from company.chief.store import failures, jobs, outcomes
from company.chief.store.jobs import JobRow
from company.chief.store.store import Store
from company.chief.storybook import Storybook
from company.paths import ChiefHome
from p2p.base.codec import CodecError, encode_value
from p2p.base.errors import UsageError

MAX_PARAMS_BYTES = 8 << 20
MAX_JOBS_WAITING = 10_000
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
_log = logging.getLogger("company.chief.jobs")


class JobDesk:
    """Everything a user can do with jobs."""

    def __init__(
        self, *, home: ChiefHome, store: Store, engine: Engine, committer: Committer, library: Library, story: Storybook,
        on_change: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self._home = home
        self._store = store
        self._engine = engine
        self._committer = committer
        self._library = library
        self._story = story
        self._on_change = on_change
        self.ended: dict[str, Ended] = {}  # in order of ending
        self._rng = np.random.default_rng(0)

    # ---- at start ---------------------------------------------------------------------------------------------------------
    async def load(self) -> int:
        """Read every job; put those that are not over back to work. Returns how many those are."""
        ended, live = await self._store.read(load_jobs)
        self.ended.update({job.row.id: job for job in ended})
        for row in live:
            await self._go_live(row, restarted=True)
        return len(live)

    async def go_live_again(self, row: JobRow, before: JobRuntime) -> None:
        """A job that was taken out of the machine goes on from its rows; who waits for its end goes on waiting."""
        await self._go_live(row, restarted=True, before=before)

    async def _go_live(self, row: JobRow, *, restarted: bool, before: JobRuntime | None = None) -> None:
        """Build the runtime and hand the job to the machine."""
        options = options_of(row)
        package = await self._library.load_package(row.package)
        data, data_name = await self._library.data_of(row.dataset)
        dirs = self._home.job(row.id).create()
        stream = None
        if options.stream:
            stream = CallStream(dirs.root / "calls", dirs.fragments)
            await trio.to_thread.run_sync(stream.open)
        segments = SegmentStore(dirs.results, segment_id(row.id))
        logs = LogStore(dirs.logs)
        finished: tuple[outcomes.OutcomeRow, ...] = ()
        failed: tuple[failures.FailureRow, ...] = ()
        foreign: tuple[tuple[str, int, int], ...] = ()
        guests: dict[str, str] = {}
        if restarted:
            guests = await self._store.read(lambda conn: worked.guests_of(conn, row.id))
            finished = await self._store.read(lambda conn: outcomes.load(conn, row.id))
            failed = await self._store.read(lambda conn: failures.load(conn, row.id))
            ends = await self._store.read(lambda conn: outcomes.committed_ends(conn, row.id))
            log_end = await self._store.read(lambda conn: outcomes.log_end(conn, row.id))
            found = await trio.to_thread.run_sync(segments.recover, ends)
            await trio.to_thread.run_sync(logs.recover, log_end)
            if found.damaged:
                _log.error("job %s: segments %s are damaged; their fragments run again", row.id, found.damaged)
                lost = set(found.damaged)
                bad = [r for r in finished if r.segment in lost]
                finished = tuple(r for r in finished if r.segment not in lost)
                await self._store.write(lambda conn: outcomes.forget(conn, row.id, [r.first for r in bad]))
            finished, foreign = await load_believed(self._store, row.id, finished)
        runtime = JobRuntime(
            row=row, dirs=dirs, files=package.files, processor=package.info.processor_digest, requirements=package.info.requirements,
            data=data, data_name=data_name, memory_bytes=options.memory_bytes or package.info.memory_bytes,
            time_limit_s=options.time_limit_s or package.info.time_limit_s, segments=segments, logs=logs,
            check=SplitCheck([(r.first, r.count, r.input_digest) for r in finished]), cpu_us=sum(r.cpu_us for r in finished),
            done_before=sum(r.count for r in finished), dead_before=frozenset(f.fragment for f in failed if f.final),
            stream=stream, guests=guests,
        )  # fmt: skip
        if before is not None:
            runtime.ended = before.ended
        self._engine.runtimes[row.id] = runtime
        spec = ev.JobSpec(
            id=row.id, owner=row.owner, package=row.package, processor=runtime.processor, dataset=row.dataset, name=row.name,
            priority=row.priority, max_fails=options.max_fails, time_limit_s=runtime.time_limit_s, memory_bytes=runtime.memory_bytes,
            batching=options.batching, matching=options.matching, failure=options.failure, retries=options.retries,
            requirements=runtime.requirements, python=package.info.python, is_stream=options.stream, borrow=options.borrow or "",
            created=row.created, where=options.where, is_private=(await self._library.dataset_row(row.dataset.hex())).private,
        )  # fmt: skip
        self._engine.post(
            ev.JobAdded(
                spec=spec, done=tuple((r.first, r.count) for r in finished), dead=tuple(f.fragment for f in failed if f.final),
                tries=tuple((f.fragment, f.tries, f.infra_tries) for f in failed), paused=row.paused, restarts=row.split_runs,
                total=row.fragments_total, waited_s=max(0.0, time.time() - row.created), believed=foreign,
            )
        )  # fmt: skip

    # ---- submitting -------------------------------------------------------------------------------------------------------
    async def submit(self, request: views.JobSubmit, *, by: Principal) -> views.JobView:
        """Check everything that can be checked now, write the job, start it."""
        if len(self._engine.state.jobs) >= MAX_JOBS_WAITING:
            raise Refused("too-many-jobs", f"{MAX_JOBS_WAITING} jobs are waiting already; cancel some or wait.")
        package = await self._library.package_row(request.package)
        dataset = await self._library.dataset_row(request.dataset)
        try:
            MaxFails.parse(request.max_fails)
            params = encode_value(request.params)
            self._library.check_params(package, request.params, where=request.where)
        except (CodecError, UsageError) as error:
            text = error.text if isinstance(error, UsageError) else str(error)
            raise Invalid("job-invalid", text, errors=[{"path": "params", "line": None, "detail": text}]) from None
        if len(params) > MAX_PARAMS_BYTES:
            raise Invalid("params-too-large", f"parameters may have {MAX_PARAMS_BYTES} bytes, got {len(params)}; put them into the dataset")
        check_where(request)
        if not -20 <= request.priority <= 20:
            raise Invalid("priority-out-of-range", f"priority must be -20..20, got {request.priority}")
        row = JobRow(
            id=self._new_id(), name=(request.name or package.name or "job")[:100], package=package.digest, dataset=dataset.digest,
            owner=by.name, params=params, options=as_json(request, package.manifest), priority=request.priority, created=time.time(),
        )  # fmt: skip
        await self._store.write(lambda conn: jobs.save(conn, row))
        self._story.tell(row.id, "submitted", f"Submitted by {by.name}: package {package.name}, dataset {dataset.name}.")
        await self._go_live(row, restarted=False)
        self._on_change("job", row.id)
        return self.job(row.id)

    def _new_id(self) -> str:
        while True:
            found = "j-" + "".join(secrets.choice(_ALPHABET) for _ in range(8))
            if found not in self.ended and found not in self._engine.runtimes:
                return found

    # ---- looking ----------------------------------------------------------------------------------------------------------
    def find(self, ref: str) -> str:
        """A job id from an id, a unique prefix, a name that one job has, or "last"."""
        ids = [*self.ended, *self._engine.runtimes]
        if ref in self.ended or ref in self._engine.runtimes:
            return ref
        if ref == "last" and ids:
            return max(ids, key=lambda i: self._row(i).created)
        found = [i for i in ids if i.startswith((ref, f"j-{ref}"))] if len(ref) >= 2 else []
        found = found or [i for i in ids if self._row(i).name == ref]
        if len(found) == 1:
            return found[0]
        if found:
            raise Conflict("ambiguous", f"{ref!r} fits {len(found)} jobs: {', '.join(sorted(found)[:5])} ...")
        raise NotFound("job-unknown", f"There is no job {ref!r}.", hint="company job list")

    def _row(self, job: str) -> JobRow:
        runtime = self._engine.runtimes.get(job)
        return runtime.row if runtime is not None else self.ended[job].row

    def job(self, ref: str) -> views.JobView:
        return self._view(self.find(ref))

    def _view(self, job_id: str) -> views.JobView:
        runtime = self._engine.runtimes.get(job_id)
        live = self._engine.state.jobs.get(job_id)
        if runtime is not None and live is None:  # taken out of the machine for a moment
            return row_view(runtime.row, names=self._names(runtime.row), done=0, failed=0)
        if runtime is None or live is None:
            ended = self.ended[job_id]
            view = row_view(ended.row, names=self._names(ended.row), done=ended.done, failed=ended.failed)
            show_shares(view, ended.worked)
            return view
        leases, workers = self._engine.state.leases, self._engine.state.slots.workers
        leased = sum(n for x in leases.of_job(job_id) for _, n in leases.unfinished(x.token))
        slots = self._engine.state.slots.total
        view = live_view(live, runtime, names=self._names(runtime.row), leased=leased, slots=slots, rng=self._rng)
        show_slots(view, live, leases.of_job(job_id), workers, runtime.guests)
        return view

    def _names(self, row: JobRow) -> tuple[str, str]:
        return self._library.name_of_package(row.package), self._library.name_of_dataset(row.dataset)

    def list_jobs(self, *, state: str | None, limit: int, offset: int, owner: str | None = None) -> tuple[list[views.JobView], int]:
        ids = sorted([*self.ended, *self._engine.runtimes], key=lambda i: self._row(i).created, reverse=True)
        if owner is not None:
            ids = [i for i in ids if self._row(i).owner == owner]
        if state is not None:
            ids = [i for i in ids if self._state(i) == state]
        return [self._view(i) for i in ids[offset : offset + limit]], len(ids)

    def _state(self, job: str) -> str:
        live = self._engine.state.jobs.get(job)
        return live.phase if live is not None else self._row(job).state

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        found: dict[str, int] = {}
        for job in [*self.ended, *self._engine.runtimes]:
            state = self._state(job)
            found[state] = found.get(state, 0) + 1
        return found

    def explain(self, ref: str) -> list[views.ReasonView]:
        """Why the job is where it is, the most important thing first."""
        view = self.job(ref)
        reasons: list[views.ReasonView] = []
        if view.reason is not None:
            reasons.append(view.reason)
        elif view.state == "done":
            text = f"Done: {view.fragments.done} fragments." if not view.fragments.failed else (
                f"Done: {view.fragments.done} fragments, {view.fragments.failed} failed and were left out."
            )  # fmt: skip
            reasons.append(
                views.ReasonView(code="done", text=text, actions=[{"label": "fetch it", "cli": f"company job download {view.id}"}])
            )
        live = self._engine.state.jobs.get(view.id)
        if live is not None:
            for worker, reason in sorted(live.blocked.items()):
                reasons.append(views.ReasonView(code=reason.code, text=f"{worker}: {reason.text}", facts=dict(reason.facts)))
            if live.failed_once:
                text = f"{live.failed_once} fragments failed at least once; {live.dead.total} for good."
                reasons.append(
                    views.ReasonView(
                        code="fragments-failed", text=text, actions=[{"label": "see them", "cli": f"company job failures {view.id}"}]
                    )
                )
        return reasons

    async def heatmap(self, ref: str, cells: int) -> dict[str, Any]:
        """Runs of cells in one state each: done, failed, leased, waiting. Of a job that is over, waiting is what never ran."""
        job_id = self.find(ref)
        live = self._engine.state.jobs.get(job_id)
        view = self._view(job_id)
        total = view.fragments.total or view.fragments.at_least
        if not total:
            return {"cells": [], "per_cell": 1, "total": 0}
        cells = max(1, min(cells, 4096, total))
        per_cell = -(-total // cells)
        done, dead = (live.done, live.dead) if live is not None else await self._store.read(lambda conn: ranges_of(conn, job_id))
        states: list[str] = []
        for k in range(-(-total // per_cell)):
            first, count = k * per_cell, min(per_cell, total - k * per_cell)
            states.append(cell_of(done, dead, self._engine, job_id, first, count))
        runs: list[list[Any]] = []
        for state in states:
            if runs and runs[-1][0] == state:
                runs[-1][1] += 1
            else:
                runs.append([state, 1])
        return {"cells": runs, "per_cell": per_cell, "total": total}

    # ---- changing ---------------------------------------------------------------------------------------------------------
    def find_own(self, ref: str, by: Principal) -> str:
        """The id of a job that ``by`` may change. Raises `NotFound`, `Refused`."""
        job_id = self.find(ref)
        if by.role == "submitter" and self._row(job_id).owner != by.name:
            raise Refused("not-your-job", f"{job_id} belongs to {self._row(job_id).owner}.")
        return job_id

    async def change_job(self, ref: str, action: str, args: dict[str, Any], *, by: Principal) -> views.JobView:
        job_id = self.find_own(ref, by)
        is_live = job_id in self._engine.state.jobs
        if action in ("pause", "resume", "cancel", "edit"):
            if not is_live:
                raise Conflict("job-over", f"{job_id} is {self._row(job_id).state} already.", state=self._row(job_id).state)
            if action == "edit" and "max_fails" in args:
                MaxFails.parse(str(args["max_fails"]))
            if action == "edit":
                self._keep_edit(job_id, args)
            self._engine.post(
                ev.JobChanged(job=job_id, action=action, args=args, reason=f"Cancelled by {by.name}." if action == "cancel" else "")
            )
            await self._committer.wait_idle()
        elif action == "retry":
            await self._retry(job_id, args)
        elif action == "rm":
            if is_live:
                raise Conflict("job-runs", f"{job_id} is not over; cancel it first.", hint=f"company job cancel {job_id}")
            await self._committer.flushed()  # its last lines and its row: behind the deletion they would belong to nobody
            ended = self.ended.pop(self.find(job_id))
            await self._store.write(lambda conn: jobs.delete(conn, job_id))
            await trio.to_thread.run_sync(lambda: shutil.rmtree(self._home.job(job_id).root, ignore_errors=True))
            return row_view(ended.row, names=self._names(ended.row), done=ended.done, failed=ended.failed)
        else:
            raise Invalid("action-unknown", f"There is no action {action!r} on a job.")
        return self.job(job_id)

    def _keep_edit(self, job_id: str, args: dict[str, Any]) -> None:
        """What was edited holds after a restart too: it goes into the row that the machine has saved next."""
        runtime = self._engine.runtimes[job_id]
        options = options_of(runtime.row)
        for name in ("max_fails", "time_limit_s", "memory_bytes", "retries"):
            if name in args:
                setattr(options, name, args[name])
        runtime.row = replace(runtime.row, options=as_json(options))

    async def _retry(self, job_id: str, args: dict[str, Any]) -> None:
        """Run again what failed: final failures, or merge alone. Results that exist are kept."""
        if job_id in self._engine.state.jobs:
            raise Conflict("job-runs", f"{job_id} is running; what fails is retried by itself.")
        ended = self.ended[job_id]
        row = ended.row
        options = options_of(row)
        if args.get("max_fails") is not None:
            MaxFails.parse(str(args["max_fails"]))
            options.max_fails = str(args["max_fails"])
        only = args.get("fragments")
        is_merge_only = row.state == "failed" and not ended.failed and row.fragments_total is not None and ended.done >= row.fragments_total
        if row.state == "done" and not ended.failed:
            raise Conflict("nothing-to-retry", f"{job_id} is done and nothing of it failed.")
        if not is_merge_only and not args.get("merge"):
            await self._store.write(lambda conn: failures.delete(conn, job_id, only))
        row = replace(
            row, state="queued", paused=False, reason=None, finished=None, result_name=None, result_size=None, result_digest=None,
            options=as_json(options), fragments_total=row.fragments_total if is_merge_only or args.get("merge") else None,
        )  # fmt: skip
        lost = await forget_damaged(self._store, self._home.job(job_id).results, ended.row)
        await self._store.write(lambda conn: jobs.save(conn, row))
        del self.ended[job_id]
        text = "merge runs again." if is_merge_only else "Failed fragments run again."
        self._story.tell(job_id, "retried", f"{lost} fragments whose results the disk has damaged run again." if lost else text)
        await self._go_live(row, restarted=True)

    def on_over(self, runtime: JobRuntime, done: int, failed: int) -> None:
        """The engine reports the end of a job; its row is being written."""
        job = runtime.row.id
        ended = self.ended[job] = Ended(runtime.row, done, failed)
        if runtime.guests:

            def read(conn: Connection) -> None:
                ended.worked = worked.load(conn, job)

            self._committer.add(ops=[read])  # behind the last results, before the row that says the job is over

    async def wait_job(self, ref: str, *, timeout_s: float) -> views.JobView:
        """Return when the job is over and its row is on disk, or when time is."""
        job_id = self.find(ref)
        runtime = self._engine.runtimes.get(job_id)
        if runtime is not None:
            with trio.move_on_after(timeout_s):
                await runtime.ended.wait()
        return self.job(job_id)

    async def partial(self, ref: str, *, start: int, limit: int) -> AsyncIterator[tuple[int, bytes]]:
        """Results so far in fragment order, from fragment ``start`` on, at most ``limit`` of them."""
        from company.chief.job_files import iterate_results

        job_id = self.find(ref)
        live = self._engine.state.jobs.get(job_id)
        hidden = [] if live is None else [x for mine in live.foreign.provisional.values() for x in mine]
        found = iterate_results(self._store, self._home, job_id, start=start, limit=limit, is_shown=lambda row: is_shown(row, hidden))
        async for item in found:
            yield item
