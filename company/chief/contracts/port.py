"""What the parts that lend and borrow slots see of contracts: the port between secondment and the book's driver (pure).

Everything that is told here is on this chief's disk already. Times are this chief's own monotonic clock (`trio.current_time`), anchored
at t0 of the contract; a calendar judges nobody.
"""

from __future__ import annotations

from typing import Protocol

from company.chief.network.contact import Contact
from p2p.base.clock import Monotonic
from p2p.base.keys import company_id_text
from p2p.base.record import record
from p2p.contracts.table import LIVE, State
from p2p.contracts.terms import Cause, Facts, Role, Terms

YARDSTICK = "yardstick/"  # row of `meta`, with a contract's id: what one of its fragments takes on own workers; stays, as its receipt does
LENT, LENT_OUT, BORROWED = "lent/", "lent-out/", "borrowed/"  # rows of `meta`, with a contract's id: what it counted; they go with it
NO_EVIDENCE = b"\0" * 32


@record(kw_only=True)
class ContractView:
    """One contract that has an id, as this company sees it now."""

    id: bytes  # 32 bytes: hash of offer and acceptance
    role: Role  # ours
    state: State
    peer: bytes  # the other company's key
    contact: Contact  # ways to the other company's chief; a lender's workers dial ``terms.endpoints`` and its relays, and no other
    slots: int  # reserved for it, in force now
    revision: int  # of the terms in force; an amendment raises it
    terms: Terms  # in force now: package, processor, memory_mib, disk_mib, fragment_s, epoch_s, lease_s, grace_s, notice_s
    may_work: bool  # whether new batches may start (lender) or be handed out (borrower)
    why: str  # why not, in words
    ends_at: Monotonic  # of the time frame
    drain_until: Monotonic  # what runs may finish until then; meaningful once the state is no more a live one
    cause: Cause = Cause.NONE

    @property
    def company(self) -> str:
        """The other company's id."""
        return company_id_text(self.peer)

    @property
    def is_live(self) -> bool:
        """Whether it is in force: active, amending or suspect."""
        return self.state in LIVE


class ContractWatcher(Protocol):
    """Who wants to know. Called in the chief's own task, in the order in which things happened; must not wait."""

    def on_contract(self, view: ContractView) -> None:
        """Its state, terms, slots or leave to work are others now. Also called for every open contract after a restart."""

    def on_hand_over(self, view: ContractView, acknowledged: Facts) -> None:
        """The other side is back after a restart and knows of so much: hand over again what it may have missed."""


class Contracts(Protocol):
    """The contracts of one chief. `UsageError` "contract-unknown" where there is no such one."""

    def watch(self, watcher: ContractWatcher) -> None:
        """Tell this one of every change from now on, and at once of every contract that is open."""

    def open_contracts(self) -> tuple[ContractView, ...]:
        """Those that are accepted and not yet settled, by id."""

    def contract(self, contract: bytes) -> ContractView | None:
        """The one with this id, unless it was settled long ago."""

    def state(
        self, contract: bytes, facts: Facts, *, results: bytes = NO_EVIDENCE, slots_alive: int | None = None,
        checks_passed: int = 0, checks_failed: int = 0,
    ) -> None:  # fmt: skip
        """Cumulative facts since t0 over all boots: a lender's work done and handed over, a borrower's received and accepted.

        They may not fall, and only grow in memory until the next statement or acknowledgement signs them; `facts_of` says where to
        go on after a restart. ``results`` and ``slots_alive`` are the lender's, the checks are the borrower's, cumulative too.
        """

    def facts_of(self, contract: bytes) -> Facts:
        """What is signed or stated of it: the base on which this boot counts on."""

    def measure(self, contract: bytes, own_core_ms: float) -> None:
        """What one of its fragments takes on own workers, core-milliseconds: by that, favours are owed for it."""

    def heard(self, contract: bytes) -> None:
        """Traffic of the other company's keys came in outside the contract's own messages: it is not silent."""

    def drained(self, contract: bytes) -> None:
        """Nothing of it runs here any more and all results are handed over: it may close before its notice is over."""

    async def revoke(self, contract: bytes, cause: Cause, *, notice_s: int = 0, text: str = "") -> None:
        """End it; in force here when this returns, for it is on disk then. Ended already: nothing happens."""

    async def breach(self, contract: bytes, cause: Cause, evidence: bytes, text: str = "") -> None:
        """End it for what the other side did. ``evidence``: any bytes, kept with the contract; their digest is signed."""
