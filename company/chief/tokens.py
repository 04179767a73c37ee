"""The chief's books of tokens: make one, keep its hash alone, and say exactly why one is refused (pure).

A secret has at least 128 random bits, so a fast hash is enough to store it: guessing is hopeless at any speed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Literal, Protocol

from company.tokens import MIN_SECRET_BYTES, JoinToken, encode_token
from company.views import Role
from p2p.base.clock import UnixTime
from p2p.base.errors import PeerError, UsageError
from p2p.base.record import record

MAX_TTL_S = 10 * 365 * 86_400
MAX_USES = 10_000
Fault = Literal["token-unknown", "token-revoked", "token-expired", "token-used-up"]
_NOBODY = bytes(32)  # compared where there is no record, so that an unknown id takes as long as a wrong secret


class TokenRefused(PeerError):
    """A well-formed token that gives no right, and why: ``code`` is one of `Fault`."""


class Record(Protocol):
    """What is stored of a token; `company.chief.store.tokens.TokenRow` is one."""

    @property
    def secret_hash(self) -> bytes: ...
    @property
    def expires(self) -> float | None: ...  # Unix seconds, None: never
    @property
    def uses_left(self) -> int | None: ...  # None: any number
    @property
    def revoked(self) -> float | None: ...  # when


@record(kw_only=True)
class NewToken:
    """A token just made: ``text`` is shown once, the rest is stored."""

    text: str
    id: str
    kind: Literal["join", "access"]
    role: Role
    secret_hash: bytes
    created: UnixTime
    expires: UnixTime | None
    uses_left: int | None


def hash_secret(secret: bytes) -> bytes:
    """What is stored instead of a secret: BLAKE2b-256, personalised. Source: RFC 7693; NIST SP 800-63B §5.1.2 (look-up secrets)."""
    return hashlib.blake2b(secret, digest_size=32, person=b"company-token-v1").digest()


def make_token(
    *, role: Role, addresses: Sequence[str], chief_key: bytes, now: UnixTime, ttl_s: float | None, uses: int, token_id: str, secret: bytes
) -> NewToken:
    """Make a token. ``secret``, ``token_id``: fresh random bytes and text from the operating system.

    A worker's token joins ``uses`` machines; any other is an access token, used as often as its bearer likes until it expires.
    Raises `UsageError` for a bound that was passed.
    """
    if ttl_s is not None and not 1 <= ttl_s <= MAX_TTL_S:
        raise UsageError("token-ttl", f"a token's ttl must be 1..{MAX_TTL_S} s, got {ttl_s}")
    if not 1 <= uses <= MAX_USES:
        raise UsageError("token-uses", f"a token's uses must be 1..{MAX_USES}, got {uses}")
    if len(secret) < MIN_SECRET_BYTES:
        raise UsageError("token-secret", f"a token's secret must be at least {MIN_SECRET_BYTES} bytes, got {len(secret)}")
    expires = None if ttl_s is None else UnixTime(now + int(ttl_s))
    text = encode_token(JoinToken(addresses=tuple(addresses), chief_key=chief_key, role=role, expires=expires, id=token_id, secret=secret))
    joins = role == "worker"
    return NewToken(
        text=text, id=token_id, kind="join" if joins else "access", role=role, secret_hash=hash_secret(secret), created=now,
        expires=expires, uses_left=uses if joins else None,
    )  # fmt: skip


def check(record: Record | None, secret: bytes, now: float) -> None:
    """Let a token pass, or raise `TokenRefused` with the first fault. ``record``: what is stored under its id, None: nothing.

    Who does not know the secret learns nothing: an unknown id and a wrong secret give the same answer in the same time.
    """
    matches = hmac.compare_digest(hash_secret(secret), _NOBODY if record is None else record.secret_hash)
    if record is None or not matches:
        raise TokenRefused("token-unknown", "this chief knows no such token", hint="ask the administrator for a new one")
    if record.revoked is not None:
        raise TokenRefused("token-revoked", "this token was revoked", hint="ask the administrator for a new one", since=record.revoked)
    if record.expires is not None and now >= record.expires:
        late_s = int(now - record.expires)
        raise TokenRefused(
            "token-expired", f"this token expired {late_s} s ago", hint="ask for a new one: company token create", since=record.expires
        )
    if record.uses_left is not None and record.uses_left <= 0:
        raise TokenRefused("token-used-up", "this token was used as often as it may be", hint="ask for a new one: company token create")
