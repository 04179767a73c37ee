"""A byte stream that carries no more than so many bytes a second, in both directions together (I/O).

Several streams may share one `Pace`: what one has used up, the others wait for. Nothing is lost where a wait is cancelled, because the
waiting comes before the bytes. Source of the schedule: the generic cell rate algorithm (ITU-T I.371), with a burst.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from p2p.net.stream import READ_BYTES, Buffer, ByteStream

BURST_S = 0.25  # of the rate may go out at once after a silence
PIECE_BYTES = 64 << 10  # at most so much between two looks at the clock
LEAST_PIECE_BYTES = 1 << 10


@dataclass(slots=True)
class Pace:
    """The rate, 0 for none, and when all that went so far would have gone at it. The rate may change at any time."""

    bytes_per_s: int
    _paid_at: float = 0.0

    @property
    def piece_bytes(self) -> int:
        """How much to move at once: a tenth of a second of it, within bounds."""
        return max(LEAST_PIECE_BYTES, min(PIECE_BYTES, self.bytes_per_s // 10)) if self.bytes_per_s else READ_BYTES

    async def ready(self) -> None:
        """Wait until more may go."""
        if self.bytes_per_s:
            await trio.sleep_until(self._paid_at - BURST_S)

    def spend(self, count: int) -> None:
        """So many bytes went."""
        if self.bytes_per_s:
            self._paid_at = max(self._paid_at, trio.current_time()) + count / self.bytes_per_s


class Throttled:
    """A `ByteStream` over another one."""

    def __init__(self, inner: ByteStream, pace: Pace) -> None:
        self._inner = inner
        self._pace = pace

    async def send_all(self, data: Buffer, /) -> None:
        view = memoryview(data).cast("B")
        while view:
            await self._pace.ready()
            piece = view[: self._pace.piece_bytes]
            await self._inner.send_all(piece)
            self._pace.spend(len(piece))
            view = view[len(piece) :]

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes | bytearray:
        await self._pace.ready()
        limit = self._pace.piece_bytes
        data = await self._inner.receive_some(min(max_bytes, limit) if max_bytes else limit)
        self._pace.spend(len(data))
        return data

    async def aclose(self) -> None:
        await self._inner.aclose()
