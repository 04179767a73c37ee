"""Advertisements: one spelling, shards that both sides agree on, and a directory within one process."""

from __future__ import annotations

import dataclasses
from random import Random

import pytest

from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage, UsageError
from p2p.base.keys import Identity
from p2p.dht.advertisement import (
    Advertisement,
    Capability,
    Relay,
    advertisement_of_untrusted,
    encode_advertisement,
    keys_of_owner,
    level_for,
    levels_used,
    listing_of_untrusted,
    parse_capability,
    shard_key,
    shard_of,
    sign_advertisement,
    tombstone_of,
)  # fmt: skip
from p2p.dht.directory import Directory
from p2p.dht.memory import DEFAULT_LIFETIME_S, MemoryNetwork
from p2p.dht.records import MAX_RECORD_BYTES, sign_record

CAPABILITY = "spare/v1/x86_64/py3.11/bubblewrap"
ME, OTHER = Identity(b"m" * 32), Identity(b"o" * 32)
NET = b"n" * 16
FULL = Advertisement(
    capability=CAPABILITY,
    endpoints=(("192.0.2.1", 8468), ("2001:db8::1", 8468)),
    relays=(Relay(public=b"r" * 32, host="192.0.2.7", port=8468), Relay(public=b"s" * 32, host="relay.example", port=8468)),
    slots=20,
    cores=20,
    memory_mib=4096,
    pythons=("3.11", "3.12"),
    runtimes=("cpython",),
    speed=1234,
    max_frame_s=86400,
    min_trust_permille=100,
    price_milli=500,
    schedule="mon-fri 18:00-08:00",
)


def test_a_capability_has_one_spelling() -> None:
    assert str(parse_capability(CAPABILITY)) == CAPABILITY
    assert parse_capability(CAPABILITY) == Capability("x86_64", "3.11", "bubblewrap")
    for wrong in (CAPABILITY + "/", CAPABILITY.upper(), "spare/v2/x/py3.11/none", "spare/v1/x86_64/3.11/none", CAPABILITY + "\n", ""):
        with pytest.raises(UsageError):
            parse_capability(wrong)


def test_an_advertisement_survives_its_payload_and_fits_a_record() -> None:
    for advertisement in (FULL, Advertisement(capability=CAPABILITY, slots=1), tombstone_of(CAPABILITY)):
        assert advertisement_of_untrusted(encode_advertisement(advertisement)) == advertisement
    record = sign_advertisement(ME, NET, FULL, key=shard_key(CAPABILITY, 0, 0), sequence=1, expires=UnixTime(9))
    assert len(record.raw) < MAX_RECORD_BYTES / 2


@pytest.mark.parametrize(
    "change",
    [
        {"slots": -1}, {"speed": 2**48}, {"endpoints": (("a" * 65, 1),)}, {"endpoints": (("a", 0),)}, {"endpoints": (("a", 1),) * 5},
        {"schedule": "x" * 65}, {"schedule": "\x1b[2J"}, {"min_trust_permille": 1001}, {"pythons": ("x" * 25,)}, {"capability": "x"},
    ],
)  # fmt: skip
def test_an_advertisement_out_of_bounds_is_not_made(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        encode_advertisement(dataclasses.replace(FULL, **change))  # type: ignore[arg-type]


def test_the_level_grows_with_the_network_and_estimates_four_times_apart_still_meet() -> None:
    assert [level_for(n) for n in (1, 256, 257, 1024, 5000, 10**6, 10**12)] == [0, 0, 1, 1, 3, 6, 6]
    assert levels_used(0) == (0, 1) and levels_used(2) == (2, 1, 3) and levels_used(6) == (6, 5)
    for size in (1, 100, 1000, 10**4, 10**5):
        assert set(keys_of_owner(CAPABILITY, ME.public, level_for(size))) & set(keys_of_owner(CAPABILITY, ME.public, level_for(size * 4)))


def test_shards_are_filled_evenly() -> None:
    filled = [0] * 16
    for n in range(1600):
        filled[shard_of(n.to_bytes(32, "big"), 2)] += 1
    assert min(filled) > 60 and max(filled) < 150
    with pytest.raises(UsageError):
        shard_key(CAPABILITY, 1, 4)


def test_a_record_in_anothers_shard_or_of_another_capability_is_no_listing() -> None:
    at = shard_key(CAPABILITY, 2, shard_of(ME.public, 2))
    assert listing_of_untrusted(sign_advertisement(ME, NET, FULL, key=at, sequence=1, expires=UnixTime(9)), CAPABILITY).owner == ME.public
    elsewhere = shard_key(CAPABILITY, 2, (shard_of(ME.public, 2) + 1) % 16)
    with pytest.raises(MalformedMessage, match="shard"):
        listing_of_untrusted(sign_advertisement(ME, NET, FULL, key=elsewhere, sequence=1, expires=UnixTime(9)), CAPABILITY)
    with pytest.raises(MalformedMessage, match="capability"):
        listing_of_untrusted(sign_advertisement(ME, NET, FULL, key=at, sequence=1, expires=UnixTime(9)), "spare/v1/x86_64/py3.12/none")
    with pytest.raises(MalformedMessage, match="kind"):
        listing_of_untrusted(sign_record(ME, NET, key=at, kind="head", sequence=1, expires=UnixTime(9), payload=b""), CAPABILITY)


async def test_directories_of_one_network_see_each_others_offers_until_withdrawn_or_expired() -> None:
    now = [UnixTime(1_000_000)]
    network = MemoryNetwork(lambda: now[0], Random(1))
    mine: Directory = network.directory(ME, ("192.0.2.1", 1))
    theirs: Directory = network.directory(OTHER, ("192.0.2.2", 1))
    assert await mine.join([]) == 1
    await mine.publish(FULL)
    assert [(found.owner, found.advertisement) for found in await theirs.find(CAPABILITY, 10, 1.0)] == [(ME.public, FULL)]
    assert mine.status().published == (CAPABILITY,)
    await mine.withdraw(CAPABILITY)
    assert await theirs.find(CAPABILITY, 10, 1.0) == ()
    await mine.publish(FULL)
    now[0] = UnixTime(now[0] + DEFAULT_LIFETIME_S)
    assert await theirs.find(CAPABILITY, 10, 1.0) == ()


async def test_other_records_are_put_and_got_and_the_newer_replaces_the_older() -> None:
    network = MemoryNetwork(lambda: UnixTime(1_000_000), Random(1))
    mine = network.directory(ME, ("192.0.2.1", 1))
    await mine.put("head", b"k" * 20, b"old", 60)
    await mine.put("head", b"k" * 20, b"new", 60)
    assert [found.payload for found in await mine.get(b"k" * 20, 5, 1.0)] == [b"new"]
    assert await mine.ping(("192.0.2.1", 1)) == 0.0 and await mine.ping(("192.0.2.9", 1)) is None
