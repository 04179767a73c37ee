"""The contracts of a chief that was started with ``--dht off``: there are none (pure)."""

from __future__ import annotations

from typing import NoReturn

from company import contract_views as cv
from company.chief.network.off import HINT, TEXT
from company.views import ReasonView
from p2p.base.errors import Unavailable


class ContractsOff:
    """Keeps `ContractsPort` for a chief without a network: lists are empty, the rest is refused."""

    async def list_contracts(self, section: str | None) -> list[cv.ContractInfo]:
        return []

    def waiting(self) -> int:
        return 0

    def suggestions(self) -> list[ReasonView]:
        return []

    def clocks(self, ref: str) -> tuple[float | None, float | None]:
        return None, None

    def borrow_policy(self) -> cv.BorrowPolicyView | None:
        return None

    async def set_borrow_policy(self, request: cv.BorrowPolicyRequest) -> cv.BorrowPolicyView:
        self._refuse()

    def reputation(self) -> list[cv.ReputationView]:
        return []

    async def contract(self, ref: str) -> cv.ContractInfo:
        self._refuse()

    async def request(self, request: cv.ContractRequest) -> cv.ContractInfo:
        self._refuse()

    async def send(self, ref: str, digest: str) -> cv.ContractInfo:
        self._refuse()

    async def discard(self, ref: str) -> None:
        self._refuse()

    async def accept(self, ref: str, request: cv.ContractAccept) -> cv.ContractInfo:
        self._refuse()

    async def reject(self, ref: str, request: cv.ContractReject) -> cv.ContractInfo:
        self._refuse()

    async def counter(self, ref: str, request: cv.ContractCounter) -> cv.ContractInfo:
        self._refuse()

    async def revoke(self, ref: str, request: cv.ContractRevoke) -> cv.ContractInfo:
        self._refuse()

    async def renew(self, ref: str, request: cv.ContractRenew) -> cv.ContractInfo:
        self._refuse()

    async def look_later(self, ref: str) -> cv.ContractInfo:
        self._refuse()

    async def block(self, ref: str) -> int:
        self._refuse()

    def blocked(self) -> list[cv.BlockedView]:
        return []

    async def unblock(self, ref: str) -> cv.BlockedView:
        self._refuse()

    async def receipts(self, ref: str) -> list[cv.ReceiptView]:
        self._refuse()

    async def export(self, ref: str) -> bytes:
        self._refuse()

    async def explain(self, company: str, *, ask: bool) -> cv.ReputationExplained:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise Unavailable("network-off", TEXT, hint=HINT)
