"""Fragment path 6/9 - one slot: take a blank child for a job, keep it warm, replace it when it dies (I/O).

The slot decides what a dead child means: the fragment it was at is guilty and ends its lease, the batch ahead in the pipe has not
begun and is run again in a fresh child without the chief hearing of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import trio

from company import messages as m
from company.sandbox.child import Child, ChildDied, ChildFailed
from company.sandbox.verdict import Verdict
from company.worker.batch import Batch, JobSpec, SlotPort, SlotQueue
from company.worker.children import ChildSource
from company.worker.frames import item_of, preview_of, short_text
from company.worker.results import Part
from company.worker.session import Session
from p2p.base.errors import MalformedMessage, ParallelError

log = logging.getLogger(__name__)
MAX_STRIKES = 3  # children that died before a batch began; then the machine is at fault, not the batch
RETRY_SANDBOX_S = 5.0
CLOSE_TIMEOUT_S = 2.0
MAX_LOG_TAIL_BYTES = 64 << 10


class SlotRunner:
    """Runs what is put into its queue, in order, for ever."""

    def __init__(self, slot: int, children: ChildSource, port: SlotPort, clock: Callable[[], float] = trio.current_time) -> None:
        self.slot = slot
        self._children = children
        self._port = port
        self._clock = clock
        self._queue = SlotQueue()
        self._child: Child | None = None
        self._session: Session | None = None
        self._job: str | None = None

    # -- called by the service, without waiting
    def submit(self, batch: Batch) -> None:
        """Put a batch behind the others."""
        self._queue.add(batch)

    def withdraw(self, token: int, reason: str) -> None:
        """Never run this batch; if it runs, its child dies now."""
        head = self._queue.head
        is_running = head is not None and head.token == token and head.fed
        batch = self._queue.withdraw(token)
        if batch is not None and is_running and self._child is not None:
            self._child.kill("cancelled", reason)

    def close_job(self, job: str) -> None:
        """The job is over: its warm child ends."""
        if self._job == job and self._session is not None:
            self._session.closing = True
            self._queue.wake()

    # -- the slot's task
    async def run(self) -> None:
        """Serve for ever."""
        while True:
            head = self._queue.head
            if head is None:
                await self._queue.wait_changed()
                continue
            spec = self._port.job_spec(head.job)
            if spec is None:
                self._queue.withdraw(head.token)
                self._port.give_back(head.token, "job-unknown")
                continue
            await self._serve(spec)

    async def _serve(self, spec: JobSpec) -> None:
        """One child, from the pool to its end."""
        self._job = spec.job
        try:
            child = await self._children.take(spec)
        except (ParallelError, OSError) as error:
            await self._on_no_sandbox(str(error))
            return
        self._port.slot_changed(self.slot, "idle", "")
        try:
            await self._serve_in(child, spec)
        finally:
            self._child = self._session = self._job = None
            self._queue.unfeed()
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_TIMEOUT_S):
                await child.aclose()
            self._children.gave_up()

    async def _serve_in(self, child: Child, spec: JobSpec) -> None:
        self._child = child
        try:
            await child.load(role="process", params=spec.params, files=spec.files, options=dict(spec.options))
        except ChildFailed as failed:
            self._on_load_failed(failed.type, failed.message, failed.traceback, child.log_tail())
            return
        except ChildDied as died:
            if died.verdict.cause != "cancelled":
                self._on_load_failed(died.verdict.cause, died.verdict.text, "", died.verdict.log_tail)
            return
        session = self._session = Session(child, spec, self._queue, self._port, self._clock)
        verdict = await session.run()
        if verdict is not None:
            self._on_death(child, verdict)

    async def _on_no_sandbox(self, why: str) -> None:
        """The machine cannot start children: say so, give everything back, try again later."""
        log.error("slot %d: no sandbox: %s", self.slot, why)
        self._port.slot_changed(self.slot, "broken", short_text(why, 300))
        for batch in list(self._queue):
            self._queue.withdraw(batch.token)
            self._port.give_back(batch.token, "sandbox-failed")
        await trio.sleep(RETRY_SANDBOX_S)

    def _on_load_failed(self, kind: str, message: str, traceback: str, tail: bytes) -> None:
        head = self._queue.head
        if head is None or head.job != self._job:
            return
        cause = "load-failed" if kind != "sandbox-failed" else kind
        self._fail(head, head.first, Verdict(cause, message, 0, 0, head.first, tail), exc_type=kind, traceback=traceback)

    def _on_death(self, child: Child, verdict: Verdict) -> None:
        """Find the guilty fragment; what had not begun stays in the queue."""
        if verdict.cause == "cancelled":
            return  # the batch that was killed is out of the queue already
        head = self._queue.head
        if head is None or not head.fed:
            log.warning("slot %d: idle child died: %s %s", self.slot, verdict.cause, verdict.text)
            return
        page = child.page()
        if page.token != head.token and not head.answered:
            head.strikes += 1  # it had not begun
            if head.strikes >= MAX_STRIKES:
                self._fail(head, head.first, replace(verdict, cause="sandbox-failed"))
            return
        if page.token == head.token and page.span > 1 and not head.is_careful:
            head.is_careful = True  # one of many is guilty: what has no answer is run again, one by one, in a fresh child
            return
        low, high = head.first + head.answered, head.first + head.count - 1
        index = page.index if page.token == head.token else low
        self._fail(head, max(low, min(high, index)), verdict)

    def _fail(self, batch: Batch, index: int, verdict: Verdict, *, exc_type: str = "", traceback: str = "") -> None:
        """End a lease: ``index`` is to blame."""
        preview = ""
        if batch.count == len(batch.sizes):
            try:
                preview = preview_of(item_of(batch.sizes, batch.body, index - batch.first))
            except (MalformedMessage, IndexError):
                preview = ""
        message = m.Failed(
            batch.token, batch.job, index, short_text(verdict.cause, 64), short_text(exc_type), short_text(verdict.text),
            short_text(traceback, 16 << 10), max(0, verdict.signal), max(0, verdict.exit_code),
        )  # fmt: skip
        tail = verdict.log_tail[-MAX_LOG_TAIL_BYTES:]
        shown = preview.encode()
        sizes, body = np.array([len(tail), len(shown)], dtype="<u4"), tail + shown
        if self._queue.head is batch:
            self._queue.pop()
        self._port.part_made(Part(batch.token, message, sizes, body), last=True)
