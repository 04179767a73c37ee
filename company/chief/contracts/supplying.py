"""How much of what this company lends it offers, driven by each settlement (I/O: one row of the database).

Everything follows from own receipts, but whether this company asked others for slots: that is a number of hours, on disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from company.chief.contracts.driver import BookDriver
from company.chief.store import meta
from company.chief.store.store import Store
from p2p.base.clock import UnixTime
from p2p.contracts import book as b
from p2p.contracts import messages as m
from p2p.contracts.signing import Signed
from p2p.contracts.table import State
from p2p.contracts.terms import Role
from p2p.reputation.favours import Supply
from p2p.reputation.supply import Control

ROW = "favours-asked"
MAX_READ = 20_000  # of the latest own receipts, at a start: more are not settled within what the rule remembers


@dataclass(slots=True, kw_only=True)
class Supplying:
    """The control of this chief's offer."""

    driver: BookDriver
    store: Store
    unix_time: Callable[[], UnixTime]
    control: Control = field(init=False)
    _upto: int = 0  # own receipts that are counted, by their place in the chain

    def __post_init__(self) -> None:
        self.control = Control(self.driver.book.signer.public)

    async def load(self) -> None:
        """From own receipts, which the driver has loaded."""
        for half in self.driver.book.chain.halves[-MAX_READ:]:
            self.on_half(half)
        found = await self.store.read(lambda conn: meta.get(conn, ROW))
        self.control.take_asked(json.loads(found) if found else ())

    def on_half(self, half: Signed) -> None:
        """A receipt half, each once."""
        found = half.message
        if isinstance(found, m.Half) and found.author == self.control.me and found.chain_sequence > self._upto:
            self._upto = found.chain_sequence
            self.control.settled(half)

    def changed(self, key: b.Key) -> None:
        """A contract is in another state: an offer of one's own says that slots are wanted."""
        machine = self.driver.machine(key)
        if machine is None or machine.a.role is not Role.BORROWER or machine.state is not State.OFFERED:
            return
        if self.control.asked(self.unix_time()):
            said = json.dumps(self.control.asked_hours()).encode()
            self.driver.writing.add(ops=[lambda conn: meta.put(conn, ROW, said)])

    def supply(self) -> Supply:
        """What is offered of what may be lent, now."""
        return self.control.at(self.unix_time())

    def why(self) -> str:
        """In words, where that is not all."""
        return self.control.why(self.unix_time())
