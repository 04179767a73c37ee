"""Who gets a lender's slots when they do not do for everybody: real books on both sides, virtual time, no disk and no network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from company.chief.contracts import granting, rules
from company.chief.contracts.granting import Granting
from p2p.base.clock import Monotonic, UnixTime
from p2p.base.errors import Unavailable
from p2p.base.keys import Identity
from p2p.contracts import book as b
from p2p.contracts import events as e
from p2p.contracts.chain import Chain
from p2p.contracts.signing import Signer
from p2p.contracts.table import HOLDING, State
from p2p.contracts.terms import Cause, Role
from p2p.reputation.favours import Favours
from tests.support.contract_world import NET, TERMS

WALL = UnixTime(1_790_000_000)
HOUR = 3_600_000.0


class Market:
    """One lender, and borrowers that commit to what is accepted and let go of what is revoked."""

    def __init__(self, slots: int, owed: dict[str, float] | None = None, *, refuses: bool = True, is_prompt: bool = True) -> None:
        self.signers = {"lender": Signer(Identity(b"l" * 32), NET)}
        self.books = {"lender": b.Book(self.signers["lender"], Chain(self.signers["lender"]), capacity=slots)}
        self.capacity, self.owed, self.is_prompt = slots, owed or {}, is_prompt
        self.names: dict[bytes, str] = {self.signers["lender"].public: "lender"}
        self.told: dict[b.Key, Any] = {}
        self.queue: deque[tuple[str, b.BookEvent]] = deque()
        self.events: list[e.Event] = []
        self.seen: dict[str, list[str]] = {}
        self.serial, self.is_slow = 0, False
        driver: Any = SimpleNamespace(book=self.book, told=self.told, machine=self.book.contracts.get, wall=lambda: WALL)
        self.granting = Granting(
            driver=driver, verdict_of=lambda key: self.verdict(key, self.book.slots.free),
            most_of=lambda key: self.verdict(key, self.capacity), favours=self.favours, order=self.order, refuses=lambda: refuses,
        )  # fmt: skip

    @property
    def book(self) -> b.Book:
        return self.books["lender"]

    def verdict(self, key: b.Key, free: int) -> rules.Verdict:
        self.book.slots.capacity = self.capacity
        terms = self.book.contracts[key].a.terms
        assert terms is not None
        return rules.Verdict(min(terms.slots, free)) if free > 0 else rules.Verdict(0, "no-free-slots", "none")

    def favours(self, companies: Iterable[bytes]) -> Favours:
        return Favours({c: self.owed[self.names[c]] for c in companies if self.owed.get(self.names[c], 0) > 0})

    def order(self, key: b.Key, event: e.Event) -> None:
        self.events.append(event)
        try:
            self.handle("lender", b.Order(key, event))
        except Unavailable:
            raise AssertionError("more was promised than there is") from None

    def ask(self, name: str, slots: int, *, is_on_disk: bool = True) -> b.Key:
        """An offer of this company comes; it is judged at once, or is not on disk yet."""
        if name not in self.signers:
            self.signers[name] = Signer(Identity(name.encode().ljust(32, b"-")), NET)
            self.books[name] = b.Book(self.signers[name], Chain(self.signers[name]))
            self.names[self.signers[name].public] = name
        self.serial += 1
        nonce = self.serial.to_bytes(32, "big")
        self.handle(name, b.Order(b.Key(self.signers["lender"].public, nonce), e.Propose(replace(TERMS, slots=slots), 600, WALL)))
        key = b.Key(self.signers[name].public, nonce)
        assert self.book.contracts[key].state is State.OFFERED
        self.told[key] = SimpleNamespace(considered=b"")
        if is_on_disk:
            self.judge(key)
        return key

    def judge(self, *keys: b.Key) -> None:
        for key in keys:
            offer = self.book.contracts[key].a.offer
            assert offer is not None
            self.told[key].considered = offer.hash
        self.granting.add(keys)

    def handle(self, name: str, event: b.BookEvent) -> None:
        self.queue.append((name, event))
        if len(self.queue) > 1:
            return
        while self.queue:
            name, event = self.queue[0]
            for effect in self.books[name].handle(event, Monotonic(trio.current_time() + 1)):
                self._do(name, effect)
            self.queue.popleft()

    def _do(self, name: str, effect: b.BookEffect) -> None:
        if not isinstance(effect, b.Of):
            return
        key, found = effect.key, effect.effect
        if isinstance(found, e.Persist):
            self.queue.append((name, b.Order(key, e.Persisted(found.ordinal))))
        elif isinstance(found, e.Send):
            self.queue.append((self.names[key.peer], b.FromPeer(self.signers[name].public, found.wire, WALL)))
        elif isinstance(found, e.Changed):
            self.seen.setdefault(name, []).append(str(found.state))
            if name == "lender":
                self.granting.moved(key)
                if found.state is State.REVOKING and self.is_prompt:
                    self.queue.append((name, b.Order(key, e.Drained(WALL))))
            elif found.state is State.ACCEPTED and not self.is_slow:
                self.queue.append((name, b.Order(key, e.Committing(WALL))))

    def commit(self, key: b.Key) -> None:
        """The borrower of a slow market binds itself."""
        self.handle(self.names[key.peer], b.Order(b.Key(self.signers["lender"].public, key.nonce), e.Committing(WALL)))

    def held(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for key, machine in self.book.contracts.items():
            if machine.a.role is Role.LENDER and machine.state in HOLDING and machine.state is not State.REVOKING:
                found[self.names[key.peer]] = found.get(self.names[key.peer], 0) + machine.a.slots
        self.book.validate()
        assert self.book.slots.promised <= self.capacity
        return found

    def state(self, key: b.Key) -> State:
        return self.book.contracts[key].state


async def test_nobody_waits_while_there_is_enough_for_everybody(autojump_clock: trio.testing.MockClock) -> None:
    market = Market(4)
    market.ask("a", 2)
    assert market.held() == {"a": 2} and trio.current_time() == 0
    late = market.ask("b", 1, is_on_disk=False)
    market.ask("c", 1)  # with the one that is not on disk yet: just enough
    assert market.held() == {"a": 2, "c": 1}
    market.judge(late)
    assert market.held() == {"a": 2, "b": 1, "c": 1}
    alone = Market(2, {"a": HOUR})
    alone.ask("b", 8)  # more than there is, and nobody else asks
    assert alone.held() == {"b": 2}


async def test_offers_that_meet_are_gathered_for_a_moment_and_served_by_favours(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    market = Market(8, {"a": 3 * HOUR, "b": HOUR})
    nursery.start_soon(market.granting.run)
    meeting = market.ask("new", 8, is_on_disk=False)
    market.ask("b", 8)
    assert market.held() == {}
    await trio.sleep(0.1)
    market.ask("a", 8)
    market.judge(meeting)
    await trio.sleep(granting.GATHER_S - 0.11)
    assert market.held() == {}
    await trio.sleep(0.02)
    assert market.held() == {"a": 5, "b": 2, "new": 1}
    # for a while after that the last slots are not given away at once either, and those that are not the last are
    market.capacity = 12
    market.ask("new", 1)
    assert market.held()["new"] == 2
    market.ask("other", 3)
    assert "other" not in market.held()
    await trio.sleep(granting.GATHER_S + 0.01)
    assert market.held()["other"] == 3


async def test_a_slot_lent_to_who_is_owed_nothing_goes_back_for_who_is(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    market = Market(1, {"a": HOUR})
    nursery.start_soon(market.granting.run)
    first = market.ask("new", 1)
    assert market.state(first) is State.ACTIVE
    assert market.granting.could_take(market.signers["new"].public, 1) == 0
    second = market.ask("a", 1)
    await trio.sleep(0.01)
    assert market.held() == {"a": 1} and market.state(second) is State.ACTIVE
    revoked = [x for x in market.events if isinstance(x, e.Revoking)]
    assert [(x.cause, x.notice_s) for x in revoked] == [(Cause.OWNER_RECLAIM, TERMS.notice_s)]
    third = market.ask("new", 1)
    assert market.state(third) is State.REJECTED  # and the other way round it does not
    market.owed["b"] = 9 * HOUR
    assert market.state(market.ask("b", 1)) is State.REJECTED  # who is owed something is never displaced
    assert market.held() == {"a": 1}


async def test_who_has_not_bound_itself_yet_is_displaced_as_soon_as_it_has(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    market = Market(1, {"a": HOUR})
    nursery.start_soon(market.granting.run)
    market.is_slow = True
    first = market.ask("new", 1)
    second = market.ask("a", 1)
    await trio.sleep(1.0)
    assert (market.state(first), market.state(second)) == (State.ACCEPTED, State.OFFERED)
    market.commit(first)
    await trio.sleep(0.01)
    market.commit(second)
    assert market.held() == {"a": 1} and not any(isinstance(x, e.Refusing) for x in market.events)


async def test_newcomers_keep_their_tenth_and_what_does_not_come_back_in_time_is_refused(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    market = Market(20, {"a": HOUR}, is_prompt=False)
    nursery.start_soon(market.granting.run)
    ones = [market.ask(f"new{n}", 2) for n in range(10)]
    assert sum(market.held().values()) == 20
    assert market.granting.could_take(market.signers["new0"].public, 20) == 0
    owed = Signer(Identity(b"a".ljust(32, b"-")), NET).public
    market.names[owed] = "a"
    assert market.granting.could_take(owed, 20) == 18
    second = market.ask("a", 20)
    assert [market.state(key) for key in ones] == [State.ACTIVE] + [State.REVOKING] * 9  # the oldest stays
    third = market.ask("a", 20)  # no more is to be had
    assert market.state(third) is State.REJECTED
    await trio.sleep(granting.ROOM_S - 1)
    assert market.state(second) is State.OFFERED
    await trio.sleep(2)
    assert market.state(second) is State.REJECTED


async def test_what_waits_for_slots_that_go_back_is_not_overtaken(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    market = Market(2, {"a": HOUR}, is_prompt=False)
    nursery.start_soon(market.granting.run)
    market.ask("one", 1)
    newer = market.ask("two", 1)
    waiting = market.ask("a", 2)
    assert market.state(newer) is State.REVOKING
    market.handle("lender", b.Order(newer, e.Drained(WALL)))
    asked = market.ask("three", 1)  # at the very moment in which the slot is free
    assert market.held() == {"one": 1, "a": 1}
    assert market.state(waiting) is State.ACTIVE and market.state(asked) is State.REJECTED


async def test_where_the_owner_has_not_said_so_what_finds_no_slot_stays_for_a_person(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    market = Market(1, {"a": HOUR, "b": HOUR}, refuses=False)
    nursery.start_soon(market.granting.run)
    market.ask("a", 1)
    second = market.ask("b", 1)
    await trio.sleep(100)
    assert market.held() == {"a": 1} and market.state(second) is State.OFFERED
