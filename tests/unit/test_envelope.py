"""Rules of signed bytes."""

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.base.envelope import BadSignature, open_untrusted, seal, signed_bytes
from p2p.base.errors import MalformedMessage, UsageError
from p2p.base.keys import Identity

ONE, TWO = Identity(b"1" * 32), Identity(b"2" * 32)
NET, OTHER_NET = b"n" * 16, b"m" * 16

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(), lambda parts: st.lists(parts), max_leaves=20
)


def sign_raw(body: bytes, type_: str = "offer") -> bytes:
    return ONE.sign(signed_bytes(type_, NET, body))


@given(st.lists(plain, max_size=6))
def test_what_was_sealed_opens_to_the_same_array(array: list[Any]) -> None:
    body, signature = seal(ONE, "offer", NET, array)
    assert open_untrusted(ONE.public, "offer", NET, body, signature, fields=len(array)) == array


def test_a_signature_holds_for_one_key_type_network_and_body_only() -> None:
    body, signature = seal(ONE, "offer", NET, [1, "x"])
    for key, type_, network, changed in (
        (TWO.public, "offer", NET, body),
        (ONE.public, "accept", NET, body),
        (ONE.public, "offer", OTHER_NET, body),
        (ONE.public, "offer", NET, body[:-1] + b"y"),
    ):
        with pytest.raises(BadSignature) as raised:
            open_untrusted(key, type_, network, changed, signature)
        assert raised.value.code == "bad-signature"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93\x01",  # cut off
        b"\x91\x01\x00",  # bytes left over
        b"\x91\xcd\x00\x01",  # 1 as uint16: not the shortest form
        b"\xdc\x00\x01\x01",  # array16 of one
        b"\x01",  # no array
        msgpack.packb([1.5]),
        msgpack.packb([{}]),
        msgpack.packb([msgpack.ExtType(1, b"")]),
        b"\x91\xa1\xff",  # text that is not UTF-8
        b"\x91" * 400 + b"\x01",
        b"\xdd\xff\xff\xff\xff",  # four billion items announced
    ],
)
def test_a_signed_body_in_any_other_form_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage) as raised:
        open_untrusted(ONE.public, "offer", NET, body, sign_raw(body))
    assert raised.value.code == "malformed-message"


def test_the_number_of_fields_is_fixed() -> None:
    body, signature = seal(ONE, "offer", NET, [1, 2])
    with pytest.raises(MalformedMessage, match="3 fields, got 2"):
        open_untrusted(ONE.public, "offer", NET, body, signature, fields=3)


@pytest.mark.parametrize("part", [1.0, {}, 2**64, -(2**63) - 1, {1}, bytearray(b"x")])
def test_what_a_body_cannot_hold_is_refused_before_signing(part: Any) -> None:
    with pytest.raises(UsageError):
        seal(ONE, "offer", NET, [part])


def test_type_and_network_id_cannot_be_ambiguous() -> None:
    for type_, network in (("a\0b", NET), ("", NET), ("é", NET), ("x" * 65, NET), ("offer", NET[:-1])):
        with pytest.raises(UsageError):
            seal(ONE, type_, network, [1])
