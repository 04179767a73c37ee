"""A contract as people read it: plain language beside the exact text, what differs, why it waits (pure)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

from company import contract_views as cv
from company.chief.contracts.rules import actions_of, section_of
from company.views import ReasonView
from p2p.base.clock import Monotonic
from p2p.base.errors import MalformedMessage
from p2p.base.ids import digest
from p2p.contracts import messages as m
from p2p.contracts.agreement import Agreement
from p2p.contracts.machine import ContractMachine
from p2p.contracts.signing import Signed
from p2p.contracts.table import LIVE, State
from p2p.contracts.terms import Cause, Facts, Role, Terms, terms_digest
from p2p.contracts.words import CAUSE_WORDS, causes_in_words, terms_in_words
from p2p.reputation.checking import Policy, statement

ID_HEX = 16
RECEIPTS = ("none yet", "one half alone", "both halves")


def shown_id(nonce: bytes) -> str:
    """How a contract is called from its draft to its receipt. A hash, for a stranger chooses the nonces of its offers."""
    return f"c-{digest(nonce).hex()[:ID_HEX]}"


def text_of(terms: Terms) -> list[list[str]]:
    """The exact text, a line per signed field, in the order in which it is signed."""
    found = []
    for field in dataclasses.fields(terms):
        value = getattr(terms, field.name)
        if isinstance(value, bytes):
            value = value.hex()
        elif isinstance(value, tuple):
            value = ", ".join(f"{host}:{port}" for host, port in value) or "(none)"
        found.append([field.name, str(value)])
    return found


def differences(was: Terms, becomes: Terms) -> list[cv.DifferenceView]:
    """Fields that differ."""
    pairs = zip(text_of(was), text_of(becomes), strict=True)
    return [cv.DifferenceView(field=old[0], was=old[1], becomes=new[1]) for old, new in pairs if old != new]


def check_words(terms: Terms) -> str:
    """What is checked, the bound and the cost."""
    found = statement(Policy.of(terms), max(1, terms.slots * terms.time_frame_s // max(1, terms.fragment_s)))
    return f"{found.text} Error bound {found.error_bound:.2%}; extra work {found.extra_work:.1%}."


def draft_info(id_: str, company: str, name: str, terms: Terms) -> cv.ContractInfo:
    """A draft: nothing of it is signed."""
    return cv.ContractInfo(
        id=id_, section="drafts", state="draft", role="borrower", company=company, name=name, slots=terms.slots,
        time_frame_s=terms.time_frame_s, summary=terms_in_words(terms)[0], words=terms_in_words(terms), text=text_of(terms),
        digest=terms_digest(terms.pack()).hex(), checks=check_words(terms), actions=["send", "discard"],
    )  # fmt: skip


def info_of(
    a: Agreement, company: str, name: str, *, state: State | None = None, machine: ContractMachine | None = None,
    now: Monotonic | None = None, reason: ReasonView | None = None, later: bool = False,
) -> cv.ContractInfo:  # fmt: skip
    """One contract. ``machine`` and ``now`` where it lives; a folded journal has no clock."""
    state = state or a.state
    open_text, before = _open_text(a)
    terms = open_text or a.terms
    actions = actions_of(a, state)
    section: cv.Section = section_of(a.role, state, has_suggestion=bool(a.suggestion))  # type: ignore[assignment]
    role: Literal["borrower", "lender"] = "borrower" if a.role is Role.BORROWER else "lender"
    view = cv.ContractInfo(
        id=shown_id(a.nonce), contract=a.contract.hex(), section=section, state=str(state), role=role, company=company, name=name,
        slots=a.slots or (terms.slots if terms is not None else 0), actions=actions, can_accept="accept" in actions, later=later,
        claimed=_work(a.claimed), accepted=_work(a.acked), causes=causes_in_words(a.causes), started=float(a.started),
        ended=float(a.ended), receipt=RECEIPTS[len(a.halves)], reason=reason or _reason_of(a, state),
    )  # fmt: skip
    if terms is not None:
        view.time_frame_s, view.words, view.text = terms.time_frame_s, terms_in_words(terms), text_of(terms)
        view.summary, view.digest, view.checks = view.words[0], terms_digest(terms.pack()).hex(), check_words(terms)
        view.differences = differences(before, terms) if before is not None else []
    if machine is not None and now is not None and a.terms is not None:
        _clocks(view, machine, a.terms, state, now)
    return view


def _open_text(a: Agreement) -> tuple[Terms | None, Terms | None]:
    """The text that waits for an answer, and the one before it."""
    if a.state is State.OFFERED and a.suggestion:
        return _terms(a.suggestion), a.terms
    if a.amendment is not None and a.state in LIVE:  # with the contract's end it is void
        return a.amendment.terms, a.terms
    offers = [s for s in (a.out if a.role is Role.BORROWER else a.came) if isinstance(s.message, m.Offer)]
    if a.state is State.OFFERED and len(offers) > 1:
        return a.terms, _terms(offers[-2].message.terms)  # type: ignore[attr-defined]
    return None, None


def _terms(packed: bytes) -> Terms | None:
    try:
        return Terms.unpack_untrusted(packed)
    except MalformedMessage:
        return None


def _clocks(view: cv.ContractInfo, c: ContractMachine, terms: Terms, state: State, now: Monotonic) -> None:
    if state in LIVE:
        view.ends_in_s = max(0.0, c.t0 + terms.end_s - now)
        view.lease_left_s = max(0.0, c.heard_at + terms.lease_s - now)
    elif state is State.OFFERED and c.a.offer is not None:
        view.answer_in_s = max(0.0, c.phase_at + c.a.offer.message.valid_s - now)  # type: ignore[attr-defined]
    elif state is State.ACCEPTED and c.a.accept is not None:
        view.answer_in_s = max(0.0, c.t0 + c.a.accept.message.activation_s - now)  # type: ignore[attr-defined]


def _reason_of(a: Agreement, state: State) -> ReasonView | None:
    found = a.refusal
    if state is State.OFFERED and a.suggestion:
        who = "You have" if a.role is Role.LENDER else "The lender has"
        return ReasonView(code="counter-proposal", text=f"{who} proposed other terms{_said(found)}")
    if state is State.OFFERED:
        text = "This offer waits for your answer." if a.role is Role.LENDER else "The lender has not answered yet."
        return ReasonView(code="offer-waits", text=text)
    if state is State.REJECTED:
        code = found.reason if found is not None else "rejected"
        return ReasonView(code=code or "rejected", text=f"The lender refused{_said(found)}")
    if state in (State.WITHDRAWN, State.LAPSED):
        what = {State.WITHDRAWN: "The borrower took the offer back", State.LAPSED: "Nobody was bound in time"}[state]
        return ReasonView(code=f"contract-{state}", text=f"{what}{_said(found)}")
    if state is State.SUSPECT:
        return ReasonView(code="contract-suspect", text="The other side has been silent for two epochs.")
    cause = a.causes.get(a.role) or a.causes.get(a.role.other)
    if cause not in (None, Cause.NONE):
        return ReasonView(code=f"cause-{cause.name.lower().replace('_', '-')}", text=f"It ended: {CAUSE_WORDS[cause]}.")
    return None


def _said(nack: m.Nack | None) -> str:
    return f": {(nack.text or nack.reason).rstrip('.')}." if nack is not None and (nack.text or nack.reason) else "."


def _work(facts: Facts) -> cv.WorkView:
    return cv.WorkView(fragments=facts.fragments, core_ms=facts.core_ms, bytes=facts.bytes)


def receipts_of(halves: Iterable[Signed], name_of: dict[bytes, str]) -> list[cv.ReceiptView]:
    """Both halves in words."""
    found = []
    for signed in halves:
        half = signed.message
        if isinstance(half, m.Half):
            causes = {Role.BORROWER: Cause(half.borrower_cause), Role.LENDER: Cause(half.lender_cause)}
            found.append(
                cv.ReceiptView(
                    author=name_of.get(half.author, half.author.hex()), role=Role(half.role).name.lower(), hash=signed.hash.hex(),
                    chain_sequence=half.chain_sequence, accepted=_work(Facts(*half.accepted)), claimed=_work(Facts(*half.claimed)),
                    checks_passed=half.checks_passed, checks_failed=half.checks_failed, causes=causes_in_words(causes),
                    started=float(half.started), ended=float(half.ended),
                    names_peer_half="" if half.peer_half == m.ZERO else half.peer_half.hex(),
                )
            )  # fmt: skip
    return found
