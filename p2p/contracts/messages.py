"""Contract path 3/8 - every message of a contract, as a fixed array with bounds (pure).

Each carries both keys, what it is about (the offer's nonce until there is a contract id), its author's own sequence number, ``prev``
(hash of the author's previous message here) and ``seen`` (sequence and hash of the other's last one read), so that two messages that
cross on the wire fork nothing, and two with one number prove who lied.
"""

from __future__ import annotations

from typing import Annotated

from p2p.base.record import record
from p2p.base.schema import U16, U32, Digest, Key, Length, Message, Range, Signature, Word, registry
from p2p.contracts.terms import MAX_TERMS_BYTES, FactsArray

ZERO = b"\0" * 32
Unix = Annotated[int, Range(0, 2**40, "s since 1970")]
Says = Annotated[str, Length(0, 240)]
TermsBytes = Annotated[bytes, Length(1, MAX_TERMS_BYTES)]


@record
class Header(Message):
    """What every message begins with."""

    version: Annotated[int, Range(1, 1)]
    author: Key
    peer: Key
    about: Digest  # nonce of the offer, and the contract id once there is one
    role: Annotated[int, Range(1, 2)]
    sequence: Annotated[int, Range(1, 2**32 - 1)]
    prev: Digest
    seen_sequence: U32
    seen: Digest
    created: Unix  # by the author's calendar; nobody is judged late by it
    expires: Unix


@record
class Offer(Header, code=1):
    """The borrower asks. Reserves nothing at the lender and lapses by itself; a revised offer has the next sequence number."""

    terms: TermsBytes
    valid_s: Annotated[int, Range(1, 7 * 86_400, "s")]


@record
class Accept(Header, code=2):
    """The lender reserves slots. The contract id is the hash of the bodies of the offer and of this message."""

    offer: Digest
    slots: Annotated[int, Range(1, 1024)]
    activation_s: Annotated[int, Range(1, 3600, "s")]


@record
class Commit(Header, code=3):
    """The borrower binds itself; work flows only from here. One that comes too late is void, without penalty for anybody."""

    accept: Digest


@record
class Nack(Header, code=4):
    """A refusal, which always says why: of an offer, an acceptance, a late commit or an amendment; with terms it is a counter-proposal."""

    what: Digest
    reason: Word
    text: Says
    retry_after_s: Annotated[int, Range(0, 7 * 86_400, "s")]
    terms: Annotated[bytes, Length(0, MAX_TERMS_BYTES)]


@record
class Epoch(Header, code=5):
    """The lender states what was done, cumulatively; it also keeps the contract alive."""

    epoch: U32
    revision: U16  # of the terms in force from this statement on
    facts: FactsArray
    results: Digest  # over the digests of all results so far
    slots_alive: U16


@record
class Ack(Header, code=6):
    """The borrower co-signs what it has received and accepted of it."""

    epoch: U32
    statement: Digest
    accepted: FactsArray


@record
class Amend(Header, code=7):
    """New terms from a future epoch on; void unless agreed to, and that acknowledged, before it."""

    revision: Annotated[int, Range(1, 2**16 - 1)]
    from_epoch: U32
    terms: TermsBytes


@record
class Agree(Header, code=8):
    """The countersignature of an amendment."""

    amendment: Digest


@record
class Revoke(Header, code=9):
    """Ends the contract; in force at its author at once, whether or not it arrives."""

    cause: Annotated[int, Range(0, 12)]
    notice_s: Annotated[int, Range(0, 86_400, "s for what runs")]
    evidence: Digest
    text: Says


@record
class Resume(Header, code=10):
    """After a restart: where its author stands, so that the other sends again what is missing."""

    epoch: U32
    elapsed_s: U32


@record
class Settle(Header, code=11):
    """The lender's totals."""

    facts: FactsArray
    epochs: U32


@record
class Countersettle(Header, code=12):
    """What the borrower accepted in total: this is what counts as done for it."""

    settle: Digest
    accepted: FactsArray
    checks_passed: U32
    checks_failed: U32


@record
class Receipt(Header, code=13):
    """Hands over the author's half of the receipt, verbatim."""

    half: Annotated[bytes, Length(1, 1024)]
    half_signature: Signature


@record
class Half(Message, code=20):
    """Contract path 7/8 - one company's half of a receipt: a link of its own chain, one per contract."""

    version: Annotated[int, Range(1, 1)]
    author: Key
    peer: Key
    contract: Digest
    role: Annotated[int, Range(1, 2)]
    chain_sequence: Annotated[int, Range(1, 2**32 - 1)]
    chain_prev: Digest
    accepted: FactsArray  # what the borrower co-signed; both halves of one receipt say the same
    claimed: FactsArray  # what the lender claimed
    checks_passed: U32
    checks_failed: U32
    borrower_cause: Annotated[int, Range(0, 12)]
    lender_cause: Annotated[int, Range(0, 12)]
    started: Unix
    ended: Unix
    peer_half: Digest  # zero in the half that was written first, or alone


@record
class Head(Message, code=21):
    """The end of a company's chain of halves, as published: who shows less hides something."""

    version: Annotated[int, Range(1, 1)]
    author: Key
    chain_sequence: U32
    chain_hash: Digest
    created: Unix


MESSAGES = registry(Offer, Accept, Commit, Nack, Epoch, Ack, Amend, Agree, Revoke, Resume, Settle, Countersettle, Receipt, Half, Head)
TYPES = {cls.code: f"contract/{cls.__name__.lower()}" for cls in MESSAGES.values()}
