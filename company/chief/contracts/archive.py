"""Contracts that are over, from their journals, and any contract as a file (I/O: reads the store in threads)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from sqlalchemy import Connection

from company.chief.contracts.showing import shown_id
from company.chief.facade import NotFound
from company.chief.store import contracts as rows
from company.chief.store.store import Store
from p2p.base.errors import InvariantBroken
from p2p.contracts.agreement import Agreement, Record
from p2p.contracts.export import export_contract
from p2p.contracts.terms import Role

KEPT = 2000  # folded journals in memory
MAX_FOUND = 2000


@dataclass(slots=True)
class Archive:
    """Reads; a contract that is over changes no more, so what was folded once is kept."""

    store: Store
    own: bytes
    network_id: bytes
    _folded: OrderedDict[tuple[bytes, bytes], Agreement] = field(default_factory=OrderedDict)

    async def over(self, limit: int) -> list[Agreement]:
        """The latest."""
        found = await self.store.read(lambda conn: rows.load_over(conn, limit))
        missing = [row for row in found if (row.peer, row.nonce) not in self._folded]
        for row, records in await self.store.read(lambda conn: [(r, rows.journal(conn, r.peer, r.nonce)) for r in missing]):
            self._keep(row, fold(self.own, row, records))
        return [a for row in found if (a := self._folded.get((row.peer, row.nonce))) is not None]

    async def find(self, ref: str) -> Agreement:
        """One that is over, by the beginning of its id or of the contract's. Raises `NotFound`."""
        for a in await self.over(MAX_FOUND):
            if len(ref) >= 4 and (shown_id(a.nonce).startswith(ref) or a.contract.hex().startswith(ref)):
                return a
        raise NotFound("contract-unknown", f"There is no contract {ref[:40]!r}.", hint="company contract list")

    async def export(self, a: Agreement) -> bytes:
        """Every message of both sides, and the proofs against the other one."""

        def read(conn: Connection) -> tuple[list[bytes], list[bytes]]:
            return rows.journal(conn, a.peer, a.nonce), rows.proofs_against(conn, a.peer)

        journal, proofs = await self.store.read(read)
        if not journal:
            raise InvariantBroken("a contract has no journal")
        return export_contract(a, self.network_id, journal, proofs)

    def _keep(self, row: rows.ContractRow, a: Agreement) -> None:
        self._folded[row.peer, row.nonce] = a
        while len(self._folded) > KEPT:
            self._folded.popitem(last=False)


def fold(own: bytes, row: rows.ContractRow, records: list[bytes]) -> Agreement:
    """A journal becomes what this side knows."""
    a = Agreement(Role(row.role), own, row.peer, row.nonce)
    for record in records:
        a.apply(Record.unpack(record))
    return a
