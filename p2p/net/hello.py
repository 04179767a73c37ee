"""The first messages of every channel: who calls, for what, in which version of the protocol (pure).

The caller has already compared the *key* in the server's certificate with the one it expects; now it proves its own by a
signature over the purpose, both nonces and the server's key, so that a server cannot pass the proof on to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from p2p.base.codec import decode_value_untrusted, encode_value
from p2p.base.errors import MalformedMessage
from p2p.base.schema import U16, U64, Key, Length, Line, Message, Signature, Word

PROTOCOL = 1
NONCE_BYTES = 32
Nonce = Annotated[bytes, Length(NONCE_BYTES, NONCE_BYTES)]


@dataclass(frozen=True, slots=True)
class Hello(Message, code=1):
    """First message of the caller. purpose: worker, bulk, join, relay."""

    protocol: U16
    purpose: Word
    key: Key
    nonce: Nonce


@dataclass(frozen=True, slots=True)
class Challenge(Message, code=2):
    """The answer to Hello: prove that the key is yours."""

    protocol: U16
    nonce: Nonce


@dataclass(frozen=True, slots=True)
class Prove(Message, code=3):
    """Signature over b"parallel/v1/hello" NUL purpose NUL + caller's nonce + server's nonce + server's key."""

    signature: Signature


@dataclass(frozen=True, slots=True)
class Welcome(Message, code=4):
    """The channel is open. server_time: Unix seconds, for the clock check."""

    server_time: U64


@dataclass(frozen=True, slots=True)
class Refused(Message, code=5):
    """Why the other side will not; facts: codec map of at most 4 KiB."""

    code_word: Word
    text: Line
    facts: Annotated[bytes, Length(0, 4096)]


@dataclass(frozen=True, slots=True)
class ProveServer(Message, code=6):
    """Follows Challenge on a socket within a machine, where no TLS shows the server's key: a signature over b"parallel/v1/local" NUL and
    what `Prove` signs after its own word."""

    signature: Signature


def local_proof_bytes(purpose: str, caller_nonce: bytes, server_nonce: bytes, server_key: bytes) -> bytes:
    """What `ProveServer` signs."""
    return b"parallel/v1/local\0" + purpose.encode() + b"\0" + caller_nonce + server_nonce + server_key


def proof_bytes(purpose: str, caller_nonce: bytes, server_nonce: bytes, server_key: bytes) -> bytes:
    """What `Prove` signs. "hello" is no envelope type, so no proof can be shown as an envelope, or the other way round."""
    return b"parallel/v1/hello\0" + purpose.encode() + b"\0" + caller_nonce + server_nonce + server_key


def refusal(code_word: str, text: str, **facts: Any) -> Refused:
    """A `Refused` that fits its bounds: long texts are cut, facts too large for 4 KiB are left out."""
    packed = encode_value(facts) if facts else b""
    cut = text.encode("utf-8", "replace")[:1024].decode("utf-8", "ignore")
    return Refused(code_word[:64], cut, packed if len(packed) <= 4096 else b"")


def refusal_facts_untrusted(refused: Refused) -> Mapping[str, Any]:
    """The facts of a stranger's `Refused`; empty when there are none. Raises only `MalformedMessage`."""
    if not refused.facts:
        return {}
    facts = decode_value_untrusted(refused.facts)
    if type(facts) is not dict or not all(type(key) is str for key in facts):
        raise MalformedMessage("facts of a refusal must be a map with text keys")
    return facts
