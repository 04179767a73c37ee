"""The one thing an administrator copies: a token that says where the chief is, which key it has, and proves the right to join (pure).

``cmpw1.<base64url of msgpack [version, addresses, chief_key, role, expires, id, secret]>``. The letter before the 1 names the role, so
that a human, and a secret scanner, sees what leaked. Shared by chief, worker and client; the chief's books are `company.chief.tokens`.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from company.views import Role
from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage, ParallelError, PeerError, UsageError

VERSION: Final = 1
PREFIXES: Final[dict[Role, str]] = {"worker": "cmpw1", "submitter": "cmps1", "viewer": "cmpv1", "operator": "cmpo1", "owner": "cmpa1"}
MAX_TEXT = 4096  # characters
MAX_ADDRESSES = 16
MAX_ADDRESS_BYTES = 200
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 16, 64
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ADDRESS = re.compile(r"[!-~]{1,200}")  # printable ASCII without space
_ADDRESS_LIKE = re.compile(r"[a-z]+://.*|[\w.-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")
_OTHER_VERSION = re.compile(r"cmp[wsvoa]([2-9]|[1-9]\d)")
_ROLES = {prefix: role for role, prefix in PREFIXES.items()}


class TokenMalformed(MalformedMessage):
    """Not a token, or a damaged one. ``why``: a word or two, never a part of the token."""

    def __init__(self, why: str) -> None:
        text = f"this is not a valid token: {why}"
        ParallelError.__init__(self, "token-malformed", text, hint="copy the whole line that the chief printed")


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """What the text of a token says; ``addresses``: the chief's, host:port, the best first."""

    addresses: tuple[str, ...]
    chief_key: bytes  # Ed25519, 32 bytes: compared with the key of the channel before the secret is sent
    role: Role
    expires: UnixTime | None
    id: str
    secret: bytes = field(repr=False)  # never in a log


def encode_token(token: JoinToken) -> str:
    """Return the text to copy. Raises `UsageError` for a token that could not be parsed again."""
    body = [VERSION, list(token.addresses), token.chief_key, token.role, token.expires, token.id, token.secret]
    packed = msgpack.packb(body, use_bin_type=True)
    text = f"{PREFIXES[token.role]}.{base64.urlsafe_b64encode(packed).rstrip(b'=').decode()}"
    try:
        parse_token_untrusted(text)
    except TokenMalformed as error:
        raise UsageError("token-unfit", f"a token cannot be made of this: {error.text}") from None
    return text


def parse_token_untrusted(text: str) -> JoinToken:
    """Read a token that somebody pasted; space around it is ignored. Raises only `TokenMalformed`, a `MalformedMessage`."""
    if len(text) > MAX_TEXT:
        raise TokenMalformed(f"longer than {MAX_TEXT} characters")
    prefix, dot, encoded = text.strip().partition(".")
    role = _ROLES.get(prefix)
    if role is None or not dot:
        raise TokenMalformed(_unlike_a_token(text.strip(), prefix, is_known=role is not None))
    try:
        packed = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        body = msgpack.unpackb(packed, use_list=True, raw=False, strict_map_key=True)
    except Exception:  # noqa: BLE001 - base64 and msgpack raise a wide set; all of it is the text's fault
        raise TokenMalformed("it is damaged or incomplete") from None
    if type(body) is not list or not body or type(body[0]) is not int or body[0] != VERSION:
        raise TokenMalformed(f"it is not of version {VERSION}")
    return _of_body_untrusted(body, role)


def _unlike_a_token(text: str, prefix: str, *, is_known: bool) -> str:
    """What was given in place of a token, as far as it can be told without repeating it: it may be a secret of another kind."""
    if not text:
        return "nothing was given"
    if is_known:
        return f"only its first {len(text)} letters were given; a dot and the token itself come after them"
    count = f"{len(text)} character{'s' if len(text) != 1 else ''}"
    if any(c.isspace() for c in text):
        return f"{count} with spaces in between were given; a token is one word"
    if _ADDRESS_LIKE.fullmatch(text):
        return "an address was given; a token names the chief's addresses itself"
    if (match := _OTHER_VERSION.fullmatch(prefix)) is not None:
        return f"it says version {match[1]}, this program reads version {VERSION}"
    return f"{count} were given that do not begin as a token does ({PREFIXES['worker']}. for a worker)"


def _of_body_untrusted(body: list[Any], role: Role) -> JoinToken:
    if len(body) != 7:
        raise TokenMalformed(f"7 fields are wanted, {len(body)} found")
    _, addresses, key, said_role, expires, token_id, secret = body
    if said_role != role:
        raise TokenMalformed("its prefix and its role differ")
    if type(addresses) is not list or not 1 <= len(addresses) <= MAX_ADDRESSES:
        raise TokenMalformed(f"it must name 1..{MAX_ADDRESSES} addresses")
    if any(type(a) is not str or not _ADDRESS.fullmatch(a) for a in addresses):
        raise TokenMalformed(f"an address must be 1..{MAX_ADDRESS_BYTES} printable characters")
    if type(key) is not bytes or len(key) != 32:
        raise TokenMalformed("the chief's key must be 32 bytes")
    if expires is not None and (type(expires) is not int or not 0 <= expires < 2**63):
        raise TokenMalformed("its expiry must be Unix seconds or nil")
    if type(token_id) is not str or not _ID.fullmatch(token_id):
        raise TokenMalformed("its id must be 1..64 letters, digits, - or _")
    if type(secret) is not bytes or not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise TokenMalformed(f"its secret must be {MIN_SECRET_BYTES}..{MAX_SECRET_BYTES} bytes")
    until = None if expires is None else UnixTime(expires)
    return JoinToken(addresses=tuple(addresses), chief_key=key, role=role, expires=until, id=token_id, secret=secret)


def check_chief(token: JoinToken, key: bytes) -> None:
    """Compare the key of a channel with the token's, before the secret is sent. Raises `PeerError` "wrong-chief"."""
    if key != token.chief_key:
        raise PeerError(
            "wrong-chief", "the chief at this address is not the one that made this token",
            hint="ask the administrator for a new token; do not use this address", wanted=token.chief_key.hex(), found=key.hex(),
        )  # fmt: skip


def describe_token(text: str) -> dict[str, Any]:
    """What a token says, for people, without its secret. Raises only `TokenMalformed`."""
    token = parse_token_untrusted(text)
    return {
        "id": token.id, "role": token.role, "addresses": list(token.addresses), "chief_key": token.chief_key.hex(),
        "expires": token.expires,
    }  # fmt: skip
