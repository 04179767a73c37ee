"""What waits to be said to a worker that speaks REST: the other way beside an RPC channel (I/O: wakes those who wait).

Frames leave in the answer to a call of the worker or in a call to it, whichever comes first. An answer may be lost, and two bodies may
overtake each other; so a body is complete in itself (a Run has its JobIs in front until the worker has shown that it knows the job), and
what left stays at hand until it counts no more. An acknowledgement is the answer itself, so Ack and Stale never become frames.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from company import messages as m
from p2p.base.errors import Unavailable
from p2p.base.frames import NO_SIZES, Sizes, encode_frame
from p2p.base.record import record
from p2p.base.schema import Message
from p2p.net.stream import Buffer

MAX_FRAMES = 4096
MAX_BYTES = 64 << 20
TAKE_BYTES = 24 << 20  # of one body; the worker reads at most 40 MiB
MAX_STALE = 1024


@record
class Said:
    """One frame. ``token``: of a Run; ``job``: of a Run, or of a JobIs that stands in front of one."""

    data: bytes
    token: int | None = None
    job: str | None = None

    def without_run(self) -> Said:
        """What to remember of it: a Run can be made again, and its fragments are kept in memory once only."""
        return self if self.token is None else Said(b"", self.token, self.job)

    @property
    def is_job(self) -> bool:
        return self.job is not None and self.token is None


@dataclass(slots=True)
class ToldJob:
    """A job of which the worker was, or will be told. ``is_known``: it has shown that it knows."""

    data: bytes
    processor: bytes
    is_known: bool = False


class Outbox:
    """The frames for one worker; implements `company.chief.sessions.Way`."""

    def __init__(self) -> None:
        self.peer_key = b""  # no channel, no proved key: never equal to one
        self.closed = trio.Event()
        self.changed = trio.Event()  # set, and replaced, when there is something new
        self.stale: OrderedDict[int, None] = OrderedDict()
        self._jobs: dict[str, ToldJob] = {}
        self._waiting: deque[Said] = deque()
        self._bytes = 0
        self._acks: dict[tuple[int, int], trio.Event] = {}

    # ---- the way ------------------------------------------------------------------------------------------------------------
    def send_nowait(self, message: Message, sizes: Sizes = NO_SIZES, body: Buffer | Sequence[Buffer] = b"") -> None:
        """Queue one message, or take it as the news that it is. Raises `trio.WouldBlock`, `Unavailable`."""
        if self.closed.is_set():
            raise Unavailable("worker-gone", "this worker is gone")
        match message:
            case m.Ack(parts):
                for part in parts:
                    event = self._acks.pop(part, None)
                    if event is not None:
                        event.set()
            case m.Stale(token):
                self._note_stale(token)
            case m.Resumed(_, drop):
                for token, reason in drop:
                    self._put(Said(_frame(m.Cancel(token, reason), NO_SIZES, b"")))
            case m.Pong():
                pass
            case m.JobIs(job):
                self._jobs[job] = ToldJob(_frame(message, sizes, body), message.processor)
            case m.JobOver(job):
                self._jobs.pop(job, None)
                self._put(Said(_frame(message, sizes, body)))
            case m.Run(token, _, job):
                self._put(Said(_frame(message, sizes, body), token, job))
            case _:
                self._put(Said(_frame(message, sizes, body)))

    async def send(self, message: Message, sizes: Sizes = NO_SIZES, body: Buffer | Sequence[Buffer] = b"") -> None:
        """As `send_nowait`; nothing that a REST worker may ask is answered this way."""
        self.send_nowait(message, sizes, body)

    async def aclose(self, reason: m.Refused | None = None) -> None:
        """Forget everything. Idempotent."""
        self.closed.set()
        self._waiting.clear()
        self._bytes = 0
        for event in self._acks.values():
            event.set()
        self._acks.clear()
        self._wake()

    # ---- what the door asks --------------------------------------------------------------------------------------------------
    def expect_ack(self, token: int, first: int) -> trio.Event:
        """Set when this part is on disk, or refused, or the outbox is closed."""
        return self._acks.setdefault((token, first), trio.Event())

    def forget_ack(self, token: int, first: int) -> None:
        """Nothing will come of it."""
        self._acks.pop((token, first), None)

    def knows_job(self, job: str) -> None:
        """The worker spoke of this job: it need not be told again."""
        told = self._jobs.get(job)
        if told is not None:
            told.is_known = True

    def take(self, may_go: Callable[[bytes], bool]) -> list[Said]:
        """Remove and return what fits into one body, as far as ``may_go`` says that the worker has the processors."""
        taken: list[Said] = []
        size = 0
        while self._waiting and (not taken or size + len(self._waiting[0].data) <= TAKE_BYTES):
            said = self._waiting[0]
            told = self._jobs.get(said.job) if said.job is not None else None
            if told is not None and not told.is_known and not may_go(told.processor):
                break
            self._waiting.popleft()
            self._bytes -= len(said.data)
            size += len(said.data)
            if told is not None and not told.is_known and not any(s.job == said.job for s in taken):
                taken.append(Said(told.data, None, said.job))
                size += len(told.data)
            taken.append(said)
        return taken

    def put_back(self, taken: Sequence[Said]) -> None:
        """What could not be delivered is the next to go; a JobIs among it comes by itself."""
        for said in reversed(taken):
            if not said.is_job:
                self._waiting.appendleft(said)
                self._bytes += len(said.data)

    def next_processor(self, has: Callable[[bytes], bool]) -> bytes | None:
        """A processor that the worker must have before the next frame can go."""
        if not self._waiting or self._waiting[0].job is None:
            return None
        told = self._jobs.get(self._waiting[0].job)
        return None if told is None or told.is_known or has(told.processor) else told.processor

    def drop_jobs_of(self, processor: bytes) -> list[str]:
        """The worker refuses this processor: forget the batches that need it; returns their jobs."""
        jobs = [job for job, told in self._jobs.items() if told.processor == processor]
        kept = [said for said in self._waiting if said.job not in jobs]
        self._waiting = deque(kept)
        self._bytes = sum(len(said.data) for said in kept)
        return jobs

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    # ---- inside ---------------------------------------------------------------------------------------------------------------
    def _put(self, said: Said) -> None:
        if self._waiting and (len(self._waiting) >= MAX_FRAMES or self._bytes + len(said.data) > MAX_BYTES):
            raise trio.WouldBlock
        self._waiting.append(said)
        self._bytes += len(said.data)
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def wake(self) -> None:
        """Somebody who waits for `changed` shall look again."""
        self._wake()

    def _note_stale(self, token: int) -> None:
        self.stale[token] = None
        while len(self.stale) > MAX_STALE:
            self.stale.popitem(last=False)


def _frame(message: Message, sizes: Sizes, body: Buffer | Sequence[Buffer]) -> bytes:
    whole = bytes(body) if isinstance(body, (bytes, bytearray, memoryview)) else b"".join(body)
    head, tail = encode_frame(message.as_array(), sizes, whole)
    return head + bytes(tail)
