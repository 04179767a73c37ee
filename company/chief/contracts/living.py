"""Contracts as secondment and metering see them: the port `company.chief.contracts.port.Contracts` ends here (I/O through the driver)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from company.chief.contracts.driver import BookDriver
from company.chief.contracts.port import NO_EVIDENCE, ContractView, ContractWatcher
from company.chief.network.contact import Contact
from company.chief.store import meta
from p2p.base.clock import Monotonic
from p2p.base.errors import UsageError
from p2p.base.ids import digest
from p2p.contracts import book as b
from p2p.contracts import events as e
from p2p.contracts.machine import ContractMachine
from p2p.contracts.table import FINAL, LIVE, State
from p2p.contracts.terms import Cause, Facts, Role

MAX_EVIDENCE_BYTES = 64 << 10
_log = logging.getLogger("company.chief.contracts")


@dataclass(slots=True)
class Living:
    """Contracts that have an id, by it."""

    driver: BookDriver
    contact_of: Callable[[bytes], Contact | None]
    yardsticks: dict[bytes, float]  # `Trust` has the same
    _keys: dict[bytes, b.Key] = field(default_factory=dict)
    _watchers: list[ContractWatcher] = field(default_factory=list)

    def watch(self, watcher: ContractWatcher) -> None:
        """Tell this one of every change from now on, and at once of what is open."""
        self._watchers.append(watcher)
        for view in self.open_contracts():
            watcher.on_contract(view)

    def open_contracts(self) -> tuple[ContractView, ...]:
        """Accepted and not yet settled."""
        closed = FINAL | {State.SETTLED, State.OFFERED, State.DRAFT}
        found = [view for key in self.driver.book.contracts if (view := self.view(key)) is not None and view.state not in closed]
        return tuple(sorted(found, key=lambda v: v.id))

    def contract(self, contract: bytes) -> ContractView | None:
        """The one with this id."""
        key = self._key(contract)
        return self.view(key) if key is not None else None

    def state(
        self, contract: bytes, facts: Facts, *, results: bytes = NO_EVIDENCE, slots_alive: int | None = None, checks_passed: int = 0,
        checks_failed: int = 0,
    ) -> None:  # fmt: skip
        """Cumulative facts."""
        machine, key = self._machine(contract)
        wall = self.driver.wall()
        if machine.a.role is Role.LENDER:
            self.driver.order(key, e.Progress(facts, wall, results, slots_alive))
        else:
            self.driver.order(key, e.Accepted(facts, wall, checks_passed, checks_failed))

    def facts_of(self, contract: bytes) -> Facts:
        """Where this boot counts on."""
        return self._machine(contract)[0].done

    def measure(self, contract: bytes, own_core_ms: float) -> None:
        """By what favours are owed for it."""
        self.yardsticks[contract] = own_core_ms

    def heard(self, contract: bytes) -> None:
        """The other side is not silent."""
        self.driver.order(self._machine(contract)[1], e.Heard(self.driver.wall()))

    def drained(self, contract: bytes) -> None:
        """Nothing of it runs here any more."""
        self.driver.order(self._machine(contract)[1], e.Drained(self.driver.wall()))

    async def revoke(self, contract: bytes, cause: Cause, *, notice_s: int = 0, text: str = "") -> None:
        """End it."""
        machine, key = self._machine(contract)
        if machine.state in LIVE:
            self.driver.order(key, e.Revoking(cause, self.driver.wall(), notice_s, text=text))
            await self.driver.wait_durable()

    async def breach(self, contract: bytes, cause: Cause, evidence: bytes, text: str = "") -> None:
        """End it for what the other side did."""
        machine, key = self._machine(contract)
        if machine.state not in LIVE:
            return
        kept = evidence[:MAX_EVIDENCE_BYTES]
        await self.driver.store.write(lambda conn: meta.put(conn, evidence_row(contract), kept))
        self.driver.order(key, e.Revoking(cause, self.driver.wall(), 0, digest(kept), text))
        await self.driver.wait_durable()

    # ---- told by the driver -----------------------------------------------------------------------------------------------
    def changed(self, key: b.Key) -> None:
        """Tell the watchers."""
        view = self.view(key)
        if view is None:
            return
        for watcher in self._watchers:
            watcher.on_contract(view)

    def handed_over(self, key: b.Key, facts: Facts) -> None:
        """The other side is back."""
        view = self.view(key)
        if view is not None:
            for watcher in self._watchers:
                watcher.on_hand_over(view, facts)

    def view(self, key: b.Key) -> ContractView | None:
        """One contract as it is on disk; None where it has no id yet."""
        c, told = self.driver.machine(key), self.driver.told.get(key)
        if c is None or told is None or not c.a.contract or c.a.terms is None or told.state is State.OFFERED:
            return None
        self._keys[c.a.contract] = key
        terms, is_known = c.a.terms, not math.isnan(c.t0)
        contact = self.contact_of(key.peer)
        if contact is None:
            contact = Contact(key=key.peer, endpoints=terms.endpoints if c.a.role is Role.LENDER else ())
        return ContractView(
            id=c.a.contract, role=c.a.role, state=told.state, peer=key.peer, contact=contact, slots=c.a.slots, revision=c.a.revision,
            terms=terms, may_work=told.may_work[0] and told.state in LIVE, why=told.may_work[1],
            ends_at=Monotonic(c.t0 + terms.end_s) if is_known else Monotonic(0.0), drain_until=Monotonic(c.phase_at + c.notice_s),
            cause=told.cause,
        )  # fmt: skip

    def _key(self, contract: bytes) -> b.Key | None:
        found = self._keys.get(contract)
        if found is None:
            found = next((k for k, c in self.driver.book.contracts.items() if c.a.contract == contract), None)
        elif found not in self.driver.book.contracts:
            del self._keys[contract]
            return None
        return found

    def _machine(self, contract: bytes) -> tuple[ContractMachine, b.Key]:
        key = self._key(contract)
        machine = self.driver.machine(key) if key is not None else None
        if key is None or machine is None:
            raise UsageError("contract-unknown", f"no contract {contract.hex()[:16]} is open here")
        return machine, key


def evidence_row(contract: bytes) -> str:
    """Where the evidence of a breach lies."""
    return f"contract-evidence/{contract.hex()}"
