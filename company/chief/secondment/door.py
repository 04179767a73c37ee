"""Contract path 5/8 - who comes in with a ticket: a worker that the lender of an active contract sent, and nobody else (pure)."""

from __future__ import annotations

from collections.abc import Iterable

from company import messages as m
from company.chief.contracts.port import Contracts, ContractView
from company.chief.secondment.naming import guest_id
from company.chief.specs import Guest, WorkerSpec
from company.ticket import Ticket, open_ticket_untrusted
from p2p.base.errors import PeerError
from p2p.base.keys import company_id_text
from p2p.base.record import record
from p2p.contracts.table import State
from p2p.contracts.terms import Role

MIB = 1 << 20
NOT_BEGUN = frozenset({State.DRAFT, State.OFFERED, State.ACCEPTED})


def is_over(view: ContractView) -> bool:
    """Whether its guests are to go: it was in force once, and is no more."""
    return not view.is_live and view.state not in NOT_BEGUN


@record
class Admitted:
    """A guest that may work."""

    ticket: Ticket
    view: ContractView
    spec: WorkerSpec


def admit(
    message: m.Guest, machine: m.Machine, key: bytes, *, own: bytes, network_id: bytes, contracts: Contracts,
    here: Iterable[Admitted], is_trusted: bool,
) -> Admitted:  # fmt: skip
    """Judge a ticket. ``here``: the guests that are here. Raises `PeerError`, also as `MalformedMessage`."""
    ticket = open_ticket_untrusted(message.lender, network_id, message.ticket, message.signature)
    if ticket.worker != key or ticket.borrower != own:
        raise PeerError("ticket-refused", "This ticket is for another worker or for another company.")
    view = contracts.contract(ticket.contract)
    if view is None or view.role is not Role.BORROWER or view.peer != ticket.lender:
        raise PeerError("contract-unknown", "No contract with this lender has this number.")
    if not view.is_live:
        raise PeerError("contract-over", f"This contract is {view.state}.")
    if ticket.processor != view.terms.processor:
        raise PeerError("ticket-refused", "The ticket names another processor than the contract.")
    worker = guest_id(ticket.lender, ticket.contract, key)
    slots = min(ticket.slots, machine.slots)
    others = sum(a.spec.slots for a in here if a.ticket.contract == ticket.contract and a.spec.id != worker)
    if others + slots > view.slots:
        raise PeerError("slots-exceeded", f"{view.slots} slots were agreed on; {others} are here already.")
    origin = company_id_text(ticket.lender)
    guest = Guest(
        origin=origin, contract=ticket.contract.hex(), processor=view.terms.processor, fragment_s=view.terms.fragment_s,
        is_checked=view.terms.check != "none", is_trusted=is_trusted,
    )  # fmt: skip
    spec = WorkerSpec(
        id=worker, name=f"{origin}/{worker[-8:]}", slots=slots, cores=machine.cores, memory_bytes=view.terms.memory_mib * MIB,
        python=machine.python, platform=machine.platform, isolation=machine.isolation, version=machine.version, guest=guest,
    )  # fmt: skip
    return Admitted(ticket, view, spec)
