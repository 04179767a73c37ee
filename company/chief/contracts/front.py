"""The contracts of a chief as the HTTP side sees them, where it has a network; `off.py` is for one without (I/O through the desk)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from company import contract_views as cv
from company.chief.contracts.desk import Desk
from company.chief.contracts.seeking import Seeker
from company.chief.contracts.trust import Trust
from company.views import ReasonView


@dataclass(slots=True)
class Front:
    """Hands each call to the part that knows."""

    desk: Desk
    trust: Trust
    seeker: Seeker

    async def list_contracts(self, section: str | None) -> list[cv.ContractInfo]:
        return await self.desk.list_contracts(section)

    async def contract(self, ref: str) -> cv.ContractInfo:
        return await self.desk.contract(ref)

    def waiting(self) -> int:
        return self.desk.waiting()

    async def request(self, request: cv.ContractRequest) -> cv.ContractInfo:
        return await self.desk.request(request)

    async def send(self, ref: str, digest: str) -> cv.ContractInfo:
        return await self.desk.send(ref, digest)

    async def discard(self, ref: str) -> None:
        await self.desk.discard(ref)

    async def accept(self, ref: str, request: cv.ContractAccept) -> cv.ContractInfo:
        return await self.desk.accept(ref, request)

    async def reject(self, ref: str, request: cv.ContractReject) -> cv.ContractInfo:
        return await self.desk.reject(ref, request)

    async def counter(self, ref: str, request: cv.ContractCounter) -> cv.ContractInfo:
        return await self.desk.counter(ref, request)

    async def revoke(self, ref: str, request: cv.ContractRevoke) -> cv.ContractInfo:
        return await self.desk.revoke(ref, request)

    async def renew(self, ref: str, request: cv.ContractRenew) -> cv.ContractInfo:
        return await self.desk.renew(ref, request)

    async def look_later(self, ref: str) -> cv.ContractInfo:
        return await self.desk.look_later(ref)

    async def block(self, ref: str) -> int:
        return await self.desk.block(ref)

    def blocked(self) -> list[cv.BlockedView]:
        return self.desk.blocked()

    async def unblock(self, ref: str) -> cv.BlockedView:
        return await self.desk.unblock(ref)

    async def receipts(self, ref: str) -> list[cv.ReceiptView]:
        return await self.desk.receipts(ref)

    async def export(self, ref: str) -> bytes:
        return await self.desk.export(ref)

    def clocks(self, ref: str) -> tuple[float | None, float | None]:
        return self.desk.clocks(ref)

    def borrow_policy(self) -> cv.BorrowPolicyView:
        return self.seeker.view()

    async def set_borrow_policy(self, request: cv.BorrowPolicyRequest) -> cv.BorrowPolicyView:
        changes = {name: value for name in request.__struct_fields__ if (value := getattr(request, name)) is not None}
        await self.seeker.set_policy(replace(self.seeker.policy, **changes))
        return self.seeker.view()

    def suggestions(self) -> list[ReasonView]:
        return self.seeker.suggestions()

    def reputation(self) -> list[cv.ReputationView]:
        return self.trust.ranking()

    async def explain(self, company: str, *, ask: bool) -> cv.ReputationExplained:
        return await self.trust.explain(company, ask=ask)
