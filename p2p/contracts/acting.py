"""What a contract's machine does by itself: keep deadlines, answer messages, carry out commands (pure).

`keep_time` is the whole of time: each rule looks at the present state and either acts or does not. Source of the starting values:
HTCondor's claim leases (alive interval a third of the lease), Golem's debit notes (metering that keeps alive).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2p.base.errors import UsageError
from p2p.contracts import events as e
from p2p.contracts import messages as m
from p2p.contracts.signing import Signed
from p2p.contracts.table import FINAL, LIVE, State, Trigger
from p2p.contracts.terms import BORROWER, LENDER, Cause, Facts, Terms, terms_digest

if TYPE_CHECKING:
    from p2p.contracts.machine import ContractMachine

S = State
SUSPECT, BROKEN, CLOSING = S.SUSPECT, S.BROKEN, S.CLOSING  # asked at every event, see `terms.LENDER`
_MOST_STEPS = 12  # transitions that one moment may bring; more would be a circle
LAST_COUNTS_S = 8.0  # after the notice, for what was stopped to be counted; over as soon as the driver says that nothing runs
EARLY = 0.75  # of the window: a statement goes out before work has to pause


def keep_time(c: ContractMachine) -> None:
    """Do everything that is due now."""
    for _ in range(_MOST_STEPS):
        if not _step(c):
            return


def _step(c: ContractMachine) -> bool:
    """One thing that is due; False when nothing is."""
    rule = _RULES.get(c.a.state)
    return rule is not None and rule(c)


def _lapse(c: ContractMachine) -> bool:
    if c.now < _lapses_at(c):
        return False
    c.note(Trigger.LAPSE)
    return True


def _end(c: ContractMachine) -> bool:
    if c.now < _closes_at(c) and not (c.is_drained and not _waits_for_peer(c)):
        return False
    if c.a.role is LENDER:
        _settle(c)
    else:
        c.note(Trigger.CLOSE)
    return True


def _live(c: ContractMachine) -> bool:
    a, terms = c.a, _terms(c)
    heard_at = c.heard_at  # compared as `due_at` adds it up: a difference would be rounded otherwise, and the deadline never come
    if c.now >= c.t0 + terms.end_s:
        c.notice_s = terms.notice_s
        c.note(Trigger.EXPIRE)
    elif c.now >= heard_at + terms.lease_s:
        cause = Cause.PEER_SILENT if a.has_started else Cause.NEVER_STARTED
        _revoke(c, cause, 0, f"nothing heard for {terms.lease_s} s")
    elif a.role is LENDER and _is_unacked(c) and c.now >= c.acked_at + terms.lease_s:
        _revoke(c, Cause.UNACKED, 0, f"work was not acknowledged for {terms.lease_s} s")
    elif c.now >= heard_at + 2 * terms.epoch_s and a.state is not SUSPECT:
        c.note(Trigger.MISS)
    elif a.role is LENDER and c.now >= _states_at(c):
        _state(c)
    else:
        return False
    return True


def _close(c: ContractMachine) -> bool:
    """Totals, then halves; alone where the other side stays away."""
    a = c.a
    alone = c.now >= c.phase_at + c.settle_window_s
    if a.state is CLOSING and a.role is LENDER and a.settle is None:
        _settle(c)
        return True
    if a.state is CLOSING and a.role is BORROWER and a.settle is not None and a.countersettle is None:
        ready = c.is_drained or c.done.covers(a.claimed) or c.now >= c.phase_at + _terms(c).grace_s
        if ready:
            accepted = Facts(*map(max, c.done.at_most(a.claimed), a.acked))
            c.say(m.Countersettle, settle=a.settle.hash, accepted=accepted, checks_passed=c.checks[0], checks_failed=c.checks[1])
            return True
    if a.role in a.halves:
        if alone:
            c.note(Trigger.ALONE)
        return alone
    is_turn = a.state is S.SETTLED and (a.role is LENDER or LENDER in a.halves)
    if (is_turn or alone) and not c.is_half_wanted:
        c.is_half_wanted = True
        checks = a.checks if a.countersettle is not None or a.role is LENDER else c.checks
        other = a.halves.get(a.role.other)
        c.effect(
            e.WantHalf(
                a.acked, a.claimed, *checks, a.causes.get(BORROWER, Cause.NONE), a.causes.get(LENDER, Cause.NONE),
                other.hash if other is not None else m.ZERO,
            )
        )  # fmt: skip
    return False


_RULES: dict[State, Callable[[ContractMachine], bool]] = {
    **dict.fromkeys((S.OFFERED, S.ACCEPTED), _lapse), **dict.fromkeys(LIVE, _live),
    **dict.fromkeys((S.REVOKING, S.EXPIRED, S.BROKEN), _end), **dict.fromkeys((S.CLOSING, S.SETTLED), _close),
}  # fmt: skip


def due_at(c: ContractMachine) -> float:
    """The next moment at which `keep_time` would do something more."""
    when = _DUE.get(c.a.state)
    return when(c) if when is not None else math.inf


def _live_due_at(c: ContractMachine) -> float:
    terms, t0, state = _terms(c), c.t0, c.a.state
    due = min(t0 + terms.end_s, c.heard_at + terms.lease_s)
    if state is not SUSPECT:
        due = min(due, c.heard_at + 2 * terms.epoch_s)
    if c.now < t0 + terms.not_before_s:
        due = min(due, t0 + terms.not_before_s)
    if c.a.role is LENDER:
        due = min(due, _states_at(c))
        if _is_unacked(c):
            due = min(due, c.acked_at + terms.lease_s)
    return due


def _close_due_at(c: ContractMachine) -> float:
    due, a = math.inf, c.a
    if c.now < c.phase_at + c.settle_window_s:
        due = c.phase_at + c.settle_window_s
    if a.state is CLOSING and a.role is BORROWER and a.settle is not None:
        due = min(due, c.phase_at + _terms(c).grace_s)
    return due


def _terms(c: ContractMachine) -> Terms:
    if c.a.terms is None:
        raise UsageError("no-terms", "this contract has no terms yet")
    return c.a.terms


def _lapses_at(c: ContractMachine) -> float:
    signed = c.a.accept if c.a.state is S.ACCEPTED else c.a.offer
    match signed.message if signed is not None else None:
        case m.Accept() as accept:
            return c.t0 + accept.activation_s
        case m.Offer() as offer:
            return c.phase_at + offer.valid_s
    return math.inf


def _closes_at(c: ContractMachine) -> float:
    if c.a.state is not BROKEN:
        return c.phase_at + c.notice_s + LAST_COUNTS_S
    if _waits_for_peer(c):
        return c.phase_at + _terms(c).grace_s
    return c.phase_at + (LAST_COUNTS_S if c.a.role is LENDER else 0)


def _waits_for_peer(c: ContractMachine) -> bool:
    return c.a.state is BROKEN and c.a.causes.get(c.a.role) is Cause.PEER_SILENT and not c.is_heard_since


_DUE: dict[State, Callable[[ContractMachine], float]] = {
    **dict.fromkeys((S.OFFERED, S.ACCEPTED), _lapses_at), **dict.fromkeys(LIVE, _live_due_at),
    **dict.fromkeys((S.REVOKING, S.EXPIRED, S.BROKEN), _closes_at), **dict.fromkeys((S.CLOSING, S.SETTLED), _close_due_at),
}  # fmt: skip


def _states_at(c: ContractMachine) -> float:
    terms, a = _terms(c), c.a
    is_early = c.done.core_ms - a.claimed.core_ms >= EARLY * terms.window_core_ms and a.acked_epoch == a.epoch
    return c.now if is_early else c.epoch_at + terms.epoch_s


def _is_unacked(c: ContractMachine) -> bool:
    return c.unacked_core_ms >= _terms(c).window_core_ms


def work_may(c: ContractMachine) -> tuple[bool, str]:
    """Whether new batches may start (lender) or be handed out (borrower), and why not."""
    if c.a.state not in LIVE:
        return False, f"the contract is {c.a.state}"
    if c.now < c.t0 + _terms(c).not_before_s:
        return False, "the time frame has not begun"
    if c.a.role is BORROWER:
        return (False, "the lender is silent") if c.a.state is SUSPECT else (True, "")
    if _is_unacked(c):
        return False, "an epoch's work is not acknowledged yet"
    return True, ""


def _state(c: ContractMachine) -> None:
    """Lender: state what was done; it decides which terms are in force."""
    a = c.a
    epoch, revision = a.epoch + 1, a.revision
    if a.amendment is not None and a.amendment.agreed is not None and epoch >= a.amendment.from_epoch:
        own = a.amendment.agreed.message.role == LENDER  # type: ignore[attr-defined]
        is_acknowledged = not own or a.signed_seen >= a.amendment.agreed.message.sequence  # type: ignore[attr-defined]
        revision = a.amendment.revision if is_acknowledged else revision
    alive = c.slots_alive if c.slots_alive is not None else a.slots
    facts = Facts(*map(max, c.done, a.claimed))
    if not _is_unacked(c):
        c.acked_at = c.now
    c.epoch_at = c.now
    c.say(m.Epoch, epoch=epoch, revision=revision, facts=facts, results=c.results, slots_alive=min(alive, 65535))


def _settle(c: ContractMachine) -> None:
    c.say(m.Settle, facts=Facts(*map(max, c.done, c.a.claimed)), epochs=c.a.epoch + 1)


def _revoke(c: ContractMachine, cause: Cause, notice_s: int, text: str, evidence: bytes = m.ZERO) -> None:
    c.notice_s = notice_s
    c.say(m.Revoke, cause=int(cause), notice_s=notice_s, evidence=evidence, text=text[:80])


def _nack(c: ContractMachine, what: bytes, reason: str, text: str = "", retry_after_s: int = 0, terms: bytes = b"") -> None:
    c.say(m.Nack, what=what, reason=reason, text=text[:80], retry_after_s=retry_after_s, terms=terms)


def react(c: ContractMachine, signed: Signed, before: State) -> None:
    """Answer a message that has just been taken in."""
    a = c.a
    match signed.message:
        case m.Accept() if a.accept is not signed and c.state not in (S.REJECTED,):
            _nack(c, signed.hash, "offer-gone", "the offer had lapsed, was withdrawn or revised")
        case m.Commit() if a.commit is not signed:
            _nack(c, signed.hash, "commit-late", "the activation deadline had passed")
        case m.Epoch() as epoch if c.state not in FINAL:
            accepted = Facts(*map(max, c.done.at_most(Facts(*epoch.facts)), a.acked))
            if epoch.epoch > a.acked_epoch and a.countersettle is None:
                c.say(m.Ack, epoch=epoch.epoch, statement=signed.hash, accepted=accepted)
        case m.Ack():
            c.acked_at = c.now
        case m.Amend() if a.amendment is None or a.amendment.signed is not signed:
            _nack(c, signed.hash, "not-now", "it came too late, another amendment is open, or the contract is ending")
        case m.Revoke() as revoke if before in LIVE:
            c.notice_s = min(revoke.notice_s, _terms(c).notice_s)
        case m.Resume():
            c.send_again_now()
            c.effect(e.HandOver(a.acked))
            if a.role is LENDER and c.state in LIVE:
                c.epoch_at = -math.inf  # type: ignore[assignment]  # a statement at once: it shows that the contract lives


def come_back(c: ContractMachine) -> None:
    """After a restart: say where we stand, or, away too long, that it is over."""
    a = c.a
    if c.state not in LIVE:
        return
    if c.away_s >= _terms(c).lease_s:
        _revoke(c, Cause.SELF_AWAY, 0, f"away for {int(c.away_s)} s")
    else:
        c.say(m.Resume, epoch=max(0, a.epoch), elapsed_s=int(c.elapsed_s))


def command(c: ContractMachine, event: e.Event) -> None:
    """Carry out what the company's own side wants. Raises `UsageError` and changes nothing when it does not fit."""
    a = c.a
    match event:
        case e.Propose():
            _need(c, a.role is BORROWER and c.state in (S.DRAFT, S.OFFERED), "offer")
            if fault := event.terms.fault():
                raise UsageError("bad-terms", fault)
            c.say(m.Offer, terms=event.terms.pack(), valid_s=event.valid_s)
        case e.Agreeing():
            _need(c, a.role is LENDER and c.state is S.OFFERED and a.offer is not None, "accept")
            _same_text(event.offer_terms, a.terms_bytes)
            if not 1 <= event.slots <= _terms(c).slots:
                raise UsageError("bad-slots", f"1 to {_terms(c).slots} slots were asked for, got {event.slots}")
            c.say(m.Accept, offer=a.offer.hash if a.offer else m.ZERO, slots=event.slots, activation_s=event.activation_s)
        case e.Committing():
            _need(c, a.role is BORROWER and c.state is S.ACCEPTED and a.accept is not None, "commit")
            c.say(m.Commit, accept=a.accept.hash if a.accept else m.ZERO)
        case e.Refusing():
            _refuse(c, event)
        case e.Amending():
            _need(c, c.state is S.ACTIVE and event.from_epoch > a.epoch + 1, "amend")
            if fault := event.terms.fault():
                raise UsageError("bad-terms", fault)
            c.say(m.Amend, revision=a.revision + 1, from_epoch=event.from_epoch, terms=event.terms.pack())
        case e.AgreeingAmendment():
            found = a.amendment
            _need(c, found is not None and found.by is not a.role and found.agreed is None, "agree to an amendment")
            if found is not None:
                _same_text(event.terms, found.signed.message.terms)  # type: ignore[attr-defined]
                c.say(m.Agree, amendment=found.signed.hash)
        case e.Revoking():
            _need(c, c.state in LIVE, "revoke")
            _revoke(c, event.cause, event.notice_s, event.text, event.evidence)


def _refuse(c: ContractMachine, event: e.Refusing) -> None:
    a = c.a
    found = a.amendment
    if found is not None and found.by is not a.role:
        what: Signed | None = found.signed
    else:
        _need(c, c.state in (S.OFFERED, S.ACCEPTED), "refuse")
        what = a.offer if c.state is S.OFFERED else a.accept
    terms = event.terms.pack() if event.terms is not None else b""
    if event.terms is not None and (fault := event.terms.fault()):
        raise UsageError("bad-terms", fault)
    if what is not None:
        _nack(c, what.hash, event.reason, event.text, event.retry_after_s, terms)


def _need(c: ContractMachine, fits: bool, what: str) -> None:
    if not fits:
        raise UsageError(
            "contract-wrong-state", f"a {c.a.role.name.lower()} cannot {what} while the contract is {c.state}", state=str(c.state)
        )


def _same_text(shown: bytes | None, terms: bytes) -> None:
    if shown is not None and shown != terms_digest(terms):
        raise UsageError("terms-changed", "the terms are not the text that was shown any more", hint="read them again")
