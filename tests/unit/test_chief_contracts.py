"""The daemon's side of contracts: journals before effects, restarts, a bounded inbox, what binds to what was read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from dataclasses import replace as change
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import numpy as np
import pytest
import trio
import trio.testing

from company import contract_views as cv
from company.chief.contracts import rules
from company.chief.contracts.archive import Archive
from company.chief.contracts.desk import Desk, Party
from company.chief.contracts.driver import ALIVE_ROW, BookDriver, Op
from company.chief.contracts.notes import Notes
from company.chief.contracts.port import BORROWED, LENT, LENT_OUT
from company.chief.contracts.service import ContractService
from company.chief.contracts.showing import shown_id
from company.chief.contracts.trust import halves_untrusted, head_untrusted
from company.chief.facade import Conflict, NotFound
from company.chief.network.lending import Facts as LendingFacts
from company.chief.network.lending import Policy, Standing
from company.chief.store import meta
from company.chief.store.store import Store
from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage
from p2p.base.frames import Frame
from p2p.base.keys import Identity, company_id_text
from p2p.base.schema import Message
from p2p.contracts import book as b
from p2p.contracts import events as e
from p2p.contracts.chain import Chain
from p2p.contracts.export import read_export_untrusted, verify_export
from p2p.contracts.signing import Signed, Signer
from p2p.contracts.table import State
from p2p.contracts.terms import Cause, Facts, Role, Terms, terms_digest
from p2p.dht.limits import Buckets
from tests.support.contract_world import NET, TERMS

BORROWER, LENDER, STRANGER = Identity(b"b" * 32), Identity(b"l" * 32), Identity(b"s" * 32)


class Writing:
    """The committer's port over a store: in order, and never before it is on disk."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.is_stuck = False

    def add(self, *, ops: Sequence[Op] = (), then: Callable[[], None] | None = None) -> None:
        if not self.is_stuck:
            self.store.write_soon(*ops, on_committed=then)


@dataclass
class Side:
    """One company without a network: what it sends is handed to the other's driver."""

    identity: Identity
    store: Store
    driver: BookDriver
    writing: Writing
    desk: Desk
    peers: dict[bytes, Side] = field(default_factory=dict)
    changed: list[State] = field(default_factory=list)
    sent: list[tuple[bytes, Message]] = field(default_factory=list)
    auto: bool = False

    def on_changed(self, key: b.Key, cause: Cause) -> None:
        machine = self.driver.book.contracts[key]
        self.changed.append(self.driver.told[key].state)
        if machine.state is State.ACCEPTED and machine.a.role is Role.BORROWER:
            self.driver.order(key, e.Committing(self.driver.wall()))
        if machine.state in (State.REVOKING, State.EXPIRED):
            self.driver.order(key, e.Drained(self.driver.wall()))  # as the daemon does: nothing runs here

    def on_work(self, key: b.Key) -> None: ...
    def on_hand_over(self, key: b.Key, facts: Facts) -> None: ...
    def on_half(self, half: Signed) -> None: ...
    def on_fork(self, author: bytes) -> None: ...

    def on_offer(self, key: b.Key) -> None:
        if self.auto:
            self.driver.order(key, e.Agreeing(1, 30, self.driver.wall()))

    def send(self, peer: bytes, message: Message) -> None:
        self.sent.append((peer, message))
        if peer in self.peers:
            trio.lowlevel.current_trio_token().run_sync_soon(self._deliver, peer, message)

    def _deliver(self, peer: bytes, message: Message) -> None:
        if peer in self.peers:
            self.peers[peer].driver.on_message(self.identity.public, message)


def side(identity: Identity, store: Store, *, capacity: int = 0) -> Side:
    signer, late = Signer(identity, NET), list[Side]()
    writing = Writing(store)
    driver = BookDriver(
        book=b.Book(signer, Chain(signer), capacity=capacity), store=store, writing=writing,
        send=lambda peer, message: late[0].send(peer, message), wall=lambda: UnixTime(1_790_000_000),
    )  # fmt: skip

    async def party(company: str) -> Party:
        return Party(key=LENDER.public)

    async def draft(request: cv.ContractRequest, party: Party) -> Terms:
        return change(TERMS, slots=request.slots)

    desk = Desk(
        driver=driver, notes=Notes(store), archive=Archive(store, identity.public, NET), party=party, draft_terms=draft,
        verdict_of=lambda key: rules.Verdict(1), capacity=lambda: capacity, name_of=lambda key: "",
    )  # fmt: skip
    late.append(Side(identity, store, driver, writing, desk))
    driver.listener = late[0]
    return late[0]


