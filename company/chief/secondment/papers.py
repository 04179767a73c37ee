"""Contract path 5/8 - what a lender's chief has on disk of one contract: the tickets that are out and what each run counted (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgpack

from company.chief.contracts.port import LENT, LENT_OUT
from company.ticket import Ticket, open_ticket_untrusted
from p2p.base.errors import MalformedMessage
from p2p.contracts.terms import NOTHING, Facts

LEAVING_S = 5.0  # a worker whose chief is silent for the contract's lease stops by its own clock; so long after that it has


@dataclass(slots=True)
class Sent:
    """One ticket that is out."""

    ticket: Ticket
    body: bytes
    signature: bytes
    worker: str
    state: str = "sent"  # awaited: sent before this start of the chief, nothing was heard since
    slots_alive: int = 0
    is_leaving: bool = False  # its worker's owner uses the machine
    bytes_per_s: int = 0  # that its worker was told last
    away_at: float | None = None  # since when its worker is not here

    @property
    def lost_at(self) -> float:
        """When its worker is taken for gone; never while it is here."""
        return math.inf if self.away_at is None else self.away_at + self.ticket.lease_s + LEAVING_S


@dataclass(slots=True)
class Tally:
    """One contract's facts, by (serial, run) of tickets; cumulative over restarts of workers and of this chief."""

    runs: dict[tuple[int, int], Facts] = field(default_factory=dict)
    results: bytes = bytes(32)

    @property
    def facts(self) -> Facts:
        return Facts(*(sum(column) for column in zip(*self.runs.values(), strict=True))) if self.runs else NOTHING

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb([[serial, run, *facts] for (serial, run), facts in self.runs.items()])
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Tally:
        return cls({(serial, run): Facts(*facts) for serial, run, *facts in msgpack.unpackb(data)})


def pack_sent(entries: Iterable[Sent]) -> bytes:
    """Tickets of one contract for the database; empty where there are none."""
    rows = [[s.worker, s.body, s.signature] for s in entries]
    packed: bytes = msgpack.packb(rows) if rows else b""
    return packed


def unpack_sent(data: bytes, lender: bytes, network_id: bytes, now: float) -> list[Sent]:
    """Out of this chief's own database."""
    found = []
    for worker, body, signature in msgpack.unpackb(data) if data else ():
        try:
            ticket = open_ticket_untrusted(lender, network_id, body, signature)
        except MalformedMessage:
            continue
        found.append(Sent(ticket, body, signature, worker, "awaited", away_at=now))
    return found


def row_of_tally(contract: bytes) -> str:
    """Where the counts lie."""
    return LENT + contract.hex()


def row_of_sent(contract: bytes) -> str:
    """Where the tickets lie."""
    return LENT_OUT + contract.hex()
