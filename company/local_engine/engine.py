"""The local engine: a split child, slots with warm children, a spool of results, and a merge child in one trio task tree (I/O).

It is the chief and the worker at once: `LocalQueue` decides what runs, the worker's own slots run it, and what they report is
judged and kept right away. Nothing here is done once per fragment but for those that fail.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from company.chief.logs import tails_untrusted
from company.chief.merger import MergeChild, MergeError, MergePlan, MergeResult
from company.chief.outcome_cut import Cut, Raised, cut_outcome_untrusted
from company.chief.retries import MaxFails
from company.chief.splitter import SplitError, SplitPlan, run_split
from company.chief.window import FragmentWindow, Large
from company.cluster.engines import Cluster
from company.cluster.slot import ClusterSlot
from company.cluster.wire import encode_spec
from company.local_engine.queue import LocalQueue, Out
from company.local_engine.results import Artifacts, LogFile, ResultSpool
from company.messages import Artifact, Failed, Outcome
from company.package import PackageInfo
from company.sandbox import Sandbox
from company.worker.batch import Batch, JobSpec
from company.worker.children import Children
from company.worker.results import Part
from company.worker.slots import SlotRunner
from p2p.base.errors import ParallelError
from p2p.base.frames import Frame, Sizes
from p2p.base.record import record
from p2p.base.schema import Message

JOB = "local"
WINDOW_BYTES = 64 << 20
HELD_PER_SLOT = 2  # one that runs and one ahead
MAX_FAILURES_KEPT = 1000
MAX_LOSSES = 5  # of one batch, with the cluster's nodes
END_TIMEOUT_S = 10.0
OUTPUT_MAX_BYTES = 1 << 40
Progress = Callable[[int, int | None, int], Any]


@record(kw_only=True)
class Plan:
    """One local run. ``params``: codec bytes; ``data``: as a child can read it; ``folder``: temporary, staged."""

    files: dict[str, bytes]
    info: PackageInfo
    params: bytes
    data: Path
    data_name: str
    folder: Path
    slots: int
    max_fails: MaxFails
    tries: int
    time_limit_s: float
    memory_bytes: int
    site: Path | None = None  # what the package requires
    cluster: Cluster | None = None  # where process runs, if not here
    allow_none: bool = False


@dataclass(slots=True)
class Failure:
    """One fragment that failed at least once."""

    fragment: int
    tries: int = 0
    final: bool = False
    cause: str = ""
    exc_type: str = ""
    message: str = ""
    traceback: str = ""
    signal: int = 0
    exit_code: int = 0
    log_tail: str = ""
    preview: str = ""


@dataclass(slots=True)
class Trouble:
    """Why a run ended without a result."""

    cause: str  # split-failed, merge-failed, too-many-failed, load-failed, sandbox-failed
    text: str
    traceback: str = ""


@dataclass(slots=True)
class Ended:
    """How a run ended."""

    total: int
    done: int
    failed: int
    failures: list[Failure] = field(default_factory=list)
    result: MergeResult | None = None
    trouble: Trouble | None = None


class LocalEngine:
    """One run; also the port of its slots (`company.worker.batch.SlotPort`)."""

    def __init__(self, plan: Plan, sandbox: Sandbox, *, logs: LogFile, artifacts: Artifacts, progress: Progress | None) -> None:
        self._plan = plan
        self._sandbox = sandbox
        self._logs = logs
        self._artifacts = artifacts
        self._progress = progress
        self._queue = LocalQueue(plan.slots, tries=plan.tries)
        self._window = FragmentWindow()
        self._results = ResultSpool(plan.folder)
        self._held: list[set[int]] = [set() for _ in range(plan.slots)]
        self._failures: dict[int, Failure] = {}
        self._trouble: Trouble | None = None
        self._runners: list[SlotRunner] | list[ClusterSlot] = []
        self._losses: dict[int, int] = {}  # first fragment of a batch -> times that its node was lost
        self._room = trio.Event()
        self._settled = trio.Event()
        self._serial = 0
        # one map for all children of the run: the processor alone, as workers get it
        files = {p: c for p, c in plan.files.items() if p.startswith("processor/") or p == "package.toml"}
        self._spec = JobSpec(
            job=JOB, params=plan.params, files=files, time_limit_s=plan.time_limit_s, memory_bytes=plan.memory_bytes,
            options={"entry": plan.info.entry.removeprefix("processor/")}, site=plan.site, processes=plan.info.processes,
        )  # fmt: skip

    async def run(self) -> Ended:
        """Do it all."""
        merge: MergeChild | MergeError | None = None
        try:
            async with self._slots() as runners, trio.open_nursery() as nursery:
                self._runners = runners
                for runner in runners:
                    nursery.start_soon(runner.run)
                nursery.start_soon(self._split)
                await self._settled.wait()
                nursery.cancel_scope.cancel()
            if self._trouble is None:
                merge = await MergeChild.start(self._sandbox, self._merge_plan())
                ended = await merge.run(self._results.feed()) if isinstance(merge, MergeChild) else merge
                return self._ended(ended)
            return self._ended(None)
        finally:
            if isinstance(merge, MergeChild):
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                    await merge.aclose()
            self._results.close()
            self._window.clear()

    @asynccontextmanager
    async def _slots(self) -> AsyncIterator[list[SlotRunner] | list[ClusterSlot]]:
        """Slots of this machine, or of the cluster."""
        plan, cluster = self._plan, self._plan.cluster
        if cluster is None:
            async with Children.open(self._sandbox, plan.slots) as children:
                yield [SlotRunner(number, children, self) for number in range(plan.slots)]
            return
        spec = encode_spec(self._spec, allow_none=plan.allow_none, requirements=plan.info.requirements)
        await trio.to_thread.run_sync(cluster.begin, plan.folder.name, spec)
        try:
            yield [ClusterSlot(number, cluster, self) for number in range(plan.slots)]
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + END_TIMEOUT_S):
                await trio.to_thread.run_sync(cluster.end, abandon_on_cancel=True)

    def _merge_plan(self) -> MergePlan:
        output, result = self._plan.folder / "merge" / "output", self._plan.folder / "result"
        output.mkdir()
        return MergePlan(
            job=JOB, files=self._plan.files, params=self._plan.params, memory_bytes=self._plan.memory_bytes, output=output,
            output_max_bytes=OUTPUT_MAX_BYTES, result_dir=result, site=self._plan.site,
        )  # fmt: skip

    def _ended(self, merged: MergeResult | MergeError | None) -> Ended:
        if isinstance(merged, MergeError):
            what = f"{merged.exc_type}: {merged.message}" if merged.exc_type else merged.message
            self._trouble = Trouble("merge-failed", f"merge failed: {what}", merged.traceback)
        queue = self._queue
        return Ended(
            total=queue.total if queue.total is not None else queue.produced, done=queue.done.total, failed=queue.dead.total,
            failures=[self._failures[i] for i in sorted(self._failures)],
            result=merged if isinstance(merged, MergeResult) else None, trouble=self._trouble,
        )  # fmt: skip

    def _stop(self, cause: str, text: str, traceback: str = "") -> None:
        """End the run without a result; the first reason stays."""
        if self._trouble is None:
            self._trouble = Trouble(cause, text, traceback)
        self._settled.set()

    # ---- split -----------------------------------------------------------------------------------------------------------
    async def _split(self) -> None:
        plan = self._plan
        spool = plan.folder / "fragments"
        split_plan = SplitPlan(
            job=JOB, files=plan.files, params=plan.params, data=plan.data, data_name=plan.data_name, memory_bytes=plan.memory_bytes,
            spool=spool, site=plan.site,
        )  # fmt: skip
        try:
            ended = await run_split(self._sandbox, split_plan, on_count=self._counted, on_fragments=self._produced)
        except (ParallelError, OSError) as error:
            self._stop("sandbox-failed", str(error))
            return
        if isinstance(ended, SplitError):
            what = f"{ended.exc_type}: {ended.message}" if ended.exc_type else ended.message
            self._stop("split-failed", f"split failed: {what}", ended.traceback)
            return
        self._queue.end(ended)
        self._after_change()

    def _counted(self, total: int | None) -> None:
        self._queue.expected = total

    async def _produced(self, first: int, sizes: Sizes, costs: list[float] | None, body: memoryview, large: dict[int, Large]) -> None:
        self._window.add(first, sizes, body, large)
        self._queue.add(sizes, costs)
        self._after_change()
        while self._window.held_bytes > WINDOW_BYTES:
            self._room = trio.Event()
            await self._room.wait()

    # ---- batches to slots ------------------------------------------------------------------------------------------------
    def _after_change(self) -> None:
        """Give slots what they can hold, free the window, see whether it is over."""
        if self._trouble is not None:
            return
        for held in range(HELD_PER_SLOT):  # everybody gets one before anybody gets a second
            for slot, tokens in enumerate(self._held):
                if len(tokens) == held:
                    out = self._queue.take()
                    if out is None:
                        break
                    tokens.add(out.token)
                    self._runners[slot].submit(self._batch(slot, out))
        self._room.set()
        if self._progress is not None:
            total = self._queue.total if self._queue.total is not None else self._queue.expected
            self._progress(self._queue.done.total, total, self._queue.dead.total)
        failed = self._queue.dead.total
        if self._plan.max_fails.is_exceeded(failed=failed, total=self._queue.total):
            self._stop("too-many-failed", f"{failed} of the fragments failed for good; allowed are {_allowed(self._plan.max_fails)}.")
        elif self._queue.is_settled:
            self._settled.set()

    def _batch(self, slot: int, out: Out) -> Batch:
        sizes, bodies, large = self._window.cut(out.first, out.count)
        blobs = tuple((index - out.first, large[index].size, large[index].digest) for index in sorted(large))
        return Batch(
            token=out.token, slot=slot, job=JOB, first=out.first, count=out.count, attempt=out.attempt, sizes=sizes,
            body=bodies[0] if len(bodies) == 1 else b"".join(bodies), blobs=blobs,
        )  # fmt: skip

    # ---- what slots report (SlotPort) ------------------------------------------------------------------------------------
    def job_spec(self, job: str) -> JobSpec | None:
        """The one job there is."""
        return self._spec if self._trouble is None else None

    def batch_began(self, token: int) -> None:
        """Nobody waits for this here."""

    def part_made(self, part: Part, *, last: bool) -> None:
        """Results, a death or a piece of an artifact."""
        match part.message:
            case Outcome() as outcome:
                self._on_outcome(outcome, part)
            case Failed() as failed:
                self._on_failed(failed, part)
            case Artifact() as artifact:
                self._artifacts.add(artifact, part.body)
            case _:
                pass

    def _on_outcome(self, message: Outcome, part: Part) -> None:
        cut = cut_outcome_untrusted(message, Frame([0], part.sizes, memoryview(part.body)))
        self._logs.add_untrusted(cut.logs)
        large = {message.first + offset: blob for (offset, _, _), blob in zip(message.blobs, part.blobs, strict=True)}
        for first, count in cut.ok:
            self._keep(message, cut, first, count, {i: large[i].path for i in large if first <= i < first + count})
            self._queue.on_done(message.token, first, count)
            self._window.release(first, count)
        details = {d.index: d for d in cut.details(message.first)}
        tails = tails_untrusted(cut.logs, set(details)) if details else {}
        for index in cut.raised:
            verdict = self._queue.on_failure(index, "raised")
            said = details.get(index) or Raised(index, "", "", "", "")
            self._note(
                Failure(
                    index, verdict.trouble.tries, verdict.final, "raised", said.exc_type, said.message, said.traceback,
                    log_tail=tails.get(index, b"").decode("utf-8", "replace"), preview=said.preview,
                )
            )  # fmt: skip
        self._queue.on_part(message.token, message.first, message.count, last=message.last, run_us=message.run_us)
        if message.last:
            self._let_go(message.token)
        self._after_change()

    def _keep(self, message: Outcome, cut: Cut, first: int, count: int, large: dict[int, Path]) -> None:
        at = first
        for index in [*sorted(large), first + count]:
            if index > at:
                self._results.add(at, *cut.slice(message.first, at, index - at))
            if index in large:
                self._results.add_file(index, large[index], cut.large[index][0])
            at = index + 1

    def _on_failed(self, message: Failed, part: Part) -> None:
        tail, preview = (bytes(item) for item in Frame([0], part.sizes, memoryview(part.body)).cut())
        self._logs.say(message.index, tail)
        self._let_go(message.token)
        if message.cause in ("load-failed", "sandbox-failed"):
            what = f"{message.exc_type}: {message.message}" if message.exc_type else message.message
            self._stop(message.cause, f"the package could not be loaded: {what}", message.traceback)
            return
        verdict = self._queue.on_death(message.token, message.index, message.cause)
        self._note(
            Failure(
                message.index, verdict.trouble.tries, verdict.final, message.cause, message.exc_type, message.message, message.traceback,
                message.signal, message.exit_code, tail.decode("utf-8", "replace"), preview.decode("utf-8", "replace"),
            )
        )  # fmt: skip
        self._after_change()

    def _note(self, failure: Failure) -> None:
        if failure.final:
            self._window.release(failure.fragment, 1)
        if len(self._failures) < MAX_FAILURES_KEPT or failure.fragment in self._failures:
            self._failures[failure.fragment] = failure

    def _let_go(self, token: int) -> None:
        for tokens in self._held:
            tokens.discard(token)

    def give_back(self, token: int, reason: str) -> None:
        """A slot could not begin a batch."""
        self._queue.give_back(token)
        self._let_go(token)
        if self._trouble is None:
            self._stop("sandbox-failed", f"a batch could not be started: {reason}")

    def lost(self, token: int, why: str) -> None:
        """A node of the cluster went away with a batch: it is run again, until that is no accident."""
        out = self._queue.out(token)
        if out is None:
            return
        times = self._losses[out.first] = self._losses.get(out.first, 0) + 1
        self._queue.give_back(token)
        self._let_go(token)
        if times >= MAX_LOSSES:
            self._stop("cluster-lost", f"the cluster lost the batch of fragment {out.first} {times} times: {why}")
        else:
            self._after_change()

    def slot_changed(self, slot: int, state: str, reason: str) -> None:
        """A slot without a sandbox ends the run: here is no other machine to go on."""
        if state == "broken":
            self._stop("sandbox-failed", f"no sandbox could be started: {reason}")

    def forward(self, message: Message) -> None:
        """A status: the bar says enough."""

    async def fetch_blobs(self, batch: Batch) -> None:
        """Link the spooled fragments, since a batch deletes its files."""
        if batch.blobs and not batch.blob_paths:
            _, _, large = self._window.cut(batch.first, batch.count)
            paths = [self.spool_path() for _ in batch.blobs]
            for path, index in zip(paths, sorted(large), strict=True):
                os.link(large[index].path, path)
            batch.blob_paths = tuple(paths)

    async def wait_room(self) -> None:
        """Results go to disk at once."""

    def spool_path(self) -> Path:
        """A new file name in the run's folder."""
        self._serial += 1
        return self._plan.folder / f"spool-{self._serial}"


def _allowed(max_fails: MaxFails) -> str:
    return str(max_fails.count) if max_fails.percent is None else f"{max_fails.percent:g} %"
