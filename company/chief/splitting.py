"""Fragment path 2/9, in the service - one split task per live job, its window, and the check against earlier results (I/O)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable

import trio
from sqlalchemy import Connection

from company.chief import events as ev
from company.chief.blanks import Blanks
from company.chief.call_stream import IDLE_S, CallStream
from company.chief.commit import Committer
from company.chief.digests import SplitCheck, range_digest
from company.chief.requirement_wheels import RequirementWheels
from company.chief.runtime import JobRuntime
from company.chief.splitter import SplitError, SplitPlan, run_split
from company.chief.store import artifacts, failures, outcomes
from company.chief.window import Large, window_limit
from company.sandbox.child import Child
from company.sandbox.sandbox import Sandbox
from p2p.base.errors import Action, ParallelError, Reason
from p2p.base.frames import Sizes

Post = Callable[[ev.Event], None]
_log = logging.getLogger("company.chief.split")


class Splitting:
    """Starts and stops split children. ``nursery``: lives as long as the chief."""

    def __init__(self, sandbox: Sandbox, nursery: trio.Nursery, wheels: RequirementWheels, blanks: Blanks) -> None:
        self._sandbox = sandbox
        self._wheels = wheels
        self._nursery = nursery
        self._blanks = blanks
        self._running = 0
        self.slots: Callable[[], int] = int  # how many there are to feed; none are known yet

    def start(self, runtime: JobRuntime, post: Post) -> None:
        """Run split from its beginning."""
        scope = trio.CancelScope()
        runtime.split_scope = scope
        self._nursery.start_soon(self._run, runtime, scope, post)

    def stop(self, runtime: JobRuntime) -> None:
        """Kill the child and forget the window."""
        if runtime.split_scope is not None:
            runtime.split_scope.cancel()
            runtime.split_scope = None
        runtime.window.clear()
        runtime.make_room()

    def drop_results(self, runtime: JobRuntime, committer: Committer) -> None:
        """The job starts over: no result, failure or artifact of it may be used again."""
        job = runtime.row.id
        runtime.check = SplitCheck()

        def forget(conn: Connection) -> None:
            outcomes.delete(conn, job)
            failures.delete(conn, job)
            artifacts.delete(conn, job)

        committer.add(ops=[forget])

    async def _run(self, runtime: JobRuntime, scope: trio.CancelScope, post: Post) -> None:
        job = runtime.row.id
        if runtime.stream is not None:
            with scope:
                await self._follow(runtime, runtime.stream, post)
            return
        self._running += 1
        try:
            with scope:

                async def produced(first: int, sizes: Sizes, costs: list[float] | None, body: memoryview, large: dict[int, Large]) -> None:
                    await self._take(runtime, post, first, sizes, costs, body, large)

                def counted(total: int | None) -> None:
                    if total is not None:
                        post(ev.SplitCounted(job=job, total=total))

                plan = SplitPlan(
                    job=job, files=runtime.files, params=runtime.row.params, data=runtime.data, data_name=runtime.data_name,
                    memory_bytes=runtime.memory_bytes, spool=runtime.dirs.fragments,
                    site=await self._wheels.environment(runtime.requirements),
                )  # fmt: skip
                blank = self._blanks.take_for_data(plan.data, plan.data_name, memory_bytes=plan.memory_bytes, site=plan.site)

                def leave(child: Child) -> None:
                    self._nursery.start_soon(child.aclose)

                try:
                    ended = await run_split(
                        self._sandbox, plan, on_count=counted, on_fragments=produced, blank=blank.child if blank else None, leave=leave
                    )
                finally:
                    if blank is not None:
                        shutil.rmtree(blank.folder, ignore_errors=True)
                if isinstance(ended, SplitError):
                    post(ev.SplitFailed(job=job, reason=_reason(job, ended)))
                elif not runtime.check.is_over:
                    post(ev.SplitDiffers(job=job))  # fewer fragments than there are results
                else:
                    post(ev.SplitEnded(job=job, total=ended))
        except ParallelError as error:  # what it requires cannot be had any more
            post(ev.SplitFailed(job=job, reason=error.reason()))
        finally:
            self._running -= 1
            if runtime.split_scope is scope:
                runtime.split_scope = None

    async def _follow(self, runtime: JobRuntime, stream: CallStream, post: Post) -> None:
        """Hand on the calls of a stream, those of before a restart first, until its client ends it or has been away for too long."""
        at = first = 0
        idle_until = trio.current_time() + IDLE_S
        while True:
            grown = runtime.grown
            piece = await trio.to_thread.run_sync(stream.read, at, first)
            if piece is not None:
                at = piece.after
                await self._take(runtime, post, first, piece.frame.sizes, None, piece.frame.body, piece.large)
                first += len(piece.frame.sizes)
                idle_until = trio.current_time() + IDLE_S
            elif stream.is_over or trio.current_time() >= idle_until:
                break
            else:
                with trio.move_on_at(idle_until):
                    await grown.wait()
        await trio.to_thread.run_sync(stream.finish)
        post(ev.SplitEnded(job=runtime.row.id, total=first) if runtime.check.is_over else ev.SplitDiffers(job=runtime.row.id))

    async def _take(
        self,
        runtime: JobRuntime,
        post: Post,
        first: int,
        sizes: Sizes,
        costs: list[float] | None,
        body: memoryview,
        large: dict[int, Large],
    ) -> None:
        job = runtime.row.id
        window = runtime.window
        window.add(first, sizes, body, large)
        for a, n, digest in runtime.check.due(window.end):
            window_sizes, bodies, spooled = window.cut(a, n)
            if digest != range_digest(window_sizes, [*bodies, *(spooled[i].digest for i in sorted(spooled))]):
                post(ev.SplitDiffers(job=job))
                await trio.sleep_forever()  # the machine has cancelled this task's scope
            window.release(a, n)
        for index in runtime.dead_before:
            if first <= index < first + len(sizes):
                window.release(index, 1)
        post(ev.SplitProduced(job=job, first=first, sizes=sizes, costs=costs))
        limit = window_limit(self.slots(), self._running)
        while window.held_bytes > limit:
            await runtime.room.wait()


def _reason(job: str, error: SplitError) -> Reason:
    last = error.traceback.strip().splitlines()[-1:] or [""]
    text = f"split failed: {error.exc_type}: {error.message}" if error.exc_type else f"split failed: {error.message}"
    return Reason(
        "split-failed",
        text[:1000],
        {"cause": error.cause, "traceback": error.traceback[-8000:], "last_line": last[0][:400]},
        (Action("see its output", f"company job logs {job}"), Action("run it here", "company run PKG DATA")),
    )
