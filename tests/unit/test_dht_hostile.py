"""Each way in which one datagram, or a few, brought the kademlia package down, tried on our node over real UDP on loopback.

The list is that of the research on kademlia 2.2.3 and rpcudp 5.0.1; docs/threats.md names this file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgpack
import pytest
import trio

from p2p.base.clock import UnixTime
from p2p.base.keys import Identity
from p2p.dht import packets as pk
from p2p.dht.addressing import packed
from p2p.dht.directory import Address
from p2p.dht.node import DhtNode
from p2p.dht.records import sign_record
from p2p.net.clock import read_unix
from tests.unit.test_dht_node import LOOPBACK, NETWORK, OFFER, cluster, finds

MALLORY = Identity(b"M" * 32)
ID = b"i" * 20


class Stranger:
    """A UDP socket with a key, and answers as bad as wanted."""

    def __init__(self, socket: Any, key: Identity = MALLORY) -> None:
        self.socket = socket
        self.key = key
        self.sealer = pk.Sealer(key, NETWORK)
        self.token = pk.NO_TOKEN_BYTES
        self.numbers = Random(repr(key))

    @property
    def address(self) -> Address:
        host, port = self.socket.getsockname()
        return host, port

    def request(self, method: int, arguments: list[Any], *, size: int = 0, token: bytes | None = None, **fields: Any) -> bytes:
        rest = {"unix": read_unix(), "to": b"", "flags": 0, "work": b""} | fields
        id_ = self.numbers.randbytes(20)
        return self.sealer.request(id_, self.token if token is None else token, method=method, arguments=arguments, size=size, **rest)

    async def send(self, data: bytes, node: DhtNode) -> None:
        assert node.address is not None
        await self.socket.sendto(data, node.address)

    async def receive_all(self, quiet_s: float = 0.3) -> list[bytes]:
        """What comes until nothing comes for a while."""
        came = []
        while True:
            with trio.move_on_after(quiet_s) as silence:
                came.append((await self.socket.recvfrom(65536))[0])
            if silence.cancelled_caught:
                return came

    async def ask(self, node: DhtNode, method: int, arguments: list[Any], **fields: Any) -> pk.Reply:
        """An honest question; the answer's token is kept."""
        await self.send(self.request(method, arguments, **fields), node)
        with trio.fail_after(5):
            while True:
                data, _ = await self.socket.recvfrom(65536)
                if data[0] == pk.REPLY:
                    reply = self.sealer.open_reply_untrusted(data, method)
                    self.token = reply.token
                    return reply

    async def answer(self, make: Any) -> None:
        """Answer every request with what ``make`` says, until cancelled."""
        while True:
            data, sender = await self.socket.recvfrom(65536)
            if data[0] == pk.REQUEST:
                request = self.sealer.open_request_untrusted(data)
                answer = make(request)
                body = answer if isinstance(answer, bytes) else msgpack.packb([read_unix(), 0, 1, answer])
                await self.socket.sendto(self.sealer._seal(pk.REPLY, request.message_id, b"t" * 8, body), sender)


@asynccontextmanager
async def stranger(key: Identity = MALLORY) -> AsyncIterator[Stranger]:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as socket:
        await socket.bind(("127.0.0.1", 0))
        yield Stranger(socket, key)


async def works(nodes: list[DhtNode]) -> None:
    """The nodes go on: one publishes, another finds; nothing broke inside."""
    await nodes[0].publish(OFFER)
    assert await finds(nodes[1], 1)
    for node in nodes:
        node._core.validate()
        assert node._overlay is not None and node._overlay.protocol.errors == 0


MALFORMED = [
    b"\x00" + ID + b"\xc1\xc1",  # a reserved msgpack byte: ended the whole process
    b"\x01" + ID + b"\xc1\xc1",
    b"", b"\x00", b"\x00" * 22, b"\xff" * 1200, b"\x00" * 1200, b"\x01" * 1200, b"x" * 8192,
    b"\x00" + ID + msgpack.packb(["ping", [b"\x05"]]),  # the package's own requests, with ids of a wrong length
    b"\x00" + ID + msgpack.packb(["store", [b"x" * 21, {}, []]]),
    b"\x00" + ID + msgpack.packb(["find_node", [b"\x00\x05", 5]]),
]  # fmt: skip


