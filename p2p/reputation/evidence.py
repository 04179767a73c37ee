"""Contract path 8/8 - receipts become evidence, each contract once (pure).

Everything that trust is made of is a receipt half that somebody signed, a contract of one's own, or a proof of a fork. Unsigned
complaints are not here. What counts for a company is what it *computed for* another that accepted it: consumption earns nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from p2p.base.clock import UnixTime
from p2p.base.errors import InvariantBroken
from p2p.base.record import record
from p2p.contracts import messages as m
from p2p.contracts.signing import Signed
from p2p.contracts.terms import COUNTING, Cause, Facts, Role


@record
class Entry:
    """One contract as its receipt tells it."""

    contract: bytes
    borrower: bytes
    lender: bytes
    accepted: Facts  # as the borrower signed it
    checks_passed: int
    checks_failed: int
    borrower_cause: Cause
    lender_cause: Cause
    ended: UnixTime
    signers: frozenset[bytes]  # whose halves say this
    claimed_core_ms: int = 0  # as the lender signed it

    def of(self, company: bytes) -> Role | None:
        """Which side a company was."""
        return Role.BORROWER if company == self.borrower else Role.LENDER if company == self.lender else None

    @property
    def is_earned(self) -> bool:
        """Whether its work speaks for the lender: not where the borrower signed that results were wrong."""
        return self.borrower_cause is not Cause.BAD_RESULT

    def cause_against(self, company: bytes) -> Cause:
        """The counting cause that the other side gave, or NONE. Causes that do not count are no evidence."""
        role = self.of(company)
        cause = Cause.NONE if role is None else self.lender_cause if role is Role.BORROWER else self.borrower_cause
        return cause if cause in COUNTING else Cause.NONE


def entry_of(half: Signed) -> Entry:
    """Read one verified half."""
    h = half.message
    if not isinstance(h, m.Half):
        raise TypeError("evidence is made of receipt halves")
    borrower, lender = (h.author, h.peer) if h.role == Role.BORROWER else (h.peer, h.author)
    return Entry(
        h.contract, borrower, lender, Facts(*h.accepted), h.checks_passed, h.checks_failed, Cause(h.borrower_cause), Cause(h.lender_cause),
        UnixTime(h.ended), frozenset({h.author}), h.claimed[1],
    )  # fmt: skip


def joined(known: Entry, new: Entry) -> Entry:
    """What two halves of one receipt say together; what was accepted is the borrower's to say."""
    kept = new if new.borrower in new.signers else known
    claim = new if new.lender in new.signers else known
    return Entry(
        kept.contract, kept.borrower, kept.lender, kept.accepted, kept.checks_passed, kept.checks_failed,
        *_causes(known, new), max(known.ended, new.ended), known.signers | new.signers, claim.claimed_core_ms,
    )  # fmt: skip


