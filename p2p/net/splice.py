"""Carries bytes between two streams, unread, for a relay (I/O)."""

from __future__ import annotations

import ssl
from dataclasses import replace

import trio

from p2p.base.record import record
from p2p.net.stream import ByteStream

PIECE_BYTES = 256 << 10


@record(kw_only=True)
class Spliced:
    """What was carried: bytes each way, and why it ended: "closed", "cap" or "idle"."""

    a_to_b: int = 0
    b_to_a: int = 0
    ended: str = "closed"


class Prefixed:
    """A stream whose first bytes were read already."""

    def __init__(self, stream: ByteStream, first: bytes) -> None:
        self._stream = stream
        self._first = first

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
        """As the stream's own."""
        await self._stream.send_all(data)

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes | bytearray:
        """What was read already, then what comes."""
        if self._first:
            data, self._first = self._first, b""
            return data
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """As the stream's own."""
        await self._stream.aclose()


class Pace:
    """Keeps a rate over what several tasks carry; a second of it may be used at once."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._paid_until = trio.current_time() - 1.0

    async def wait(self, size_bytes: int) -> None:
        """Wait until so many bytes more are within the rate."""
        now = trio.current_time()
        self._paid_until = max(self._paid_until, now - 1.0) + size_bytes / self._bytes_per_s
        await trio.sleep(max(0.0, self._paid_until - now))


async def splice(
    stream_a: ByteStream, stream_b: ByteStream, byte_cap: int, *, idle_s: float = 300.0, bytes_per_s: float | None = None
) -> Spliced:
    """Carry bytes both ways until either side ends, ``byte_cap`` bytes went through , or nothing came for ``idle_s``. Closes both.

    ``bytes_per_s``: no faster than this, both ways together.
    """
    carried = Spliced()
    pace = Pace(bytes_per_s) if bytes_per_s is not None else None
    async with trio.open_nursery() as nursery:

        async def carry(source: ByteStream, target: ByteStream, *, is_forward: bool) -> None:
            nonlocal carried
            ended = "closed"
            try:
                while data := await source.receive_some(PIECE_BYTES):
                    idle.deadline = trio.current_time() + idle_s
                    if carried.a_to_b + carried.b_to_a + len(data) > byte_cap:
                        ended = "cap"
                        break
                    await target.send_all(data)
                    if pace is not None:
                        await pace.wait(len(data))
                    if is_forward:
                        carried = replace(carried, a_to_b=carried.a_to_b + len(data))
                    else:
                        carried = replace(carried, b_to_a=carried.b_to_a + len(data))
            except (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # an end like any other: the parties see it in their own TLS
            carried = replace(carried, ended=ended)
            nursery.cancel_scope.cancel()

        try:
            idle = nursery.cancel_scope
            idle.deadline = trio.current_time() + idle_s
            carried = replace(carried, ended="idle")
            nursery.start_soon(lambda: carry(stream_a, stream_b, is_forward=True))
            await carry(stream_b, stream_a, is_forward=False)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for stream in (stream_a, stream_b):
                    with trio.move_on_after(1.0):
                        await stream.aclose()
    return carried
