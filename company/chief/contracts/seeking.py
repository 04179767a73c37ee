"""Contract path 2/8 - borrow for jobs without being asked each time: search, ask all, choose, sign, and end it when the job is done (I/O).

What is decided is `wanting`'s; here are the clock, the network and the desk. In mode "ask" nothing is signed: what could be borrowed is
said to the owner, with the form that does it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Never

import trio

from company import contract_views as cv
from company import network_views as nv
from company.chief.contracts import showing, wanting
from company.chief.contracts.desk import Desk
from company.chief.contracts.wanting import BorrowPolicy, Found, Need, Pick, Want
from company.chief.store import meta
from company.chief.store.store import Store
from company.views import ReasonView
from p2p.base.errors import ParallelError
from p2p.contracts import book as b
from p2p.contracts.table import LIVE, State
from p2p.contracts.terms import Cause, Role

ROW = "borrowing"
LOOK_S = 2.0
AGAIN_S = 30.0  # between two searches for one job that brought nobody
ANSWER_S = 60.0  # an offer without an answer is taken back after so long, and somebody else is asked
REST_S = 600.0  # a company that refused is not asked again for so long
_log = logging.getLogger("company.chief.contracts")


@dataclass(slots=True, kw_only=True)
class Seeker:
    """One task."""

    desk: Desk
    store: Store
    search: Callable[[nv.SearchRequest], Awaitable[nv.SearchView]]
    needs: Callable[[], list[Need]]
    policy: BorrowPolicy = field(default_factory=BorrowPolicy)
    spent: list[tuple[float, int]] = field(default_factory=list)
    signed: dict[str, str] = field(default_factory=dict)  # contract, by its shown id: the job it is for
    suggested: dict[str, tuple[Want, list[Pick]]] = field(default_factory=dict)
    _again: dict[str, float] = field(default_factory=dict)
    _resting: dict[str, float] = field(default_factory=dict)
    _asked: dict[str, float] = field(default_factory=dict)

    async def load(self) -> None:
        """What was told and signed before."""
        found = await self.store.read(lambda conn: meta.get(conn, ROW))
        if found:
            self.policy, self.spent, self.signed = wanting.state_of_json(found)

    async def set_policy(self, policy: BorrowPolicy) -> None:
        """From now on. On disk when this returns."""
        self.policy = wanting.checked(policy)
        self.suggested.clear()
        self._again.clear()
        await self._save()

    async def run(self) -> Never:
        """Until cancelled."""
        while True:
            try:
                await self.step()
            except ParallelError as error:
                _log.warning("borrowing: %s", error.text)
            await trio.sleep(LOOK_S)
        raise AssertionError("unreachable")

    async def step(self) -> None:
        """One look: end what is not needed, then look for what is."""
        now, wall = trio.current_time(), float(self.desk.driver.wall())
        needs = self.needs()
        await self._end_unneeded(needs)
        await self._give_up(now)
        self.suggested = {job: found for job, found in self.suggested.items() if any(n.job == job for n in needs)}
        wants = wanting.wanted(needs, self.policy, self._borrowed(), self.spent, wall)
        for job in set(self.suggested) - {w.need.job for w in wants}:
            del self.suggested[job]
        for want in wants:
            if now >= self._again.get(want.need.job, 0.0):
                self._again[want.need.job] = now + AGAIN_S
                await self._look_for(want, now, wall)
        self._again = {job: at for job, at in self._again.items() if any(n.job == job for n in needs)}

    async def _look_for(self, want: Want, now: float, wall: float) -> None:
        view = await self.search(nv.SearchRequest(slots=1, memory_bytes=want.need.memory_bytes, wanted=100))
        offers = [
            Found(o.company, o.name, o.idle_slots or 0, o.price_milli, o.trust, o.max_frame_s)
            for o in view.offers if not o.own and not o.outlier
        ]  # fmt: skip
        self._resting = {company: until for company, until in self._resting.items() if until > now}
        picks = wanting.choose(
            want, offers, self.policy, resting=self._resting, contracts_left=wanting.left(self.policy, self.spent, wall)[1]
        )
        if wanting.mode_of(want.need, self.policy) == "ask":
            self.suggested[want.need.job] = (want, picks)
            if not picks:
                del self.suggested[want.need.job]
            return
        for pick in picks:
            await self._sign(want, pick, now, wall)

    async def _sign(self, want: Want, pick: Pick, now: float, wall: float) -> None:
        request = cv.ContractRequest(
            company=pick.found.company, package=want.need.package.hex(), slots=pick.slots, time_frame_s=pick.time_frame_s,
            price_milli=pick.found.price_milli, valid_s=int(ANSWER_S) * 2,
        )  # fmt: skip
        try:
            view = await self.desk.request(request)
        except ParallelError as error:
            self._resting[pick.found.company] = now + REST_S
            _log.info("borrowing of %s: %s", pick.found.company, error.text)
            return
        self.spent = [x for x in self.spent if wall - x[0] < wanting.DAY_S][-wanting.MAX_HISTORY :]
        self.spent.append((wall, pick.slots * pick.time_frame_s))
        self.signed[view.id], self._asked[view.id] = want.need.job, now
        self._again.pop(want.need.job, None)  # what the others lack is looked for at the next look
        _log.info("job %s: %d slots of %s were asked for (%s)", want.need.job, pick.slots, pick.found.company, view.id)
        await self._save()

    # ---- what was asked for ------------------------------------------------------------------------------------------------
    def _borrowed(self) -> dict[bytes, int]:
        """Slots under contract or asked for, whoever signed them."""
        found: dict[bytes, int] = {}
        for machine in self.desk.driver.book.contracts.values():
            a = machine.a
            if (
                a.role is Role.BORROWER
                and a.terms is not None
                and (machine.state in (State.OFFERED, State.ACCEPTED) or machine.state in LIVE)
            ):
                found[a.terms.processor] = found.get(a.terms.processor, 0) + (a.slots or a.terms.slots)
        return found

    def _mine(self) -> dict[str, b.Key]:
        keys = {showing.shown_id(key.nonce): key for key in self.desk.driver.book.contracts}
        return {id_: keys[id_] for id_ in self.signed if id_ in keys}

    async def _end_unneeded(self, needs: list[Need]) -> None:
        """What was signed for a job that needs it no more ends, unless another job runs the same processor."""
        mine, has_changed = self._mine(), False
        for id_ in [i for i in self.signed if i not in mine]:
            del self.signed[id_]
            self._asked.pop(id_, None)
            has_changed = True
        processors = {n.processor for n in needs}
        for id_, key in mine.items():
            machine = self.desk.driver.book.contracts[key]
            if machine.state in LIVE and machine.a.terms is not None and machine.a.terms.processor not in processors:
                await self.desk.revoke(id_, cv.ContractRevoke(text="the job is done"), Cause.DONE)
        if has_changed:
            await self._save()

    async def _give_up(self, now: float) -> None:
        """An offer without an answer is taken back; who refused, or did not answer, rests."""
        for id_, key in self._mine().items():
            machine = self.desk.driver.book.contracts[key]
            company = self.desk.info(key).company
            if machine.state is State.OFFERED and (machine.a.suggestion or now - self._asked.get(id_, now) > ANSWER_S):
                self._resting[company] = now + REST_S
                await self.desk.reject(id_, cv.ContractReject(reason="asked somebody else"))
            elif machine.state in (State.REJECTED, State.LAPSED) and company not in self._resting:
                self._resting[company] = now + REST_S

    async def _save(self) -> None:
        data = wanting.state_as_json(self.policy, self.spent, self.signed)
        await self.store.write(lambda conn: meta.put(conn, ROW, data))

    # ---- what is said --------------------------------------------------------------------------------------------------------
    def view(self) -> cv.BorrowPolicyView:
        """The policy, with what is left of today."""
        hours, contracts = wanting.left(self.policy, self.spent, float(self.desk.driver.wall()))
        return cv.BorrowPolicyView(
            **wanting.policy_as_json(self.policy), contracts_left=max(0, contracts), core_hours_left=round(hours, 3),
            signed=len(self._mine()),
        )  # fmt: skip

    def suggestions(self) -> list[ReasonView]:
        """In mode "ask": what could be borrowed now, and the form that does it."""
        found = []
        for job, (want, picks) in self.suggested.items():
            slots, first = sum(p.slots for p in picks), picks[0]
            command = (
                f"company borrow request {first.found.company} --slots {first.slots} --time-frame {first.time_frame_s}s "
                f"--package {want.need.package.hex()[:16]}"
            )
            href = f"/contracts/new?company={first.found.company}&slots={first.slots}&package={want.need.package.hex()}"
            companies = f"{len(picks)} companies" if len(picks) > 1 else first.found.company
            text = f"Job {want.need.name} lacks slots: {slots} of {companies} could be borrowed."
            label = f"read and sign an offer for {first.slots} of {first.found.company}"
            found.append(
                ReasonView(
                    code="could-borrow", text=text, facts={"job": job, "slots": slots},
                    actions=[{"label": label, "cli": command, "href": href}, {"label": "do so without asking", "cli": POLICY_COMMAND}],
                )
            )  # fmt: skip
        return found


POLICY_COMMAND = "company borrow policy --mode automatically"
