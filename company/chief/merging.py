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
from company.chief.blanks import Blank, Blanks, output_limit
from company.chief.merger import MergeChild, MergeError, MergePlan, MergeResult
from company.chief.requirement_wheels import RequirementWheels
from company.chief.runtime import JobRuntime
from company.chief.segments import Location, SegmentStore, header_of_untrusted
from company.chief.store import outcomes
from company.chief.store.outcomes import OutcomeRow
from company.chief.store.store import Store
from company.chief.store.writer import is_disk_full, storage_full
from company.sandbox.sandbox import Sandbox
from p2p.base.errors import Action, ParallelError, Reason, Unavailable
from p2p.base.frames import Sizes

ROWS_AT_ONCE = 512
EARLY_S = 0.03  # at most so often results are looked for before the last one is there
Post = Callable[[ev.Event], None]
Save = Callable[[JobRuntime], None]
_log = logging.getLogger("company.chief.merge")


class Merging:
    """Runs merge children, early where the end is near: what is on disk in order is merged while the rest is computed.

    ``nursery``: lives as long as the chief.
    """

    def __init__(self, sandbox: Sandbox, store: Store, nursery: trio.Nursery, wheels: RequirementWheels, blanks: Blanks) -> None:
        self._sandbox = sandbox
        self._wheels = wheels
        self._store = store
        self._nursery = nursery
        self._blanks = blanks

    def prepare(self, runtime: JobRuntime, post: Post, save: Save) -> None:
        """Begin to merge what is there; `start` says that it is all."""
        if runtime.merge_scope is None and runtime.stream is None:
            runtime.merge_go = trio.Event()
            runtime.merge_scope = trio.CancelScope()
            self._nursery.start_soon(self._run, runtime, runtime.merge_scope, runtime.merge_go, post, save)

    def start(self, runtime: JobRuntime, post: Post, save: Save) -> None:
        """Merge all results of the job. Those of a stream are fetched one by one: there is nothing to merge."""
        if runtime.stream is not None:
            self._nursery.start_soon(_end_of_stream, runtime.row.id, post)
            return
        self.prepare(runtime, post, save)
        runtime.merge_go.set()
        runtime.tell_news()

    def discard(self, runtime: JobRuntime) -> None:
        """The job starts over: what was merged early is worth nothing."""
        if runtime.merge_scope is not None:
            runtime.merge_scope.cancel()
            runtime.merge_scope = None

    async def _run(self, runtime: JobRuntime, scope: trio.CancelScope, go: trio.Event, post: Post, save: Save) -> None:
        job = runtime.row.id
        try:
            with scope:
                try:
                    ended: MergeResult | MergeError | Reason = await self._merge(runtime, go)
                except Unavailable as error:
                    ended = error.reason()
                except OSError as error:  # the result could not be written
                    ended = _unwritable(job, runtime.dirs.output, error)
                await go.wait()  # whatever became of an early start counts when the job has come to its merge
                runtime.row = replace(runtime.row, merge_attempt=runtime.row.merge_attempt + 1)
                if isinstance(ended, MergeResult):
                    runtime.row = replace(runtime.row, result_name=ended.name, result_size=ended.size, result_digest=ended.digest)
                    post(ev.MergeEnded(job=job))
                else:
                    save(runtime)
                    post(ev.MergeFailed(job=job, reason=_reason(job, ended) if isinstance(ended, MergeError) else ended))
        finally:
            if runtime.merge_scope is scope:
                runtime.merge_scope = None

    async def _merge(self, runtime: JobRuntime, go: trio.Event) -> MergeResult | MergeError:
        blank: Blank | None = None
        child: MergeChild | MergeError | None = None
        ended: MergeResult | MergeError | None = None
        try:
            try:
                # the merge of an executor's job is a stub: nothing is to be made ready for it
                site = None if runtime.stream is not None else await self._wheels.environment(runtime.requirements)
                blank = self._blanks.take("merge", memory_bytes=runtime.memory_bytes, site=site)
                plan = replace(await trio.to_thread.run_sync(self._plan, runtime, blank), site=site)
                child = await MergeChild.start(self._sandbox, plan, blank.child if blank else None)
            except (ParallelError, OSError) as error:
                return MergeError("sandbox-failed", "", str(error), "")
            ended = await child.run(self._feed(runtime, go)) if isinstance(child, MergeChild) else child
            return ended
        finally:
            if isinstance(ended, MergeResult):  # the child is dead: nobody is to wait for what the kernel still keeps of it
                self._nursery.start_soon(_clear_away, child, blank)
            else:  # a second run, which may have the same folders, begins when nothing of this one is left
                await _clear_away(child, blank)

    def _plan(self, runtime: JobRuntime, blank: Blank | None) -> MergePlan:
        attempt = runtime.row.merge_attempt + 1
        output = runtime.dirs.output / str(attempt)
        result = runtime.dirs.output / f"result-{attempt}"
        for path in (output, result):
            shutil.rmtree(path, ignore_errors=True)
        if blank is None:
            output.mkdir(parents=True)
        else:
            output = blank.folder
        return MergePlan(
            job=runtime.row.id, files=runtime.files, params=runtime.row.params, memory_bytes=runtime.memory_bytes, output=output,
            output_max_bytes=output_limit(output), result_dir=result,
        )  # fmt: skip

    async def _feed(self, runtime: JobRuntime, go: trio.Event) -> AsyncIterator[tuple[int, Sizes, bytes | memoryview]]:
        """Every result in fragment order, a record at a time; large ones from their files, alone. Before ``go`` up to the first gap."""
        at = 0
        while True:
            is_all, news = go.is_set(), runtime.news
            rows = await self._store.read(partial(_rows_from, runtime.row.id, at))
            if not is_all:
                rows = _unbroken(rows, at)
            for row in rows:
                at = row.first + row.count
                for piece in await trio.to_thread.run_sync(read_row, runtime.segments, row):
                    yield piece
            if is_all and not rows:
                return
            if not is_all and not rows:
                await news.wait()
                with trio.move_on_after(EARLY_S):
                    await go.wait()