async def test_malformed_datagrams_change_nothing() -> None:
    async with cluster(2) as nodes, stranger() as mallory:
        for data in MALFORMED * 3:
            await mallory.send(data, nodes[0])
        assert await mallory.receive_all() == []
        await works(nodes)
        assert sum(nodes[0].status().drops.values()) >= len(MALFORMED)


async def test_signed_nonsense_changes_nothing() -> None:
    bodies: list[Any] = [
        None, 5, [], {}, [[]] * 7, [0] * 7, [2**64 - 1, b"", 0, b"", 2, [ID], b""], [1, b"", 0, b"", 9, [], b""],
        [1, b"", 0, b"", [], [], b""],
        [1, b"", 0, b"", 2, [b"\x05"], b""], [1, b"", 0, b"", 2, [b"x" * 21], b""], [1, b"", 0, b"", 3, [ID, ID, b"", 9], b""],
        [1, b"", 0, b"", 4, [[1]], b""], [1, b"", 0, b"", 4, [b"x" * 901], b""], [-1, None, None, None, None, None, None],
    ]  # fmt: skip
    async with cluster(2) as nodes, stranger() as mallory:
        for body in bodies:
            await mallory.send(mallory.sealer._seal(pk.REQUEST, ID, b"t" * 8, msgpack.packb(body) + b" " * 8), nodes[0])
            await mallory.send(mallory.sealer._seal(pk.REQUEST, ID, b"t" * 8, msgpack.packb(body)), nodes[0])
        assert await mallory.receive_all() == []
        await works(nodes)


EVIL_CONTACTS = [
    b"", b"x", b"x" * 25, b"x" * 27, b"y" * 26 * 46,
    b"".join((5).to_bytes(20, "big") + packed(("127.0.0.1", 9)) for _ in range(20)),  # one id twenty times
    (2**159).to_bytes(20, "big") + packed(("127.0.0.1", 9)),
    (0).to_bytes(20, "big") + packed(("0.0.0.0", 0)) + (2**160 - 1).to_bytes(20, "big") + packed(("255.255.255.255", 65535)),
]  # fmt: skip
EVIL_RESULTS: list[Any] = [
    None, 5, "text", {}, [], [None],
    [[], []], ["a", "b"], [b"", b"", 5, 5], [b"", b"", [5], 1], [b"", b"", [b"r" * 901], 1], [b"", b"", [], -1],
    [b"", b"", [b"r" * 100] * 8, 2**31 - 1], [9], [True], b"\xc1", b"", b"\xdf\xff\xff\xff\xff", b"\x94\x01\x00\x01\xdd\xff\xff\xff\xff",
    *[[c, b""] for c in EVIL_CONTACTS], *[[c, c, [], 0] for c in EVIL_CONTACTS],
]  # fmt: skip


async def test_answers_of_every_wrong_type_harm_no_call() -> None:
    async with cluster(2) as nodes, stranger() as mallory, trio.open_nursery() as nursery:
        count = [0]

        def evil(request: pk.Request) -> Any:
            if request.method == pk.PING:
                return [b"\x7f\0\0\1\0\7"]  # well-behaved enough to be let into the table
            count[0] += 1
            return EVIL_RESULTS[count[0] % len(EVIL_RESULTS)]

        nursery.start_soon(mallory.answer, evil)
        await nodes[0].ping(mallory.address)
        await mallory.send(mallory.request(pk.PING, []), nodes[0])
        now = trio.current_time()
        for n in range(len(EVIL_RESULTS)):
            nodes[0]._core.table.answered(int.from_bytes(mallory.key.node_id, "big"), mallory.address, now)
            await nodes[0].get(Random(n).randbytes(20), 2, 0.1)
        assert count[0] >= len(EVIL_RESULTS)
        nodes[0]._core.table._remove(nodes[0]._core.table.get(int.from_bytes(mallory.key.node_id, "big")))  # type: ignore[arg-type]
        await works(nodes)
        nursery.cancel_scope.cancel()


