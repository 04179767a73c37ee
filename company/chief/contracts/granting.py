"""Contract path 4/8 - which of the offers that wait are signed, while there are fewer slots than are asked for (I/O through the driver).

An offer that finds enough for everybody who asks is signed at once. Where it does not, offers are gathered for a moment and the slots go
by what this company owes (`p2p.reputation.favours`); who is owed something and finds every slot lent to companies that are owed nothing
gets theirs back, with notice. Only offers that the owner wants signed without a person come here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Never

import trio

from company.chief.contracts import rules
from company.chief.contracts.driver import BookDriver
from p2p.contracts import book as b
from p2p.contracts import events as e
from p2p.contracts.machine import ContractMachine
from p2p.contracts.table import LIVE, State
from p2p.contracts.terms import Cause, terms_digest
from p2p.reputation.favours import Ask, Favours

ACTIVATION_S = 30  # for the borrower's chief to commit, between machines
GATHER_S = 0.25  # who asks "at once" from elsewhere comes within a round trip and a write: some 10 to 150 ms
SHORT_S = 60.0  # so long after slots did not do for everybody, the last ones are not given away before others could ask
NOTICE_S = 30  # at most, for what runs on slots that go back: who waits for them gives up after a minute
ROOM_S = NOTICE_S + 15.0  # until slots that go back must be here
RETRY_S = 60
TEXT = "All slots that are lent are promised."
BACK = "a company to which favours are owed asks for the slots"
COMING = frozenset({State.REVOKING, State.EXPIRED})  # their slots are free in a moment
_log = logging.getLogger("company.chief.contracts")


@dataclass(slots=True, kw_only=True)
class Granting:
    """The offers that wait here, each until it is signed or refused."""

    driver: BookDriver
    verdict_of: Callable[[b.Key], rules.Verdict]  # whether it may be signed without a person, with how many of the free slots
    most_of: Callable[[b.Key], rules.Verdict]  # the same if no slot were lent
    favours: Callable[[Iterable[bytes]], Favours]
    order: Callable[[b.Key, e.Event], None]  # where it cannot be carried out, the offer stays for a person
    refuses: Callable[[], bool]  # whether what finds no slot is refused without a person
    moment: Callable[[], AbstractContextManager[None]] = nullcontext  # what is asked above is found once for everything within
    _waiting: dict[b.Key, float] = field(default_factory=dict)  # since when
    _room: dict[b.Key, float] = field(default_factory=dict)  # those for which slots go back, until when they must be here
    _taking: set[b.Key] = field(default_factory=set)  # contracts that end for it
    _short_until: float = -math.inf
    _due: float = math.inf
    _wake: trio.Event = field(default_factory=trio.Event)

    def add(self, keys: Iterable[b.Key]) -> None:
        """Offers to be signed without a person; those that need not wait are answered when this returns."""
        for key in keys:
            self._waiting.setdefault(key, trio.current_time())
        self._look()

    def moved(self, key: b.Key) -> None:
        """A contract is in another state: slots may be free, or one that is to end can be ended now."""
        machine = self.driver.machine(key)
        if key in self._taking and (machine is None or machine.state is not State.ACCEPTED):
            self._taking.discard(key)
            if machine is not None and machine.state in LIVE:
                self._take(key, machine)
        if self._waiting:
            self._due = trio.current_time()
            self._wake.set()

    def could_take(self, company: bytes, capacity: int) -> int:
        """Slots of so many that would go back for this company, beside those that are free."""
        lent = self._lent()
        favours = self.favours([company, *(ask.company for _, ask in lent)]) if lent else Favours()
        found = favours.to_take_back([ask for _, ask in lent], company, capacity, capacity)
        return sum(lent[place][1].slots for place in found)

    async def run(self) -> Never:
        """Keep the moments at which something is due."""
        while True:
            self._wake = trio.Event()
            with trio.move_on_at(self._due):
                await self._wake.wait()
            if trio.current_time() >= self._due:
                self._look()
        raise AssertionError("unreachable")

    # ---- deciding --------------------------------------------------------------------------------------------------------------
    def _look(self) -> None:
        now, self._due = trio.current_time(), math.inf
        with self.moment():
            asks = self._asks()
            if asks and not self._gathers(asks, now):
                self._decide(asks, now)
        self._due = min([self._due, *(self._room[key] for key in self._room if key in self._waiting)])
        if self._due < math.inf:
            self._wake.set()

    def _asks(self) -> list[tuple[b.Key, Ask]]:
        """What waits, oldest first; what does not fit any more is answered."""
        found = []
        for key in list(self._waiting):
            machine = self.driver.machine(key)
            if machine is None or machine.state is not State.OFFERED or machine.a.suggestion:
                self._drop(key)
                continue
            verdict = self.most_of(key)
            if verdict.fits:
                found.append((key, Ask(key.peer, verdict.slots)))
            else:
                self._refuse(key, verdict.code, verdict.text)
        return found

    def _gathers(self, asks: list[tuple[b.Key, Ask]], now: float) -> bool:
        """Whether to wait a moment for others: never while everybody who asks could be served."""
        self.verdict_of(asks[0][0])  # sets the ledger's capacity
        free = self.driver.book.slots.free
        until = min(self._waiting[key] for key, _ in asks) + GATHER_S
        if not free or now >= until or self._room.keys() & self._waiting.keys():  # slots that went back for one are its own
            return False
        wanted, rivals = sum(ask.slots for _, ask in asks), self._rivals()
        companies = {ask.company for _, ask in asks} | set(rivals)
        is_short = len(companies) > 1 and wanted + sum(rivals.values()) > free
        if is_short or (now < self._short_until and wanted >= free):
            self._due = until
            return True
        return False

    def _rivals(self) -> dict[bytes, int]:
        """Slots by company of offers that came and are not on disk yet: they are judged next."""
        found: dict[bytes, int] = {}
        for key in self.driver.book.inbox():
            machine, told = self.driver.book.contracts[key], self.driver.told.get(key)
            a = machine.a
            if (
                key not in self._waiting
                and a.offer is not None
                and a.terms is not None
                and (told is None or told.considered != a.offer.hash)
            ):
                found[key.peer] = found.get(key.peer, 0) + a.terms.slots
        return found

    def _decide(self, asks: list[tuple[b.Key, Ask]], now: float) -> None:
        slots, lent = self.driver.book.slots, self._lent()
        got = [ask.slots for _, ask in asks]
        favours = None
        if sum(got) > slots.free:
            favours = self.favours({ask.company for _, ask in (*asks, *lent)})
            held: dict[bytes, int] = {}
            for _, ask in lent:
                held[ask.company] = held.get(ask.company, 0) + ask.slots
            got = favours.grant([ask for _, ask in asks], slots.free, held, is_taken_back=True)
            if len({ask.company for _, ask in (*asks, *lent)}) > 1:
                self._short_until = now + SHORT_S
        for (key, _), granted in zip(asks, got, strict=True):
            if granted > 0:
                self._sign(key, granted)
        left = [ask for ask, granted in zip(asks, got, strict=True) if granted <= 0]
        if favours is not None:
            for key, ask in sorted(left, key=lambda x: -favours.owed(x[1].company)):
                self._find_room(key, ask, favours, now)

    def _sign(self, key: b.Key, slots: int) -> None:
        self._drop(key)
        a, verdict = self.driver.book.contracts[key].a, self.verdict_of(key)  # caps other than slots may be spent by the one before
        if verdict.fits:
            self.order(key, e.Agreeing(min(slots, verdict.slots), ACTIVATION_S, self.driver.wall(), terms_digest(a.terms_bytes)))
        else:
            self._refuse(key, verdict.code, verdict.text)

    def _refuse(self, key: b.Key, code: str, text: str) -> None:
        self._drop(key)
        if self.refuses():
            self.order(key, e.Refusing(code, self.driver.wall(), text[:80], RETRY_S if code == "no-free-slots" else 0))

    def _drop(self, key: b.Key) -> None:
        self._waiting.pop(key, None)
        self._room.pop(key, None)

    # ---- slots that go back ----------------------------------------------------------------------------------------------------
    def _lent(self) -> list[tuple[b.Key, Ask]]:
        """Contracts under which this company lends, oldest first, but those whose slots are coming back already."""
        found = []
        for key, machine in self.driver.book.contracts.items():
            if key not in self._taking and rules.is_lent(machine.a):
                found.append((key, Ask(key.peer, machine.a.slots)))
        return sorted(found, key=lambda x: self.driver.book.contracts[x[0]].a.started or math.inf)

    def _find_room(self, key: b.Key, ask: Ask, favours: Favours, now: float) -> None:
        """Nothing is free for this offer: end what is lent to companies that are owed nothing, if it is owed something."""
        if key in self._room:
            if now >= self._room[key]:
                self._refuse(key, "no-free-slots", TEXT)
            return
        slots, lent = self.driver.book.slots, self._lent()
        later_free = slots.capacity - sum(other.slots for _, other in lent) - sum(self._wanted_before(key))
        places = favours.to_take_back([other for _, other in lent], ask.company, ask.slots - later_free, slots.capacity)
        is_owed = favours.owed(ask.company) > 0
        if not is_owed or later_free + sum(lent[place][1].slots for place in places) < 1:
            self._refuse(key, "no-free-slots", TEXT)
            return
        self._room[key] = now + ROOM_S
        for place in places:
            taken = lent[place][0]
            machine = self.driver.book.contracts[taken]
            if machine.state in LIVE:
                self._take(taken, machine)
            else:
                self._taking.add(taken)  # accepted and not bound yet: its borrower cannot be told before it is

    def _wanted_before(self, key: b.Key) -> list[int]:
        """Slots that others wait for already."""
        return [verdict.slots for other in self._room if other != key and (verdict := self.most_of(other)).fits]

    def _take(self, key: b.Key, machine: ContractMachine) -> None:
        notice_s = min(NOTICE_S, machine.a.terms.notice_s) if machine.a.terms is not None else 0
        _log.info("%d slots of %s go back: %s", machine.a.slots, key.nonce.hex()[:16], BACK)
        self.order(key, e.Revoking(Cause.OWNER_RECLAIM, self.driver.wall(), notice_s, text=BACK[:80]))
