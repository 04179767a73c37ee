"""Contract path 5/8 - what secondment asks of the contracts' driver, and tells it (pure)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from p2p.contracts.terms import NOTHING, Cause, Facts, Role, Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """One signed contract, as far as work under it goes."""

    id: bytes
    role: Role
    peer: bytes  # the other company's key
    terms: Terms
    slots: int
    flows: bool  # whether new batches may start now
    is_live: bool  # False: nothing of it may run after ``grace_s``
    why: str = ""  # why nothing flows
    ends_in_s: float = 0.0  # of the time frame, by this side's clock
    grace_s: float = 0.0  # what runs may go on for this long once it is not live
    counted: Facts = NOTHING  # lender: claimed; borrower: acknowledged; what was counted before a restart
    is_trusted: bool = False  # enough for --where trusted


class Deals(Protocol):
    """The contracts of this company."""

    def deals(self) -> list[Deal]:
        """Those that have a commitment and no receipt yet."""

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back, without waiting, after anything about any of them has changed."""

    def progress(self, contract: bytes, facts: Facts, *, results: bytes, slots_alive: int) -> None:
        """Lender: what was done and handed over so far."""

    def accepted(self, contract: bytes, facts: Facts, *, checks_passed: int, checks_failed: int) -> None:
        """Borrower: what came and is on disk so far."""

    def drained(self, contract: bytes) -> None:
        """Nothing of it runs here any more, and all of it is counted."""

    def breach(self, contract: bytes, cause: Cause, *, evidence: bytes, text: str) -> None:
        """The other side broke it: end it now, with this cause and the digest of the evidence."""
