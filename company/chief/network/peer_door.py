"""What this chief does for other chiefs: answers, dials back, looks up, relays (I/O).

A channel asks at most so often, one question at a time, and ends after a while of silence. Dialling back goes to the address from which
the channel comes and to no other, so nobody can make this chief knock at a third party.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import trio

from company import peer_messages as pm
from company.chief.network.dialling import REGISTRY
from company.chief.network.questions import Question, open_question_untrusted, sign_answer
from company.chief.network.relay import RelayDesk
from p2p.base.errors import MalformedMessage, ParallelError, PeerError, Unavailable
from p2p.base.keys import Identity
from p2p.base.schema import Message
from p2p.dht.addressing import is_dialable, normal
from p2p.dht.directory import Directory
from p2p.dht.limits import Buckets
from p2p.dht.solicit import Answer
from p2p.net.addresses import join_address, split_address
from p2p.net.channel import Channel
from p2p.net.clock import read_unix
from p2p.net.hello import refusal
from p2p.net.rpc import dial

PURPOSES = ("peer", "relay", "relay-keep", "contract")
SILENT_AFTER_S = 30.0
DIAL_S = 4.0
FIND_S = 8.0
MAX_OFFERS = 128  # in one answer: a hundred are one page
PER_PEER_PER_S, PER_PEER_BURST = 2.0, 20.0  # messages of one key
DIALS_PER_S, DIALS_BURST = 0.1, 4.0  # of one address
CHANNELS = 256
_log = logging.getLogger("company.chief.network")


@dataclass(slots=True)
class PeerDoor:
    """Serves the channels of other chiefs."""

    identity: Identity
    network_id: bytes
    directory: Directory
    relays: RelayDesk
    allow_private: bool
    answer: Callable[[Question], Answer]  # raises `PeerError` with the reason why not
    probe_udp: Callable[[str, int], Awaitable[bool]]
    messages: Buckets
    dials: Buckets
    guests: Callable[[Channel], Awaitable[None]] | None = None  # another company's workers, where they come by a relay
    channels: int = 0
    contracts: Callable[[Channel], Awaitable[None]] | None = None
    halves: Callable[[Channel, pm.AskHalves], Awaitable[None]] | None = None

    async def on_channel(self, channel: Channel) -> None:
        """One channel to its end."""
        if self.channels >= CHANNELS:
            await channel.aclose(refusal("too-many-peers", f"{CHANNELS} other chiefs are connected already."))
            return
        self.channels += 1
        try:
            match channel.purpose:
                case "guest" | "bulk" if self.guests is not None:
                    await self.guests(channel)
                case "relay-keep":
                    await self.relays.on_keep(channel)
                case "relay":
                    await self.relays.on_relay(channel)
                case "contract" if self.contracts is not None:
                    await self.contracts(channel)
                case _:
                    await self._serve(channel)
        except ParallelError as error:
            if channel.is_open:
                await channel.aclose(refusal(error.code, error.text))
        finally:
            self.channels -= 1

    async def _serve(self, channel: Channel) -> None:
        while True:
            message: Message | None = None
            with trio.move_on_after(SILENT_AFTER_S):
                message, _ = await channel.receive()
            if message is None:
                return
            if not self.messages.take(channel.peer_key, trio.current_time()):
                raise Unavailable("too-many-questions", f"more than {PER_PEER_BURST:.0f} questions at once came from this company")
            match message:
                case pm.Ask():
                    await channel.send(self._answered(channel.peer_key, message))
                case pm.DialBack():
                    await channel.send(await self._dial_back(channel, message))
                case pm.FindOffers():
                    await self._find(channel, message)
                case pm.AskHalves() if self.halves is not None:
                    await self.halves(channel, message)
                case _:
                    raise MalformedMessage(f"another chief may not send {type(message).__name__}")

    def _answered(self, key: bytes, message: pm.Ask) -> pm.Told:
        question = open_question_untrusted(
            message.body, message.signature, self.network_id, asker=key, own=self.identity.public, now=read_unix()
        )
        return pm.Told(*sign_answer(self.identity, self.network_id, message.body, self.answer(question)))

    async def _find(self, channel: Channel, message: pm.FindOffers) -> None:
        found = await self.directory.find(message.capability, min(message.wanted, MAX_OFFERS), FIND_S)
        raws = [listing.raw for listing in found if listing.raw]
        await channel.send(pm.OffersAre(), np.array([len(raw) for raw in raws], dtype="<u4"), raws)

    async def _dial_back(self, channel: Channel, asked: pm.DialBack) -> pm.DialedBack:
        try:
            host = normal(*split_address(channel.peer_address))[0]
            is_allowed = is_dialable((host, 1), allow_private=self.allow_private)
        except ParallelError:
            return pm.DialedBack("not-asked", "not-asked", "not-asked", "")  # it came by a relay: there is no address to dial
        if not is_allowed or not self.dials.take(host.encode(), trio.current_time()):
            return pm.DialedBack("not-asked", "not-asked", "not-asked", channel.peer_address)
        seen: dict[str, str] = dict.fromkeys(("udp", "rpc", "http"), "not-asked")

        async def look(port: str, number: int, probe: Callable[[str, int], Awaitable[bool]]) -> None:
            if number:
                seen[port] = "open" if await probe(host, number) else "closed"

        async def rpc(host: str, number: int) -> bool:
            return await self._holds_key(host, number, channel.peer_key)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look, "udp", asked.udp, self.probe_udp)
            nursery.start_soon(look, "rpc", asked.rpc, rpc)
            nursery.start_soon(look, "http", asked.http, _accepts)
        return pm.DialedBack(seen["udp"], seen["rpc"], seen["http"], join_address(host, split_address(channel.peer_address)[1]))

    async def _holds_key(self, host: str, port: int, key: bytes) -> bool:
        try:
            found = await dial(
                join_address(host, port), identity=self.identity, expected_key=key, purpose="peer", registry=REGISTRY, deadline_s=DIAL_S
            )
        except (Unavailable, PeerError) as error:
            _log.info("dialling back %s: %s", join_address(host, port), error.text)
            return False
        await found.aclose()
        return True


async def _accepts(host: str, port: int) -> bool:
    with trio.move_on_after(DIAL_S):
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError:
            return False
        await stream.aclose()
        return True
    return False
