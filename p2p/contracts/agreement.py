"""What one side knows of one contract, folded from its journal (pure).

A record is a message that went out, a message that came in, or a note about something that only time did. Live running and recovery
fold the same records by the same function, so a restart cannot come to another result. No clock in here: deadlines are the machine's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import msgpack

from p2p.base.clock import UnixTime
from p2p.base.envelope import pack
from p2p.base.errors import InvariantBroken
from p2p.base.record import record
from p2p.contracts import messages as m
from p2p.contracts.signing import Signed, contract_id, trusted
from p2p.contracts.table import FINAL, LIVE, State, Trigger, can, next_state
from p2p.contracts.terms import COUNTING, LENDER, NOTHING, Cause, Facts, Role, Terms

NEVER = UnixTime(0)
MAX_MESSAGES = 60_000  # per side and contract


class Kind(IntEnum):
    """What a record is."""

    OUT = 1
    IN = 2
    NOTE = 3


OUT, IN, NOTE = Kind  # see `terms.LENDER`


@record
class Record:
    """One line of the journal."""

    kind: Kind
    wall: UnixTime
    elapsed_ms: int  # since t0 by this side's own monotonic clock; 0 before there is one
    signed: Signed | None = None
    note: Trigger | None = None

    def pack(self) -> bytes:
        """The bytes on disk."""
        head = [int(self.kind), self.wall, self.elapsed_ms]
        s = self.signed
        tail = [s.message.code, s.body, s.signature] if s is not None else [str(self.note)]
        return pack(head + tail)

    @classmethod
    def unpack(cls, data: bytes) -> Record:
        """Read one's own journal."""
        kind, wall, elapsed_ms, *rest = msgpack.unpackb(data, raw=False)
        if kind == NOTE:
            return cls(NOTE, UnixTime(wall), elapsed_ms, note=Trigger(rest[0]))
        return cls(Kind(kind), UnixTime(wall), elapsed_ms, signed=trusted(*rest))


@dataclass(slots=True)
class Amendment:
    """Terms that may come into force."""

    by: Role
    signed: Signed
    terms: Terms
    revision: int
    from_epoch: int
    agreed: Signed | None = None


