"""Contract path 5/8 - the ticket with which a lender's worker comes to a borrower's chief (pure).

The lender's chief signs it for one key of one worker, one contract and one borrower. The worker takes it as its orders: it dials the
ways named here and no other, runs the processor named here and no other, within these caps, for this long. The borrower's chief
takes it as the proof that the contract's lender sent this key. A ticket alone opens nothing: the channel has proved both keys before. It is
good while its contract is in force; its dates are for people, and nobody is refused because the other's calendar is off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from p2p.base.envelope import open_untrusted, seal
from p2p.base.errors import MalformedMessage
from p2p.base.keys import Identity
from p2p.base.schema import U64, Digest, Key, Length, Message, Range

TICKET_TYPE = "second-ticket"
MAX_TICKET_BYTES = 4096
MAX_DURATION_S = 60 * 86_400

Host = Annotated[str, Length(1, 255)]
Port = Annotated[int, Range(1, 65535)]


@dataclass(frozen=True, slots=True)
class Ticket(Message, code=1):
    """Who may come where, for what, and within which bounds."""

    lender: Key
    worker: Key
    contract: Digest
    borrower: Key
    endpoints: Annotated[tuple[tuple[Host, Port], ...], Length(0, 8)]
    relays: Annotated[tuple[tuple[Key, Host, Port], ...], Length(0, 4)]
    slots: Annotated[int, Range(1, 1024, "slots")]
    duration_s: Annotated[int, Range(1, MAX_DURATION_S, "s")]  # from its arrival, on the reader's own clock
    processor: Digest
    memory_mib: Annotated[int, Range(16, 1 << 20, "MiB per fragment")]
    disk_mib: Annotated[int, Range(0, 1 << 20, "MiB of scratch per fragment")]
    fragment_s: Annotated[int, Range(1, 86_400, "s per fragment")]
    lease_s: Annotated[int, Range(3, 86_400, "s")]  # how long the worker goes on without its own chief
    serial: U64
    created: U64  # by the lender's calendar, and so is the next: nothing is judged by them
    expires: U64


def sign_ticket(lender: Identity, network_id: bytes, ticket: Ticket) -> tuple[bytes, bytes]:
    """Return (body, signature)."""
    return seal(lender, TICKET_TYPE, network_id, ticket.as_array())


def open_ticket_untrusted(lender: bytes, network_id: bytes, body: bytes, signature: bytes) -> Ticket:
    """Verify that ``lender`` signed it, then read it. Raises only `MalformedMessage`."""
    if len(body) > MAX_TICKET_BYTES:
        raise MalformedMessage(f"a ticket may have {MAX_TICKET_BYTES} bytes, got {len(body)}")
    ticket = Ticket.parse_untrusted(open_untrusted(lender, TICKET_TYPE, network_id, body, signature))
    if ticket.lender != lender:
        raise MalformedMessage("a ticket names the key that signed it")
    return ticket
