"""Sets of records are a join semilattice: order, repetition and grouping change nothing."""

from __future__ import annotations

import random
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.base.clock import UnixTime
from p2p.base.keys import Identity
from p2p.dht.records import Record, merge_records, sign_record

OWNERS = tuple(Identity(bytes([n]) * 32) for n in range(3))


@cache
def record(owner: int, sequence: int, payload: int) -> Record:
    return sign_record(
        OWNERS[owner], b"n" * 16, key=b"k" * 20, kind="test", sequence=sequence, expires=UnixTime(9), payload=bytes([payload])
    )


RECORDS = st.lists(st.builds(record, st.integers(0, 2), st.integers(0, 3), st.integers(0, 2)), max_size=12)


@settings(max_examples=100, deadline=None)
@given(RECORDS, RECORDS, st.randoms(use_true_random=False))
def test_merging_is_commutative_associative_and_idempotent(left: list[Record], right: list[Record], rng: random.Random) -> None:
    whole = merge_records({}, left + right)[0]
    shuffled = left + right + left
    rng.shuffle(shuffled)
    assert merge_records({}, shuffled)[0] == whole
    assert merge_records(whole, whole.values()) == (whole, [])
    a, b = merge_records({}, left)[0], merge_records({}, right)[0]
    assert merge_records(a, b.values())[0] == merge_records(b, a.values())[0] == whole


@settings(max_examples=100, deadline=None)
@given(RECORDS)
def test_what_is_kept_is_the_highest_sequence_of_each_owner(records: list[Record]) -> None:
    kept = merge_records({}, records)[0]
    assert {o: r.sequence for o, r in kept.items()} == {r.owner: max(x.sequence for x in records if x.owner == r.owner) for r in records}
