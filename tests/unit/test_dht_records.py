"""Records: what is signed, what is refused, and that sets merge the same in every order."""

from __future__ import annotations

import pytest

from p2p.base.clock import UnixTime
from p2p.base.envelope import BadSignature
from p2p.base.errors import MalformedMessage, UsageError
from p2p.base.keys import Identity
from p2p.dht.records import (
    MAX_RECORD_BYTES,
    Equivocation,
    Record,
    is_equivocation,
    merge_records,
    open_equivocation_untrusted,
    open_record_untrusted,
    sign_record,
)  # fmt: skip

NET = b"n" * 16
KEY = b"k" * 20
ME, OTHER = Identity(b"m" * 32), Identity(b"o" * 32)


def record(signer: Identity = ME, *, sequence: int = 1, payload: bytes = b"p", key: bytes = KEY) -> Record:
    return sign_record(signer, NET, key=key, kind="test", sequence=sequence, expires=UnixTime(1000), payload=payload)


def test_a_record_is_read_from_its_own_bytes() -> None:
    made = record()
    assert open_record_untrusted(made.raw, NET) == made
    assert made.company.startswith("co-")


@pytest.mark.parametrize("at", [0, 40, 97, 105, 130])
def test_a_record_with_one_bit_changed_is_refused(at: int) -> None:
    raw = bytearray(record().raw)
    raw[at] ^= 1
    with pytest.raises(MalformedMessage):
        open_record_untrusted(bytes(raw), NET)


def test_a_record_of_another_network_is_refused() -> None:
    with pytest.raises(BadSignature):
        open_record_untrusted(record().raw, b"x" * 16)


def test_a_record_may_have_900_bytes_and_no_more() -> None:
    spare = MAX_RECORD_BYTES - len(record(payload=b"x" * 300).raw) + 300
    assert len(record(payload=b"x" * spare).raw) == MAX_RECORD_BYTES
    with pytest.raises(UsageError, match="901"):
        record(payload=b"x" * (spare + 1))


@pytest.mark.parametrize("wrong", [{"key": b"short"}, {"sequence": -1}, {"sequence": 2**63}])
def test_a_record_out_of_bounds_is_not_made(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        record(**wrong)  # type: ignore[arg-type]


def test_the_higher_sequence_wins_per_owner() -> None:
    old, new, theirs = record(sequence=1), record(sequence=2, payload=b"new"), record(OTHER, sequence=1)
    for order in ([old, new, theirs], [theirs, new, old], [new, old, new, theirs]):
        assert merge_records({}, order) == ({ME.public: new, OTHER.public: theirs}, [])


def test_two_bodies_with_one_sequence_prove_equivocation_and_merge_alike_in_both_orders() -> None:
    one, two = record(payload=b"1"), record(payload=b"2")
    (left, proofs), (right, again) = merge_records({}, [one, two]), merge_records({}, [two, one])
    assert left == right
    assert proofs == again == [Equivocation(*sorted((one, two), key=lambda r: r.raw))]
    assert open_equivocation_untrusted(two.raw, one.raw, NET) == proofs[0]


def test_what_does_not_contradict_proves_nothing() -> None:
    one = record()
    others = (one, record(sequence=2, payload=b"2"), record(OTHER, payload=b"2"), record(key=b"z" * 20, payload=b"2"))
    for other in others:
        assert not is_equivocation(one, other)
        with pytest.raises(MalformedMessage):
            open_equivocation_untrusted(one.raw, other.raw, NET)
