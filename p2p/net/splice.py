"""Carries bytes between two streams, unread, for a relay (I/O)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace

import trio

from p2p.net.stream import ByteStream

PIECE_BYTES = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Spliced:
    """What was carried: bytes each way, and why it ended: "closed", "cap" or "idle"."""

    a_to_b: int = 0
    b_to_a: int = 0
    ended: str = "closed"


async def splice(stream_a: ByteStream, stream_b: ByteStream, byte_cap: int, *, idle_s: float = 300.0) -> Spliced:
    """Carry bytes both ways until either side ends, ``byte_cap`` bytes went through , or nothing came for ``idle_s``. Closes both."""
    carried = Spliced()
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
