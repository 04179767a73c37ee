"""Rules of tokens: what is copied parses back, every fault has its own code, secrets are never stored or shown."""

import base64
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import pytest

from company.chief.tokens import NewToken, TokenRefused, check, hash_secret, make_token
from company.tokens import PREFIXES, TokenMalformed, check_chief, describe_token, encode_token, parse_token_untrusted
from company.views import Role
from p2p.base.clock import UnixTime
from p2p.base.errors import PeerError, UsageError

KEY, SECRET, NOW = bytes(range(32)), b"s" * 32, UnixTime(1_000)


def made(role: Role = "worker", **changes: Any) -> NewToken:
    options: dict[str, Any] = {
        "addresses": ["10.0.0.1:8468"], "chief_key": KEY, "now": NOW, "ttl_s": 100.0, "uses": 2, "token_id": "t-1", "secret": SECRET,
    }  # fmt: skip
    return make_token(role=role, **(options | changes))


@dataclass(frozen=True)
class Stored:
    secret_hash: bytes = hash_secret(SECRET)
    expires: float | None = 1_100.0
    uses_left: int | None = 2
    revoked: float | None = None


def fault(record: Stored | None, secret: bytes = SECRET, now: float = 1_000.0) -> str | None:
    try:
        check(record, secret, now)
    except TokenRefused as error:
        return error.code
    return None


@pytest.mark.parametrize("role", list(PREFIXES))
def test_every_role_has_its_prefix_and_parses_back(role: Role) -> None:
    token = made(role)
    assert token.text.startswith(PREFIXES[role] + ".")
    parsed = parse_token_untrusted(f"  {token.text}\n")
    assert (parsed.role, parsed.chief_key, parsed.secret, parsed.id, parsed.expires) == (role, KEY, SECRET, "t-1", 1_100)
    assert parsed.addresses == ("10.0.0.1:8468",)
    assert (token.kind, token.uses_left) == (("join", 2) if role == "worker" else ("access", None))


def test_the_secret_is_neither_stored_nor_shown() -> None:
    token = made()
    assert SECRET not in token.secret_hash and len(token.secret_hash) == 32
    assert "ssss" not in repr(parse_token_untrusted(token.text))
    assert "secret" not in describe_token(token.text)


def test_each_fault_has_its_own_code() -> None:
    assert fault(Stored()) is None
    assert fault(None) == "token-unknown"
    assert fault(Stored(), secret=b"x" * 32) == "token-unknown"
    assert fault(Stored(revoked=5.0)) == "token-revoked"
    assert fault(Stored(), now=1_100.0) == "token-expired"
    assert fault(Stored(uses_left=0)) == "token-used-up"
    assert fault(Stored(expires=None, uses_left=None), now=1e12) is None


def test_expired_says_since_when() -> None:
    with pytest.raises(TokenRefused) as raised:
        check(Stored(), SECRET, 1_160.0)
    assert raised.value.facts["since"] == 1_100.0 and "60 s ago" in raised.value.text


def test_who_does_not_know_the_secret_does_not_learn_that_a_token_was_revoked_or_expired() -> None:
    assert fault(Stored(revoked=1.0, uses_left=0), secret=b"x" * 32, now=9e9) == "token-unknown"


def test_the_key_of_another_chief_is_refused() -> None:
    token = parse_token_untrusted(made().text)
    check_chief(token, KEY)
    with pytest.raises(PeerError) as raised:
        check_chief(token, bytes(32))
    assert raised.value.code == "wrong-chief"


def test_bounds_of_a_new_token() -> None:
    wrong: list[dict[str, Any]] = [
        {"ttl_s": 0.0}, {"uses": 0}, {"secret": b"short"}, {"addresses": []}, {"addresses": ["a b"]}, {"chief_key": b""}, {"token_id": ""},
    ]  # fmt: skip
    for changes in wrong:
        with pytest.raises(UsageError):
            made(**changes)


def test_an_unbounded_token_has_no_expiry() -> None:
    assert parse_token_untrusted(made(ttl_s=None).text).expires is None


def packed(body: Any, prefix: str = "cmpw1") -> str:
    return f"{prefix}.{base64.urlsafe_b64encode(msgpack.packb(body)).rstrip(b'=').decode()}"


GOOD = [1, ["h:1"], KEY, "worker", None, "id", SECRET]


@pytest.mark.parametrize(
    "text",
    [
        "", "cmpw1", "cmpw1.", "cmpx1.AAAA", "cmpw1.!!!!", "cmpw1." + "A" * 5000, packed({}), packed([]), packed([2, *GOOD[1:]]),
        packed(GOOD[:6]), packed([*GOOD, 1]), packed(GOOD, "cmpo1"), packed([1, [], *GOOD[2:]]), packed([1, ["h:1"] * 17, *GOOD[2:]]),
        packed([1, ["h 1"], *GOOD[2:]]), packed([1, [1], *GOOD[2:]]), packed([1, ["h:1"], b"k", *GOOD[3:]]),
        packed([*GOOD[:4], -1, *GOOD[5:]]), packed([*GOOD[:4], True, *GOOD[5:]]), packed([*GOOD[:5], "i/d", SECRET]),
        packed([*GOOD[:6], b"short"]), packed(GOOD)[:-3], packed([True, *GOOD[1:]]), packed(GOOD) + "AAAA",
    ],
)  # fmt: skip
def test_a_damaged_token_is_malformed(text: str) -> None:
    with pytest.raises(TokenMalformed) as raised:
        parse_token_untrusted(text)
    assert raised.value.code == "token-malformed"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing was given"), ("nonsense", "8 characters were given"), ("cmpw1", "only its first 5 letters"),
        ("company worker join cmpw1.AAAA", "one word"), ("10.0.0.7:8468", "an address"), ("https://h:1/", "an address"),
        ("cmpw2.AAAA", "version 2"),
    ],
)  # fmt: skip
def test_what_is_no_token_is_told_about_what_was_given_and_does_not_repeat_it(text: str, said: str) -> None:
    with pytest.raises(TokenMalformed) as raised:
        parse_token_untrusted(text)
    assert said in raised.value.text
    assert not text or text not in raised.value.text


def test_encoding_gives_what_parsing_takes() -> None:
    token = parse_token_untrusted(packed(GOOD))
    assert parse_token_untrusted(encode_token(token)) == token
    with pytest.raises(UsageError):
        encode_token(replace(token, id="no good"))
