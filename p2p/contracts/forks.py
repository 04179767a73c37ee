"""Proofs that a company signed two things where it may sign one (pure).

The only evidence that lowers a third party's view: silence cannot be proved, two signatures can. Two messages of one author, contract
and number with different bodies; two halves at one place of a chain, or about one contract; or a message whose ``prev`` denies the one
before it.
"""

from __future__ import annotations

import msgpack

from p2p.base.errors import MalformedMessage
from p2p.base.record import record
from p2p.contracts import messages as m
from p2p.contracts.signing import Signed, open_signed_untrusted
from p2p.contracts.terms import array_untrusted

MAX_PROOF_BYTES = 40 << 10


@record
class Fork:
    """A verified proof."""

    author: bytes
    what: str


def fork_proof(first: Signed, second: Signed) -> bytes | None:
    """The portable proof, or None when these two contradict each other in nothing."""
    if contradiction(first, second) is None:
        return None
    pairs = [[s.message.code, s.body, s.signature] for s in sorted((first, second), key=lambda s: s.hash)]
    packed: bytes = msgpack.packb([1, first.message.author, *pairs], use_bin_type=True)  # type: ignore[attr-defined]
    return packed


def contradiction(first: Signed, second: Signed) -> str | None:
    """In words, what one author may not have signed both of."""
    a, b = first.message, second.message
    if first.hash == second.hash or getattr(a, "author", None) != getattr(b, "author", None):
        return None
    if isinstance(a, m.Half) and isinstance(b, m.Half):
        if a.chain_sequence == b.chain_sequence:
            return f"two halves at place {a.chain_sequence} of one chain"
        return "two halves about one contract" if a.contract == b.contract and a.role == b.role else None
    if isinstance(a, m.Header) and isinstance(b, m.Header) and a.about == b.about and a.role == b.role:
        if a.sequence == b.sequence:
            return f"two messages with number {a.sequence} of one contract"
        earlier, later, hash_ = (a, b, first.hash) if a.sequence < b.sequence else (b, a, second.hash)
        if later.sequence == earlier.sequence + 1 and later.prev != hash_:
            return f"message {later.sequence} denies the one before it"
    return None


def verify_fork_untrusted(network_id: bytes, proof: bytes) -> Fork:
    """Check a proof that anybody has sent. Raises only `MalformedMessage`."""
    array = array_untrusted(proof, MAX_PROOF_BYTES)
    if len(array) != 4 or array[0] != 1 or type(array[1]) is not bytes:
        raise MalformedMessage("a proof is [1, author, message, message]")
    found: list[Signed] = []
    for pair in array[2:]:
        if type(pair) is not list or len(pair) != 3 or type(pair[0]) is not int or type(pair[1]) is not bytes or type(pair[2]) is not bytes:
            raise MalformedMessage("a message of a proof is [code, body, signature]")
        found.append(open_signed_untrusted(network_id, array[1], *pair))
    what = contradiction(*found)
    if what is None:
        raise MalformedMessage("these two messages contradict each other in nothing")
    return Fork(array[1], what)
