"""Drives the chief's machine: events in, effects performed (I/O).

All of it happens in one trio thread without an await between an event and its effects, so nobody sees a half-applied step.
Bytes never enter the machine: for an Outcome the machine says which ranges count, and the frame at hand is cut here.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Literal, Protocol, assert_never

import trio
from sqlalchemy import Connection

from company.chief import events as ev
from company.chief.blanks import Blanks
from company.chief.commit import Committer, Op, Piece
from company.chief.digests import range_digest
from company.chief.leases import COUNTER_BITS
from company.chief.logs import tails_untrusted
from company.chief.merging import Merging
from company.chief.outcome_cut import Cut, Raised
from company.chief.runtime import JobRuntime
from company.chief.splitting import Splitting
from company.chief.state import ChiefState
from company.chief.store import failures, jobs, leases
from company.chief.store.failures import FailureRow
from company.chief.store.leases import LeaseRow
from company.chief.storybook import Storybook
from company.messages import Failed, Outcome
from p2p.base.clock import Monotonic
from p2p.base.frames import Frame

MAX_INPUT_KEPT = 1 << 20
Counted = Callable[[], tuple[Op, Callable[[], None]]]  # what to write with an outcome, and what to do when it is on disk
_log = logging.getLogger("company.chief")


class Workers(Protocol):
    """The sessions, as far as the engine needs them. Nothing here waits or raises."""

    def send_run(self, effect: ev.SendRun, runtime: JobRuntime) -> None: ...
    def send_job(self, job: str, runtime: JobRuntime) -> None: ...
    def send_cancel(self, worker: str, token: int, reason: str) -> None: ...
    def send_recall(self, worker: str, token: int) -> None: ...
    def send_stale(self, worker: str, token: int, reason: str) -> None: ...
    def send_resumed(self, effect: ev.SendResumed) -> None: ...
    def send_drain(self, worker: str, pause: bool | None) -> None: ...
    def send_ack(self, worker: str, token: int, first: int) -> None: ...
    def send_job_over(self, job: str, reason: str) -> None: ...


class Engine:
    """The one owner of `ChiefState`. `post` from the trio thread only."""

    def __init__(
        self, *, state: ChiefState, committer: Committer, splitting: Splitting, merging: Merging, blanks: Blanks, story: Storybook,
        workers: Workers,
        on_change: Callable[[str, str], None], on_over: Callable[[JobRuntime, int, int], None],
    ) -> None:  # fmt: skip
        self.state = state
        self.runtimes: dict[str, JobRuntime] = {}
        self._committer = committer
        self._splitting = splitting
        splitting.slots = lambda: state.slots.total
        self.merging = merging
        self.story = story
        self._blanks = blanks
        self._workers = workers
        self._on_change = on_change  # (kind, id) for live pages
        self._on_over = on_over
        self._wake = trio.Event()

    def now(self) -> Monotonic:
        return Monotonic(trio.current_time())

    def silent_at(self, worker: str) -> Monotonic:
        """When a connected worker of which nothing is heard until then counts as lost (phi-accrual over its own heartbeats)."""
        return self.state.slots.silent_at(worker, self.now())

    async def run(self) -> None:
        """Wake the machine at its deadlines until cancelled."""
        while True:
            due = self.state.next_deadline()
            self._wake = trio.Event()
            with trio.move_on_at(due if due is not None else float("inf")):
                await self._wake.wait()
                continue
            self.post(ev.Tick())

    # ---- events --------------------------------------------------------------------------------------------------------
    def post(self, event: ev.Event) -> None:
        """Hand one event to the machine and do what it says."""
        for effect in self.state.handle(event, self.now()):
            self._perform(effect)
        match event:
            case ev.WorkerHere():
                self._on_change("worker", event.spec.id)
            case ev.WorkerGone():
                self._on_change("worker", event.worker)
            case _:
                pass
        self._wake.set()

    def post_outcome(self, worker: str, message: Outcome, frame: Frame, cut: Cut, counted: Counted | None = None) -> None:
        """Results came: let the machine judge, then cut what it accepts out of the frame.

        counted: what is written together with what will be acknowledged. Raises `PeerError` ("unacknowledged").
        """
        self._committer.check_room(worker)
        runtime = self.runtimes.get(message.job)
        ok, is_whole_only = cut.ok, False
        if runtime is not None and message.token >> COUNTER_BITS != self.state.boot:
            match self._check_old(runtime, message):
                case "differs":
                    self.post(ev.SplitDiffers(job=message.job))
                case "unverifiable":
                    ok = ()
                case "later":
                    is_whole_only = True
                case _:
                    pass
        event = ev.OutcomeArrived(
            worker=worker, token=message.token, job=message.job, first=message.first, count=message.count, last=message.last,
            ok=ok, raised=cut.raised, run_us=message.run_us, result_bytes=cut.result_bytes, is_whole_only=is_whole_only,
        )  # fmt: skip
        details = {d.index: d for d in cut.details(message.first)} if cut.raised else {}
        # a fragment that failed alone has no result, and so no row that would name its part of the log
        tails = tails_untrusted(cut.logs, set(details)) if details else {}
        if runtime is not None:
            runtime.cpu_us += message.cpu_us
            runtime.peak_bytes = max(runtime.peak_bytes, message.peak_bytes)
        pieces: list[Piece] = []
        ops: list[Op] = []
        refused = False
        for effect in self.state.handle(event, self.now()):
            match effect:
                case ev.Accept() if runtime is not None:
                    pieces += self._pieces(effect, runtime, message, cut)
                case ev.Refuse():
                    refused = True
                case ev.KeepFailure() if runtime is not None:
                    ops += self._failure_ops(effect, runtime, details.get(effect.index), tails.get(effect.index, b""))
                case _:
                    self._perform(effect)

        def acknowledge() -> None:
            self._workers.send_ack(worker, message.token, message.first)

        if counted is not None and (pieces or ops or refused):
            op, then = counted()
            self._committer.add(pieces=pieces, ops=[*ops, op], then=acknowledge)
            self._committer.add(then=then)
        elif pieces or ops:
            self._committer.add(pieces=pieces, ops=ops, then=acknowledge)
        elif refused:
            acknowledge()
        self._on_change("job", message.job)
        self._wake.set()

    def _check_old(self, runtime: JobRuntime, message: Outcome) -> Literal["same", "differs", "unverifiable", "later"]:
        """Whether a result of before a restart belongs to what split yields now.

        What the worker was sent is compared with the window, or, where split has not come this far again, with what it will yield.
        """
        if not message.input_digest:
            return "unverifiable"
        if not runtime.window.has(message.first, message.count):
            return "later" if message.first + message.count > runtime.window.end else "unverifiable"
        sizes, bodies, large = runtime.window.cut(message.first, message.count)
        found = range_digest(sizes, [*bodies, *(large[i].digest for i in sorted(large))])
        return "same" if found == message.input_digest else "differs"

    def post_died(self, worker: str, message: Failed, frame: Frame, *, infra: bool) -> None:
        """A child died at one fragment: let the machine judge, keep what is known of it."""
        runtime = self.runtimes.get(message.job)
        items = frame.cut()
        detail = Died(message, bytes(items[0][:65536]) if items else b"", bytes(items[1][:4096]) if len(items) > 1 else b"")
        event = ev.FragmentDied(worker=worker, token=message.token, job=message.job, index=message.index, cause=message.cause, infra=infra)
        ops: list[Op] = []
        for effect in self.state.handle(event, self.now()):
            if isinstance(effect, ev.KeepFailure) and runtime is not None:
                ops += self._failure_ops(effect, runtime, detail)
            else:
                self._perform(effect)

        def acknowledge() -> None:
            self._workers.send_ack(worker, message.token, message.index)
            if runtime is not None:
                runtime.tell_news()

        if ops:
            self._committer.add(ops=ops, then=acknowledge)
        else:
            acknowledge()
        self._on_change("job", message.job)
        self._wake.set()

    def committed(self, job: str, ranges: tuple[ev.Range, ...]) -> None:
        """The committer reports: tell the machine, which says whether the window may forget them."""
        self.post(ev.Committed(job=job, ranges=ranges))
        runtime = self.runtimes.get(job)
        if runtime is not None:
            if runtime.row.first_result is None:
                runtime.row = replace(runtime.row, first_result=time.time())  # written with the row's next change, at its end at the latest
            runtime.tell_news()

    # ---- effects -------------------------------------------------------------------------------------------------------
    def _perform(self, effect: ev.Effect) -> None:
        match effect:
            case ev.SendRun():
                self._workers.send_run(effect, self.runtimes[effect.job])
            case ev.SendCancel():
                self._workers.send_cancel(effect.worker, effect.token, effect.reason)
            case ev.SendRecall():
                self._workers.send_recall(effect.worker, effect.token)
            case ev.SendStale():
                self._workers.send_stale(effect.worker, effect.token, effect.reason)
            case ev.SendResumed():
                self._workers.send_resumed(effect)
            case ev.SendDrain():
                self._workers.send_drain(effect.worker, effect.pause)
            case ev.StartSplit():
                self._splitting.start(self.runtimes[effect.job], self.post)
            case ev.StopSplit():
                self._splitting.stop(self.runtimes[effect.job])
            case ev.PrepareMerge():
                self.merging.prepare(self.runtimes[effect.job], self.post, self.save)
            case ev.StartMerge():
                self.merging.start(self.runtimes[effect.job], self.post, self.save)
            case ev.FreeWindow():
                self._free_window(effect)
            case ev.SaveJob():
                self._save_state(effect.job)
            case ev.DropResults():
                self._drop_results(self.runtimes[effect.job])
            case ev.JobOver():
                self._job_over(effect)
            case ev.Tell():
                self.story.tell(effect.job, effect.kind, effect.text)
            case ev.KeepFailure():
                runtime = self.runtimes.get(effect.job)
                if runtime is not None:
                    self._committer.add(ops=self._failure_ops(effect, runtime, None))
            case ev.KeepLeases():
                self._keep_leases(effect)
            case ev.Accept() | ev.Refuse():
                pass  # only meaningful with a frame at hand, see post_outcome
            case _:
                assert_never(effect)

    def _keep_leases(self, effect: ev.KeepLeases) -> None:
        rows = [LeaseRow(**asdict(lease), at=time.time()) for lease in effect.long]
        gone = effect.gone

        def write(conn: Connection) -> None:
            leases.save(conn, rows)
            leases.delete(conn, gone)

        self._committer.add(ops=[write])

    def _free_window(self, effect: ev.FreeWindow) -> None:
        runtime = self.runtimes.get(effect.job)
        if runtime is None:
            return
        for first, count in effect.ranges:
            if runtime.window.has(first, count):
                runtime.window.release(first, count)
        runtime.make_room()

    def _pieces(self, effect: ev.Accept, runtime: JobRuntime, message: Outcome, cut: Cut) -> list[Piece]:
        pieces: list[Piece] = []
        total = max(1, message.count)
        for number, (first, count) in enumerate(effect.ranges):
            sizes, body = cut.slice(message.first, first, count)
            if runtime.window.has(first, count):
                window_sizes, bodies, large = runtime.window.cut(first, count)
                digest = range_digest(window_sizes, [*bodies, *(large[i].digest for i in sorted(large))])
            else:  # a lease of before a restart: split has not come this far again, what the worker was sent is compared then
                digest = message.input_digest
                runtime.check.expect(first, count, digest)
            blobs = tuple((i - first, size, d) for i, (size, d) in sorted(cut.large.items()) if first <= i < first + count)
            pieces.append(
                Piece(
                    job=effect.job, segments=runtime.segments, logs=runtime.logs, token=effect.token, worker=effect.worker,
                    attempt=effect.attempt, first=first, count=count, sizes=sizes, body=body, input_digest=digest,
                    run_us=message.run_us * count // total, cpu_us=message.cpu_us * count // total,
                    log=cut.logs if number == 0 else b"", blobs=blobs,
                )
            )  # fmt: skip
        return pieces

    def _failure_ops(self, effect: ev.KeepFailure, runtime: JobRuntime, detail: Raised | Died | None, tail: bytes = b"") -> list[Op]:
        row = FailureRow(
            job=effect.job, fragment=effect.index, tries=effect.tries, infra_tries=effect.infra_tries, final=effect.final,
            cause=effect.cause, worker=effect.worker, at=time.time(),
        )  # fmt: skip
        if isinstance(detail, Raised):
            row = replace(
                row, exc_type=detail.exc_type, message=detail.message, traceback=detail.traceback, preview=detail.preview, log_tail=tail
            )
        elif detail is not None:
            said = detail.message
            row = replace(
                row, exc_type=said.exc_type, message=said.message, traceback=said.traceback, signal=said.signal,
                exit_code=said.exit_code, log_tail=detail.log_tail, preview=detail.preview.decode("utf-8", "replace"),
            )  # fmt: skip
        ops: list[Op] = [lambda conn: failures.save(conn, [row])]
        if runtime.window.has(effect.index, 1):
            sizes, bodies, large = runtime.window.cut(effect.index, 1)
            if not large and int(sizes[0]) <= MAX_INPUT_KEPT:
                value = b"".join(bodies)
                ops.append(lambda conn: failures.save_input(conn, effect.job, effect.index, value))
            if effect.final:
                runtime.window.release(effect.index, 1)
                runtime.make_room()
        return ops

    def _save_state(self, job_id: str) -> None:
        runtime = self.runtimes.get(job_id)
        job = self.state.jobs.get(job_id)
        if runtime is None:
            return
        if job is not None:
            runtime.row = replace(
                runtime.row, state=job.phase, paused=job.paused, priority=job.spec.priority, fragments_total=job.total,
                reason=None if job.reason is None else json.dumps(job.reason.as_dict()).encode(),
                started=runtime.row.started or (time.time() if job.started is not None else None),
                split_runs=job.restarts, cpu_us=runtime.cpu_us,
            )  # fmt: skip
            limits = job.spec.time_limit_s, job.spec.memory_bytes
            if limits != (runtime.time_limit_s, runtime.memory_bytes):
                runtime.time_limit_s, runtime.memory_bytes = limits
                self._workers.send_job(job_id, runtime)
        self.save(runtime)

    def save(self, runtime: JobRuntime) -> None:
        """Write the job's row as it stands."""
        row = runtime.row
        self._committer.add(ops=[lambda conn: jobs.save(conn, row)])
        self._on_change("job", row.id)

    def _drop_results(self, runtime: JobRuntime) -> None:
        runtime.row = replace(runtime.row, first_result=None)
        self.merging.discard(runtime)
        self._splitting.drop_results(runtime, self._committer)

    def _job_over(self, effect: ev.JobOver) -> None:
        runtime = self.runtimes.pop(effect.job, None)
        if runtime is None:
            return
        runtime.row = replace(
            runtime.row, state=effect.phase, paused=False, fragments_total=effect.total, finished=time.time(), cpu_us=runtime.cpu_us,
            reason=None if effect.reason is None else json.dumps(effect.reason.as_dict()).encode(),
        )  # fmt: skip
        row = runtime.row
        runtime.close()
        self._blanks.job_over()
        self.story.close(effect.job)
        self._workers.send_job_over(effect.job, effect.phase)
        self._on_over(runtime, effect.done, effect.failed)
        self._committer.add(ops=[lambda conn: jobs.save(conn, row)], then=runtime.tell_end)
        self._on_change("job", effect.job)


class Died:
    """What a worker said of a child that died."""

    __slots__ = ("log_tail", "message", "preview")

    def __init__(self, message: Failed, log_tail: bytes, preview: bytes) -> None:
        self.message = message
        self.log_tail = log_tail
        self.preview = preview
