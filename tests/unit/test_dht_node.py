"""Nodes on real UDP loopback: they find each other, survive what strangers send, and restart without a bootstrap address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import msgpack
import pytest
import trio

from p2p.base.errors import Unavailable
from p2p.base.keys import Identity
from p2p.dht.advertisement import Advertisement
from p2p.dht.directory import Directory
from p2p.dht.node import DhtNode, open_dht
from p2p.dht.parameters import Parameters, make_network_id
from p2p.net.asyncio_bridge import open_bridge

NETWORK = make_network_id("loopback")
LOOPBACK = Parameters(allow_private=True)
CAPABILITY = "spare/v1/x86_64/py3.11/bubblewrap"
OFFER = Advertisement(capability=CAPABILITY, endpoints=(("127.0.0.1", 8468),), slots=3)


def identity(number: int) -> Identity:
    return Identity(bytes([number]) * 32)


def opened(number: int, **more: object):  # type: ignore[no-untyped-def]
    return open_dht(identity(number), network_id=NETWORK, host="127.0.0.1", parameters=LOOPBACK, rng=Random(number), **more)  # type: ignore[arg-type]


@asynccontextmanager
async def cluster(count: int) -> AsyncIterator[list[DhtNode]]:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(opened(number + 1)) for number in range(count)]
        for node in nodes[1:]:
            assert nodes[0].address is not None
            assert await node.join([nodes[0].address]) >= 1
        yield nodes


async def until(condition, seconds: float = 10.0) -> None:  # type: ignore[no-untyped-def]
    with trio.fail_after(seconds):
        while not await condition():  # noqa: ASYNC110 - each turn is a question to the network
            await trio.sleep(0.02)


async def finds(node: Directory, count: int) -> bool:
    return len(await node.find(CAPABILITY, 10, 5.0)) == count


async def test_two_companies_see_each_others_offer_until_it_is_withdrawn() -> None:
    async with cluster(2) as (one, two):
        assert (await one.publish(OFFER)).stored >= 1
        found = await two.find(CAPABILITY, 10, 5.0)
        assert [(listing.owner, listing.advertisement) for listing in found] == [(identity(1).public, OFFER)]
        await one.withdraw(CAPABILITY)
        two._agent._cache._of.clear()  # what was found a moment ago is not asked for again
        assert await two.find(CAPABILITY, 10, 5.0) == ()


async def test_a_node_tells_what_happened() -> None:
    async with cluster(3) as (one, two, three):
        await one.publish(OFFER)
        await three.find(CAPABILITY, 10, 5.0)
        status = one.status()
        assert {peer.node_id for peer in status.peers} == {two.node_id, three.node_id}
        assert status.published == (CAPABILITY,) and status.rpc["store"].sent >= 2 and status.rpc["store"].failed == 0
        assert status.skew_s is not None and abs(status.skew_s) <= 1
        assert two.address is not None
        assert await one.ping(two.address) is not None
        assert {host for host, _ in one.seen_addresses()} == {"127.0.0.1"}
        assert await one.ping(("127.0.0.1", 9)) is None


async def test_a_restart_needs_no_bootstrap_address(tmp_path: Path) -> None:
    async with cluster(3) as (one, two, _three):
        async with opened(9, contacts_file=tmp_path / "contacts", bootstrap=[two.address]) as fourth:

            async def knows() -> bool:
                return len(fourth.status().peers) == 3

            await until(knows)
        await one.publish(OFFER)
        async with opened(9, contacts_file=tmp_path / "contacts") as again:
            assert again.has_remembered

            async def sees() -> bool:
                return await finds(again, 1)

            await until(sees)


async def test_a_damaged_file_of_contacts_is_no_reason_not_to_start(tmp_path: Path) -> None:
    for damage in (b"", b"\x80", msgpack.packb([1, [[b"x", b"y"]]]), b"\xc1" * 100):
        (tmp_path / "contacts").write_bytes(damage)
        async with opened(9, contacts_file=tmp_path / "contacts") as node:
            assert not node.has_remembered


async def test_a_port_that_is_taken_is_refused_in_words() -> None:
    async with open_bridge(), opened(1) as node:  # a daemon has opened the bridge before
        assert node.address is not None
        with pytest.raises(Unavailable, match="cannot listen"):
            async with opened(2, port=node.address[1]):
                pass


async def test_a_node_that_cannot_be_reached_asks_and_is_put_in_no_table() -> None:
    async with cluster(2) as (one, two), opened(9, is_read_only=True) as reader:
        await one.publish(OFFER)
        assert two.address is not None
        await reader.join([two.address])
        assert await finds(reader, 1)
        assert reader.node_id not in {peer.node_id for node in (one, two) for peer in node.status().peers}


async def test_cancelling_a_call_leaves_the_node_as_it_was() -> None:
    async with cluster(3) as (one, two, three):
        for after_s in (0.0, 0.0005, 0.002):
            with trio.move_on_after(after_s):
                await one.find(CAPABILITY, 10, 5.0)
            with trio.move_on_after(after_s):
                await one.publish(OFFER)
            with trio.move_on_after(after_s):
                await one.ping(("127.0.0.1", 9))
        await one.publish(OFFER)
        assert await finds(two, 1) and await finds(three, 1)
        assert one._waiting == {}


async def test_the_network_goes_over_ipv6_and_a_dual_stack_node_joins_both() -> None:
    async with AsyncExitStack() as stack:
        make = lambda number, host: open_dht(  # noqa: E731 - one line twice
            identity(number), network_id=NETWORK, host=host, parameters=LOOPBACK, rng=Random(number)
        )
        try:
            six = await stack.enter_async_context(make(1, "::1"))
        except Unavailable:
            pytest.skip("this machine has no IPv6 loopback")
        both, four = await stack.enter_async_context(make(2, "::")), await stack.enter_async_context(make(3, "127.0.0.1"))
        assert six.address is not None and both.address is not None and ":" in six.address[0]
        assert await both.join([six.address]) == 1
        assert await four.join([("127.0.0.1", both.address[1])]) >= 1
        assert (await six.publish(OFFER)).stored >= 1
        assert [listing.owner for listing in await both.find(CAPABILITY, 10, 5.0)] == [identity(1).public]

        async def knows_both() -> bool:
            return {peer.address[0] for peer in both.status().peers} == {"::1", "127.0.0.1"}  # no mapped spelling

        await until(knows_both)
