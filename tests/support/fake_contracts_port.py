"""A chief's contracts for tests of the pages: one in each section, with words that would like to be markup, and what was asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from company import contract_views as cv
from company.chief.contracts.showing import check_words, differences, text_of
from company.chief.facade import Conflict, NotFound
from company.views import ReasonView
from p2p.base.errors import ParallelError
from p2p.contracts.terms import terms_digest
from p2p.contracts.words import terms_in_words
from p2p.reputation import owed
from tests.support.contract_world import TERMS

OTHER = "co-bbbbbbbbbbbbbbbb"
NEAR = "co-cccccccccccccccc"
DIGEST = terms_digest(TERMS.pack()).hex()
ACTIONS = {
    "inbox": ["accept", "counter", "reject", "block", "later"], "drafts": ["send", "discard"], "sent": ["counter", "withdraw"],
    "active": ["revoke", "renew", "counter"], "settled": [], "ended": [],
}  # fmt: skip
STATES = {"inbox": "offered", "drafts": "draft", "sent": "offered", "active": "active", "settled": "rated", "ended": "rejected"}


@dataclass
class FakeContractsPort:
    """Keeps `company.chief.contracts.desk_port.ContractsPort`. ``text``: stands wherever a stranger could put words."""

    text: str = "Lab"
    done: list[tuple[str, str, object]] = field(default_factory=list)
    refusal: ParallelError | None = None
    changed: bool = False

    def info(self, section: str) -> cv.ContractInfo:
        terms = replace(TERMS, slots=TERMS.slots + 1) if self.changed else TERMS
        has = section in ("active", "settled")
        return cv.ContractInfo(
            id=f"c-{section:0<16}", contract="ab" * 32 if has else "", section=section, state=STATES[section],  # type: ignore[arg-type]
            role="lender" if section == "inbox" else "borrower", company=OTHER, name=self.text, slots=terms.slots,
            time_frame_s=terms.time_frame_s, summary=self.text, words=[*terms_in_words(terms), self.text],
            text=[*text_of(terms), ["endpoints", self.text]], digest=terms_digest(terms.pack()).hex(), checks=check_words(terms),
            differences=differences(TERMS, replace(TERMS, slots=TERMS.slots + 1)) if section == "inbox" else [],
            actions=ACTIONS[section], can_accept=section == "inbox", reason=ReasonView(code="offer-waits", text=self.text),
            answer_in_s=90.0 if section in ("inbox", "sent") else None, ends_in_s=600.0 if section == "active" else None,
            lease_left_s=42.0 if section == "active" else None, causes={"lender": self.text} if section == "settled" else {},
            claimed=cv.WorkView(fragments=7, core_ms=7000, bytes=70), receipt="both halves" if section == "settled" else "none yet",
        )  # fmt: skip

    async def list_contracts(self, section: str | None) -> list[cv.ContractInfo]:
        return [self.info(name) for name in ACTIONS if section in (None, name)]

    async def contract(self, ref: str) -> cv.ContractInfo:
        for name in ACTIONS:
            if ref == f"c-{name:0<16}":
                return self.info(name)
        raise NotFound("contract-unknown", f"There is no contract {ref[:40]!r}.")

    def waiting(self) -> int:
        return 1

    async def _do(self, what: str, ref: str, asked: object = None) -> cv.ContractInfo:
        if self.refusal is not None:
            raise self.refusal
        view = await self.contract(ref)
        digest = getattr(asked, "digest", asked if what == "send" else None)
        if digest is not None and digest != view.digest:
            raise Conflict("terms-changed", "The terms are not the text that was shown any more.")
        self.done.append((what, ref, asked))
        return view

    async def request(self, request: cv.ContractRequest) -> cv.ContractInfo:
        return await self._do("request", self.info("drafts").id, request)

    async def send(self, ref: str, digest: str) -> cv.ContractInfo:
        return await self._do("send", ref, digest)

    async def discard(self, ref: str) -> None:
        await self._do("discard", ref)

    async def accept(self, ref: str, request: cv.ContractAccept) -> cv.ContractInfo:
        return await self._do("accept", ref, request)

    async def reject(self, ref: str, request: cv.ContractReject) -> cv.ContractInfo:
        return await self._do("reject", ref, request)

    async def counter(self, ref: str, request: cv.ContractCounter) -> cv.ContractInfo:
        return await self._do("counter", ref, request)

    async def revoke(self, ref: str, request: cv.ContractRevoke) -> cv.ContractInfo:
        return await self._do("revoke", ref, request)

    async def renew(self, ref: str, request: cv.ContractRenew) -> cv.ContractInfo:
        return await self._do("renew", ref, request)

    async def look_later(self, ref: str) -> cv.ContractInfo:
        return await self._do("later", ref)

    async def block(self, ref: str) -> int:
        await self._do("block", ref)
        return 1

    def blocked(self) -> list[cv.BlockedView]:
        return [cv.BlockedView(company=OTHER, name=self.text)]

    async def unblock(self, ref: str) -> cv.BlockedView:
        self.done.append(("unblock", ref, None))
        return self.blocked()[0]

    async def receipts(self, ref: str) -> list[cv.ReceiptView]:
        work = cv.WorkView(fragments=7, core_ms=7000, bytes=70)
        return [
            cv.ReceiptView(
                author=self.text, role=self.text, chain_sequence=3, hash="cd" * 32, accepted=work, claimed=work, checks_passed=20,
                checks_failed=0, causes={self.text: self.text}, started=1.8e9, ended=1.8e9, names_peer_half="",
            )
        ]  # fmt: skip

    async def export(self, ref: str) -> bytes:
        return b"contract"

    def clocks(self, ref: str) -> tuple[float | None, float | None]:
        return 600.0, 42.0

    def borrow_policy(self) -> cv.BorrowPolicyView:
        return cv.BorrowPolicyView(
            mode="ask", max_slots=16, contracts_per_day=20, core_hours_per_day=100.0, max_price_milli=1000, time_frame_s=3600,
            contracts_left=19, core_hours_left=98.5,
        )  # fmt: skip

    async def set_borrow_policy(self, request: cv.BorrowPolicyRequest) -> cv.BorrowPolicyView:
        self.done.append(("policy", "", request))
        return self.borrow_policy()

    def suggestions(self) -> list[ReasonView]:
        return []

    def reputation(self) -> list[cv.ReputationView]:
        near = self._view(NEAR, hops=1, computed_for_us_core_ms=7_200_000, given_core_ms=3_600_000)
        return [near, self._view(OTHER, hops=2, over={NEAR: 3_600_000}), self._view("co-dddddddddddddddd", hops=3, is_forked=True)]

    def _view(self, company: str, **more: Any) -> cv.ReputationView:
        values: dict[str, Any] = {
            "score": 0.472, "good": 3.0, "bad": 0.0, "contracts": 3, "completed": 3, "hops": 3, "credit_core_ms": 3_600_000,
            "left_core_ms": 3_600_000, "computed_for_us_core_ms": 0, "given_core_ms": 0, "checks_passed": 40, "chain": self.text,
            "why": [self.text],
        }  # fmt: skip
        return cv.ReputationView(company=company, name=self.text, **(values | more))

    async def explain(self, company: str, *, ask: bool) -> cv.ReputationExplained:
        if company not in (NEAR, OTHER):
            raise NotFound("company-unknown", f"No company {company[:40]!r}.")
        self.done.append(("ask" if ask else "explain", company, None))
        limit = dict.fromkeys(("floor", "computed_for_me", "given", "cut", "credit", "owed", "left"), 3_600_000)
        receipt = {
            "contract": "ab" * 32, "borrower": "aa" * 32, "lender": "cc" * 32, "core_ms": 7000, "ended": 1.8e9,
            "counts_against_it": "BAD_RESULT", "signed_by_borrower": True, "signed_by_me": True, "earns": False,
        }  # fmt: skip
        inputs = {
            "formula": self.text, "good": 3.0, "bad": 0.0, "me": "aa" * 32, "receipts": [receipt],
            "limit": limit | {"paths": [{"over": "cc" * 32, "flow": 3_600_000}]},
            "favours": owed.explained(b"n" * 32, [owed.Step(b"\xab" * 32, False, 7, 7000)]),
        }  # fmt: skip
        return cv.ReputationExplained(view=self._view(company, hops=1), inputs=inputs)
