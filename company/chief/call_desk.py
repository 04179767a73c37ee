"""Fragment path 9/9, of an executor's job - calls in, outcomes out as they are committed (I/O).

Part of the port `company.chief.facade.Chief`. Outcomes leave as the records lie in the segment files, whole batches at a time; where a
client stands is the place of the last record it has read, so that nothing is kept per client and a client may ask again from anywhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import trio
from sqlalchemy import Connection, func, select

from company.chief.desk import JobDesk
from company.chief.engine import Engine
from company.chief.facade import Conflict, Principal
from company.chief.merging import read_row
from company.chief.runtime import JobRuntime, segment_id
from company.chief.segments import SegmentStore
from company.chief.store import failures, outcomes, schema
from company.chief.store.failures import FailureRow
from company.chief.store.outcomes import OutcomeRow
from company.chief.store.store import Store
from company.paths import ChiefHome
from p2p.base.frames import encode_frame

ROWS_AT_ONCE = 256
ANSWER_BYTES = 16 << 20  # about as much goes out in one answer; the client asks again
GATHER_S = 0.002  # what is committed at nearly the same time leaves together
Place = tuple[int, int]


class CallDesk:
    """Calls and outcomes of jobs that are streams."""

    def __init__(self, *, home: ChiefHome, store: Store, engine: Engine, desk: JobDesk) -> None:
        self._home = home
        self._store = store
        self._engine = engine
        self._desk = desk

    def check_own(self, ref: str, by: Principal) -> None:
        """Whether ``by`` may add calls to this job and end it. Raises `NotFound`, `Refused`."""
        self._desk.find_own(ref, by)

    async def append(self, ref: str, first: int, data: bytes) -> int:
        """Take one frame of calls; returns how many the job has when they are on disk. Raises `Conflict`, `MalformedMessage`."""
        runtime = self._live(ref)
        assert runtime.stream is not None
        end = await trio.to_thread.run_sync(runtime.stream.append_untrusted, first, data)
        runtime.tell_stream()
        return end

    async def finish(self, ref: str) -> None:
        """No more calls will come; the job ends with those it has. Idempotent, also when it is over."""
        runtime = self._engine.runtimes.get(self._desk.find(ref))
        if runtime is not None and runtime.stream is not None:
            await trio.to_thread.run_sync(runtime.stream.finish)
            runtime.tell_stream()

    def _live(self, ref: str) -> JobRuntime:
        job = self._desk.find(ref)
        runtime = self._engine.runtimes.get(job)
        if runtime is None:
            raise Conflict("job-over", f"{job} is over and takes no more calls.")
        if runtime.stream is None:
            raise Conflict("not-a-stream", f"{job} makes its fragments with split and takes none from outside.")
        return runtime

    async def outcomes(self, ref: str, *, after: Place, failed: int, wait_s: float) -> AsyncIterator[bytes]:
        """Frames of what was committed after ``after``, waiting up to ``wait_s`` for the first; ``failed``: final failures seen.

        ``["results", segment, offset, first, run_us, worker]`` with one item per fragment, or ``["failed", …]`` with none, and at the
        end ``["state", phase, calls, slots]``.
        """
        job = self._desk.find(ref)
        end = trio.current_time() + wait_s
        while True:
            runtime = self._engine.runtimes.get(job)
            news = runtime.news if runtime is not None else None
            rows, dead = await self._store.read(partial(_since, job, after, failed))
            if rows or dead or news is None or trio.current_time() >= end:
                break
            with trio.move_on_at(end):
                await news.wait()
                await trio.sleep(GATHER_S)
        sent = 0
        async for head, body in self._frames(job, runtime, rows):
            yield head
            yield bytes(body)
            sent += len(body)
            if sent > ANSWER_BYTES:
                return
        for row in dead:
            yield b"".join(encode_frame(_failure_header(row)))
        view = self._desk.job(job)
        yield b"".join(encode_frame(["state", view.state, view.fragments.at_least, self._engine.state.slots.total]))

    async def _frames(
        self, job: str, runtime: JobRuntime | None, rows: tuple[OutcomeRow, ...]
    ) -> AsyncIterator[tuple[bytes, bytes | memoryview]]:
        segments = runtime.segments if runtime is not None else None
        opened = segments is None and bool(rows)
        if opened:
            dirs = self._home.job(job)
            segments = SegmentStore(dirs.results, segment_id(job))
        try:
            for row in rows:
                assert segments is not None
                for first, sizes, body in await trio.to_thread.run_sync(read_row, segments, row):
                    yield encode_frame(["results", row.segment, row.offset, first, row.run_us, row.worker], sizes, body)
        finally:
            if opened and segments is not None:
                segments.close()


def _since(job: str, after: Place, failed: int, conn: Connection) -> tuple[tuple[OutcomeRow, ...], tuple[FailureRow, ...]]:
    rows = outcomes.after(conn, job, after, limit=ROWS_AT_ONCE)
    of = schema.failure.c
    count = conn.execute(select(func.count()).where(of.job == job, of.final)).scalar() or 0
    return rows, failures.final_from(conn, job, failed) if count > failed else ()


def _failure_header(row: FailureRow) -> list[object]:
    told = {
        "cause": row.cause, "exc_type": row.exc_type, "message": row.message[:2000], "traceback": row.traceback[-12000:],
        "signal": row.signal, "exit_code": row.exit_code, "log_tail": row.log_tail[-8000:].decode("utf-8", "replace"),
        "worker": row.worker, "tries": row.tries + row.infra_tries,
    }  # fmt: skip
    return ["failed", row.fragment, told]
