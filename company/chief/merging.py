"""Fragment path 8/9, in the service - one merge task per job whose fragments are all settled (I/O)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import trio
from sqlalchemy import Connection

from company.chief import events as ev
from company.chief.merger import MergeChild, MergeError, MergePlan, MergeResult
from company.chief.requirement_wheels import RequirementWheels
from company.chief.runtime import JobRuntime
from company.chief.segments import Location, SegmentStore, header_of_untrusted
from company.chief.store import outcomes
from company.chief.store.outcomes import OutcomeRow
from company.chief.store.store import Store
from company.sandbox.sandbox import Sandbox
from p2p.base.errors import Action, ParallelError, Reason, Unavailable
from p2p.base.frames import Sizes

ROWS_AT_ONCE = 512
OUTPUT_MAX_BYTES = 1 << 40
Post = Callable[[ev.Event], None]
_log = logging.getLogger("company.chief.merge")


class Merging:
    """Starts merge children, early where the end is near. ``nursery``: lives as long as the chief."""

    def __init__(self, sandbox: Sandbox, store: Store, nursery: trio.Nursery, wheels: RequirementWheels) -> None:
        self._sandbox = sandbox
        self._wheels = wheels
        self._store = store
        self._nursery = nursery

    def prepare(self, runtime: JobRuntime) -> None:
        """Start the child now; `start` will use it."""
        if runtime.merge_ready is None and runtime.stream is None:
            runtime.merge_ready = trio.Event()
            self._nursery.start_soon(self._prepare, runtime)

    def start(self, runtime: JobRuntime, post: Post, save: Callable[[JobRuntime], None]) -> None:
        """Merge all results of the job. Those of a stream are fetched one by one: there is nothing to merge."""
        if runtime.stream is not None:
            self._nursery.start_soon(_end_of_stream, runtime.row.id, post)
            return
        self.prepare(runtime)
        scope = trio.CancelScope()
        runtime.merge_scope = scope
        self._nursery.start_soon(self._run, runtime, scope, post, save)

    def discard(self, runtime: JobRuntime) -> None:
        """The job ended before it came to a merge: end a child that was started early."""
        if isinstance(runtime.merge, MergeChild) and runtime.merge_scope is None:
            self._nursery.start_soon(runtime.merge.aclose)
            runtime.merge = None

    async def _prepare(self, runtime: JobRuntime) -> None:
        ready = runtime.merge_ready
        assert ready is not None
        try:
            site = await self._wheels.environment(runtime.requirements)
            plan = replace(await trio.to_thread.run_sync(self._plan, runtime), site=site)
            runtime.merge = await MergeChild.start(self._sandbox, plan)
        except (ParallelError, OSError) as error:
            runtime.merge = MergeError("sandbox-failed", "", str(error), "")
        finally:
            ready.set()

    def _plan(self, runtime: JobRuntime) -> MergePlan:
        attempt = runtime.row.merge_attempt + 1
        output = runtime.dirs.output / str(attempt)
        result = runtime.dirs.output / f"result-{attempt}"
        for path in (output, result):
            shutil.rmtree(path, ignore_errors=True)
        output.mkdir(parents=True)
        return MergePlan(
            job=runtime.row.id, files=runtime.files, params=runtime.row.params, memory_bytes=runtime.memory_bytes, output=output,
            output_max_bytes=min(OUTPUT_MAX_BYTES, max(64 << 20, shutil.disk_usage(output).free // 2)), result_dir=result,
        )  # fmt: skip

    async def _run(self, runtime: JobRuntime, scope: trio.CancelScope, post: Post, save: Callable[[JobRuntime], None]) -> None:
        job = runtime.row.id
        try:
            with scope:
                assert runtime.merge_ready is not None
                await runtime.merge_ready.wait()
                child = runtime.merge
                ended = await child.run(self._feed(runtime)) if isinstance(child, MergeChild) else child
                runtime.row = replace(runtime.row, merge_attempt=runtime.row.merge_attempt + 1)
                if isinstance(ended, MergeResult):
                    runtime.row = replace(runtime.row, result_name=ended.name, result_size=ended.size, result_digest=ended.digest)
                    post(ev.MergeEnded(job=job))
                else:
                    save(runtime)
                    post(ev.MergeFailed(job=job, reason=_reason(job, ended or MergeError("sandbox-failed", "", "no merge child", ""))))
        except Unavailable as error:
            post(ev.MergeFailed(job=job, reason=error.reason()))
        finally:
            if isinstance(runtime.merge, MergeChild):
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                    await runtime.merge.aclose()
            runtime.merge = None
            runtime.merge_ready = None

    async def _feed(self, runtime: JobRuntime) -> AsyncIterator[tuple[int, Sizes, bytes | memoryview]]:
        """Every result in fragment order, a record at a time; large ones from their files, alone."""
        at = 0
        while True:
            start = at
            rows = await self._store.read(partial(_rows_from, runtime.row.id, start))
            if not rows:
                return
            for row in rows:
                at = row.first + row.count
                for piece in await trio.to_thread.run_sync(read_row, runtime.segments, row):
                    yield piece


async def _end_of_stream(job: str, post: Post) -> None:
    """In a task of its own: the machine is in the middle of an event when it says that merge may start."""
    post(ev.MergeEnded(job=job))


def _rows_from(job: str, start: int, conn: Connection) -> tuple[OutcomeRow, ...]:
    return outcomes.load(conn, job, start=start, limit=ROWS_AT_ONCE)


def read_row(segments: SegmentStore, row: OutcomeRow) -> list[tuple[int, Sizes, bytes | memoryview]]:
    """The results of one row, cut where a large one lies in a file of its own. Blocks."""
    frame = segments.read(Location(row.segment, row.offset, row.length))
    blobs = {offset for offset, _, _ in header_of_untrusted(frame).blobs}
    if not blobs:
        return [(row.first, frame.sizes, frame.body)]
    out: list[tuple[int, Sizes, bytes | memoryview]] = []
    ends = np.cumsum(frame.sizes, dtype=np.int64)
    at = 0
    for offset in [*sorted(blobs), row.count]:
        if offset > at:
            out.append((row.first + at, frame.sizes[at:offset], frame.body[int(ends[at - 1]) if at else 0 : int(ends[offset - 1])]))
        if offset < row.count:
            data = Path(segments.blob_path(row.first + offset)).read_bytes()
            out.append((row.first + offset, np.array([len(data)], dtype="<u4"), data))
        at = offset + 1
    return out


def _reason(job: str, error: MergeError) -> Reason:
    text = f"merge failed: {error.exc_type}: {error.message}" if error.exc_type else f"merge failed: {error.message}"
    return Reason(
        "merge-failed",
        text[:1000],
        {"cause": error.cause, "traceback": error.traceback[-8000:]},
        (Action("run merge again, without computing anything again", f"company job retry {job}"),),
    )
