"""One batch as a slot holds it, and the queue of a slot (pure but for the event that wakes its runner)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import trio
import xxhash

from company.worker.frames import Expected
from company.worker.results import Part
from p2p.base.frames import NO_SIZES, Sizes
from p2p.base.record import record
from p2p.base.schema import Message


@dataclass(slots=True, eq=False)
class Batch:
    """The fragments of one lease. ``answered``: how many have a result; ``fed``: it is in the child's pipe."""

    token: int
    slot: int
    job: str
    first: int
    count: int
    attempt: int
    sizes: Sizes = field(default_factory=lambda: NO_SIZES)
    body: bytes | memoryview = b""
    blobs: tuple[tuple[int, int, bytes], ...] = ()  # (offset, size, digest)
    blob_paths: tuple[Path, ...] = ()
    answered: int = 0
    fed: bool = False
    strikes: int = 0
    is_careful: bool = False  # a child died where its page named many fragments: now one by one

    def expected(self) -> Expected:
        return Expected(self.token, self.first + self.answered, self.first + self.count)

    def input_digest(self, first: int, count: int) -> bytes:
        """xxh3-128 of these fragments as they came: what the chief compares when split has to run again."""
        a, b = first - self.first, first - self.first + count
        ends = np.cumsum(self.sizes[:b], dtype=np.int64)
        low, high = (int(ends[a - 1]) if a else 0), (int(ends[b - 1]) if b else 0)
        state = xxhash.xxh3_128(np.ascontiguousarray(self.sizes[a:b], dtype="<u4").tobytes())
        state.update(memoryview(self.body)[low:high])
        for offset, _, digest in self.blobs:
            if a <= offset < b:
                state.update(digest)
        return state.digest()

    def drop_files(self) -> None:
        for path in self.blob_paths:
            path.unlink(missing_ok=True)
        self.blob_paths = ()


@record
class JobSpec:
    """What a child needs to serve a job. ``params``: codec bytes; ``files``: the processor's files by path."""

    job: str
    params: bytes
    files: Mapping[str, bytes]
    time_limit_s: float
    memory_bytes: int
    options: Mapping[str, Any] = field(default_factory=dict)
    site: Path | None = None  # what the package requires
    processes: int = 0  # how many it may start; nothing to a guest, which starts none


class SlotPort(Protocol):
    """What a slot asks of the worker around it."""

    def job_spec(self, job: str) -> JobSpec | None: ...
    def batch_began(self, token: int) -> None: ...
    def part_made(self, part: Part, *, last: bool) -> None: ...
    def give_back(self, token: int, reason: str) -> None: ...
    def slot_changed(self, slot: int, state: str, reason: str) -> None: ...
    def forward(self, message: Message) -> None:
        """A message that may be lost (status)."""

    async def fetch_blobs(self, batch: Batch) -> None:
        """Spool the batch's large fragments to ``blob_paths``. Raises `Unavailable` when the chief will not give them."""

    async def wait_room(self) -> None: ...
    def spool_path(self) -> Path:
        """A new file name in the worker's scratch."""


class SlotQueue:
    """The batches of one slot, in the order in which they came."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._changed = trio.Event()
        self.ghosts: set[int] = set()  # withdrawn, but already in the child's pipe

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    @property
    def head(self) -> Batch | None:
        return self._batches[0] if self._batches else None

    def next_unfed(self, job: str) -> Batch | None:
        """The batch to feed next: at most one ahead, only of ``job``, and nothing behind a ghost."""
        if self.ghosts:
            return None
        for position, batch in enumerate(self._batches):
            if not batch.fed:
                return batch if batch.job == job and position < 2 else None
        return None

    def add(self, batch: Batch) -> None:
        self._batches.append(batch)
        self.wake()

    def pop(self) -> Batch:
        """Take the head out: it is over."""
        batch = self._batches.popleft()
        batch.drop_files()
        self.wake()
        return batch

    def withdraw(self, token: int) -> Batch | None:
        """Take ``token`` out. A fed one leaves a ghost, because the child will run it all the same."""
        for batch in self._batches:
            if batch.token == token:
                self._batches.remove(batch)
                batch.drop_files()
                if batch.fed:
                    self.ghosts.add(token)
                self.wake()
                return batch
        return None

    def unfeed(self) -> None:
        """The child is gone: what was in its pipe must be given to another one."""
        self.ghosts.clear()
        for batch in self._batches:
            batch.fed = False

    def wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_changed(self) -> None:
        await self._changed.wait()
