"""What a contract's machine is told, and what it wants done (pure).

``wall`` is the calendar of whoever hands the event over. It is written into messages and journals, and no deadline is judged by it.
"""

from __future__ import annotations

from dataclasses import field

from p2p.base.clock import UnixTime
from p2p.base.record import record
from p2p.contracts.signing import Signed
from p2p.contracts.table import State
from p2p.contracts.terms import NOTHING, Cause, Facts, Terms

NO_DIGEST = b"\0" * 32


@record
class Propose:
    """Borrower: sign an offer, or with the same nonce a revised one."""

    terms: Terms
    valid_s: int
    wall: UnixTime


@record
class Agreeing:
    """Lender: sign an acceptance. The book has reserved the slots before."""

    slots: int
    activation_s: int
    wall: UnixTime
    offer_terms: bytes | None = None  # digest of the text that the person saw; another one is refused


@record
class Committing:
    """Borrower: bind itself to the acceptance that has come."""

    wall: UnixTime


@record
class Refusing:
    """Either: refuse what is on the table (offer, acceptance, amendment) or withdraw one's own; with terms, a counter-proposal."""

    reason: str
    wall: UnixTime
    text: str = ""
    retry_after_s: int = 0
    terms: Terms | None = None


@record
class Progress:
    """Lender: what its workers have done and handed over so far, cumulative."""

    facts: Facts
    wall: UnixTime
    results: bytes = NO_DIGEST
    slots_alive: int | None = None


@record
class Accepted:
    """Borrower: what it has received and accepted so far, cumulative."""

    facts: Facts
    wall: UnixTime
    checks_passed: int = 0
    checks_failed: int = 0


@record
class Amending:
    """Either: propose new terms from a future epoch on."""

    terms: Terms
    from_epoch: int
    wall: UnixTime


@record
class AgreeingAmendment:
    """Either: countersign the other's amendment."""

    wall: UnixTime
    terms: bytes | None = None  # digest that was shown


@record
class Revoking:
    """Either: end it. In force at once."""

    cause: Cause
    wall: UnixTime
    notice_s: int = 0
    evidence: bytes = NO_DIGEST
    text: str = ""


@record
class Drained:
    """Nothing of this contract runs here any more, and all results are handed over."""

    wall: UnixTime


@record
class Heard:
    """Authenticated traffic of the other side outside these messages: a busy channel renews by itself."""

    wall: UnixTime


@record
class Received:
    """Bytes from the other side, as they came; ``parts``: the same cut by `split_wire_untrusted`, where somebody did that before."""

    wire: bytes
    wall: UnixTime
    parts: tuple[int, bytes, bytes | int] | None = None


@record
class HalfMade:
    """The company's chain has made this contract's half."""

    half: Signed
    wall: UnixTime


@record
class Persisted:
    """All journal records up to this ordinal are on disk."""

    ordinal: int


@record
class Restarted:
    """The journal has been folded after a restart of this side."""

    wall: UnixTime


@record
class Tick:
    """A deadline may have come."""

    wall: UnixTime


Event = (
    Propose | Agreeing | Committing | Refusing | Progress | Accepted | Amending | AgreeingAmendment | Revoking | Drained | Heard
    | Received | HalfMade | Persisted | Restarted | Tick
)  # fmt: skip


@record
class Persist:
    """Write this record; `Persisted` releases what waits for it."""

    ordinal: int
    record: bytes


@record
class Send:
    """Hand these bytes to the other side; they may be lost, doubled or overtaken."""

    wire: bytes


@record
class Changed:
    """The state is another one now."""

    state: State
    cause: Cause = Cause.NONE


@record
class WorkMay:
    """Whether new batches may be started (lender) or handed out (borrower) under this contract."""

    flow: bool
    why: str


@record
class WantHalf:
    """The receipt is due: let the company's chain make its half from these facts, and hand it over as `HalfMade`."""

    accepted: Facts
    claimed: Facts
    checks_passed: int
    checks_failed: int
    borrower_cause: Cause
    lender_cause: Cause
    peer_half: bytes


@record
class ForkFound:
    """The other side signed two things with one number: a proof that anybody can verify."""

    proof: bytes


@record
class Refused:
    """An event or message changed nothing, and why."""

    code: str
    text: str


@record
class HandOver:
    """The other side is back after a restart: hand over again what it may have missed of results."""

    facts: Facts = field(default=NOTHING)


Effect = Persist | Send | Changed | WorkMay | WantHalf | ForkFound | Refused | HandOver
