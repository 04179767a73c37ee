"""Carry a newcomer's stream to our chief, unread: its TLS to the chief runs inside (I/O).

The newcomer cannot name a target: a relay leads to this worker's own chief and nowhere else. Bounded by connections and bytes,
so that a stranger who finds the port can do no more than knock at the chief through it, slowly.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from company import messages as m
from p2p.base.errors import Unavailable
from p2p.net.addresses import split_address
from p2p.net.channel import Channel
from p2p.net.splice import Prefixed, splice

log = logging.getLogger(__name__)
MAX_RELAYS = 32
MAX_BYTES = 1 << 40  # of one stream; a worker behind us may work for weeks
IDLE_S = 120.0  # heartbeats flow more often
CONNECT_DEADLINE_S = 5.0


class Relay:
    """Serves channels of purpose "relay". ``addresses``: the chief's RPC addresses, as our own token named them."""

    def __init__(self, addresses: Sequence[str], *, max_relays: int = MAX_RELAYS, max_bytes: int = MAX_BYTES) -> None:
        self._addresses = tuple(addresses)
        self._max_relays = max_relays
        self._max_bytes = max_bytes
        self.active = 0

    async def on_channel(self, channel: Channel) -> None:
        """One connection to our RPC port, to its end."""
        if channel.purpose != "relay":
            await channel.send(m.Refused("not-a-chief", "this is a worker; it only relays", b""))
            return
        if self.active >= self._max_relays:
            await channel.send(m.Refused("relay-full", f"this worker relays {self._max_relays} streams already", b""))
            return
        self.active += 1
        try:
            await self._relay(channel)
        finally:
            self.active -= 1

    async def _relay(self, channel: Channel) -> None:
        message: object = None
        with trio.move_on_after(CONNECT_DEADLINE_S):
            message, _ = await channel.receive()
        if not isinstance(message, m.Ping):
            return
        try:
            target = await self._connect()
        except Unavailable as error:
            await channel.send(m.Refused(error.code, error.text[:1000], b""))
            return
        try:
            await channel.send(m.Pong(message.at))
            stream, leftover = await channel.detach()
        except BaseException:
            await trio.aclose_forcefully(target)
            raise
        carried = await splice(Prefixed(stream, leftover), target, self._max_bytes, idle_s=IDLE_S)
        log.info("relayed %s: %d bytes out, %d back, %s", channel.peer_address, carried.a_to_b, carried.b_to_a, carried.ended)

    async def _connect(self) -> trio.SocketStream:
        errors: list[str] = []
        for address in self._addresses:
            host, port = split_address(address)
            with trio.move_on_after(CONNECT_DEADLINE_S):
                try:
                    return await trio.open_tcp_stream(host, port)
                except OSError as error:
                    errors.append(str(error))
                    continue
            errors.append(f"no answer from {address}")
        raise Unavailable("chief-unreachable", "; ".join(errors) or "no address of the chief is known")
