"""Contract path 3/8 - which offer fits what this company lends, and who may do what with a contract now (pure).

An offer that fits may be accepted without a person where the owner said so; one that does not fit is never accepted, by nobody. Slots are
counted by the ledger of `p2p.contracts.book` besides, before anything is signed.
"""

from __future__ import annotations

from collections.abc import Iterable

from company.chief.network.lending import Facts, Policy, Standing, is_trusted, may_borrow
from p2p.base.record import record
from p2p.contracts.agreement import Agreement
from p2p.contracts.messages import Nack
from p2p.contracts.table import ENDING, LIVE, State
from p2p.contracts.terms import Cause, Role, Terms
from p2p.reputation.owed import Step

MAX_SLOTS_OF_ONE = 1024
STARTING_S = 30.0  # after a start: workers and the network come back meanwhile


@record
class Verdict:
    """Whether an offer fits, with so many slots; else the code and the sentence that the borrower reads."""

    slots: int
    code: str = ""
    text: str = ""

    @property
    def fits(self) -> bool:
        return not self.code


@record(kw_only=True)
class Asker:
    """What this company thinks of who asks."""

    company: str
    score: float | None  # None: no contract with it yet
    hops: int = 3  # 1: it computed for us, 2: for somebody who did, 3: neither
    credit_left_core_ms: int = 0


def judge(terms: Terms, asker: Asker, policy: Policy | None, standing: Standing, facts: Facts, free: int) -> Verdict:
    """Whether these terms fit what is lent now. ``free``: slots that the ledger has left."""
    if policy is None or standing.code != "lending":
        return Verdict(0, "not-lending", standing.text)
    if not may_borrow(policy, asker.company):
        return Verdict(0, "not-lending", "Nothing is lent to this company.")
    if not is_trusted(policy, asker.score):
        return Verdict(0, "trust-too-low", f"Trust of at least {policy.min_trust_permille / 1000:g} is asked for.")
    if policy.max_frame_s and terms.end_s > policy.max_frame_s:
        return Verdict(0, "frame-too-long", f"At most {policy.max_frame_s} s are lent, {terms.end_s} s were asked for.")
    if policy.until is not None and facts.now + terms.end_s > policy.until:
        return Verdict(0, "frame-too-long", f"Lending ends in {max(0, policy.until - facts.now)} s.")
    if terms.price_milli < policy.price_milli:
        return Verdict(0, "price-too-low", f"{policy.price_milli / 1000:g} favours per core-second are asked for.")
    if terms.memory_mib > facts.memory_mib:
        return Verdict(0, "memory-too-large", f"A slot has {facts.memory_mib} MiB, {terms.memory_mib} MiB were asked for.")
    if terms.runtime.removeprefix("python-") not in facts.pythons:
        return Verdict(0, "runtime-missing", f"No worker here has {terms.runtime[:20]}.")
    if free < 1:
        return Verdict(0, "no-free-slots", "All slots that are lent are promised.")
    return Verdict(min(terms.slots, free, MAX_SLOTS_OF_ONE))


def may_yet_come(verdict: Verdict, standing: Standing, policy: Policy, slots: int, since_start_s: float) -> bool:
    """Whether what is lacking for an offer may be there in a moment: this chief was only just started, and workers come back one by one."""
    if verdict.fits or since_start_s >= STARTING_S:
        return False
    if standing.code != "lending":
        return standing.code in ("lending-no-slots", "lending-unreachable")
    return slots < policy.max_slots and verdict.code in ("no-free-slots", "runtime-missing", "memory-too-large")


def may_sign_alone(policy: Policy, asker: Asker, terms: Terms) -> bool:
    """Whether the owner wants offers that fit accepted without being asked: of anybody, or of who is trusted, within its credit."""
    if policy.auto_accept == "any":
        return True
    work_core_ms = terms.slots * terms.time_frame_s * 1000
    is_known = asker.company in policy.only_to or (asker.hops <= 2 and work_core_ms <= asker.credit_left_core_ms)
    return policy.auto_accept == "trusted" and is_known


def lent_core_ms(agreements: Iterable[Agreement]) -> int:
    """Work that contracts which this side has signed as the lender may still ask for at most, and that of ended ones without a receipt."""
    return sum(map(_lent_core_ms, agreements))


def _lent_core_ms(a: Agreement) -> int:
    if is_lent(a) and a.terms is not None:
        return a.slots * a.terms.time_frame_s * 1000
    is_unsettled = a.role is Role.LENDER and a.state in ENDING and a.role not in a.halves  # it may be kept waiting for a week
    return a.claimed.core_ms if is_unsettled else 0


def running_steps(agreements: Iterable[Agreement]) -> dict[bytes, list[Step]]:
    """By company: what contracts without an own receipt add to balances by their epochs: what I computed, what I co-signed to have."""
    found: dict[bytes, list[Step]] = {}
    for a in agreements:
        if a.contract and a.role not in a.halves and (a.state in LIVE or a.state in ENDING):
            is_lender = a.role is Role.LENDER
            facts = a.claimed if is_lender else a.acked
            if facts.fragments and (is_lender or Cause.BAD_RESULT not in a.causes.values()):
                found.setdefault(a.peer, []).append(Step(a.contract, is_lender, facts.fragments, facts.core_ms, True))
    return found


def is_lent(a: Agreement) -> bool:
    """Whether this side has promised its slots under it: signed as the lender, and not over."""
    return a.role is Role.LENDER and a.terms is not None and (a.state in LIVE or a.state is State.ACCEPTED)


def is_own_proposal(a: Agreement) -> bool:
    """Whether the offer on the table is, to the byte, what this side proposed itself."""
    return any(isinstance(s.message, Nack) and s.message.terms == a.terms_bytes for s in a.out)


def section_of(role: Role, state: State, *, has_suggestion: bool) -> str:
    """Where a contract stands on the page: inbox (waits for this side), sent, active, settled, ended."""
    if state is State.OFFERED:
        return "inbox" if role is Role.LENDER or has_suggestion else "sent"
    if state is State.ACCEPTED or state in LIVE or state in ENDING - {State.SETTLED}:
        return "active"
    return "settled" if state in (State.SETTLED, State.RATED) else "ended"


def actions_of(a: Agreement, state: State) -> list[str]:
    """What this side may do now, in the words of the command line."""
    found = a.amendment
    if state is State.OFFERED and a.role is Role.LENDER:
        return ["accept", "counter", "reject", "block", "later"] if not a.suggestion else ["reject", "block"]
    if state is State.OFFERED:
        return ["accept", "counter", "reject"] if a.suggestion else ["counter", "withdraw"]
    if state is State.AMENDING and found is not None and found.by is not a.role and found.agreed is None:
        return ["accept", "reject", "revoke"]
    if state is State.ACTIVE:
        return ["revoke", "renew", "counter"]
    return ["revoke"] if state in LIVE else []
