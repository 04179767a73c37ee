"""A company's, worker's or client's key, and the names derived from it (pure).

Ed25519 through libsodium, which refuses keys of small order and signatures that are not canonical.
Source: Bernstein et al. 2011; RFC 8032.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from p2p.base.ids import NODE_ID_BYTES, CompanyId, NodeId, id_text

SEED_BYTES = 32
PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64


class Signer(Protocol):
    """Whoever can sign under a public key: an `Identity`, or the simulator's cheap stand-in."""

    @property
    def public(self) -> bytes:
        """The 32 bytes that others know."""

    def sign(self, data: bytes) -> bytes:
        """64 bytes over ``data``."""


class Identity:
    """A private key. Never printed, pickled or compared; ``public`` is what others know."""

    __slots__ = ("_signing", "public")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, got {len(seed)}")
        self._signing = SigningKey(seed)
        self.public: bytes = bytes(self._signing.verify_key)

    @property
    def seed(self) -> bytes:
        """The secret itself: for the identity file and the TLS certificate only."""
        return bytes(self._signing)

    @property
    def node_id(self) -> NodeId:
        """This identity's place in the DHT."""
        return node_id(self.public)

    @property
    def company_id(self) -> CompanyId:
        """This identity's name as a company."""
        return company_id_text(self.public)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature of ``data``, which must begin with a domain of its own (see `p2p.base.envelope`)."""
        return bytes(self._signing.sign(data).signature)

    def __repr__(self) -> str:
        return f"Identity({fingerprint(self.public)})"

    def __reduce__(self) -> str:
        raise TypeError("an identity is never pickled")


def is_signed_by(public: bytes, data: bytes, signature: bytes) -> bool:
    """Whether ``signature`` over ``data`` was made by ``public``; False for anything malformed."""
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        VerifyKey(public).verify(data, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def node_id(public: bytes) -> NodeId:
    """BLAKE2b-160 of a public key."""
    return NodeId(hashlib.blake2b(public, digest_size=NODE_ID_BYTES).digest())


def company_id_text(public: bytes) -> CompanyId:
    """The text ``co-`` and the first 80 bits of the node id."""
    return CompanyId(id_text("co", node_id(public)))


def fingerprint(public: bytes) -> str:
    """What two people compare by eye: 128 bits of the node id in groups of four hex digits."""
    text = node_id(public)[:16].hex()
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))
