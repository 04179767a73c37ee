"""A chief's contracts, put together (I/O). The ports `company.chief.contracts.desk_port` and `.port` end in its parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Never

import trio

from company.chief.contracts import rules, showing
from company.chief.contracts.desk import Desk
from company.chief.contracts.driver import BookDriver
from company.chief.contracts.granting import ACTIVATION_S, Granting
from company.chief.contracts.links import Links
from company.chief.contracts.living import Living
from company.chief.contracts.seeking import Seeker
from company.chief.contracts.supplying import Supplying
from company.chief.contracts.trust import Trust
from company.chief.network.lending import RECLAIMED, Policy, Standing, lendable, most_slots
from company.chief.network.lending import Facts as LendingFacts
from p2p.base.errors import Unavailable, UsageError
from p2p.base.keys import company_id_text
from p2p.contracts import book as b
from p2p.contracts import events as e
from p2p.contracts.signing import Signed
from p2p.contracts.table import LIVE, State
from p2p.contracts.terms import Cause, Facts, Role, terms_digest

RECLAIM_S = 8.0  # a worker that is away ends by its own clock; its slots are free here after that long
STOPPING = frozenset({State.REVOKING, State.EXPIRED, State.BROKEN})  # something of it may run yet
FOLLOW_S = 1.0  # how often running contracts are held against the lending policy
FAREWELL_S = 3.0  # for revocations to leave when the chief stops
_log = logging.getLogger("company.chief.contracts")


@dataclass(slots=True, kw_only=True)
class ContractService:
    """Listens to the driver and decides what no person is asked about."""

    driver: BookDriver
    links: Links
    living: Living
    desk: Desk
    trust: Trust
    lending: Callable[[], tuple[Policy | None, Standing, LendingFacts]]
    on_change: Callable[[str], None]
    seeker: Seeker
    granting: Granting = field(init=False)
    supplying: Supplying
    _moved: trio.Event = field(default_factory=trio.Event)
    _began: float = field(default_factory=trio.current_time)
    _moment: tuple[Policy | None, Standing, LendingFacts] | None = None  # what lending was found to be, while one decision is made
    _put_off: set[b.Key] = field(default_factory=set)  # offers that came, or were found, while workers were still coming back

    def __post_init__(self) -> None:
        self.granting = Granting(
            driver=self.driver, verdict_of=self._alone, most_of=lambda key: self._alone(key, self.capacity()), favours=self.trust.favours,
            order=self._quietly, refuses=lambda: (policy := self._lending()[0]) is None or policy.auto_accept == "any",
            moment=self._one_moment,
        )  # fmt: skip

    async def load(self) -> None:
        """Take up what was open before."""
        self.driver.listener = self
        await self.trust.load()
        await self.desk.notes.load()
        await self.seeker.load()
        self.driver.book.blocked = set(self.desk.notes.blocked)
        await self.driver.load()
        await self.supplying.load()

    async def run(self) -> None:
        """Until cancelled. What is not on disk then was never said: as after a kill, the journals go on from there."""
        async with trio.open_nursery() as nursery:
            for part in (
                self.links.run,
                self.driver.run,
                self.trust.run,
                self.trust.learn,
                self.seeker.run,
                self.follow,
                self.granting.run,
            ):
                nursery.start_soon(part)
            try:
                for key in list(self.driver.book.contracts):
                    self._go_on(key)
                await trio.sleep_forever()
            finally:
                self.driver.close()
                self.links.stop()

    async def shut_down(self) -> None:
        """The chief stops: end what runs, so that nobody has to wait for the lease. Takes at most some seconds."""
        with trio.move_on_after(FAREWELL_S):
            await self._revoke_all()
        self.driver.close()

    async def reclaim(self) -> None:
        """Take back every slot that is lent: what runs is stopped, and nothing of it runs when this returns (or `RECLAIM_S` has passed)."""
        book = self.driver.book
        mine = [k for k, c in book.contracts.items() if c.a.role is Role.LENDER and c.state in LIVE]
        for key in mine:
            self._quietly(key, e.Revoking(Cause.OWNER_RECLAIM, self.driver.wall(), 0, text="the owner stopped lending"))
        with trio.move_on_after(RECLAIM_S):
            while any(k in book.contracts and book.contracts[k].state in STOPPING for k in mine):
                await self._moved.wait()

    async def _revoke_all(self) -> None:
        for key, machine in list(self.driver.book.contracts.items()):
            if machine.state in LIVE:
                self.driver.order(key, e.Revoking(Cause.SHUTDOWN, self.driver.wall(), 0, text="the chief stops"))
        await self.driver.wait_durable()
        await self.links.drain()

    @contextmanager
    def _one_moment(self) -> Iterator[None]:
        """Look at workers and policy once for everything that is decided within, which awaits nothing."""
        before = self._moment
        self._moment = before or self.lending()
        try:
            yield
        finally:
            self._moment = before

    def _lending(self) -> tuple[Policy | None, Standing, LendingFacts]:
        return self._moment or self.lending()

    # ---- lending -------------------------------------------------------------------------------------------------------------
    def capacity(self) -> int:
        """Slots that may be promised at this moment, by the lending policy and by what is really here."""
        policy, standing, facts = self._lending()
        return lendable(policy, facts) if policy is not None and standing.code == "lending" else 0

    def verdict_of(self, key: b.Key, free: int | None = None) -> rules.Verdict:
        """Whether an offer fits. ``free``: slots that there are for it; else what the ledger has left."""
        machine = self.driver.book.contracts[key]
        if machine.a.terms is None:
            return rules.Verdict(0, "no-terms", "There are no terms.")
        policy, standing, facts = self._lending()
        ledger = self.driver.book.slots
        ledger.capacity = self.capacity()
        terms, free = machine.a.terms, ledger.free + ledger.of(key) if free is None else free
        if policy is not None:
            free = min(free, most_slots(policy, terms.memory_mib, terms.disk_mib, self._promised(but=key)))
        return rules.judge(machine.a.terms, self.trust.asker(key.peer), policy, standing, facts, free)

    def _alone(self, key: b.Key, free: int | None = None) -> rules.Verdict:
        """The same for a signature without a person."""
        verdict, policy, terms = self.verdict_of(key, free), self._lending()[0], self.driver.book.contracts[key].a.terms
        if verdict.fits and (policy is None or terms is None or not rules.may_sign_alone(policy, self.asker(key), terms)):
            return rules.Verdict(0, "credit-spent", "It waits for a person.")
        return verdict

    def asker(self, key: b.Key) -> rules.Asker:
        """Who asks; what its other contracts may still cost is no credit any more, or many offers at once would each have all of it."""
        found = self.trust.asker(key.peer)
        others = (m.a for k, m in self.driver.book.contracts.items() if k.peer == key.peer and k != key)
        return replace(found, credit_left_core_ms=found.credit_left_core_ms - rules.lent_core_ms(others))

    def _promised(self, *, but: b.Key) -> tuple[int, int]:
        """MiB of memory and scratch that other contracts may take."""
        memory = disk = 0
        for key, machine in self.driver.book.contracts.items():
            a = machine.a
            if key != but and a.terms is not None and rules.is_lent(a):
                memory, disk = memory + a.slots * a.terms.memory_mib, disk + a.slots * a.terms.disk_mib
        return memory, disk

    async def follow(self) -> Never:
        """Slots under contract go back, with the contract's notice, when the owner's hours, load or battery say so."""
        while True:
            _, standing, _ = self.lending()
            put_off, self._put_off = self._put_off, set()
            found = [k for k in put_off & self.driver.book.contracts.keys() if self.driver.book.contracts[k].state is State.OFFERED]
            self._answer(sorted(found))
            if standing.code in RECLAIMED:
                for key, machine in list(self.driver.book.contracts.items()):
                    if machine.a.role is Role.LENDER and machine.state in LIVE and machine.a.terms is not None:
                        _log.info("contract %s: %s", showing.shown_id(key.nonce), standing.text)
                        notice_s = machine.a.terms.notice_s
                        self._quietly(key, e.Revoking(Cause.OWNER_RECLAIM, self.driver.wall(), notice_s, text=standing.text[:80]))
            await trio.sleep(FOLLOW_S)
        raise AssertionError("unreachable")

    def may_knock(self, peer: bytes) -> tuple[str, str] | None:
        """Whether a company's first offer is looked at: not while nothing is lent, nor from whom it is not meant for."""
        policy, standing, _ = self.lending()
        if self.desk.notes.is_restored:
            return "contracts-restored", "This company signs no more contracts."
        if policy is None:
            return "not-lending", standing.text
        if policy.only_to and company_id_text(peer) not in policy.only_to:
            return "not-lending", "Nothing is lent to this company."
        return None

    # ---- told by the driver -----------------------------------------------------------------------------------------------
    def on_changed(self, key: b.Key, cause: Cause) -> None:
        """A contract is in another state, on disk."""
        self._moved.set()
        self._moved = trio.Event()
        self.supplying.changed(key)
        self.living.changed(key)
        self.granting.moved(key)
        self._go_on(key)
        self.on_change(showing.shown_id(key.nonce))

    def on_work(self, key: b.Key) -> None:
        """Work may flow, or may not."""
        self.living.changed(key)

    def on_hand_over(self, key: b.Key, facts: Facts) -> None:
        """The other side is back."""
        self.living.handed_over(key, facts)

    def on_half(self, half: Signed) -> None:
        """One half more."""
        self.trust.on_half(half)
        self.supplying.on_half(half)

    def on_fork(self, author: bytes) -> None:
        """A proof against a company."""
        self.trust.evidence.forked.add(author)

    def on_offer(self, key: b.Key) -> None:
        """An offer waits: accept or refuse it without asking where the owner said so; else a person decides."""
        self.on_change(showing.shown_id(key.nonce))
        self._answer([key])

    def _answer(self, keys: Iterable[b.Key]) -> None:
        """Offers that wait at one moment."""
        with self._one_moment():
            self.granting.add([key for key in keys if self._is_alone(key)])

    def _is_alone(self, key: b.Key) -> bool:
        """Whether an offer is to be signed without a person as soon as there are slots; what else follows for it is done."""
        a, (policy, standing, facts) = self.driver.book.contracts[key].a, self._lending()
        if a.terms is None or policy is None:
            return False
        verdict, is_own = self.verdict_of(key), rules.is_own_proposal(a)
        if verdict.fits and is_own:
            self._quietly(key, e.Agreeing(verdict.slots, ACTIVATION_S, self.driver.wall(), terms_digest(a.terms_bytes)))
        elif rules.may_yet_come(verdict, standing, policy, facts.slots, trio.current_time() - self._began):
            self._put_off.add(key)
        elif verdict.fits or verdict.code == "no-free-slots":
            return rules.may_sign_alone(policy, self.asker(key), a.terms)
        elif policy.auto_accept == "any":
            self._quietly(key, e.Refusing(verdict.code, self.driver.wall(), verdict.text[:80]))
        return False

    def _go_on(self, key: b.Key) -> None:
        """What follows from a state without asking: the borrower has signed these terms, so it commits to an acceptance of them."""
        machine, told = self.driver.machine(key), self.driver.told.get(key)
        if machine is None or told is None or told.state is not machine.state:
            return
        a = machine.a
        if machine.state is State.ACCEPTED and a.role is Role.BORROWER and a.commit is None:
            self._quietly(key, e.Committing(self.driver.wall()))
        elif machine.state is State.OFFERED and a.role is Role.LENDER:
            self.driver.consider(key)
        elif machine.state is State.AMENDING and a.role is Role.LENDER and a.amendment is not None:
            self._amendment(key)

    def _amendment(self, key: b.Key) -> None:
        machine, (policy, standing, facts) = self.driver.book.contracts[key], self.lending()
        found = machine.a.amendment
        if found is None or found.by is Role.LENDER or found.agreed is not None or policy is None:
            return
        ledger, asker = self.driver.book.slots, self.asker(key)
        verdict = rules.judge(found.terms, asker, policy, standing, facts, ledger.free + ledger.of(key))
        if verdict.fits and verdict.slots >= found.terms.slots and rules.may_sign_alone(policy, asker, found.terms):
            self._quietly(key, e.AgreeingAmendment(self.driver.wall()))

    def _quietly(self, key: b.Key, event: e.Event) -> None:
        """A command that nobody waits for: where it cannot be carried out, the contract stays for a person."""
        try:
            self.driver.order(key, event)
        except (UsageError, Unavailable) as error:
            _log.info("contract %s: %s", showing.shown_id(key.nonce), error.text)
