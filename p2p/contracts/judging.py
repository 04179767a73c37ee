"""Whether a message that the other side signed may be taken into the journal, and in words why not (pure).

Two messages that cross on the wire are no fault: what comes too late is taken and changes nothing. What an honest side cannot have
sent (numbers that fall, hashes of nothing, a half about another contract) is refused, and the sender's chain stops there.
"""

from __future__ import annotations

from p2p.base.errors import MalformedMessage
from p2p.contracts import messages as m
from p2p.contracts.agreement import MAX_MESSAGES, Agreement
from p2p.contracts.signing import Reader, Signed
from p2p.contracts.terms import BORROWER, LENDER, Facts, Terms

BORROWERS = (m.Offer, m.Commit, m.Ack, m.Countersettle)
LENDERS = (m.Accept, m.Epoch, m.Settle)


def fault_of(a: Agreement, signed: Signed, reader: Reader) -> str | None:
    """What is wrong with the next message of the other side, or None."""
    message = signed.message
    if not isinstance(message, m.Header):
        return "this travels inside a receipt message, not alone"
    return _header_fault(a, message) or _content_fault(a, message, reader)


def _header_fault(a: Agreement, h: m.Header) -> str | None:
    if h.peer != a.me or h.role != a.role.other:
        return "it is addressed to somebody else, or claims the other's role"
    before_contract = isinstance(h, (m.Offer, m.Accept, m.Nack))
    if h.about != a.contract and not (before_contract and h.about == a.nonce):
        return "it is about another contract"
    if h.sequence != len(a.came) + 1 or h.sequence > MAX_MESSAGES:
        return f"expected message {len(a.came) + 1}, got {h.sequence}"
    if h.prev != (a.came[-1].hash if a.came else m.ZERO):
        return "its author's chain is broken: prev is not the message before"
    if h.seen_sequence > len(a.out) or h.seen != (a.out[h.seen_sequence - 1].hash if h.seen_sequence else m.ZERO):
        return "it claims to have seen what was never sent"
    if h.seen_sequence < a.signed_seen:
        return "it claims to have seen less than before"
    speaks_for = BORROWER if isinstance(h, BORROWERS) else LENDER if isinstance(h, LENDERS) else h.role
    if speaks_for != h.role:
        return f"{type(h).__name__} is not for this role to say"
    return None


def _content_fault(a: Agreement, message: m.Header, reader: Reader) -> str | None:
    match message:
        case m.Offer() | m.Amend():
            return _terms_fault(a, message)
        case m.Accept():
            known = [s for s in a.out if s.hash == message.offer and isinstance(s.message, m.Offer)]
            if not known or a.accept is not None:
                return "it accepts an offer that was never made, or a second time"
            most = Terms.unpack_untrusted(known[0].message.terms).slots  # type: ignore[attr-defined]
            return f"it reserves {message.slots} slots of {most} asked for" if message.slots > most else None
        case m.Commit():
            return None if a.accept is not None and message.accept == a.accept.hash and a.commit is None else "it commits to nothing here"
        case m.Epoch():
            return _epoch_fault(a, message)
        case m.Ack():
            return _ack_fault(a, message)
        case m.Settle():
            return None if a.settle is None and Facts(*message.facts).covers(a.claimed) else "totals below what was stated, or given twice"
        case m.Countersettle():
            if a.settle is None or message.settle != a.settle.hash or a.countersettle is not None:
                return "it answers no settlement"
            accepted = Facts(*message.accepted)
            return None if accepted.covers(a.acked) and a.claimed.covers(accepted) else "totals outside what was acknowledged and claimed"
        case m.Receipt():
            return _half_fault(a, message, reader)
        case m.Nack() if message.terms:
            return _terms_fault(a, message)
    return None


def _terms_fault(a: Agreement, message: m.Offer | m.Amend | m.Nack) -> str | None:
    try:
        Terms.unpack_untrusted(message.terms)
    except MalformedMessage as error:
        return error.text
    if isinstance(message, m.Amend) and message.revision > a.revision + 1:
        return f"expected revision {a.revision + 1}"  # a lower one, or an epoch that is over, has crossed a statement
    return None


def _epoch_fault(a: Agreement, message: m.Epoch) -> str | None:
    if message.epoch != a.epoch + 1 or not Facts(*message.facts).covers(a.claimed):
        return f"expected epoch {a.epoch + 1} with numbers that do not fall"
    if message.revision == a.revision:
        return None
    found = a.amendment
    if found is None or found.agreed is None or message.revision != found.revision or message.epoch < found.from_epoch:
        return f"terms of revision {message.revision} are not agreed"
    return None


def _ack_fault(a: Agreement, message: m.Ack) -> str | None:
    if message.epoch <= a.acked_epoch:
        return "it acknowledges an epoch again"
    stated = next((s for s in reversed(a.out) if isinstance(s.message, m.Epoch) and s.message.epoch == message.epoch), None)
    if stated is None or stated.hash != message.statement:
        return "it acknowledges what was never stated"
    accepted, claimed = Facts(*message.accepted), Facts(*stated.message.facts)  # type: ignore[attr-defined]
    return None if accepted.covers(a.acked) and claimed.covers(accepted) else "acknowledged numbers fall, or pass what was stated"


def _half_fault(a: Agreement, message: m.Receipt, reader: Reader) -> str | None:
    try:
        half = reader.open_untrusted(a.peer, m.Half.code, message.half, message.half_signature).message
    except MalformedMessage as error:
        return error.text
    if not isinstance(half, m.Half) or (half.contract, half.peer, half.role) != (a.contract, a.me, a.role.other):
        return "this half is about something else"
    if a.role.other in a.halves:
        return "a second half"
    accepted, claimed = Facts(*half.accepted), Facts(*half.claimed)
    # a side that closed alone knows of less, never of more: the lender cannot claim acknowledgements that were not signed
    most = a.acked if a.role is BORROWER else (a.claimed if a.countersettle is None else a.acked)
    least = a.acked if a.countersettle is not None or a.role is LENDER else None
    if not most.covers(accepted) or not claimed.covers(accepted) or (least is not None and not accepted.covers(least)):
        return "a half with other numbers than were signed"
    return None
