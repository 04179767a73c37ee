"""Fragment path 7/9 - hold results until the chief has them on disk (I/O: spool files only).

Bounded: ``memory_limit`` bytes in memory, then files up to ``spool_limit``, then `wait_room` does not return and the slots
stop reading from their children, which stops those. Nothing is forgotten but by `forget_part` and `forget_lease`, so a part
that was sent on a channel that broke is sent again on the next one.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import trio

from company.messages import Failed, Outcome
from p2p.base.errors import InvariantBroken
from p2p.base.frames import NO_SIZES, Sizes
from p2p.base.record import record
from p2p.base.schema import Message

log = logging.getLogger(__name__)
MEMORY_LIMIT_BYTES = 64 << 20
SPOOL_LIMIT_BYTES = 1 << 30
PART_OVERHEAD_BYTES = 512  # so that many empty parts count too
WINDOW_BYTES = 16 << 20  # sent and not yet on the chief's disk; the chief holds as much in memory for each worker while its disk is slow


@record
class HeldBlob:
    """One result too large to inline, spooled at ``path``."""

    index: int
    size: int
    digest: bytes
    path: Path


@dataclass(slots=True, eq=False)
class Part:
    """One message of a lease's outcome with its bytes. ``sizes``: uint32, shape (n,)."""

    token: int
    message: Message
    sizes: Sizes = field(default_factory=lambda: NO_SIZES)
    body: bytes | memoryview = b""
    blobs: tuple[HeldBlob, ...] = ()
    path: Path | None = None
    size_bytes: int = 0
    gone: bool = False
    is_sent: bool = False  # on this channel
    is_uploaded: bool = False  # its blobs are with the chief

    @property
    def first(self) -> int | None:
        """The key by which this part is acknowledged; nil for what needs none (artifacts)."""
        match self.message:
            case Outcome(first=first):
                return first
            case Failed(index=index):
                return index
            case _:
                return None


class HeldResults:
    """The parts of all held leases, in the order in which they were made."""

    def __init__(self, folder: Path, *, memory_limit: int = MEMORY_LIMIT_BYTES, spool_limit: int = SPOOL_LIMIT_BYTES) -> None:
        """``on_acked``, if it is set, is called when a part that was sent is forgotten: there may be room to send another one."""
        self._folder = folder
        self._memory_limit = memory_limit
        self._spool_limit = spool_limit
        self._leases: dict[int, list[Part]] = {}
        self._unsent: deque[Part] = deque()
        self._serial = 0
        self._room = trio.Event()
        self.memory_bytes = 0
        self.spool_bytes = 0
        self.in_flight_bytes = 0
        self.on_acked: Callable[[], None] | None = None

    def add(self, part: Part) -> None:
        """Keep a part; it is written to a file when memory is full, and kept in memory all the same when the disk is."""
        part.size_bytes = len(part.body) + 4 * len(part.sizes) + PART_OVERHEAD_BYTES
        blob_bytes = sum(blob.size for blob in part.blobs)
        if self.memory_bytes + part.size_bytes > self._memory_limit and len(part.body):
            part.path = self._spool(part.body)
        if part.path is not None:
            part.body = b""
            self.spool_bytes += part.size_bytes
        else:
            self.memory_bytes += part.size_bytes
        self.spool_bytes += blob_bytes
        self._leases.setdefault(part.token, []).append(part)
        self._unsent.append(part)

    def _spool(self, body: bytes | memoryview) -> Path | None:
        self._serial += 1
        path = self._folder / f"part-{self._serial}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        except OSError as error:
            log.error("results cannot be spooled: %s", error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return path

    def next_unsent(self, blocked: Collection[int] = ()) -> Part | None:
        """The oldest part not yet sent on this channel whose token is not ``blocked``, without taking it.

        None, too, while `WINDOW_BYTES` are sent and not acknowledged; a part larger than that goes alone.
        """
        while self._unsent and self._unsent[0].gone:
            self._unsent.popleft()
        if not blocked:
            part = self._unsent[0] if self._unsent else None
        else:
            part = next((part for part in self._unsent if not part.gone and part.token not in blocked), None)
        is_wide = part is not None and self.in_flight_bytes + part.size_bytes > WINDOW_BYTES and self.in_flight_bytes > 0
        return None if is_wide else part

    def mark_sent(self, part: Part) -> None:
        """``part`` goes to the channel now; it stays held."""
        if part.first is not None:  # others are never acknowledged
            part.is_sent = True
            self.in_flight_bytes += part.size_bytes
        if self._unsent and self._unsent[0] is part:
            self._unsent.popleft()
        else:
            self._unsent.remove(part)

    def body_of(self, part: Part) -> bytes | memoryview:
        """The bytes of a part, read back if they were spooled. Raises `OSError`."""
        return part.path.read_bytes() if part.path is not None else part.body

    def rewind(self) -> None:
        """A new channel: everything held is unsent again, in the order in which it was made (per lease)."""
        self._unsent = deque(part for parts in self._leases.values() for part in parts)
        self.in_flight_bytes = 0
        for part in self._unsent:
            part.is_uploaded = part.is_sent = False

    def parts_of(self, token: int) -> tuple[Part, ...]:
        return tuple(self._leases.get(token, ()))

    def forget_part(self, token: int, first: int) -> None:
        """Drop the part acknowledged as (token, first); unknown ones change nothing."""
        parts = self._leases.get(token)
        if parts is None:
            return
        for part in parts:
            if part.first == first:
                parts.remove(part)
                self._release(part)
                break
        if not parts:
            del self._leases[token]

    def forget_lease(self, token: int) -> None:
        """Drop everything of ``token``."""
        for part in self._leases.pop(token, ()):
            self._release(part)

    def _release(self, part: Part) -> None:
        part.gone = True
        if part.path is not None:
            part.path.unlink(missing_ok=True)
            self.spool_bytes -= part.size_bytes
        else:
            self.memory_bytes -= part.size_bytes
        for blob in part.blobs:
            blob.path.unlink(missing_ok=True)
            self.spool_bytes -= blob.size
        part.body = b""
        if part.is_sent:
            self.in_flight_bytes -= part.size_bytes
            if self.on_acked is not None:
                self.on_acked()
        if self.has_room:
            self._room.set()
            self._room = trio.Event()

    @property
    def has_room(self) -> bool:
        # many small parts in memory while the spool is empty: memory alone may be full, so both bounds count
        return self.spool_bytes < self._spool_limit and self.memory_bytes < 2 * self._memory_limit

    async def wait_room(self) -> None:
        """Return once another part may be made."""
        while not self.has_room:
            await self._room.wait()

    def validate(self) -> None:
        """Check that the byte counts agree with what is held. Raises `InvariantBroken`."""
        parts = [part for held in self._leases.values() for part in held]
        memory = sum(p.size_bytes for p in parts if p.path is None)
        spool = sum(p.size_bytes for p in parts if p.path is not None) + sum(b.size for p in parts for b in p.blobs)
        if (memory, spool) != (self.memory_bytes, self.spool_bytes):
            raise InvariantBroken("held bytes do not add up", memory=(memory, self.memory_bytes), spool=(spool, self.spool_bytes))
        if (flying := sum(p.size_bytes for p in parts if p.is_sent)) != self.in_flight_bytes:
            raise InvariantBroken("sent bytes do not add up", found=flying, counted=self.in_flight_bytes)
