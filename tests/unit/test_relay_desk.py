"""A relay connects two companies, reads nothing of what they say, and keeps its bounds; over real sockets on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from company import peer_messages as pm
from company.chief.network.contact import Contact
from company.chief.network.dialling import REGISTRY, PeerDialler, splice_in
from company.chief.network.relay import RelayDesk
from company.messages import Ping, Pong
from p2p.base.errors import ParallelError, PeerError, Unavailable
from p2p.base.keys import Identity
from p2p.dht.advertisement import Relay
from p2p.net.addresses import split_address
from p2p.net.channel import Channel
from p2p.net.hello import refusal
from p2p.net.rpc import RpcServer, serve_rpc

RELAY, HIDDEN, ASKER, THIEF = (Identity(letter * 32) for letter in (b"r", b"h", b"a", b"t"))


@asynccontextmanager
async def relay(desk: RelayDesk) -> AsyncIterator[Relay]:
    async def on_channel(channel: Channel) -> None:
        try:
            await (desk.on_keep if channel.purpose == "relay-keep" else desk.on_relay)(channel)
        except ParallelError as error:
            if channel.is_open:
                await channel.aclose(refusal(error.code, error.text))

    async with trio.open_nursery() as nursery:
        bound = await nursery.start(partial(serve_rpc, identity=RELAY, host="127.0.0.1", port=0, registry=REGISTRY, on_channel=on_channel))
        host, port = split_address(bound)
        yield Relay(public=RELAY.public, host=host, port=port)
        nursery.cancel_scope.cancel()


async def keep(at: Relay, task_status: trio.TaskStatus[None]) -> None:
    """The chief that cannot be dialled: answers Ping with Pong behind the relay."""
    dialler = PeerDialler(HIDDEN, True)
    way = Contact(key=at.public, endpoints=((at.host, at.port),))

    async def answer(channel: Channel) -> None:
        while True:
            message, _ = await channel.receive()
            assert isinstance(message, Ping) and channel.peer_key == ASKER.public
            await channel.send(Pong(message.at))

    server = RpcServer(HIDDEN, REGISTRY, answer)
    kept = await dialler.open(way, "relay-keep")
    await kept.send(pm.RelayKeep())
    message, _ = await kept.receive()
    assert isinstance(message, pm.RelayKept)
    task_status.started()
    while True:
        call, _ = await kept.receive()
        assert isinstance(call, pm.RelayCall)
        stream = await splice_in(await dialler.open(way, "relay"), pm.RelayTake(call.ticket))
        await server.serve_stream(stream, "relay", "by relay")


def wanted(at: Relay) -> Contact:
    return Contact(key=HIDDEN.public, relays=(at,))


async def test_two_companies_speak_through_a_relay_with_each_others_keys_proved() -> None:
    desk = RelayDesk()
    async with relay(desk) as at, trio.open_nursery() as nursery:
        await nursery.start(keep, at)
        channel = await PeerDialler(ASKER, True).open(wanted(at))
        assert channel.peer_key == HIDDEN.public and desk.streams == 1
        await channel.send(Ping(7))
        message, _ = await channel.receive()
        assert message == Pong(7)
        await channel.aclose()
        nursery.cancel_scope.cancel()


async def test_whoever_keeps_no_channel_cannot_be_reached_and_off_means_off() -> None:
    async with relay(RelayDesk()) as at:
        with pytest.raises(Unavailable, match="keeps no channel here"):
            await PeerDialler(ASKER, True).open(wanted(at))
    async with relay(RelayDesk(is_on=False)) as at:
        kept = await PeerDialler(HIDDEN, True).open(Contact(key=at.public, endpoints=((at.host, at.port),)), "relay-keep")
        await kept.send(pm.RelayKeep())
        with pytest.raises(PeerError, match="relays for nobody"):
            await kept.receive()


async def test_a_ticket_that_was_guessed_or_stolen_takes_no_call() -> None:
    async with relay(RelayDesk()) as at, trio.open_nursery() as nursery:
        way = Contact(key=at.public, endpoints=((at.host, at.port),))
        kept = await PeerDialler(HIDDEN, True).open(way, "relay-keep")
        await kept.send(pm.RelayKeep())
        assert isinstance((await kept.receive())[0], pm.RelayKept)
        asker = await PeerDialler(ASKER, True).open(way, "relay")
        await asker.send(pm.RelayTo(HIDDEN.public))
        call, _ = await kept.receive()
        assert isinstance(call, pm.RelayCall)
        for ticket in (bytes(16), call.ticket):
            thief = await PeerDialler(THIEF, True).open(way, "relay")
            with pytest.raises(PeerError, match="nobody waits"), trio.fail_after(5):
                await splice_in(thief, pm.RelayTake(ticket))
            await thief.aclose()
        nursery.cancel_scope.cancel()


async def test_a_stream_ends_at_the_cap() -> None:
    desk = RelayDesk(byte_cap=20_000)
    async with relay(desk) as at, trio.open_nursery() as nursery:
        await nursery.start(keep, at)
        channel = await PeerDialler(ASKER, True).open(wanted(at))
        with pytest.raises(Unavailable):
            for number in range(10_000):
                await channel.send(Ping(number))
                await channel.receive()
        await channel.aclose()
        nursery.cancel_scope.cancel()
    assert desk.carried_bytes <= 20_000


async def test_private_addresses_are_not_dialled_in_a_public_network() -> None:
    async with relay(RelayDesk()) as at:
        for contact in (Contact(key=at.public, endpoints=((at.host, at.port),)), wanted(at)):
            with pytest.raises(Unavailable, match=r"names no address|private addresses only|may not be dialled"):
                await PeerDialler(ASKER, False).open(contact)
