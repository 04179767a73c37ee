"""A public chief connects two companies one of which cannot be dialled, and carries their TLS unread (I/O).

The chief that cannot be dialled keeps a channel to us ("relay-keep"). Whoever wants it asks us by its key; we call it on that channel, it
comes back with the ticket, and from then on bytes go through as they are. Everything is counted: who may keep, streams in all and of
one asker, bytes of a stream and their rate. What the two say to each other is their own TLS 1.3 with keys that both know beforehand.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from company import peer_messages as pm
from company.messages import Ping, Pong
from p2p.base.errors import MalformedMessage, PeerError, Unavailable
from p2p.base.keys import company_id_text
from p2p.net.channel import Channel
from p2p.net.hello import refusal
from p2p.net.splice import Prefixed, splice

MAX_KEPT = 64
MAX_STREAMS = 32
MAX_PER_ASKER = 4
BYTE_CAP = 1 << 30  # of one stream, both ways together
RATE_BYTES_PER_S = 4 << 20
CALL_DEADLINE_S = 10.0
FIRST_MESSAGE_S = 5.0
SILENT_AFTER_S = 90.0  # three pings
IDLE_S = 120.0
M = TypeVar("M")
_log = logging.getLogger("company.chief.relay")


@dataclass(slots=True)
class _Call:
    """Somebody waits for the company that holds ``key``."""

    key: bytes
    taken: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    taker: Channel | None = None


@dataclass(slots=True)
class RelayDesk:
    """Serves channels of purposes "relay-keep" and "relay". ``is_on``: whether the owner allows it at all."""

    is_on: bool = True
    byte_cap: int = BYTE_CAP
    rate_bytes_per_s: int = RATE_BYTES_PER_S
    kept: dict[bytes, Channel] = field(default_factory=dict)
    streams: int = 0
    carried_bytes: int = 0
    _calls: dict[bytes, _Call] = field(default_factory=dict)
    _askers: Counter[bytes] = field(default_factory=Counter)

    async def on_keep(self, channel: Channel) -> None:
        """A chief stays in touch for as long as it pings."""
        await _first(channel, pm.RelayKeep)
        if not self.is_on:
            raise PeerError("relay-off", "this chief relays for nobody")
        if len(self.kept) >= MAX_KEPT and channel.peer_key not in self.kept:
            raise PeerError("relay-full", f"this chief relays for {MAX_KEPT} companies already")
        older = self.kept.pop(channel.peer_key, None)
        if older is not None:
            await older.aclose(refusal("replaced", "The chief opened another channel."))
        self.kept[channel.peer_key] = channel
        try:
            await channel.send(pm.RelayKept(self.byte_cap, self.rate_bytes_per_s))
            while True:
                message: object = None
                with trio.move_on_after(SILENT_AFTER_S):
                    message, _ = await channel.receive()
                if not isinstance(message, Ping):
                    return
                await channel.send(Pong(message.at))
        finally:
            if self.kept.get(channel.peer_key) is channel:
                del self.kept[channel.peer_key]

    async def on_relay(self, channel: Channel) -> None:
        """Either side of one stream."""
        message = await _first(channel, pm.RelayTo, pm.RelayTake)
        if isinstance(message, pm.RelayTake):
            await self._take(channel, message.ticket)
            return
        if not isinstance(message, pm.RelayTo):
            raise MalformedMessage("a relayed stream begins with who is wanted")
        asker = channel.peer_key
        if self.streams >= MAX_STREAMS or self._askers[asker] >= MAX_PER_ASKER:
            raise PeerError("relay-full", f"this chief carries {MAX_STREAMS} streams at a time, {MAX_PER_ASKER} of one company")
        self.streams += 1
        self._askers[asker] += 1
        try:
            await self._connect(channel, message.key)
        finally:
            self.streams -= 1
            self._askers -= Counter([asker])  # drops it at zero

    async def _connect(self, channel: Channel, key: bytes) -> None:
        keeper = self.kept.get(key)
        if keeper is None or not self.is_on:
            raise PeerError("relay-unknown", f"{company_id_text(key)} keeps no channel here")
        ticket, call = os.urandom(16), _Call(key)
        self._calls[ticket] = call
        try:
            keeper.send_nowait(pm.RelayCall(ticket))
            with trio.move_on_after(CALL_DEADLINE_S):
                await call.taken.wait()
            taker = call.taker
            if taker is None:
                raise Unavailable("relay-no-answer", f"{company_id_text(key)} did not come within {CALL_DEADLINE_S:g} s")
            await taker.send(pm.RelayReady())
            await channel.send(pm.RelayReady())
            far = Prefixed(*await taker.detach())
            near = Prefixed(*await channel.detach())
            done = await splice(near, far, self.byte_cap, idle_s=IDLE_S, bytes_per_s=self.rate_bytes_per_s)
            self.carried_bytes += done.a_to_b + done.b_to_a
            _log.info("relayed %s: %d bytes out, %d back, %s", company_id_text(key), done.a_to_b, done.b_to_a, done.ended)
        except trio.WouldBlock:
            raise Unavailable("relay-no-answer", f"{company_id_text(key)} does not read what it is sent") from None
        finally:
            del self._calls[ticket]
            call.over.set()

    async def _take(self, channel: Channel, ticket: bytes) -> None:
        call = self._calls.get(ticket)
        if call is None or call.key != channel.peer_key or call.taker is not None:
            raise PeerError("relay-unknown", "nobody waits under this ticket")
        call.taker = channel
        call.taken.set()
        await call.over.wait()  # the other task carries; this one only keeps the connection


async def _first(channel: Channel, *wanted: type[M]) -> M:
    """The first message, which must be one of these."""
    message: object = None
    with trio.move_on_after(FIRST_MESSAGE_S):
        message, _ = await channel.receive()
    for kind in wanted:
        if isinstance(message, kind):
            return message
    raise MalformedMessage(f"expected {' or '.join(kind.__name__ for kind in wanted)}, got {type(message).__name__}")
