"""The worker's middle: turns messages and reports into events, and the machine's effects into deeds (I/O through its parts).

One task at a time is in here, and nothing here waits, so no lock is needed. Both transports (`link`, `rest`) and all slots share it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, assert_never

import trio

from company import messages as m
from company.package.manifest import ManifestError, parse_manifest_untrusted
from company.worker import events as ev
from company.worker.batch import Batch, JobSpec
from company.worker.environments import Environments
from company.worker.processors import Processors
from company.worker.results import HeldResults, Part
from company.worker.slots import SlotRunner
from company.worker.state import WorkerState
from p2p.base.clock import Monotonic
from p2p.base.errors import ParallelError, PeerError
from p2p.base.frames import Frame
from p2p.base.schema import Message

log = logging.getLogger(__name__)
DEFAULT_ENTRY = "main.py"


class Upstream(Protocol):
    """The way to the chief, whichever transport it is."""

    def tell(self, message: Message) -> None: ...
    def wake(self) -> None: ...
    async def fetch_blob(self, batch: Batch, offset: int, size: int, digest: bytes, path: Path) -> None:
        """Raises `Unavailable`, `PeerError`, `OSError`."""


@dataclass(slots=True)
class _Job:
    """A job as the chief described it."""

    message: m.JobIs
    params: bytes
    spec: JobSpec | None = None

    def limit(self, time_limit_ms: int, memory_bytes: int) -> None:
        """Other limits, from the next batch on: a child that runs under the old ones ends before it gets more."""
        self.message = replace(self.message, time_limit_ms=time_limit_ms, memory_bytes=memory_bytes)
        if self.spec is not None:
            self.spec = replace(self.spec, time_limit_s=time_limit_ms / 1000, memory_bytes=memory_bytes)


class WorkerCore:
    """State machine, slots and results of one worker; the `SlotPort` of its slots."""

    def __init__(
        self, *, slots: int, results: HeldResults, processors: Processors, environments: Environments, upstream: Upstream, scratch: Path,
        nursery: trio.Nursery, on_leave: Callable[[str], None], clock: Callable[[], float] = trio.current_time,
    ) -> None:  # fmt: skip
        self.machine = WorkerState(slots)
        self.runners: list[SlotRunner] = []  # filled by the service once the sandbox is there
        self._results = results
        self._processors = processors
        self._environments = environments
        self._upstream = upstream
        self._scratch = scratch
        self._nursery = nursery
        self._on_leave = on_leave
        self._clock = clock
        self._jobs: dict[str, _Job] = {}
        self._batches: dict[int, Batch] = {}
        self._serial = 0
        self._changed = trio.Event()

    # -- events in, effects out
    def apply(self, event: ev.Event) -> None:
        """Give one event to the machine and do what it says."""
        for effect in self.machine.handle(event, Monotonic(self._clock())):
            self._perform(effect)
        self._changed.set()
        self._changed = trio.Event()

    def _perform(self, effect: ev.Effect) -> None:
        match effect:
            case ev.PrepareJob(job):
                self._nursery.start_soon(self._prepare, job)
            case ev.Dispatch(slot, token):
                batch = self._batches.pop(token)
                self.runners[slot].submit(batch)
            case ev.Withdraw(slot, token, reason):
                self.runners[slot].withdraw(token, reason)
            case ev.ForgetPart(token, first):
                self._results.forget_part(token, first)
            case ev.ForgetLease(token):
                self._batches.pop(token, None)
                self._results.forget_lease(token)
            case ev.CloseJob(job):
                self._jobs.pop(job, None)
                for runner in self.runners:
                    runner.close_job(job)
            case ev.Tell(message):
                self._upstream.tell(message)
            case ev.Leave(reason):
                self._on_leave(reason)
            case _:
                assert_never(effect)

    async def tick(self) -> None:
        """Wake the machine at its deadlines, for ever."""
        while True:
            deadline = self.machine.next_deadline()
            with trio.move_on_at(deadline if deadline is not None else float("inf")):
                await self._changed.wait()
                continue
            self.apply(ev.Tick())

    async def wait_until(self, condition: Callable[[WorkerState], bool]) -> None:
        """Return once the machine is as wanted."""
        while not condition(self.machine):
            await self._changed.wait()

    # -- what the chief says
    async def on_message(self, message: Message, frame: Frame) -> None:
        """One message of the chief. A message that has no place here is ignored, with a line in the log."""
        match message:
            case m.Run():
                self.on_run(message, frame)
            case m.Ack(parts):
                self.apply(ev.Acked(parts))
            case m.JobIs():
                self.on_job(message, bytes(frame.body))
            case m.ProcessorIs():
                await self._on_processor(message, frame)
            case m.JobOver(job):
                self.apply(ev.JobEnded(job))
            case m.Stale(token, reason) | m.Cancel(token, reason):
                self.apply(ev.LeaseGone(token, reason))
            case m.Recall(token):
                self.apply(ev.RecallCame(token))
            case m.Drain(pause):
                self.apply(ev.DrainCame(pause))
            case m.Undrain():
                self.apply(ev.UndrainCame())
            case _:
                log.warning("the chief sent %s, which has no place here", type(message).__name__)

    def on_run(self, message: m.Run, frame: Frame) -> None:
        """A batch came."""
        if self.machine.lease(message.token) is not None:
            return
        if len(frame.sizes) != message.count or any(offset >= message.count for offset, _, _ in message.blobs):
            log.warning("Run %d holds %d fragments, said %d", message.token, len(frame.sizes), message.count)
            self._upstream.tell(m.Recalled(message.token, True))
            return
        blobs = tuple((offset, size, digest) for offset, size, digest in message.blobs)
        batch = Batch(
            message.token, message.slot, message.job, message.first, message.count, message.attempt, frame.sizes, frame.body, blobs
        )
        self._batches[message.token] = batch
        self.apply(ev.RunCame(message.token, message.slot, message.job, message.first, message.count))

    def on_job(self, message: m.JobIs, params: bytes) -> None:
        """A job was described."""
        known = self._jobs.get(message.job)
        if known is None:
            self._jobs[message.job] = _Job(message, params)
        elif (known.message.time_limit_ms, known.message.memory_bytes) != (message.time_limit_ms, message.memory_bytes):
            known.limit(message.time_limit_ms, message.memory_bytes)
        self.apply(ev.JobCame(message.job))

    async def _on_processor(self, message: m.ProcessorIs, frame: Frame) -> None:
        archive = bytes(frame.body)

        async def admit() -> None:
            try:
                await self._processors.offer(message, archive)
            except (PeerError, OSError) as error:
                log.warning("processor %s refused: %s", message.processor.hex()[:16], error)

        self._nursery.start_soon(admit)  # unpacking runs in a thread; the channel is read on meanwhile

    async def _prepare(self, job_id: str) -> None:
        """Make a job ready to run, or say why it cannot."""
        job = self._jobs.get(job_id)
        if job is None:
            return
        try:
            requirements = tuple(job.message.requirements.splitlines())
            self._environments.check(requirements)
            files = await self._processors.get(job.message.processor)
            entry, signed, processes = _told_by(files)
            if signed != requirements:
                raise PeerError("requirements-differ", "the job asks for other packages than its signed processor does")
            site = await self._environments.site(job_id, requirements)
        except ParallelError as error:
            self.apply(ev.JobRefused(job_id, error.code[:64], error.text[:1000]))
            return
        if self._jobs.get(job_id) is not job:
            return  # it ended while its processor came
        message = job.message
        job.spec = JobSpec(
            job_id, job.params, files, message.time_limit_ms / 1000, message.memory_bytes, {"entry": entry}, site, processes
        )  # fmt: skip
        self.apply(ev.JobReady(job_id))

    def on_link_up(self, keep: tuple[int, ...] | None) -> None:
        """A channel is open again."""
        self.apply(ev.LinkUp(keep))
        for digest in self._processors.pending():
            self._upstream.tell(m.NeedProcessor(digest))
        self._upstream.wake()

    # -- the SlotPort
    def job_spec(self, job: str) -> JobSpec | None:
        known = self._jobs.get(job)
        return known.spec if known is not None else None

    def batch_began(self, token: int) -> None:
        self.apply(ev.BatchBegan(token))

    def part_made(self, part: Part, *, last: bool) -> None:
        if self.machine.lease(part.token) is None:
            for blob in part.blobs:
                blob.path.unlink(missing_ok=True)
            return
        self._results.add(part)
        first = part.first
        if first is not None:
            self.apply(ev.PartMade(part.token, first, last))
        self._upstream.wake()

    def give_back(self, token: int, reason: str) -> None:
        log.info("giving back batch %d: %s", token, reason)
        self.apply(ev.GiveBack(token))

    def slot_changed(self, slot: int, state: str, reason: str) -> None:
        self.apply(ev.SlotChanged(slot, state, reason))

    def lease_stale(self, token: int) -> None:
        """The chief takes nothing more for ``token``."""
        self.apply(ev.LeaseGone(token, "stale"))

    def failure_heard(self, token: int) -> None:
        """The chief has every held Failed message of ``token``."""
        for part in [p.message.index for p in self._results.parts_of(token) if isinstance(p.message, m.Failed)]:
            self.apply(ev.Acked(((token, part),)))

    def forward(self, message: Message) -> None:
        self._upstream.tell(message)

    async def fetch_blobs(self, batch: Batch) -> None:
        for offset, size, digest in batch.blobs[len(batch.blob_paths) :]:  # an earlier child may have had some
            path = self.spool_path()
            await self._upstream.fetch_blob(batch, offset, size, digest, path)
            batch.blob_paths = (*batch.blob_paths, path)

    async def wait_room(self) -> None:
        await self._results.wait_room()

    def spool_path(self) -> Path:
        self._serial += 1
        return self._scratch / f"blob-{self._serial}"


def _told_by(files: dict[str, bytes]) -> tuple[str, tuple[str, ...], int]:
    """Entry, requirements and processes of a verified processor."""
    if "package.toml" not in files:
        return DEFAULT_ENTRY, (), 0
    try:
        manifest = parse_manifest_untrusted(files["package.toml"])
        return manifest.entry, manifest.requirements, manifest.processes
    except ManifestError as error:
        raise PeerError("package-invalid", str(error)[:500]) from None