@dataclass(slots=True)
class Agreement:
    """The contract as one side sees it. `apply` is the only thing that changes it."""

    role: Role
    me: bytes
    peer: bytes
    nonce: bytes
    state: State = State.DRAFT
    about: bytes = b""
    contract: bytes = b""  # the id; empty before the acceptance
    terms: Terms | None = None
    terms_bytes: bytes = b""
    slots: int = 0
    revision: int = 0
    offer: Signed | None = None
    accept: Signed | None = None
    commit: Signed | None = None
    suggestion: bytes = b""  # terms of the last counter-proposal
    refusal: m.Nack | None = None
    amendment: Amendment | None = None
    epoch: int = -1  # last one stated
    statement: Signed | None = None
    claimed: Facts = NOTHING
    acked_epoch: int = -1
    acked: Facts = NOTHING
    causes: dict[Role, Cause] = field(default_factory=dict)
    settle: Signed | None = None
    countersettle: Signed | None = None
    checks: tuple[int, int] = (0, 0)
    halves: dict[Role, Signed] = field(default_factory=dict)
    out: list[Signed] = field(default_factory=list)
    came: list[Signed] = field(default_factory=list)
    got: int = 0  # our messages up to here are on the other side's disk
    signed_seen: int = 0  # and up to here it has signed that it read them
    records: int = 0
    started: UnixTime = NEVER
    ended: UnixTime = NEVER

    def __post_init__(self) -> None:
        self.about = self.about or self.nonce

    def apply(self, record: Record) -> None:
        """Fold one record in. The machine has judged it before."""
        before = self.state
        self.records += 1
        if record.note is not None:
            self._note(record.note)
        elif record.signed is not None:
            is_own = record.kind is OUT
            (self.out if is_own else self.came).append(record.signed)
            author = self.role if is_own else self.role.other
            if not is_own:
                self.signed_seen = max(self.signed_seen, record.signed.message.seen_sequence)  # type: ignore[attr-defined]
                self.got = max(self.got, self.signed_seen)
            self._message(record.signed, author)
        if before is self.state:
            return
        if self.state is State.ACTIVE and self.started == 0:
            self.started = record.wall
        if self.ended == 0 and before in LIVE and self.state not in LIVE:
            self.ended = record.wall

    def go(self, trigger: Trigger) -> None:
        """Move along the table."""
        self.state = next_state(self.state, trigger)

    def _note(self, trigger: Trigger) -> None:
        if trigger is Trigger.AMENDED:
            self.amendment = None
        self.go(trigger)

    def _message(self, signed: Signed, author: Role) -> None:
        match signed.message:
            case m.Offer() as offer:
                if not can(self.state, Trigger.OFFER):
                    return  # it crossed an acceptance of the one before; the acceptance will be refused
                self.offer, self.terms_bytes, self.suggestion = signed, offer.terms, b""
                self.terms = Terms.unpack_untrusted(offer.terms)
                self.go(Trigger.OFFER)
            case m.Accept() as accept:
                self._accepted(signed, accept)
            case m.Commit():
                if can(self.state, Trigger.COMMIT):
                    self.commit = signed
                    self.go(Trigger.COMMIT)
            case m.Nack() as nack:
                self._refused(nack, author)
            case m.Epoch() as epoch:
                self._stated(signed, epoch)
            case m.Ack() as ack:
                self.acked_epoch, self.acked = ack.epoch, Facts(*ack.accepted)
            case m.Amend() as amend:
                is_in_time = amend.revision == self.revision + 1 and amend.from_epoch > self.epoch
                if is_in_time and can(self.state, Trigger.AMEND):
                    terms = Terms.unpack_untrusted(amend.terms)
                    self.amendment = Amendment(author, signed, terms, amend.revision, amend.from_epoch)
                    self.go(Trigger.AMEND)
            case m.Agree() as agree:
                if self.amendment is not None and self.amendment.signed.hash == agree.amendment:
                    self.amendment.agreed = signed
            case m.Revoke() as revoke:
                self._revoked(Cause(revoke.cause), author)
            case m.Resume():
                pass
            case m.Settle() as settle:
                self.settle, self.claimed = signed, Facts(*settle.facts)
                self.end_now()
            case m.Countersettle() as counter:
                self.countersettle, self.acked = signed, Facts(*counter.accepted)
                self.checks = (counter.checks_passed, counter.checks_failed)
                if can(self.state, Trigger.SETTLE):
                    self.go(Trigger.SETTLE)
            case m.Receipt() as receipt:
                self._halved(trusted(m.Half.code, receipt.half, receipt.half_signature), author)
            case other:
                raise InvariantBroken(f"a {type(other).__name__} is no message of a contract")

    def _halved(self, half: Signed, author: Role) -> None:
        self.halves[author] = half
        if author is not self.role and can(self.state, Trigger.SETTLE):
            # the other side closed alone after waiting in vain; what it says we co-signed is the receipt, so that both halves agree
            found = half.message
            assert isinstance(found, m.Half)  # by `MESSAGES`
            self.acked, self.checks = Facts(*found.accepted), (found.checks_passed, found.checks_failed)
            self.go(Trigger.SETTLE)
        if len(self.halves) == 2 and can(self.state, Trigger.RATE):
            self.go(Trigger.RATE)

    def _accepted(self, signed: Signed, accept: m.Accept) -> None:
        if self.offer is None or not can(self.state, Trigger.ACCEPT) or accept.offer != self.offer.hash:
            return
        self.accept, self.slots = signed, accept.slots
        self.contract = self.about = contract_id(self.offer.body, signed.body)
        self.go(Trigger.ACCEPT)

    def _refused(self, nack: m.Nack, author: Role) -> None:
        self.refusal = nack
        if self.amendment is not None and nack.what == self.amendment.signed.hash:
            self.amendment = None
            if can(self.state, Trigger.AMENDED):
                self.go(Trigger.AMENDED)
        elif self.state is State.OFFERED:
            if nack.terms and author is LENDER:
                self.suggestion = nack.terms
                self.go(Trigger.COUNTER)
            else:
                self.go(Trigger.REFUSE if author is LENDER else Trigger.WITHDRAW)
        elif self.state is State.ACCEPTED and self.accept is not None and nack.what == self.accept.hash:
            self.go(Trigger.WITHDRAW)
        elif self.commit is not None and nack.what == self.commit.hash and self.epoch < 0 and can(self.state, Trigger.VOID):
            self.causes.clear()  # nobody was bound, so nobody has ended anything
            self.go(Trigger.VOID)

    def _stated(self, signed: Signed, epoch: m.Epoch) -> None:
        self.epoch, self.statement, self.claimed = epoch.epoch, signed, Facts(*epoch.facts)
        found = self.amendment
        if found is None:
            return
        if epoch.revision > self.revision:  # the lender's statement decides, and the borrower's acknowledgement co-signs it
            self.revision, self.terms = epoch.revision, found.terms
            self.terms_bytes = found.signed.message.terms  # type: ignore[attr-defined]
            self.slots = min(found.terms.slots, 1024)
        elif epoch.epoch < found.from_epoch:
            return
        self.amendment = None
        if can(self.state, Trigger.AMENDED):
            self.go(Trigger.AMENDED)

    def _revoked(self, cause: Cause, author: Role) -> None:
        if self.is_over:
            return  # void, or its receipt is written
        self.causes.setdefault(author, cause)
        trigger = Trigger.BREAK if cause in COUNTING else Trigger.REVOKE
        if can(self.state, trigger):
            self.go(trigger)

    def end_now(self) -> None:
        """The lender has settled: whatever this side thought, no work flows any more."""
        if self.state in LIVE:
            self.go(Trigger.EXPIRE)
        if can(self.state, Trigger.CLOSE):
            self.go(Trigger.CLOSE)

    @property
    def sequence(self) -> int:
        """Number of our last message."""
        return len(self.out)

    @property
    def unconfirmed(self) -> list[Signed]:
        """Our messages that the other side has not said to have."""
        return self.out[self.got :]

    @property
    def is_unconfirmed(self) -> bool:
        return self.got < len(self.out)

    @property
    def has_started(self) -> bool:
        """Whether both sides have shown that they hold it: a statement and its acknowledgement went through."""
        return self.acked_epoch >= 0 if self.role is LENDER else self.epoch >= 0

    @property
    def is_over(self) -> bool:
        return self.state in FINAL