@asynccontextmanager
async def two(tmp_path: Path, *, auto: bool) -> AsyncIterator[tuple[Side, Side]]:
    first, second = Store.open(tmp_path / "b.sqlite"), Store.open(tmp_path / "l.sqlite")
    try:
        borrower, lender = side(BORROWER, first), side(LENDER, second, capacity=1)
        borrower.peers, lender.peers, lender.auto = {LENDER.public: lender}, {BORROWER.public: borrower}, auto
        async with trio.open_nursery() as nursery:
            nursery.start_soon(borrower.driver.run)
            nursery.start_soon(lender.driver.run)
            yield borrower, lender
            borrower.writing.is_stuck = lender.writing.is_stuck = True  # nothing more is written or said: the stores are closed next
            borrower.peers, lender.peers = {}, {}
            nursery.cancel_scope.cancel()
    finally:
        await first.aclose()
        await second.aclose()


async def until(what: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not what():  # noqa: ASYNC110 - it is about many objects, not one event
            await trio.sleep(0.005)


async def test_from_the_offer_to_a_receipt_that_verifies(tmp_path: Path) -> None:
    async with two(tmp_path, auto=True) as (borrower, lender):
        view = await borrower.desk.request(cv.ContractRequest(company="lender", slots=1))
        assert view.section == "sent" and view.words and view.digest
        await until(lambda: State.ACTIVE in lender.changed and State.ACTIVE in borrower.changed)
        assert lender.driver.book.slots.promised == 1
        await borrower.desk.revoke(view.id, cv.ContractRevoke(notice_s=0))
        await until(lambda: State.RATED in lender.changed and State.RATED in borrower.changed)
        verdict = verify_export(read_export_untrusted(await borrower.desk.export(view.id)))
        assert verdict.holds and verdict.facts["receipt"] == "both halves", verdict.faults
        assert len(await lender.desk.receipts(view.id)) == 2 and lender.driver.book.slots.promised == 0
        heads = [side.driver.book.chain.head(UnixTime(5)) for side in (borrower, lender)]
        assert [h.message.chain_sequence for h in heads] == [1, 1]  # type: ignore[attr-defined]


async def test_nothing_is_said_before_it_is_on_disk(tmp_path: Path) -> None:
    async with two(tmp_path, auto=True) as (borrower, lender):
        lender.writing.is_stuck = True
        await borrower.desk.request(cv.ContractRequest(company="lender"))
        await until(lambda: bool(lender.driver.book.contracts))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert lender.sent == [] and lender.changed == []  # it has read the offer, and cannot say so


async def test_a_restart_folds_the_journals_and_goes_on(tmp_path: Path) -> None:
    async with two(tmp_path, auto=True) as (borrower, lender):
        view = await borrower.desk.request(cv.ContractRequest(company="lender"))
        await until(lambda: State.ACTIVE in lender.changed and State.ACTIVE in borrower.changed)
        await lender.driver.wait_durable()
        again = side(LENDER, lender.store, capacity=1)
        lender.peers = {}
        again.peers, borrower.peers = {BORROWER.public: borrower}, {LENDER.public: again}
        await again.driver.load()
        (key,) = again.driver.book.contracts
        assert again.driver.book.contracts[key].state is State.ACTIVE and again.driver.book.slots.promised == 1
        assert shown_id(key.nonce) == view.id
        await until(lambda: len(borrower.driver.book.contracts[b.Key(LENDER.public, key.nonce)].a.came) >= 2)  # its RESUME came
        await again.desk.revoke(view.id, cv.ContractRevoke(notice_s=0))
        await until(lambda: State.RATED in again.changed and State.RATED in borrower.changed)
        again.writing.is_stuck, again.peers = True, {}


async def test_what_counts_as_away_is_the_time_in_which_this_side_was_not_there(tmp_path: Path) -> None:
    """The last record of a quiet contract may be an epoch older than the kill."""
    async with two(tmp_path, auto=True) as (borrower, lender):
        await borrower.desk.request(cv.ContractRequest(company="lender"))
        await until(lambda: State.ACTIVE in lender.changed and State.ACTIVE in borrower.changed)
        with trio.fail_after(20):  # it is written down while a contract lives
            while (said := await lender.store.read(lambda conn: meta.get(conn, ALIVE_ROW))) is None:  # noqa: ASYNC110 - a row, not an event
                await trio.sleep(0.005)
        assert said.startswith(b"1790000000 ")
        await lender.driver.wait_durable()
        lender.peers, (contract,) = {}, lender.driver.book.contracts.values()
        lender.writing.is_stuck = True  # nothing of this one is written any more
        assert contract.a.terms is not None
        now, lease_s = 1_790_000_000 + contract.a.terms.lease_s + 5, contract.a.terms.lease_s
        for alive, wall, state in (
            (f"{now - 3}", now, State.ACTIVE), (f"{now - 100}", now, State.REVOKING),  # a machine that does not tell how long it is up
            (f"{now - 3} other 90.0", now, State.ACTIVE), (f"{now - 100} other 90.0", now, State.REVOKING),  # it was started again
            (f"{now - 3} this 97.0", now + 7500, State.ACTIVE), (f"{now - 3} this 97.0", now - 7500, State.ACTIVE),  # a leap meanwhile
            (f"{now - 3} this {100 - lease_s}.0", now - 3, State.REVOKING),  # away for a lease, and the calendar was put back
        ):  # fmt: skip
            await lender.store.write(lambda conn, alive=alive: meta.put(conn, ALIVE_ROW, alive.encode()))
            again = side(LENDER, lender.store, capacity=1)
            again.driver.wall, again.writing.is_stuck = partial(UnixTime, wall), True  # what it would write is not of interest
            again.driver.uptime = lambda: ("this", 100.0)
            await again.driver.load()
            assert [c.state for c in again.driver.book.contracts.values()] == [state], alive


async def test_what_was_counted_for_a_contract_goes_when_the_contract_does(tmp_path: Path) -> None:
    async with two(tmp_path, auto=True) as (borrower, lender):
        await borrower.desk.request(cv.ContractRequest(company="lender"))
        await until(lambda: State.ACTIVE in lender.changed)
        ((key, contract),) = lender.driver.book.contracts.items()
        mine, other = contract.a.contract.hex(), "ab" * 32
        names = [prefix + id_ for prefix in (LENT, LENT_OUT, BORROWED) for id_ in (mine, other)] + ["lent-on-purpose"]

        async def found() -> list[str]:
            return [name for name in names if await lender.store.read(lambda conn, name=name: meta.get(conn, name)) is not None]

        for name in names:
            await lender.store.write(lambda conn, name=name: meta.put(conn, name, b"x"))
        again = side(LENDER, lender.store, capacity=1)
        await again.driver.load()
        await again.driver.wait_durable()
        assert await found() == [*names[0:6:2], names[6]]  # at a start: those of a contract that is open stay
        lender.driver.book.contracts.pop(key)
        lender.driver._forget()
        await lender.driver.wait_durable()
        assert await found() == [names[6]]
        lender.driver.book.contracts[key] = contract


async def test_accepting_binds_to_the_text_that_was_read(tmp_path: Path) -> None:
    async with two(tmp_path, auto=False) as (borrower, lender):
        sent = await borrower.desk.request(cv.ContractRequest(company="lender"))
        await until(lambda: lender.desk.waiting() == 1)
        read = await lender.desk.contract(sent.id)
        assert read.section == "inbox" and read.digest == sent.digest
        await borrower.desk.counter(sent.id, cv.ContractCounter(price_milli=7))
        await until(lambda: lender.desk.info(b.Key(BORROWER.public, lender.driver.book.inbox()[0].nonce)).digest != read.digest)
        with pytest.raises(Conflict, match="not the text"):
            await lender.desk.accept(sent.id, cv.ContractAccept(digest=read.digest))
        assert lender.driver.book.slots.promised == 0
        now = await lender.desk.contract(sent.id)
        assert [(d.field, d.becomes) for d in now.differences] == [("price_milli", "7")]
        await lender.desk.accept(sent.id, cv.ContractAccept(digest=now.digest))
        await until(lambda: State.ACTIVE in borrower.changed)


async def test_a_counter_proposal_shows_what_differs_and_may_be_taken(tmp_path: Path) -> None:
    async with two(tmp_path, auto=False) as (borrower, lender):
        sent = await borrower.desk.request(cv.ContractRequest(company="lender", slots=2))
        await until(lambda: lender.desk.waiting() == 1)
        await lender.desk.counter(sent.id, cv.ContractCounter(slots=1, reason="only one is idle"))
        await until(lambda: borrower.desk.waiting() == 1)
        view = await borrower.desk.contract(sent.id)
        assert [(d.field, d.was, d.becomes) for d in view.differences] == [("slots", "2", "1")] and view.can_accept
        assert view.reason is not None and "only one is idle" in view.reason.text
        await borrower.desk.accept(sent.id, cv.ContractAccept(digest=view.digest))
        key = b.Key(BORROWER.public, lender.driver.book.inbox()[0].nonce)
        await until(lambda: lender.driver.book.contracts[key].a.terms.slots == 1)  # type: ignore[union-attr]
        assert rules.is_own_proposal(lender.driver.book.contracts[key].a)


async def test_a_renewal_binds_to_its_text_and_is_in_force_on_both_sides_and_a_refused_amendment_changes_nothing(tmp_path: Path) -> None:
    async with two(tmp_path, auto=True) as (borrower, lender):
        key, there = b.Key(LENDER.public, b"r" * 32), b.Key(BORROWER.public, b"r" * 32)
        borrower.driver.order(key, e.Propose(change(TERMS, epoch_s=1, lease_s=60, slots=1), 600, borrower.driver.wall()))
        await until(lambda: State.ACTIVE in lender.changed and State.ACTIVE in borrower.changed)
        id_ = shown_id(key.nonce)

        def terms(one: Side, its: b.Key) -> Terms:
            found = one.driver.book.contracts[its].a.terms
            assert found is not None
            return found

        await borrower.desk.renew(id_, cv.ContractRenew(more_s=600))
        await until(lambda: "accept" in lender.desk.info(there).actions)  # it is on disk, and waits for a person
        asked = lender.desk.info(there)
        assert [(d.field, d.was, d.becomes) for d in asked.differences] == [("time_frame_s", "60", "660")]
        with pytest.raises(Conflict, match="not the text"):
            await lender.desk.accept(id_, cv.ContractAccept(digest=terms_digest(terms(lender, there).pack()).hex()))
        await lender.desk.accept(id_, cv.ContractAccept(digest=asked.digest))
        await until(lambda: terms(borrower, key).time_frame_s == terms(lender, there).time_frame_s == 660)
        assert (lender.desk.info(there).ends_in_s or 0) > 600 and lender.driver.book.contracts[there].a.revision == 1
        await lender.desk.counter(id_, cv.ContractCounter(memory_mib=16))
        await until(lambda: "accept" in borrower.desk.info(key).actions)
        await borrower.desk.reject(id_, cv.ContractReject(reason="too little"))
        for one, its in ((borrower, key), (lender, there)):
            await until(lambda one=one, its=its: one.driver.told[its].state is State.ACTIVE)  # type: ignore[misc]
            assert terms(one, its) == change(TERMS, epoch_s=1, lease_s=60, slots=1, time_frame_s=660)
        await lender.driver.wait_durable()
        await borrower.driver.wait_durable()


async def test_an_amendment_that_was_never_in_force_is_not_shown_as_the_text_of_what_is_over(tmp_path: Path) -> None:
    async with two(tmp_path, auto=True) as (borrower, lender):
        view = await borrower.desk.request(cv.ContractRequest(company="lender", slots=1))
        await until(lambda: State.ACTIVE in lender.changed and State.ACTIVE in borrower.changed)
        asked = await borrower.desk.renew(view.id, cv.ContractRenew(more_s=600))
        assert asked.time_frame_s == view.time_frame_s + 600 and asked.differences
        await borrower.desk.revoke(view.id, cv.ContractRevoke(notice_s=0))
        await until(lambda: State.RATED in lender.changed and State.RATED in borrower.changed)
        over = await borrower.desk.contract(view.id)
        assert (over.time_frame_s, over.digest, over.differences) == (view.time_frame_s, view.digest, [])
        assert over.causes == {"borrower": "the work was done"}
        assert [half.causes for half in await borrower.desk.receipts(view.id)] == [{"borrower": "the work was done"}] * 2


async def test_a_thousand_offers_of_one_stranger_stay_bounded(tmp_path: Path) -> None:
    async with two(tmp_path, auto=False) as (_, lender):
        other = Store.open(tmp_path / "s.sqlite")
        try:
            stranger = side(STRANGER, other)
            stranger.peers, lender.peers = {LENDER.public: lender}, {STRANGER.public: stranger}
            for number in range(1000):
                key = b.Key(LENDER.public, number.to_bytes(32, "big"))
                stranger.driver.order(key, e.Propose(TERMS, 600, UnixTime(1_790_000_000)))
            await stranger.driver.wait_durable()
            await until(lambda: lender.desk.waiting() > 0)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert lender.desk.waiting() <= b.MAX_OPEN_OFFERS_PER_PEER
            assert len(lender.driver.book.contracts) <= b.MAX_OPEN_OFFERS_PER_PEER
            (first, *_) = lender.driver.book.inbox()
            assert await lender.desk.block(shown_id(first.nonce)) >= 1
            assert lender.desk.waiting() == 0
            stranger.driver.order(b.Key(LENDER.public, b"z" * 32), e.Propose(TERMS, 600, UnixTime(1_790_000_000)))
            await stranger.driver.wait_durable()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert lender.desk.waiting() == 0
            await lender.driver.wait_durable()
            company = company_id_text(stranger.identity.public)
            assert [c.company for c in lender.desk.blocked()] == [company]
            for nobody in ("co-nobody", shown_id(b"q" * 32), ""):
                with pytest.raises(NotFound):
                    await lender.desk.unblock(nobody)
            assert (await lender.desk.unblock(company[:10])).company == company and lender.desk.blocked() == []
            again = Notes(lender.store)
            await again.load()
            assert not again.blocked, "also after a restart"
            lender.driver.offers = Buckets(1.0, 8.0, 16)  # what the flood used up is not of interest here
            stranger.driver.order(b.Key(LENDER.public, b"y" * 32), e.Propose(TERMS, 600, UnixTime(1_790_000_000)))
            await until(lambda: lender.desk.waiting() == 1)
            await lender.driver.wait_durable()
        finally:
            stranger.writing.is_stuck, stranger.peers = True, {}
            lender.peers = {}
            await other.aclose()


async def test_drafts_are_kept_unsigned_and_later_silences_the_badge(tmp_path: Path) -> None:
    async with two(tmp_path, auto=False) as (borrower, lender):
        draft = await borrower.desk.request(cv.ContractRequest(company="lender", draft=True))
        assert draft.section == "drafts" and borrower.sent == []
        notes = Notes(borrower.store)
        await notes.load()
        assert list(notes.drafts) == [draft.id]
        with pytest.raises(Conflict, match="not the text"):
            await borrower.desk.send(draft.id, "00" * 32)
        assert (await borrower.desk.send(draft.id, draft.digest)).section == "sent"
        await until(lambda: lender.desk.waiting() == 1)
        await lender.desk.look_later(draft.id)
        assert lender.desk.waiting() == 0 and [v.id for v in await lender.desk.list_contracts("inbox")] == [draft.id]
        assert (await lender.desk.reject(draft.id, cv.ContractReject(reason="not today"))).state == "rejected"
        await until(lambda: State.REJECTED in borrower.changed)
        refused = await borrower.desk.contract(draft.id)
        assert refused.reason is not None and "not today" in refused.reason.text


LENDING = Standing("lending", "1 slot is offered.")
HERE = LendingFacts(
    arch="x86_64", pythons=("3.11",), rung="bubblewrap", slots=4, idle=4, machines=1, cores=4, memory_mib=1024, speed=1, endpoints=(),
    relays=(), minute_of_week=0, now=UnixTime(100),
)  # fmt: skip
ASKER = rules.Asker(company="co-aaaaaaaaaaaaaaaa", score=0.5, hops=2, credit_left_core_ms=10**9)


@pytest.mark.parametrize(
    ("terms", "policy", "free", "code"),
    [
        ({}, {}, 4, ""),
        ({}, {}, 0, "no-free-slots"),
        ({"memory_mib": 2048}, {}, 4, "memory-too-large"),
        ({"runtime": "python-3.14"}, {}, 4, "runtime-missing"),
        ({"price_milli": 1}, {"price_milli": 2}, 4, "price-too-low"),
        ({"time_frame_s": 61}, {"max_frame_s": 60}, 4, "frame-too-long"),
        ({}, {"until": UnixTime(120)}, 4, "frame-too-long"),
        ({}, {"min_trust_permille": 600}, 4, "trust-too-low"),
        ({}, {"only_to": ("co-bbbbbbbbbbbbbbbb",)}, 4, "not-lending"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(terms: dict[str, object], policy: dict[str, object], free: int, code: str) -> None:
    found = rules.judge(change(TERMS, **terms), ASKER, Policy(max_slots=4, **policy), LENDING, HERE, free)  # type: ignore[arg-type]
    assert found.code == code and (found.slots == TERMS.slots if found.fits else bool(found.text))


@pytest.mark.parametrize(("least", "code"), [(50, ""), (51, "trust-too-low")])
def test_a_newcomer_has_the_same_trust_here_as_where_offers_are_asked_for(least: int, code: str) -> None:
    newcomer = change(ASKER, score=None)
    assert rules.judge(TERMS, newcomer, Policy(max_slots=4, min_trust_permille=least), LENDING, HERE, 4).code == code


def test_who_is_signed_with_unasked() -> None:
    far = change(ASKER, hops=3)
    poor = change(ASKER, credit_left_core_ms=1)
    for auto, asker, expected in (
        ("never", ASKER, False), ("trusted", ASKER, True), ("trusted", far, False), ("trusted", poor, False), ("any", far, True),
    ):  # fmt: skip
        assert rules.may_sign_alone(Policy(max_slots=1, auto_accept=auto), asker, TERMS) is expected


def test_an_offer_that_is_found_after_a_start_waits_until_workers_may_be_back() -> None:
    """A chief that was killed with an offer on disk would refuse it for good, for want of workers that come a second later."""
    orders: list[e.Event] = []
    machine: Any = SimpleNamespace(state=State.OFFERED, a=SimpleNamespace(terms=TERMS, terms_bytes=TERMS.pack(), out=[], role=Role.LENDER))
    key = b.Key(b"p" * 32, bytes(16))
    nobody = Standing("lending-no-slots", "No worker is here that could be lent.")
    for since_s, standing, expected in (
        (1.0, nobody, None), (60.0, nobody, e.Refusing), (1.0, Standing("lending-off-schedule", "Not now."), e.Refusing),
        (1.0, LENDING, e.Agreeing),
    ):  # fmt: skip
        orders.clear()
        service = object.__new__(ContractService)
        service.driver = SimpleNamespace(book=SimpleNamespace(contracts={key: machine}), wall=lambda: 0)  # type: ignore[assignment]
        service.lending = lambda standing=standing: (Policy(max_slots=1, auto_accept="any"), standing, HERE)  # type: ignore[misc]
        service.on_change, service._put_off, service._moment = lambda _: None, set(), None
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(ContractService, "asker", lambda self, key: ASKER)
            patched.setattr(ContractService, "_quietly", lambda self, key, event: orders.append(event))
            patched.setattr(ContractService, "verdict_of", lambda self, key: rules.judge(TERMS, ASKER, *self.lending(), 4))
            patched.setattr(trio, "current_time", lambda: 1000.0)
            service._began = 1000.0 - since_s
            service.granting = SimpleNamespace(add=lambda keys: orders.extend(e.Agreeing(1, 30, UnixTime(0)) for _ in keys))  # type: ignore[assignment]
            service.on_offer(key)
        assert [type(x) for x in orders] == ([expected] if expected else []), (since_s, standing)
        assert service._put_off == (set() if expected else {key})


@pytest.mark.parametrize(
    ("since_s", "code", "standing", "slots", "waits"),
    [
        (1.0, "no-free-slots", "lending", 1, True), (1.0, "runtime-missing", "lending", 1, True),
        (1.0, "memory-too-large", "lending", 0, True), (1.0, "no-free-slots", "lending", 4, False),
        (60.0, "no-free-slots", "lending", 1, False), (1.0, "price-too-low", "lending", 1, False),
        (1.0, "not-lending", "lending-unreachable", 0, True), (1.0, "not-lending", "lending-not-idle", 0, False),
        (1.0, "", "lending", 1, False),
    ],
)  # fmt: skip
def test_an_offer_waits_for_workers_that_come_back_one_by_one_and_for_nothing_else(
    since_s: float, code: str, standing: str, slots: int, waits: bool
) -> None:
    found = rules.may_yet_come(rules.Verdict(0 if code else 1, code), Standing(standing, ""), Policy(max_slots=4), slots, since_s)
    assert found is waits


def test_contracts_that_are_not_over_use_up_credit() -> None:
    def agreement(state: State, role: Role = Role.LENDER, slots: int = 2) -> Any:
        return SimpleNamespace(state=state, role=role, slots=slots, terms=TERMS, halves={}, claimed=Facts(3, 3000, 900))

    one = 2 * TERMS.time_frame_s * 1000
    assert rules.lent_core_ms([agreement(State.ACTIVE), agreement(State.ACCEPTED)]) == 2 * one
    assert rules.lent_core_ms([agreement(State.OFFERED), agreement(State.RATED), agreement(State.ACTIVE, Role.BORROWER)]) == 0
    ended = agreement(State.CLOSING)  # who does not settle is no newcomer again for the week in which its signature is waited for
    assert rules.lent_core_ms([ended, agreement(State.CLOSING, Role.BORROWER)]) == 3000
    ended.halves[Role.LENDER] = object()  # now the receipt says it
    assert rules.lent_core_ms([ended]) == 0
    here, there = (b.Key(peer, bytes(16)) for peer in (b"p" * 32, b"q" * 32))
    contracts = {b.Key(here.peer, bytes([n]) * 16): SimpleNamespace(a=agreement(State.ACTIVE)) for n in range(1, 3)}
    service: Any = SimpleNamespace(
        driver=SimpleNamespace(book=SimpleNamespace(contracts=contracts)), trust=SimpleNamespace(asker=lambda peer: ASKER)
    )
    assert ContractService.asker(service, here).credit_left_core_ms == ASKER.credit_left_core_ms - 2 * one
    assert ContractService.asker(service, there) == ASKER


def test_halves_and_heads_of_others_are_read_with_bounds() -> None:
    signer = Signer(LENDER, NET)
    head = Chain(signer).head(UnixTime(7))
    assert head_untrusted(signer, LENDER.public, head.wire).hash == head.hash
    for bad in (b"", head.wire[:-1], msgpack.packb([21, b"", b""]), msgpack.packb([1, 2])):
        with pytest.raises(MalformedMessage):
            head_untrusted(signer, LENDER.public, bad)
    with pytest.raises(MalformedMessage):
        head_untrusted(signer, BORROWER.public, head.wire)
    for items in ([b"x"] * 201, [b"x"], [msgpack.packb([b"", b""])]):
        frame = Frame([], np.array([len(i) for i in items], dtype="<u4"), memoryview(b"".join(items)))
        with pytest.raises(MalformedMessage):
            halves_untrusted(signer, LENDER.public, frame)