async def test_an_answer_by_another_key_or_from_another_place_is_not_taken() -> None:
    async with cluster(2) as nodes, stranger() as mallory, stranger(Identity(b"E" * 32)) as eve:
        nodes[0]._core.ping(trio.current_time(), int.from_bytes(mallory.key.node_id, "big"), mallory.address)
        nodes[0]._perform(nodes[0]._core.take_effects())
        data, sender = await mallory.socket.recvfrom(65536)
        request = mallory.sealer.open_request_untrusted(data)
        body = msgpack.packb([read_unix(), 0, 1, [b"\x7f\0\0\1\0\7"]])
        for liar, place in ((eve, mallory), (mallory, eve), (eve, eve)):  # signed by another key; sent from another port; both
            await place.socket.sendto(liar.sealer._seal(pk.REPLY, request.message_id, b"t" * 8, body), sender)
        await works(nodes)  # round trips on the same sockets: what was sent before has arrived
        known = {peer.node_id for peer in nodes[0].status().peers}
        assert mallory.key.node_id not in known and eve.key.node_id not in known
        drops = nodes[0].status().drops
        assert set(drops) == {"answer by another key", "answer that nobody asked for"} and drops["answer by another key"] == 1
        assert drops["answer that nobody asked for"] >= 2  # on a slow machine also honest ones, to requests that were sent again


async def test_refreshing_when_every_contact_is_dead_harms_nothing() -> None:
    async with cluster(1) as (alone,):
        for n in range(5):
            alone._core.table.answered(n + 1, ("127.0.0.1", 9 + n), trio.current_time())
        alone._agent.refresh(trio.current_time())
        alone._perform(alone._core.take_effects())
        assert (await alone.publish(OFFER)).stored == 0
        assert alone._core.store.count >= 1  # kept here meanwhile


async def test_a_spoofed_request_to_a_full_store_is_answered_with_at_most_three_times_its_size() -> None:
    async with cluster(2) as nodes:
        store = nodes[0]._core.store
        rng = Random(1)
        expires = UnixTime(read_unix() + 900)
        for n in range(60):
            owner = Identity(rng.randbytes(32))
            record = sign_record(owner, NETWORK, key=ID, kind="test", sequence=1, expires=expires, payload=b"x" * 700)
            assert store.put(record, b"%d" % n, read_unix()) == pk.KEPT
        got: list[tuple[int, int, int, int]] = []

        async def spoof(number: int, method: int, arguments: list[Any], size: int) -> None:
            async with stranger(Identity(bytes([number]) * 32)) as victim:
                data = victim.request(method, arguments, size=size)
                await victim.send(data, nodes[0])
                answers = await victim.receive_all(1.2)  # the node's own question to the newcomer, sent twice, counts too
                got.append((method, size, len(data), sum(map(len, answers))))

        async with trio.open_nursery() as nursery:
            for size in (0, 400, 1200):
                for method, arguments in (
                    (pk.PING, []),
                    (pk.FIND_NODE, [ID]),
                    (pk.FIND_VALUE, [ID, ID, bytes(8), 8]),
                    (pk.STORE, [b"r" * 300]),
                ):
                    nursery.start_soon(spoof, 100 + len(nursery.child_tasks), method, arguments, size)
        assert len(got) == 12
        assert [row for row in got if row[3] > 3 * row[2]] == []
        assert max(row[3] for row in got) > 900  # it does answer those that ask with enough bytes
        await works(nodes)


