"""What a contract's machine is told, and what it wants done (pure).

``wall`` is the calendar of whoever hands the event over. It is written into messages and journals, and no deadline is judged by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from p2p.base.clock import UnixTime
from p2p.contracts.signing import Signed
from p2p.contracts.table import State
from p2p.contracts.terms import NOTHING, Cause, Facts, Terms

NO_DIGEST = b"\0" * 32


@dataclass(frozen=True, slots=True)
class Propose:
    """Borrower: sign an offer, or with the same nonce a revised one."""

    terms: Terms
    valid_s: int
    wall: UnixTime


@dataclass(frozen=True, slots=True)
class Agreeing:
    """Lender: sign an acceptance. The book has reserved the slots before."""

    slots: int
    activation_s: int
    wall: UnixTime
    offer_terms: bytes | None = None  # digest of the text that the person saw; another one is refused


@dataclass(frozen=True, slots=True)
class Committing:
    """Borrower: bind itself to the acceptance that has come."""

    wall: UnixTime


@dataclass(frozen=True, slots=True)
class Refusing:
    """Either: refuse what is on the table (offer, acceptance, amendment) or withdraw one's own; with terms, a counter-proposal."""

    reason: str
    wall: UnixTime
    text: str = ""
    retry_after_s: int = 0
    terms: Terms | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Lender: what its workers have done and handed over so far, cumulative."""

    facts: Facts
    wall: UnixTime
    results: bytes = NO_DIGEST
    slots_alive: int | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Borrower: what it has received and accepted so far, cumulative."""

    facts: Facts
    wall: UnixTime
    checks_passed: int = 0
    checks_failed: int = 0


@dataclass(frozen=True, slots=True)
class Amending:
    """Either: propose new terms from a future epoch on."""

    terms: Terms
    from_epoch: int
    wall: UnixTime


@dataclass(frozen=True, slots=True)
class AgreeingAmendment:
    """Either: countersign the other's amendment."""

    wall: UnixTime
    terms: bytes | None = None  # digest that was shown


@dataclass(frozen=True, slots=True)
class Revoking:
    """Either: end it. In force at once."""

    cause: Cause
    wall: UnixTime
    notice_s: int = 0
    evidence: bytes = NO_DIGEST
    text: str = ""


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing of this contract runs here any more, and all results are handed over."""

    wall: UnixTime


@dataclass(frozen=True, slots=True)
class Heard:
    """Authenticated traffic of the other side outside these messages: a busy channel renews by itself."""

    wall: UnixTime


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes from the other side, as they came."""

    wire: bytes
    wall: UnixTime


@dataclass(frozen=True, slots=True)
class HalfMade:
    """The company's chain has made this contract's half."""

    half: Signed
    wall: UnixTime


@dataclass(frozen=True, slots=True)
class Persisted:
    """All journal records up to this ordinal are on disk."""

    ordinal: int


@dataclass(frozen=True, slots=True)
class Restarted:
    """The journal has been folded after a restart of this side."""

    wall: UnixTime


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline may have come."""

    wall: UnixTime


Event = (
    Propose | Agreeing | Committing | Refusing | Progress | Accepted | Amending | AgreeingAmendment | Revoking | Drained | Heard
    | Received | HalfMade | Persisted | Restarted | Tick
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Persist:
    """Write this record; `Persisted` releases what waits for it."""

    ordinal: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """Hand these bytes to the other side; they may be lost, doubled or overtaken."""

    wire: bytes


@dataclass(frozen=True, slots=True)
class Changed:
    """The state is another one now."""

    state: State
    cause: Cause = Cause.NONE


@dataclass(frozen=True, slots=True)
class WorkMay:
    """Whether new batches may be started (lender) or handed out (borrower) under this contract."""

    flow: bool
    why: str


@dataclass(frozen=True, slots=True)
class WantHalf:
    """The receipt is due: let the company's chain make its half from these facts, and hand it over as `HalfMade`."""

    accepted: Facts
    claimed: Facts
    checks_passed: int
    checks_failed: int
    borrower_cause: Cause
    lender_cause: Cause
    peer_half: bytes


@dataclass(frozen=True, slots=True)
class ForkFound:
    """The other side signed two things with one number: a proof that anybody can verify."""

    proof: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """An event or message changed nothing, and why."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """The other side is back after a restart: hand over again what it may have missed of results."""

    facts: Facts = field(default=NOTHING)


Effect = Persist | Send | Changed | WorkMay | WantHalf | ForkFound | Refused | HandOver
