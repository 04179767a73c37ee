"""Contract path 4/8 - what a person or a program does with contracts: offer, accept, refuse, counter, end, export (I/O).

Accepting binds to the digest of the text that was read: another text is a `Conflict`, and nothing is signed.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from company import contract_views as cv
from company.chief.contracts import drafting, rules, showing
from company.chief.contracts.archive import Archive
from company.chief.contracts.driver import BookDriver
from company.chief.contracts.notes import Draft, Notes
from company.chief.facade import Conflict, NotFound
from company.views import ReasonView
from p2p.base.errors import UsageError
from p2p.base.keys import company_id_text
from p2p.base.record import record
from p2p.contracts import book as b
from p2p.contracts import events as e
from p2p.contracts.agreement import Agreement
from p2p.contracts.messages import Offer
from p2p.contracts.table import LIVE, State
from p2p.contracts.terms import Cause, Role, Terms, terms_digest

ACTIVATION_S = 60  # for the borrower's chief to bind itself, which it does by itself
MAX_LISTED = 500
AMEND_AFTER_EPOCHS = 4  # from now: offer, agreement and acknowledgement fit in between


@record(kw_only=True)
class Party:
    """Another company, as far as an offer to it needs."""

    key: bytes
    price_milli: int = 0


@dataclass(slots=True, kw_only=True)
class Desk:
    """Everything that is asked of contracts from outside."""

    driver: BookDriver
    notes: Notes
    archive: Archive
    party: Callable[[str], Awaitable[Party]]  # by id, unique beginning or name; raises `NotFound`
    draft_terms: Callable[[cv.ContractRequest, Party], Awaitable[Terms]]
    verdict_of: Callable[[b.Key], rules.Verdict]
    capacity: Callable[[], int]  # slots that may be promised now
    name_of: Callable[[bytes], str]
    on_change: Callable[[str], None] = lambda id_: None

    # ---- reading -----------------------------------------------------------------------------------------------------------
    async def list_contracts(self, section: str | None, limit: int = MAX_LISTED) -> list[cv.ContractInfo]:
        """Drafts, what waits, what runs, what is over; the ones that wait for this side first."""
        found = [self._draft_info(draft) for draft in self.notes.drafts.values()]
        found += [self.info(key) for key in self.driver.book.contracts]
        if section in (None, "settled", "ended"):
            known = {view.id for view in found}
            found += [self._over(a) for a in await self.archive.over(limit) if showing.shown_id(a.nonce) not in known]
        order = {name: place for place, name in enumerate(("inbox", "drafts", "sent", "active", "settled", "ended"))}
        chosen = [v for v in found if section is None or v.section == section]
        return sorted(chosen, key=lambda v: (order[v.section], -v.started, v.id))[:limit]

    async def contract(self, ref: str) -> cv.ContractInfo:
        """One, whole."""
        draft = self._draft(ref)
        if draft is not None:
            return self._draft_info(draft)
        key = self._live_key(ref)
        return self.info(key) if key is not None else self._over(await self.archive.find(ref))

    def clocks(self, ref: str) -> tuple[float | None, float | None]:
        """Seconds to the end of its time frame, and until silence ends it; None where it does not run."""
        key = self._live_key(ref)
        view = self.info(key) if key is not None else None
        return (view.ends_in_s, view.lease_left_s) if view is not None else (None, None)

    def waiting(self) -> int:
        """Offers and proposals that wait for this side and were not put off: the badge."""
        return sum(self._waits(key) and key.nonce not in self.notes.later for key in self.driver.book.contracts)

    def _waits(self, key: b.Key) -> bool:
        a, told = self.driver.book.contracts[key].a, self.driver.told.get(key)
        state = told.state if told is not None and told.state is not State.DRAFT else a.state
        return rules.section_of(a.role, state, has_suggestion=bool(a.suggestion)) == "inbox"

    def info(self, key: b.Key) -> cv.ContractInfo:
        """A contract that is in memory."""
        machine, told = self.driver.book.contracts[key], self.driver.told.get(key)
        state = told.state if told is not None and told.state is not State.DRAFT else machine.state
        reason = None
        if told is not None and told.turned is not None and state in (State.OFFERED, State.ACCEPTED):
            reason = ReasonView(code=told.turned[0], text=f"The other chief did not take it: {told.turned[1]}")
        view = showing.info_of(
            machine.a, company_id_text(key.peer), self.name_of(key.peer), state=state, machine=machine, now=self.driver.now(),
            reason=reason, later=key.nonce in self.notes.later,
        )  # fmt: skip
        if view.section == "inbox" and machine.a.role is Role.LENDER and not machine.a.suggestion:
            verdict = self.verdict_of(key)
            view.can_accept = verdict.fits
            if not verdict.fits:
                view.reason = ReasonView(code=verdict.code, text=verdict.text)
        return view

    def _over(self, a: Agreement) -> cv.ContractInfo:
        return showing.info_of(a, company_id_text(a.peer), self.name_of(a.peer))

    def _draft_info(self, draft: Draft) -> cv.ContractInfo:
        return showing.draft_info(draft.id, company_id_text(draft.peer), self.name_of(draft.peer), Terms.unpack_untrusted(draft.terms))

    # ---- the borrower's ----------------------------------------------------------------------------------------------------
    async def request(self, request: cv.ContractRequest) -> cv.ContractInfo:
        """Offer terms to another company, or keep them as a draft."""
        party = await self.party(request.company)
        terms = await self.draft_terms(request, party)
        nonce = os.urandom(32)
        draft = Draft(showing.shown_id(nonce), nonce, party.key, terms.pack(), request.valid_s)
        if request.draft:
            await self.notes.add_draft(draft)
            return self._draft_info(draft)
        return await self._offer(draft)

    async def send(self, ref: str, digest: str) -> cv.ContractInfo:
        """Sign a draft and send it."""
        draft = self._draft(ref)
        if draft is None:
            raise NotFound("contract-unknown", f"There is no draft {ref[:40]!r}.", hint="company contract list --drafts")
        _same(digest, draft.terms)
        view = await self._offer(draft)
        await self.notes.drop_draft(draft.id)
        return view

    async def discard(self, ref: str) -> None:
        """Forget a draft."""
        draft = self._draft(ref)
        if draft is None:
            raise NotFound("contract-unknown", f"There is no draft {ref[:40]!r}.", hint="company contract list --drafts")
        await self.notes.drop_draft(draft.id)

    async def _offer(self, draft: Draft) -> cv.ContractInfo:
        key = b.Key(draft.peer, draft.nonce)
        terms = Terms.unpack_untrusted(draft.terms)
        return await self._do(key, e.Propose(terms, draft.valid_s, self.driver.wall()))

    # ---- either's ----------------------------------------------------------------------------------------------------------
    async def accept(self, ref: str, request: cv.ContractAccept) -> cv.ContractInfo:
        """Sign what was read: an offer, a counter-proposal, an amendment."""
        key, a = self._acting(ref)
        wall, found = self.driver.wall(), a.amendment
        if found is not None and found.by is not a.role and found.agreed is None:
            _same(request.digest, found.signed.message.terms)  # type: ignore[attr-defined]
            return await self._do(key, e.AgreeingAmendment(wall, bytes.fromhex(request.digest)))
        if a.role is Role.BORROWER and a.state is State.OFFERED and a.suggestion:
            _same(request.digest, a.suggestion)
            return await self._do(key, e.Propose(Terms.unpack_untrusted(a.suggestion), _valid_s(a), wall))
        if a.role is not Role.LENDER or a.state is not State.OFFERED or a.terms is None or a.suggestion:
            raise Conflict("contract-wrong-state", f"Nothing waits for your signature: the contract is {a.state}.", state=str(a.state))
        _same(request.digest, a.terms_bytes)
        verdict = self.verdict_of(key)
        if not verdict.fits:
            raise Conflict(verdict.code, verdict.text, hint="company lend status; or answer it with: company contract counter")
        slots = min(request.slots or verdict.slots, verdict.slots)
        return await self.agree(key, slots, bytes.fromhex(request.digest))

    async def agree(self, key: b.Key, slots: int, digest: bytes) -> cv.ContractInfo:
        """Lender: reserve and sign."""
        self.driver.book.slots.capacity = self.capacity()
        return await self._do(key, e.Agreeing(slots, ACTIVATION_S, self.driver.wall(), digest))

    async def reject(self, ref: str, request: cv.ContractReject) -> cv.ContractInfo:
        """Refuse what is on the table, with the reason; or take one's own offer back."""
        key, _ = self._acting(ref)
        return await self._do(key, e.Refusing("rejected", self.driver.wall(), request.reason[:80], request.retry_after_s))

    async def counter(self, ref: str, request: cv.ContractCounter) -> cv.ContractInfo:
        """Propose other numbers: a lender's counter-proposal, a borrower's revised offer, an amendment of what runs."""
        key, a = self._acting(ref)
        if a.terms is None:
            raise Conflict("contract-wrong-state", "This contract has no terms yet.")
        base = Terms.unpack_untrusted(a.suggestion) if a.suggestion else a.terms
        terms, wall = drafting.countered(base, request), self.driver.wall()
        if a.state in LIVE:
            return await self._do(key, e.Amending(terms, a.epoch + AMEND_AFTER_EPOCHS, wall))
        if a.role is Role.BORROWER:
            return await self._do(key, e.Propose(terms, _valid_s(a), wall))
        return await self._do(key, e.Refusing("counter-proposal", wall, request.reason[:80], 0, terms))

    async def revoke(self, ref: str, request: cv.ContractRevoke, cause: Cause | None = None) -> cv.ContractInfo:
        """End it; in force here at once."""
        key, a = self._acting(ref)
        cause = cause or (Cause.OWNER_RECLAIM if a.role is Role.LENDER else Cause.DONE)
        notice_s = request.notice_s if request.notice_s is not None else (a.terms.notice_s if a.terms is not None else 0)
        return await self._do(key, e.Revoking(cause, self.driver.wall(), notice_s, text=request.text[:80]))

    async def renew(self, ref: str, request: cv.ContractRenew) -> cv.ContractInfo:
        """Propose the same for longer; in force once the other side has agreed."""
        _, a = self._acting(ref)
        if a.terms is None or request.more_s < 1:
            raise UsageError("bad-terms", f"a contract is renewed by a second or more, got {request.more_s}")
        return await self.counter(ref, cv.ContractCounter(time_frame_s=a.terms.time_frame_s + request.more_s))

    async def look_later(self, ref: str) -> cv.ContractInfo:
        """It stays in the inbox, without the badge."""
        key, _ = self._acting(ref)
        await self.notes.look_later(key.nonce)
        return self.info(key)

    async def block(self, ref: str) -> int:
        """Deal with a company no more, named by its id or by a contract: its waiting offers are refused. Returns how many."""
        return await self.block_company(await self._company(ref))

    async def block_company(self, peer: bytes) -> int:
        """The same by its key."""
        await self.notes.block(peer)
        refused = 0
        for key in [k for k in self.driver.book.inbox() if k.peer == peer]:
            self.driver.order(key, e.Refusing("company-blocked", self.driver.wall(), "this company does not deal with yours"))
            refused += 1
        await self.driver.wait_durable()
        self.driver.book.blocked.add(peer)  # after the refusals were signed
        return refused

    def blocked(self) -> list[cv.BlockedView]:
        """Companies that are dealt with no more, the newest first."""
        return [cv.BlockedView(company=company_id_text(key), name=self.name_of(key)) for key in reversed(self.notes.blocked)]

    async def unblock(self, ref: str) -> cv.BlockedView:
        """Deal with one of them again. Raises `NotFound`."""
        found = [key for key in self.notes.blocked if company_id_text(key).startswith(ref) and len(ref) >= 7]
        found = found or [key for key in self.notes.blocked if ref and self.name_of(key) == ref]
        peer = found[0] if len(found) == 1 else None if found or ref.startswith("co-") else await self._company(ref)
        if peer not in self.notes.blocked:
            raise NotFound("company-not-blocked", f"{ref[:40]!r} names no company that is blocked.", hint="company contract blocked")
        await self.notes.unblock(peer)
        self.driver.book.blocked.discard(peer)
        return cv.BlockedView(company=company_id_text(peer), name=self.name_of(peer))

    async def _company(self, ref: str) -> bytes:
        """The company with this id, or the other one of a contract, also of one that is over."""
        if ref.startswith("co-"):
            return (await self.party(ref)).key
        key = self._live_key(ref)
        return key.peer if key is not None else (await self.archive.find(ref)).peer

    # ---- receipts ----------------------------------------------------------------------------------------------------------
    async def receipts(self, ref: str) -> list[cv.ReceiptView]:
        """The halves that there are."""
        key = self._live_key(ref)
        a = self.driver.book.contracts[key].a if key is not None else await self.archive.find(ref)
        halves = [a.halves[role] for role in (Role.LENDER, Role.BORROWER) if role in a.halves]
        return showing.receipts_of(halves, {a.me: company_id_text(a.me), a.peer: company_id_text(a.peer)})

    async def export(self, ref: str) -> bytes:
        """Every message of both sides, to be verified anywhere."""
        await self.driver.wait_durable()
        key = self._live_key(ref)
        a = self.driver.book.contracts[key].a if key is not None else await self.archive.find(ref)
        if not a.contract:
            raise Conflict("contract-not-signed", "There is no contract yet: nobody has accepted this offer.")
        return await self.archive.export(a)

    # ---- within ------------------------------------------------------------------------------------------------------------
    async def _do(self, key: b.Key, event: e.Event) -> cv.ContractInfo:
        """Carry it out; on disk when this returns."""
        if self.notes.is_restored and isinstance(event, (e.Propose, e.Agreeing)):
            raise Conflict("contracts-restored", "This company was restored from a backup with contracts: its key signs no more of them.")
        try:
            self.driver.order(key, event)
        except UsageError as error:
            if error.code in ("terms-changed", "contract-wrong-state"):
                raise Conflict(error.code, error.text, hint=error.hint, **error.facts) from None
            raise
        await self.driver.wait_durable()
        self.on_change(showing.shown_id(key.nonce))
        return self.info(key)

    def _draft(self, ref: str) -> Draft | None:
        found = [d for id_, d in self.notes.drafts.items() if id_ == ref or (len(ref) >= 4 and id_.startswith(ref))]
        return found[0] if len(found) == 1 else None

    def _live_key(self, ref: str) -> b.Key | None:
        found = [k for k, c in self.driver.book.contracts.items() if _matches(ref, k.nonce, c.a.contract)]
        if len(found) > 1 and not all(showing.shown_id(k.nonce) == ref for k in found):
            raise NotFound("contract-ambiguous", f"{len(found)} contracts begin with {ref[:40]!r}", hint="give the whole id")
        return found[0] if found else None

    def _acting(self, ref: str) -> tuple[b.Key, Agreement]:
        key = self._live_key(ref)
        if key is None:
            raise NotFound("contract-unknown", f"There is no open contract {ref[:40]!r}.", hint="company contract list")
        return key, self.driver.book.contracts[key].a


def _matches(ref: str, nonce: bytes, contract: bytes) -> bool:
    id_ = showing.shown_id(nonce)
    return ref == id_ or (len(ref) >= 4 and (id_.startswith(ref) or (bool(contract) and contract.hex().startswith(ref))))


def _same(digest: str, terms: bytes) -> None:
    """What was read is what would be signed."""
    if digest != terms_digest(terms).hex():
        raise Conflict(
            "terms-changed", "The terms are not the text that was shown any more.", hint="read them again: company contract show ID"
        )


def _valid_s(a: Agreement) -> int:
    return a.offer.message.valid_s if a.offer is not None and isinstance(a.offer.message, Offer) else 86_400