async def test_pings_of_unknown_nodes_make_no_traffic_about_what_is_stored() -> None:
    """In the package every ping by an id outside the buckets walks the whole store and hands values over."""
    async with cluster(2) as nodes, stranger() as mallory:
        await mallory.ask(nodes[0], pk.PING, [])
        sent = nodes[0].status().rpc["store"].sent
        for _ in range(20):
            await mallory.ask(nodes[0], pk.PING, [])
        assert nodes[0].status().rpc["store"].sent == sent
        await works(nodes)


async def test_a_record_is_kept_only_with_a_token_and_a_signature() -> None:
    async with cluster(2) as nodes, stranger() as mallory:
        record = sign_record(MALLORY, NETWORK, key=ID, kind="test", sequence=1, expires=UnixTime(read_unix() + 900), payload=b"p")
        assert (await mallory.ask(nodes[0], pk.STORE, [record.raw], token=b"guessing")).result == [pk.NO_TOKEN]
        assert (await mallory.ask(nodes[0], pk.STORE, [record.raw])).result == [pk.KEPT]
        assert (await mallory.ask(nodes[0], pk.STORE, [record.raw[:-1] + b"q"])).result == [pk.REFUSED]
        late = sign_record(MALLORY, NETWORK, key=ID, kind="test", sequence=2, expires=UnixTime(read_unix() + 10**6), payload=b"p")
        assert (await mallory.ask(nodes[0], pk.STORE, [late.raw])).result == [pk.REFUSED]
        async with stranger(Identity(b"E" * 32)) as eve:  # a token is good for the address it was given to
            assert (await eve.ask(nodes[0], pk.STORE, [record.raw], token=mallory.token)).result == [pk.NO_TOKEN]


@pytest.mark.parametrize(
    ("fields", "drop"), [({"unix": 1}, "clock"), ({"to": b"o" * 20}, "meant for another"), ({"unix": 2**62}, "clock")], ids=str
)
async def test_requests_of_another_time_or_for_another_node_are_dropped(fields: dict[str, Any], drop: str) -> None:
    async with cluster(1) as (node,), stranger() as mallory:
        await mallory.send(mallory.request(pk.PING, [], **fields), node)
        assert await mallory.receive_all() == []
        assert node.status().drops == {drop: 1}


async def test_a_packet_shown_again_from_elsewhere_or_many_times_is_dropped() -> None:
    async with cluster(1) as (node,), stranger() as mallory, stranger(Identity(b"E" * 32)) as eve:
        packet = mallory.request(pk.PING, [], flags=pk.READ_ONLY)
        for _ in range(5):
            await mallory.send(packet, node)
        assert len(await mallory.receive_all()) == 2  # a retransmission is answered once more
        await eve.send(packet, node)
        assert await eve.receive_all() == []
        assert node.status().drops == {"replay": 4}


async def test_a_flood_from_one_address_leaves_the_others_their_service() -> None:
    async with cluster(2) as nodes, stranger() as mallory:
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                """As fast as the node takes it; what the kernel drops before it is not its doing."""
                sent = 0
                while True:
                    for _ in range(50):
                        await mallory.send(mallory.request(pk.FIND_NODE, [ID], size=400), nodes[0])
                    sent += 50
                    with trio.move_on_after(1.0):
                        while sum(nodes[0]._core.drops.values()) + sum(nodes[0]._core.served.values()) < sent - 50:
                            await trio.lowlevel.checkpoint()

            nursery.start_soon(flood)
            for n in range(5):
                # All of it shares one core here, and an answer may come after its deadline: then once more, as a company does.
                tries: list[int] = []
                while 1 not in tries:
                    assert len(tries) < 4, f"never stored: {tries}"
                    tries.append((await nodes[1].put("test", bytes([n]) * 20, b"p", 900)).stored)
                assert len(await nodes[0].get(bytes([n]) * 20, 1, 5.0)) == 1
            nursery.cancel_scope.cancel()
        assert nodes[0].status().drops["too many from one address"] > 0
        assert nodes[0]._core.p == LOOPBACK
        await works(nodes)
