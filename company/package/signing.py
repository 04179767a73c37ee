"""Who vouches for a package: a signature that the chief and every worker check before anything runs (pure).

The body is [package digest, processor digest, name, version, signed for]. A client signs its own upload (``signed_for`` empty);
what came unsigned, by curl or browser, the chief signs "for user X". A worker's owner may insist on a client's own signature.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgpack

from company.package.check import PackageInfo
from company.package.digests import DIGEST_BYTES
from p2p.base.envelope import open_untrusted, seal
from p2p.base.errors import MalformedMessage, PeerError
from p2p.base.keys import Identity
from p2p.base.record import record

ENVELOPE_TYPE = "package"
NO_NETWORK = bytes(16)  # a package means the same in every network: its digest says all there is
MAX_NAME_CHARS = 100


@record(kw_only=True)
class PackageClaim:
    """What a signature over a package says."""

    package: bytes
    processor: bytes
    name: str
    version: str
    signed_for: str  # the user for whom a chief signed; "" when a client signed for itself

    def as_array(self) -> list[Any]:
        """The signed body's fields, in order."""
        return [self.package, self.processor, self.name, self.version, self.signed_for]


def claim_of(info: PackageInfo, *, signed_for: str = "") -> PackageClaim:
    """The claim that belongs to a checked package."""
    return PackageClaim(
        package=info.digest, processor=info.processor_digest, name=info.name, version=info.version, signed_for=signed_for[:MAX_NAME_CHARS]
    )


def sign_package(identity: Identity, claim: PackageClaim) -> bytes:
    """Return the signature over ``claim``; it is deterministic, so signing twice gives the same bytes."""
    return seal(identity, ENVELOPE_TYPE, NO_NETWORK, claim.as_array())[1]


def verify_package(claim: PackageClaim, *, signer: bytes, signature: bytes, chief: bytes, trusted: Collection[bytes] | None = None) -> None:
    """Check a signature before running what it covers.

    ``chief``: the key of the company's chief, which alone may sign for others. ``trusted``: the keys a worker's owner insists on
    (clients' own), or nil when the chief's word for the client will do.
    Raises `MalformedMessage` (`BadSignature` when it does not hold), `PeerError` signed-for-other or signer-not-trusted.
    """
    open_untrusted(signer, ENVELOPE_TYPE, NO_NETWORK, _body_of(claim), signature, fields=5)
    if claim.signed_for and signer != chief:
        raise PeerError("signed-for-other", f"only the chief may sign for {claim.signed_for!r}", signer=signer.hex())
    if trusted is not None and signer not in trusted:
        by_chief = "; this one the chief signed" if signer == chief else ""
        text = f"this worker's owner accepts only packages signed by a client's own key{by_chief}"
        raise PeerError("signer-not-trusted", text, signer=signer.hex())


def _body_of(claim: PackageClaim) -> bytes:
    if len(claim.package) != DIGEST_BYTES or len(claim.processor) != DIGEST_BYTES:
        raise MalformedMessage(f"a digest has {DIGEST_BYTES} bytes")
    body: bytes = msgpack.packb(claim.as_array(), use_bin_type=True)
    return body
