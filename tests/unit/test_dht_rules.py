"""The parts of a DHT node one by one: table, store, look-up, requests, budgets, tokens, republishing."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from p2p.base.clock import UnixTime
from p2p.base.keys import Identity
from p2p.dht import packets as pk
from p2p.dht.addressing import group_of, is_dialable, is_private, normal, packed, unpacked
from p2p.dht.core import DhtCore, Send
from p2p.dht.limits import Bucket, Buckets, Generations
from p2p.dht.lookup import Lookup
from p2p.dht.parameters import Parameters, make_network_id
from p2p.dht.records import Record, sign_record
from p2p.dht.routing import Estimate, Table, saved_contacts_untrusted, size_from
from p2p.dht.store import RecordStore
from tests.support.dht_network import NETWORK_ID, UNIX, CheapKey, VirtualNetwork, cheap_verify
from tests.support.dht_scenarios import CAPABILITY, OFFER

KEY = b"k" * 20
P = Parameters()


def place(n: int) -> tuple[str, int]:
    return f"23.{n // 256}.{n % 256}.1", 8468


def record(n: int, *, key: bytes = KEY, sequence: int = 1, lives_s: int = 900, payload: bytes = b"p") -> Record:
    signer = CheapKey(n.to_bytes(32, "big"))
    return sign_record(signer, NETWORK_ID, key=key, kind="test", sequence=sequence, expires=UnixTime(int(UNIX) + lives_s), payload=payload)


# --- table


def test_the_nearest_are_exactly_the_nearest() -> None:
    rng = Random(1)
    table = Table(rng.getrandbits(160), P)
    for n in range(2000):
        table.answered(rng.getrandbits(160), place(n), 0.0)
    table.validate()
    for _ in range(50):
        target = rng.getrandbits(160)
        assert [c.id for c in table.nearest(target, 20)] == sorted((c.id for c in table), key=lambda i: i ^ target)[:20]


def test_who_cannot_be_reached_leaves_the_tables_of_others() -> None:
    network = VirtualNetwork(1)
    asker, *others = network.add(12)
    network.fill_tables()
    assert all(node.core.table.get(asker.core.id) for node in others)
    asker.core.is_read_only = True  # it was told that its port is closed
    before = {node.address: node.core.served[pk.FIND_NODE] for node in others}
    network.wait(asker, asker.agent.lookup(network.now, KEY))
    asked = [node for node in others if node.core.served[pk.FIND_NODE] > before[node.address]]
    assert len(asked) > 5 and not [node for node in asked if node.core.table.get(asker.core.id)]
    for node in others:  # as those that it has not asked since, or that an old answer led to it
        node.core.table.answered(asker.core.id, asker.address, network.now)
        network.wait(node, node.agent.lookup(network.now, asker.core.node_id))
    network.run(5.0)
    assert not [node for node in others if node.core.table.get(asker.core.id)]
    assert not [node for node in others if node.core.flying.failed]  # nobody had to wait for an answer that does not come
    others[0].core.is_read_only = True  # two of them do not ping each other for ever
    asker.core.ping(network.now, others[0].core.id, others[0].address)
    asker.perform(asker.core.take_effects())
    network.run(10.0)
    before_s = network.datagrams
    network.run(3.0)
    assert network.datagrams - before_s < 20
    asker.core.is_read_only = False  # its port was opened
    network.wait(asker, asker.agent.lookup(network.now, KEY))
    network.run(5.0)
    assert [node for node in others if node.core.table.get(asker.core.id)]
    for node in network.nodes:
        node.core.validate()


def test_who_tries_for_others_whether_they_are_reached_keeps_its_place_with_them() -> None:
    network = VirtualNetwork(2)
    helper, asked = network.add(2)
    network.fill_tables()
    contact = asked.core.table.get(helper.core.id)
    assert contact is not None
    helper.core.is_read_only = True  # as `company.chief.network.udp_probe` asks: by the same key, from a socket of its own
    helper.core.ping(network.now, asked.core.id, asked.address)
    (probe,) = helper.core.take_effects()
    assert isinstance(probe, Send)
    asked.perform(asked.core.on_datagram(network.now, probe.data, ("127.0.0.9", 9)))
    helper.core.is_read_only = False
    network.run(5.0)
    assert asked.core.table.get(helper.core.id) is contact
    asked.core.table.forget(helper.core.id, helper.address, network.now)
    assert asked.core.table.get(helper.core.id) is None


def test_a_withdrawal_that_nobody_heard_is_said_again() -> None:
    network = VirtualNetwork(5, parameters=Parameters(refresh_s=1e9))
    network.add(12)
    network.fill_tables()
    writer, reader = network.nodes[0], network.nodes[7]
    network.wait(writer, writer.agent.publish(network.now, OFFER))
    others = network.nodes[1:]
    for node in others:
        node.is_alive = False
    number = writer.agent.withdraw(network.now, CAPABILITY)
    assert number is not None and network.wait(writer, number).stored == 0
    for node in others:
        node.is_alive = True
    network.run(120)
    assert network.wait(reader, reader.agent.find(network.now, CAPABILITY, 5, 30.0)) == ()
    assert not writer.agent._withdrawn


def test_a_live_contact_is_not_pushed_out_and_the_one_that_waits_follows_one_that_fails() -> None:
    table = Table(0, Parameters(k=2))
    top = 1 << 159
    assert table.answered(top, place(1), 0.0) and table.answered(top + 1, place(2), 0.0)
    assert table.answered(top + 2, place(3), 0.0) is None and not table.wants(top + 3, place(4))
    table.failed(top, 1.0)
    assert {c.id for c in table} == {top + 1, top + 2}
    table.failed(top + 1, 1.0)  # nobody waits now: it stays, doubtful, and is not passed on
    assert [c.id for c in table.nearest(top, 5)] == [top + 2] and len(table) == 2 and table.wants(top + 3, place(4))
    assert [c.id for c in table.due(5.0, 1e9)] == [] and [c.id for c in table.due(6.0, 1e9)] == [top + 1]
    table.failed(top + 1, 6.0)
    table.failed(top + 1, 16.0)
    assert {c.id for c in table} == {top + 2}
    table.validate()


def test_one_network_gets_few_places_and_private_ranges_count_only_where_they_are_not_allowed() -> None:
    for is_allowed, most in ((False, 10), (True, 200)):
        table = Table(0, Parameters(allow_private=is_allowed))
        rng = Random(2)
        for n in range(200):
            table.answered(rng.getrandbits(160), ("10.0.0.7", 1000 + n), 0.0)
        assert len(table) <= most and (len(table) > 60) == is_allowed
        table.validate()


def test_a_known_key_at_a_second_place_does_not_move_while_the_first_answers() -> None:
    table = Table(0, P)
    table.answered(5, place(1), 0.0)
    contact = table.answered(5, place(2), 10.0)
    assert contact is not None and contact.address == place(1)
    contact = table.answered(5, place(2), 1000.0)
    assert contact is not None and contact.address == place(2)
    table.validate()


def test_saved_contacts_are_spread_over_the_buckets_and_read_back() -> None:
    rng = Random(3)
    table = Table(rng.getrandbits(160), P)
    for n in range(1000):
        table.answered(rng.getrandbits(160), place(n), float(n))
    saved = saved_contacts_untrusted(table.save())
    assert len(saved) == min(P.saved_contacts, len(table))
    buckets = Counter(table.shared_bits(int.from_bytes(id_, "big")) for id_, _ in saved)
    assert set(buckets) == {bits for bits, _, _ in table.fill()}  # every bucket is there
    assert {c.id for c in sorted(table, key=lambda c: c.since)[: P.anchors]} <= {int.from_bytes(i, "big") for i, _ in saved}


def test_the_network_is_estimated_within_a_third() -> None:
    rng = Random(4)
    for size in (100, 1000, 10_000):
        ids = [rng.getrandbits(160) for _ in range(size)]
        estimates = sorted(size_from(sorted(i ^ t for i in ids)[:20]) for t in [rng.getrandbits(160) for _ in range(16)])
        assert 0.67 < estimates[8] / size < 1.5


def test_a_timeout_follows_the_round_trips() -> None:
    estimate = Estimate()
    assert estimate.rto_s() is None
    for _ in range(50):
        estimate.add(0.1)
    assert estimate.rto_s() == pytest.approx(0.1, abs=0.001)
    estimate.add(0.5)
    assert 0.45 < (estimate.rto_s() or 0) < 0.6


# --- addresses


def test_addresses_learnt_in_public_are_public() -> None:
    for host in (
        "127.0.0.1",
        "10.1.2.3",
        "192.168.1.1",
        "169.254.1.1",
        "100.64.0.1",
        "::1",
        "fe80::1",
        "fc00::1",
        "::ffff:10.0.0.1",
        "0.0.0.0",
    ):
        assert is_private(host) and not is_dialable((host, 8468), allow_private=False)
    for host in ("224.0.0.1", "255.255.255.255", "0.0.0.0", "::"):
        assert not is_dialable((host, 8468), allow_private=True)
    assert is_dialable(("127.0.0.1", 1), allow_private=True) and not is_dialable(("127.0.0.1", 0), allow_private=True)
    assert is_dialable(("23.1.2.3", 8468), allow_private=False) and is_dialable(("2600::1", 8468), allow_private=False)


def test_addresses_have_one_spelling_and_groups() -> None:
    assert normal("::ffff:23.1.2.3", 5) == ("23.1.2.3", 5) and normal("fe80::1%eth0", 5) == ("fe80::1", 5)
    for address in (("23.1.2.3", 8468), ("2600::1", 1)):
        assert unpacked(packed(address)) == address
    assert group_of(("23.1.2.3", 1), False) == group_of(("23.1.2.200", 9), True) != group_of(("23.1.3.3", 1), False)
    assert group_of(("2600:1:2:3::1", 1), False) == group_of(("2600:1:2:4::9", 1), False)


# --- records kept for others


def test_the_store_keeps_its_bounds_and_one_network_pushes_out_only_its_own() -> None:
    p = Parameters(records=200, per_key=16, per_group=100)
    store = RecordStore(p, Random(1))
    honest = [record(n) for n in range(16)]
    for n, kept in enumerate(honest):
        assert store.put(kept, b"g%d" % n, UNIX) == pk.KEPT
    for n in range(1000, 1400):  # one network, many keys of its own, first the same key, then everywhere
        store.put(record(n), b"evil", UNIX)
    assert store.read(KEY, bytes(8), UNIX)[1] == 16
    assert len({r.owner for r in store.read(KEY, bytes(8), UNIX)[0]} & {r.owner for r in honest}) >= 12
    for n in range(2000, 3000):
        store.put(record(n, key=n.to_bytes(20, "big")), b"evil", UNIX)
    assert store.count <= 200 and store._groups[b"evil"] <= 100
    assert len({r.owner for r in store.read(KEY, bytes(8), UNIX)[0]} & {r.owner for r in honest}) >= 12
    store.validate()


def test_in_a_full_key_the_largest_group_gives_way() -> None:
    store = RecordStore(Parameters(per_key=16, per_key_and_group=100), Random(1))
    honest = {kept.owner for n in range(16) if store.put(kept := record(n), b"g%d" % n, UNIX) == pk.KEPT}
    for n in range(1000, 1400):
        store.put(record(n), b"evil", UNIX)
    assert len({r.owner for r in store.read(KEY, bytes(8), UNIX)[0]} & honest) >= 15
    store.validate()


def test_a_full_key_takes_newcomers_by_chance_so_that_no_age_is_safe_and_none_is_doomed() -> None:
    store = RecordStore(Parameters(per_key=16), Random(1))
    for n in range(160):
        store.put(record(n), b"g%d" % n, UNIX)
    kept = {int.from_bytes(r.owner, "big") for r in store.read(KEY, bytes(8), UNIX)[0]}
    assert len(kept) == 16 and min(kept) < 130 and max(kept) > 100
    store.validate()


def test_only_newer_live_records_within_their_bounds_are_kept() -> None:
    store = RecordStore(P, Random(1))
    assert store.put(record(1, sequence=5), b"g", UNIX) == pk.KEPT
    assert store.put(record(1, sequence=4), b"g", UNIX) == pk.OLDER
    assert store.put(record(1, sequence=5), b"g", UNIX) == pk.KEPT
    assert store.put(record(1, sequence=6, payload=b"new"), b"g", UNIX) == pk.KEPT
    assert [r.payload for r in store.read(KEY, bytes(8), UNIX)[0]] == [b"new"]
    assert store.put(record(2, lives_s=-1), b"g", UNIX) == pk.REFUSED
    assert store.put(record(2, lives_s=10**5), b"g", UNIX) == pk.REFUSED
    assert store.equivocations == {}
    store.put(record(1, sequence=6, payload=b"other"), b"g", UNIX)
    assert list(store.equivocations) == [record(1).owner]
    assert store.read(KEY, bytes(8), UNIX + 900) == ([], 0) and store.expire(UNIX + 900) == 1 and store.count == 0
    store.validate()


def test_a_read_goes_round_from_its_cursor() -> None:
    store = RecordStore(P, Random(1))
    for n in range(10):
        store.put(record(n << 248), b"g%d" % n, UNIX)
    rows, total = store.read(KEY, bytes([4]) + b"\xff" * 7, UNIX)
    assert total == 10 and [r.owner[0] for r in rows] == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


# --- look-ups and requests


def test_a_look_up_keeps_alpha_in_flight_and_a_late_one_does_not_count() -> None:
    seeds = [(n, b"at") for n in range(1, 31)]
    lookup = Lookup(0, 999, seeds, width=20, alpha=4, paths=2, resiliency=3, queries=100)
    first = lookup.next_queries()
    assert len(first) == 4 and lookup.next_queries() == []
    lookup.on_slow(first[0][0])
    assert len(lookup.next_queries()) == 1
    lookup.on_answer(first[0][0], [])  # late, and still heard
    assert lookup.next_queries() == []
    lookup.on_failure(first[1][0])
    assert len(lookup.next_queries()) == 1


def test_a_path_learns_only_from_its_own_answers() -> None:
    lookup = Lookup(0, 999, [(100, b""), (101, b"")], width=3, alpha=2, paths=2, resiliency=3, queries=100)
    asked = dict(lookup.next_queries())
    assert set(asked) == {100, 101}
    lookup.on_answer(100, [(n, b"") for n in range(1, 20)])  # a liar floods its own path with nearer nodes
    lookup.on_answer(101, [(50, b"")])
    assert {id_ for id_, _ in lookup.next_queries()} == {1, 50}


def test_a_look_up_ends_although_an_adversary_invents_ever_nearer_contacts() -> None:
    lookup = Lookup(0, 1 << 159, [(1 << 158, b"")], width=20, alpha=8, paths=4, resiliency=3, queries=50)
    asked = 0
    nearer = 1 << 157
    while queries := lookup.next_queries():
        for id_, _ in queries:
            asked += 1
            nearer -= 1
            lookup.on_answer(id_, [(nearer - n, b"") for n in range(20)])
            nearer -= 20
    assert asked <= 50 and lookup.is_through()


def test_a_request_is_sent_twice_then_given_up() -> None:
    core = DhtCore(CheapKey(b"a" * 32), NETWORK_ID, Random(1), verify=cheap_verify)
    core.ping(100.0, 5, ("23.1.2.3", 1))
    assert len(core.take_effects()) == 1
    assert core.next_deadline() == pytest.approx(100.5)
    assert core.tick(100.4) == [] and len(core.tick(100.5)) == 1
    assert core.next_deadline() == pytest.approx(101.5)
    assert core.tick(101.5) == [] and core.next_deadline() is None and core.flying.failed == {pk.PING: 1}


# --- budgets, replays, tokens, work


def test_budgets_refill_and_are_forgotten_in_bounded_memory() -> None:
    bucket = Bucket(10.0, 3.0, 0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False] and bucket.take(0.1) and not bucket.take(0.1)
    buckets = Buckets(1.0, 2.0, kept=100)
    for n in range(10_000):
        buckets.take(b"%d" % n, 0.0)
    assert len(buckets) == 100


def test_replays_are_remembered_in_bounded_memory() -> None:
    seen = Generations(100, 600.0)
    assert not seen.is_replay(b"a", "x", 0.0) and not seen.is_replay(b"a", "x", 0.0) and seen.is_replay(b"a", "x", 0.0)
    assert not seen.is_replay(b"b", "x", 0.0) and seen.is_replay(b"b", "y", 0.0)
    for n in range(10_000):
        seen.is_replay(b"%d" % n, "x", 1.0)
    assert len(seen) <= 200


def test_a_token_is_good_for_its_address_and_for_one_to_two_periods() -> None:
    core = DhtCore(CheapKey(b"a" * 32), NETWORK_ID, Random(1), verify=cheap_verify)
    here, there = ("23.1.2.3", 1), ("23.1.2.4", 1)
    core.is_token_of(here, bytes(8), 1000.0)
    token = core._token_for(here, 0)
    assert core.is_token_of(here, token, 1000.0) and not core.is_token_of(there, token, 1000.0)
    assert core.is_token_of(here, token, 1301.0) and not core.is_token_of(here, token, 1602.0)
    assert not core.is_token_of(here, pk.NO_TOKEN_BYTES, 1000.0)


def test_a_network_may_ask_for_work() -> None:
    network_id = make_network_id("costly", work_bits=8)
    me = Identity(b"m" * 32)
    work = pk.find_work(me.public, 8)
    assert pk.shows_work(me.public, work, 8) and not pk.shows_work(Identity(b"x" * 32).public, work, 8)
    server = DhtCore(Identity(b"s" * 32), network_id, Random(1))
    for shown, drops in ((work, {}), (b"", {"no work": 1})):
        client = DhtCore(me, network_id, Random(repr(shown)), work=shown, is_read_only=True)
        client.ping(0.0, None, ("23.1.2.3", 1))
        (request,) = client.take_effects()
        assert isinstance(request, Send)
        assert len(server.on_datagram(0.0, request.data, ("23.9.9.9", 1))) == (not drops)
        assert server.drops == drops


# --- publishing


def test_an_advertisement_is_published_again_at_a_third_of_its_life_with_jitter_and_ended_by_a_tombstone() -> None:
    network = VirtualNetwork(5, parameters=Parameters(refresh_s=1e9))
    network.add(30)
    network.fill_tables()
    writer, reader = network.nodes[0], network.nodes[7]
    network.wait(writer, writer.agent.publish(network.now, OFFER))
    next_at = writer.agent._publications[CAPABILITY].next_at
    assert 0.85 * 600 - 5 <= next_at - network.now <= 600
    network.run(3600)  # two lifetimes
    assert len(network.wait(reader, reader.agent.find(network.now, CAPABILITY, 5, 30.0))) == 1
    number = writer.agent.withdraw(network.now, CAPABILITY)
    assert number is not None and network.wait(writer, number).stored >= 20
    network.run(60)
    assert network.wait(reader, reader.agent.find(network.now, CAPABILITY, 5, 30.0)) == ()
    assert writer.agent.withdraw(network.now, CAPABILITY) is None


def test_an_advertisement_of_a_company_that_fell_silent_ends_with_its_life() -> None:
    network = VirtualNetwork(6, parameters=Parameters(refresh_s=1e9))
    network.add(30)
    network.fill_tables()
    writer, reader = network.nodes[0], network.nodes[7]
    network.wait(writer, writer.agent.publish(network.now, OFFER))
    writer.is_alive = False
    network.run(1500)
    assert len(network.wait(reader, reader.agent.find(network.now, CAPABILITY, 5, 30.0))) == 1
    network.run(400)
    assert network.wait(reader, reader.agent.find(network.now, CAPABILITY, 5, 30.0)) == ()
