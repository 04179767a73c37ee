"""A company's chain of receipt halves, and its head (pure).

Every half carries the hash of the half before it, so a company can neither leave one out nor show different ones to different readers
without a proof against it. The head is what is published; who serves fewer halves than its head says withholds some.
Source: TrustChain half-blocks (Otte, de Vos, Pouwelse 2020), without their transaction links.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2p.base.clock import UnixTime
from p2p.base.errors import InvariantBroken, MalformedMessage
from p2p.base.record import record
from p2p.contracts import messages as m
from p2p.contracts.agreement import Agreement
from p2p.contracts.events import WantHalf
from p2p.contracts.signing import Reader, Signed, Signer
from p2p.contracts.terms import Facts


class Chain:
    """One's own halves. What `make` returns is to be on disk before anybody sees it."""

    def __init__(self, signer: Signer, halves: Sequence[Signed] = ()) -> None:
        self._signer = signer
        self.halves = list(halves)
        self._by_contract = {_half(s).contract: s for s in halves}

    def make(self, want: WantHalf, a: Agreement, wall: UnixTime) -> Signed:
        """The half of one contract; asking again returns the same one, for two would be a fork."""
        known = self._by_contract.get(a.contract)
        if known is not None:
            return known
        half = m.Half(
            1, a.me, a.peer, a.contract, int(a.role), len(self.halves) + 1, self.halves[-1].hash if self.halves else m.ZERO,
            want.accepted, want.claimed, want.checks_passed, want.checks_failed, int(want.borrower_cause),
            int(want.lender_cause), a.started, a.ended or wall, want.peer_half,
        )  # fmt: skip
        signed = self._signer.sign(half)
        self.halves.append(signed)
        self._by_contract[a.contract] = signed
        return signed

    def head(self, wall: UnixTime) -> Signed:
        """What is published of it."""
        last = self.halves[-1].hash if self.halves else m.ZERO
        return self._signer.sign(m.Head(1, self._signer.public, len(self.halves), last, wall))


@record
class ChainFault:
    """What does not hold in a chain that somebody served."""

    place: int
    text: str


def chain_fault(halves: Sequence[Signed], head: Signed | None = None, *, first: int = 1, prev: bytes = m.ZERO) -> ChainFault | None:
    """The first break of a chain, or of its agreement with the published head. Signatures were verified when it was read."""
    for place, signed in enumerate(halves, first):
        half = _half(signed)
        if half.chain_sequence != place:
            return ChainFault(place, f"half {place} is missing; the next one says {half.chain_sequence}")
        if half.chain_prev != prev:
            return ChainFault(place, f"half {place} does not follow the one before it")
        prev = signed.hash
    if head is None:
        return None
    end = head.message
    if not isinstance(end, m.Head):
        raise InvariantBroken("a chain is compared with a head")
    last = first + len(halves) - 1
    if end.chain_sequence > last:
        return ChainFault(last + 1, f"the published head says {end.chain_sequence} halves, {last} were shown: some are withheld")
    if end.chain_sequence == last and end.chain_hash != prev:
        return ChainFault(last, "the published head is the end of another chain")
    return None


def receipt_faults(first: Signed, second: Signed) -> list[str]:
    """What two halves of one receipt contradict each other in."""
    a, b = _half(first), _half(second)
    faults = []
    if (a.contract, a.author, a.peer) != (b.contract, b.peer, b.author) or {a.role, b.role} != {1, 2}:
        faults.append("the halves are not about one contract between the same two companies")
    if a.accepted != b.accepted:
        faults.append(f"one half says {a.accepted} was accepted, the other {b.accepted}")
    if (a.borrower_cause, a.lender_cause) != (b.borrower_cause, b.lender_cause):
        faults.append("the halves name different causes")
    if first.hash != b.peer_half and second.hash != a.peer_half:
        faults.append("neither half names the other")
    return faults


def read_half_untrusted(reader: Reader, author: bytes, body: bytes, signature: bytes) -> Signed:
    """One half as somebody served it. Raises only `MalformedMessage`."""
    signed = reader.open_untrusted(author, m.Half.code, body, signature)
    half = _half(signed)
    if not Facts(*half.claimed).covers(Facts(*half.accepted)):
        raise MalformedMessage("a half accepts more than was claimed")
    return signed


def _half(signed: Signed) -> m.Half:
    if not isinstance(signed.message, m.Half):
        raise InvariantBroken("a chain holds halves only")
    return signed.message