@dataclass(slots=True)
class Evidence:
    """Everything one chief has seen, as ``me``. Adding the same thing twice changes nothing."""

    me: bytes
    entries: dict[bytes, Entry] = field(default_factory=dict)  # by contract id
    forked: set[bytes] = field(default_factory=set)  # companies with a verified proof against them
    # what follows from the entries, kept beside them so that judging one company asks for its own receipts and no others
    _earned: dict[bytes, dict[bytes, int]] = field(default_factory=dict)  # borrower: {lender: core-ms that it signed}
    _unearned: dict[bytes, dict[bytes, int]] = field(default_factory=dict)  # the same of contracts that it ended for wrong results
    _own: dict[bytes, dict[bytes, Entry]] = field(default_factory=dict)  # company: {contract: entry} that I signed
    _given: dict[bytes, int] = field(default_factory=dict)  # borrower: core-ms that it had of me by my own word
    _named: dict[bytes, int] = field(default_factory=dict)  # by how many entries

    def __post_init__(self) -> None:
        for entry in self.entries.values():
            self._note(entry)

    def _note(self, new: Entry, old: Entry | None = None) -> None:
        """Keep the sums of one entry, which takes the place of ``old``."""
        for company in (new.borrower, new.lender) if old is None else ():
            self._named[company] = self._named.get(company, 0) + 1
        for entry, sign in ((old, -1), (new, 1)) if old is not None else ((new, 1),):
            if entry.lender == self.me in entry.signers:
                mine = max(entry.accepted.core_ms, entry.claimed_core_ms)
                self._given[entry.borrower] = self._given.get(entry.borrower, 0) + sign * mine
            if entry.borrower not in entry.signers:
                continue
            sums = (self._earned if entry.is_earned else self._unearned).setdefault(entry.borrower, {})
            sums[entry.lender] = sums.get(entry.lender, 0) + sign * entry.accepted.core_ms
        if self.me in new.signers and self.me in (new.borrower, new.lender):
            other = new.lender if new.borrower == self.me else new.borrower
            self._own.setdefault(other, {})[new.contract] = new

    def add(self, half: Signed) -> bool:
        """Take a verified half; False where it adds nothing or contradicts what is known. The first of two that disagree stays."""
        new = self._entry(half)
        known = self.entries.get(new.contract)
        if known is None:
            self.entries[new.contract] = new
            self._note(new)
            return True
        if (known.borrower, known.lender) != (new.borrower, new.lender) or new.signers <= known.signers:
            return False
        joined = self._joined(known, new)
        self.entries[new.contract] = joined
        self._note(joined, known)
        return True

    def forget(self, contract: bytes) -> None:
        """Let go of one receipt between others, to make room. Raises `InvariantBroken` for my own, from which credit follows."""
        entry = self.entries[contract]
        if self.me in (entry.borrower, entry.lender):
            raise InvariantBroken("a company does not forget its own receipts")
        del self.entries[contract]
        for company in (entry.borrower, entry.lender):
            self._named[company] -= 1
            if not self._named[company]:
                del self._named[company]
        if entry.borrower in entry.signers:
            sums = (self._earned if entry.is_earned else self._unearned)[entry.borrower]
            sums[entry.lender] -= entry.accepted.core_ms
            if not sums[entry.lender]:
                del sums[entry.lender]

    def _entry(self, half: Signed) -> Entry:
        return entry_of(half)

    def _joined(self, known: Entry, new: Entry) -> Entry:
        return joined(known, new)

    def add_all(self, halves: Iterable[Signed]) -> int:
        """Take many; return how many said something new."""
        return sum(map(self.add, halves))

    def own(self, company: bytes) -> list[Entry]:
        """Contracts between me and that company that I have signed a half of, oldest first."""
        return sorted(self._own.get(company, {}).values(), key=lambda x: (x.ended, x.contract))

    def own_in_order(self, company: bytes) -> list[Entry]:
        """The same in the order in which I signed, which nobody else can change: what it says of its ends is not asked."""
        return list(self._own.get(company, {}).values())

    def computed(self, by: bytes, for_: bytes) -> int:
        """Core-milliseconds that ``by`` computed and ``for_`` signed to have accepted. The lender's word alone is worth nothing."""
        return self._earned.get(for_, {}).get(by, 0) + self._unearned.get(for_, {}).get(by, 0)

    def given(self, company: bytes) -> int:
        """What a company had of me. I know what I computed: who signs for none of it owes it all the same."""
        return max(self.computed(self.me, company), self._given.get(company, 0))

    def earned(self, by: bytes, for_: bytes) -> int:
        """The same without contracts that ``for_`` ended for wrong results: a liar earns nothing by what it was believed until then."""
        return self._earned.get(for_, {}).get(by, 0)

    def lenders_to(self, company: bytes) -> set[bytes]:
        """Who computed for a company that signed to have accepted it."""
        return {lender for lender, core_ms in self._earned.get(company, {}).items() if core_ms > 0}

    def computed_for(self, company: bytes) -> set[bytes]:
        """The same, with those whose results were wrong."""
        return self.lenders_to(company) | {lender for lender, core_ms in self._unearned.get(company, {}).items() if core_ms > 0}

    def companies(self) -> set[bytes]:
        """Everybody named, but me."""
        return set(self._named) - {self.me}


def _causes(known: Entry, new: Entry) -> tuple[Cause, Cause]:
    """Each side's cause as that side itself signed it."""
    by = {signer: entry for entry in (known, new) for signer in entry.signers}
    borrower = by.get(known.borrower, known).borrower_cause
    lender = by.get(known.lender, known).lender_cause
    return borrower, lender
