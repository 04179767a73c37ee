"""Whatever is pasted, parsing gives a token or `TokenMalformed`, nothing else."""

import base64

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from company.tokens import PREFIXES, JoinToken, TokenMalformed, encode_token, parse_token_untrusted
from p2p.base.clock import UnixTime

LEAF = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=40)
VALUE = st.recursive(LEAF, lambda x: st.lists(x, max_size=8))
TOKEN = st.builds(
    JoinToken,
    addresses=st.lists(st.from_regex(r"[a-z0-9.:]{1,30}", fullmatch=True), min_size=1, max_size=16).map(tuple),
    chief_key=st.binary(min_size=32, max_size=32),
    role=st.sampled_from(list(PREFIXES)),
    expires=st.none() | st.integers(0, 2**40).map(UnixTime),
    id=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    secret=st.binary(min_size=16, max_size=64),
)


@given(TOKEN)
def test_every_token_survives_the_trip(token: JoinToken) -> None:
    assert parse_token_untrusted(encode_token(token)) == token


def only_malformed(text: str) -> None:
    try:
        parse_token_untrusted(text)
    except TokenMalformed as error:
        assert error.code == "token-malformed"


@given(st.text(max_size=60), st.sampled_from(list(PREFIXES.values())))
def test_hostile_text_is_malformed(text: str, prefix: str) -> None:
    only_malformed(text)
    only_malformed(f"{prefix}.{text}")


@given(VALUE, st.sampled_from(list(PREFIXES.values())))
def test_hostile_bodies_are_malformed(value: object, prefix: str) -> None:
    only_malformed(f"{prefix}.{base64.urlsafe_b64encode(msgpack.packb(value)).decode()}")


@given(TOKEN, st.integers(0, 10_000), st.characters())
def test_a_changed_character_never_crashes(token: JoinToken, at: int, character: str) -> None:
    text = encode_token(token)
    at %= len(text)
    only_malformed(text[:at] + character + text[at + 1 :])
