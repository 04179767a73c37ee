"""What a chief does for others: dials back where the channel comes from and nowhere else, answers, and keeps its bounds."""

from __future__ import annotations

from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from company import peer_messages as pm
from company.chief.network.asking import Asking, items_of, listings_of
from company.chief.network.contact import Contact
from company.chief.network.dialling import REGISTRY, PeerDialler
from company.chief.network.ground import Ground
from company.chief.network.known import Known
from company.chief.network.peer_door import MAX_OFFERS, PeerDoor
from company.chief.network.questions import Question
from company.chief.network.relay import RelayDesk
from p2p.base.clock import UnixTime
from p2p.base.errors import PeerError
from p2p.base.keys import Identity
from p2p.dht.advertisement import Advertisement
from p2p.dht.directory import Directory
from p2p.dht.limits import Buckets
from p2p.dht.memory import MemoryNetwork
from p2p.dht.solicit import Answer
from p2p.net.addresses import split_address
from p2p.net.channel import Channel
from p2p.net.rpc import serve_rpc

US, THEM = Identity(b"u" * 32), Identity(b"t" * 32)
NET = b"n" * 16
CAPABILITY = "spare/v1/x86_64/py3.11/bubblewrap"


class Probes:
    """Remembers where UDP was tried."""

    def __init__(self) -> None:
        self.tried: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> bool:
        self.tried.append((host, port))
        return True


def door(probes: Probes, *, allow_private: bool = True, burst: float = 4, directory: Directory | None = None) -> PeerDoor:
    def answer(question: Question) -> Answer:
        raise PeerError("not-lending", "Nothing is lent.")

    memory = MemoryNetwork(lambda: UnixTime(1), Random(1))
    return PeerDoor(
        identity=US, network_id=NET, directory=directory or memory.directory(US, ("127.0.0.1", 1)), relays=RelayDesk(),
        allow_private=allow_private, answer=answer, probe_udp=probes, messages=Buckets(0.001, burst, 8), dials=Buckets(0.001, 2, 8),
    )  # fmt: skip


async def silent(channel: Channel) -> None:
    await channel.aclose()


@pytest.mark.parametrize("allow_private", [True, False])
async def test_it_dials_back_the_callers_own_address_alone(allow_private: bool) -> None:
    probes = Probes()
    async with trio.open_nursery() as nursery:
        serving = partial(serve_rpc, host="127.0.0.1", port=0, registry=REGISTRY)
        ours = await nursery.start(partial(serving, identity=US, on_channel=door(probes, allow_private=allow_private).on_channel))
        theirs = await nursery.start(partial(serving, identity=THEM, on_channel=silent))
        host, port = split_address(ours)
        channel = await PeerDialler(THEM, True).open(Contact(key=US.public, endpoints=((host, port),)))
        await channel.send(pm.DialBack(4444, split_address(theirs)[1], 0))
        told, _ = await channel.receive()
        assert isinstance(told, pm.DialedBack)
        if allow_private:
            assert (told.udp, told.rpc, told.http) == ("open", "open", "not-asked") and probes.tried == [("127.0.0.1", 4444)]
            await channel.send(pm.DialBack(0, port, 0))  # there somebody else listens: our own key
            told, _ = await channel.receive()
            assert isinstance(told, pm.DialedBack) and told.rpc == "closed"
            await channel.send(pm.DialBack(1, 1, 1))  # a third within the time is not done
            told, _ = await channel.receive()
        assert isinstance(told, pm.DialedBack) and (told.udp, told.rpc, told.http) == ("not-asked",) * 3
        await channel.aclose()
        nursery.cancel_scope.cancel()


async def test_a_hundred_of_a_thousand_offers_come_in_one_page_to_a_company_without_udp() -> None:
    memory = MemoryNetwork(lambda: UnixTime(1), Random(1), NET)
    for number in range(1000):
        lender = memory.directory(Identity(number.to_bytes(32, "big")), ("192.0.2.1", 1))
        await lender.publish(Advertisement(capability=CAPABILITY, endpoints=(("192.0.2.1", 8468),), slots=1))
    ours_at = ("127.0.0.1", 1)
    async with trio.open_nursery() as nursery:
        serving = partial(serve_rpc, identity=US, host="127.0.0.1", port=0, registry=REGISTRY)
        ours = split_address(
            await nursery.start(partial(serving, on_channel=door(Probes(), directory=memory.directory(US, ours_at)).on_channel))
        )
        channel = await PeerDialler(THEM, True).open(Contact(key=US.public, endpoints=(ours,)))
        await channel.send(pm.FindOffers(CAPABILITY, 100))
        message, frame = await channel.receive()
        assert isinstance(message, pm.OffersAre) and len(frame.body) < 100 * 900
        found = listings_of(items_of(frame), CAPABILITY, NET)
        assert len({listing.owner for listing in found}) == 100
        assert listings_of(items_of(frame), CAPABILITY, b"o" * 16) == [], "another network's records are none"
        await channel.send(pm.FindOffers(CAPABILITY, 65535))
        _, frame = await channel.receive()
        assert len(frame.sizes) == MAX_OFFERS
        await channel.aclose()
        # the way a chief goes whose own directory knows nobody
        ground = Ground(
            identity=THEM, name="them", network_id=NET,
            directory=MemoryNetwork(lambda: UnixTime(1), Random(2), NET).directory(THEM, ours_at),
            addresses=cast(Any, None), allow_private=True, known=Known(THEM.public), unix_time=lambda: UnixTime(1),
        )  # fmt: skip
        ground.known.heard(Contact(key=US.public, endpoints=(ours,)), "tracker", 0.0)
        asking = Asking(ground, PeerDialler(THEM, True), cast(Any, SimpleNamespace(trackers=[])))
        assert len(await asking.find(CAPABILITY, 100)) == 100
        nursery.cancel_scope.cancel()


async def test_one_that_asks_too_fast_and_one_that_asks_nonsense_are_refused() -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_rpc, identity=US, host="127.0.0.1", port=0, registry=REGISTRY)
        ours = split_address(await nursery.start(partial(serve, on_channel=door(Probes(), burst=2).on_channel)))
        channel = await PeerDialler(THEM, True).open(Contact(key=US.public, endpoints=(ours,)))
        for _ in range(3):
            await channel.send(pm.DialBack(0, 0, 0))
        await channel.receive()
        await channel.receive()
        with pytest.raises(PeerError, match="more than"):
            await channel.receive()
        other = await PeerDialler(Identity(b"o" * 32), True).open(Contact(key=US.public, endpoints=(ours,)))
        await other.send(pm.Ask(b"nonsense", bytes(64)))
        with pytest.raises(PeerError, match="signature"):
            await other.receive()
        nursery.cancel_scope.cancel()
