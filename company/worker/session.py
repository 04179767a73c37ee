"""Fragment path 6/9 - run batches in one warm child, the next one always in its pipe before the answer to the last (I/O).

A session serves one job in one child. It ends when the slot's next batch is of another job, when the job is over, when a
withdrawn batch stands in the pipe, or when the child dies; the slot then starts another one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trio

from company import messages as m
from company.paths import is_plain_file_name
from company.sandbox import wire
from company.sandbox.child import Child, ChildDied, ChildFailed
from company.sandbox.verdict import Verdict
from company.worker.batch import Batch, JobSpec, SlotPort, SlotQueue
from company.worker.frames import outcome_untrusted, short_text, words_untrusted
from company.worker.large import LargeResults
from company.worker.results import Part
from p2p.base.errors import MalformedMessage, PeerError, Unavailable
from p2p.base.frames import Frame

CHUNK_BYTES = 1 << 20
STATUS_EVERY_S = 0.5
NO_LIMIT_S = 1e9
MAX_ARTIFACT_BYTES = 256 << 20  # per batch
MAX_ARTIFACTS = 1000  # per batch


class Session:
    """One child and one job."""

    def __init__(self, child: Child, spec: JobSpec, queue: SlotQueue, port: SlotPort, clock: Callable[[], float]) -> None:
        self._child = child
        self._spec = spec
        self._queue = queue
        self._port = port
        self._clock = clock
        self._over = trio.Event()
        self._verdict: Verdict | None = None
        self._feeder_saw_death = trio.Event()
        self._status_at = float("-inf")
        self._status: m.Status | None = None  # the newest one, not yet sent
        self._artifacts: dict[tuple[int, str], int] = {}  # unfinished ones: (index, name) -> bytes so far
        self._artifact_bytes = 0
        self._artifact_count = 0
        self._large = LargeResults(port.spool_path)
        self.closing = False

    async def run(self) -> Verdict | None:
        """Serve until there is nothing to serve here any more; returns the verdict if the child died."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._feed)
            nursery.start_soon(self._read)
            nursery.start_soon(self._look_out)
            await self._over.wait()
            nursery.cancel_scope.cancel()
        self._large.drop()
        return self._verdict

    def _end(self, verdict: Verdict | None) -> None:
        if not self._over.is_set():
            self._verdict = verdict
            self._over.set()

    async def _look_out(self) -> None:
        while not self._must_end():
            await self._queue.wait_changed()
        self._end(None)

    def _must_end(self) -> bool:
        if self.closing:
            return True
        head = self._queue.head
        if self._queue.ghosts and (head is None or not head.fed):
            return True  # the child is busy with a batch that nobody wants
        return head is not None and not head.fed and not self._is_mine(head.job)

    def _is_mine(self, job: str) -> bool:
        """Whether this child may serve it: it is its job, and its limits are still those of the job."""
        return job == self._spec.job and self._port.job_spec(job) is self._spec

    async def _watch(self) -> None:
        await self._child.watch(time_limit_s=self._spec.time_limit_s or NO_LIMIT_S)

    # -- to the child
    async def _feed(self) -> None:
        try:
            await self._feed_all()
        except ChildDied:
            self._feeder_saw_death.set()  # the reader will see it too, after what the child still said
        except trio.BusyResourceError:
            pass  # the reader waits for the child's end already; only one may

    async def _feed_all(self) -> None:
        while True:
            batch = self._queue.next_unfed(self._spec.job)
            if batch is None or not self._is_mine(batch.job):
                await self._queue.wait_changed()
                continue
            try:
                await self._port.fetch_blobs(batch)
            except (Unavailable, PeerError, OSError) as error:
                self._port.give_back(batch.token, str(error))
                continue
            if batch not in list(self._queue):
                batch.drop_files()  # withdrawn while they were fetched
                continue
            batch.fed = True
            if self._queue.head is batch:
                self._port.batch_began(batch.token)
            await self._send(batch)

    async def _send(self, batch: Batch) -> None:
        done = batch.answered  # by a child that died
        paths = [path for path, (offset, _, _) in zip(batch.blob_paths, batch.blobs, strict=True) if offset >= done]
        for number, path in enumerate(paths):  # CHUNKs come before the message that names them
            async with await trio.open_file(path, "rb") as file:
                ahead = await file.read(CHUNK_BYTES)
                while True:
                    data, ahead = ahead, await file.read(CHUNK_BYTES)
                    await self._child.send_chunk(number, data, last=not ahead)
                    if not ahead:
                        break
        blobs = [[offset - done, size] for offset, size, _ in batch.blobs if offset >= done]
        body = memoryview(batch.body)[int(batch.sizes[:done].sum(dtype=np.int64)) :]
        await self._child.send([wire.RUN, batch.token, batch.first + done, blobs, not batch.is_careful], batch.sizes[done:], body)

    # -- from the child
    async def _read(self) -> None:
        try:
            await self._read_all()
        except ChildDied as died:
            self._end(died.verdict)
        except trio.BusyResourceError:  # as above, the other way round
            await self._feeder_saw_death.wait()
            self._end(await self._child.wait())

    async def _read_all(self) -> None:
        while True:
            await self._port.wait_room()
            try:
                await self._on_frame(await self._child.receive())
            except (MalformedMessage, ChildFailed, OSError) as error:
                if isinstance(error, OSError):
                    self._child.kill("disk-limit", f"the worker could not keep a large result: {error}")
                else:
                    self._child.kill("garbage-on-pipe", f"the child broke its protocol: {error}")
                self._end(await self._child.wait())
                return

    async def _on_frame(self, frame: Frame) -> None:
        code = frame.header[0]
        if code == wire.OUTCOME:
            self._on_outcome(frame)
        elif code == wire.CHUNK:
            await self._large.on_chunk_untrusted(frame)
        elif code == wire.STATUS:
            self._on_status(frame)
        elif code == wire.ARTIFACT:
            self._on_artifact(frame)
        else:
            raise MalformedMessage(f"message {str(code)[:20]!r} has no place here")

    def _running(self) -> Batch:
        head = self._queue.head
        if head is None or not head.fed:
            raise MalformedMessage("the child speaks of a batch while it holds none")
        return head

    def _is_ghost(self, frame: Frame) -> bool:
        return len(frame.header) > 1 and type(frame.header[1]) is int and frame.header[1] in self._queue.ghosts

    def _on_outcome(self, frame: Frame) -> None:
        if self._is_ghost(frame):
            self._large.drop()
            return
        batch = self._running()
        outcome = outcome_untrusted(frame, batch.expected())
        held = self._large.take_untrusted(outcome)
        if not outcome.count and not outcome.last:
            return
        batch.answered += outcome.count
        blobs = tuple((h.index - outcome.first, h.size, h.digest) for h in held)
        message = m.Outcome(
            outcome.token, batch.job, outcome.first, outcome.count, outcome.last, outcome.run_us, outcome.cpu_us,
            outcome.peak_bytes, outcome.log_dropped, blobs, batch.input_digest(outcome.first, outcome.count),
        )  # fmt: skip
        if outcome.last:
            self._queue.pop()
            self._artifacts.clear()
            self._artifact_bytes = self._artifact_count = 0
            self._status = None
        self._flush_status()
        self._port.part_made(Part(batch.token, message, frame.sizes, frame.body, held), last=outcome.last)
        head = self._queue.head
        if outcome.last and head is not None and head.fed:
            self._port.batch_began(head.token)

    def _on_status(self, frame: Frame) -> None:
        token, index, text, fraction = words_untrusted(frame, (int, int, str, float), 0)
        if self._is_ghost(frame):
            return
        batch = self._in_batch(token, index)
        if batch is None:
            return
        permille = None if fraction is None or fraction != fraction else int(max(0.0, min(1.0, fraction)) * 1000)
        self._status = m.Status(token, batch.job, index, short_text(text), permille)
        self._flush_status()

    def _flush_status(self) -> None:
        now = self._clock()
        if self._status is not None and now - self._status_at >= STATUS_EVERY_S:
            self._status_at = now
            self._port.forward(self._status)
            self._status = None

    def _in_batch(self, token: int, index: int) -> Batch | None:
        """The batch that runs, or None for one that is over: a thread of the module may speak late, which harms nobody."""
        batch = self._queue.head
        if batch is None or not batch.fed or token != batch.token:
            return None
        if not batch.first <= index < batch.first + batch.count:
            raise MalformedMessage(f"token {token}, fragment {index} is not what runs here")
        return batch

    def _on_artifact(self, frame: Frame) -> None:
        token, index, name, last = words_untrusted(frame, (int, int, str, bool), 1)
        if self._is_ghost(frame):
            return
        batch = self._in_batch(token, index)
        if batch is None:
            return
        if not is_plain_file_name(name):
            raise MalformedMessage("artifact name is refused")
        size = len(frame.body)
        if size > CHUNK_BYTES:
            raise MalformedMessage(f"artifact piece of {size} bytes; the limit is {CHUNK_BYTES}")
        offset = self._artifacts.pop((index, name), 0)
        self._artifact_count += last
        if size + self._artifact_bytes > MAX_ARTIFACT_BYTES or self._artifact_count + len(self._artifacts) >= MAX_ARTIFACTS:
            return  # the job goes on without; the chief keeps what came
        self._artifact_bytes += size
        if not last:
            self._artifacts[(index, name)] = offset + size
        self._port.part_made(Part(token, m.Artifact(token, batch.job, index, name, offset, last), frame.sizes, frame.body), last=False)