async def _clear_away(child: MergeChild | MergeError | None, blank: Blank | None) -> None:
    """Closing shields itself, so this also does its work where the task is being cancelled."""
    if isinstance(child, MergeChild):
        await child.aclose()
    if blank is not None:
        await blank.child.aclose()
        shutil.rmtree(blank.folder, ignore_errors=True)


def _unwritable(job: str, folder: Path, error: OSError) -> Reason:
    again = (Action("run merge again, without computing anything again", f"company job retry {job}"),)
    if is_disk_full(error):
        return replace(storage_full(folder).reason(), actions=again)
    return Reason("result-unwritable", f"The result cannot be written to {folder}: {error.strerror}.", {}, again)


async def _end_of_stream(job: str, post: Post) -> None:
    """In a task of its own: the machine is in the middle of an event when it says that merge may start."""
    post(ev.MergeEnded(job=job))


def _rows_from(job: str, start: int, conn: Connection) -> tuple[OutcomeRow, ...]:
    return outcomes.load(conn, job, start=start, limit=ROWS_AT_ONCE)


def _unbroken(rows: tuple[OutcomeRow, ...], at: int) -> tuple[OutcomeRow, ...]:
    """Those that follow each other from fragment ``at`` on."""
    for place, row in enumerate(rows):
        if row.first != at:
            return rows[:place]
        at = row.first + row.count
    return rows


def read_row(segments: SegmentStore, row: OutcomeRow) -> list[tuple[int, Sizes, bytes | memoryview]]:
    """The results of one row, cut where a large one lies in a file of its own. Blocks."""
    frame = segments.read(Location(row.segment, row.offset, row.length))
    blobs = {offset: (size, digest) for offset, size, digest in header_of_untrusted(frame).blobs}
    if not blobs:
        return [(row.first, frame.sizes, frame.body)]
    out: list[tuple[int, Sizes, bytes | memoryview]] = []
    ends = np.cumsum(frame.sizes, dtype=np.int64)
    at = 0
    for offset in [*sorted(blobs), row.count]:
        if offset > at:
            out.append((row.first + at, frame.sizes[at:offset], frame.body[int(ends[at - 1]) if at else 0 : int(ends[offset - 1])]))
        if offset < row.count:
            data = segments.read_blob(row.first + offset, *blobs[offset])
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
