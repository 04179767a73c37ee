"""What a lender's chief counts: nothing is lost to a worker that reports before the database answers, nothing is kept for ever."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.lowlevel
import trio.testing

from company import messages as m
from company.chief.contracts.port import ContractView
from company.chief.network.contact import Contact
from company.chief.secondment.lending import Lending
from company.chief.secondment.papers import Sent, Tally, pack_sent, unpack_sent
from company.chief.secondment.service import Secondment
from company.ticket import Ticket, sign_ticket
from p2p.base.clock import Monotonic, UnixTime
from p2p.base.keys import Identity
from p2p.contracts.acting import LAST_COUNTS_S
from p2p.contracts.table import State
from p2p.contracts.terms import Cause, Facts, Role
from p2p.net.clock import read_unix
from tests.support.fake_contracts import terms

LENDER, CONTRACT, GONE = Identity(b"l" * 32), b"c" * 32, b"g" * 32
VIEW = ContractView(
    id=CONTRACT, role=Role.LENDER, state=State.ACTIVE, peer=b"p" * 32, contact=Contact(key=b"p" * 32), slots=1, revision=0,
    terms=terms(slots=1), may_work=False, why="", ends_at=Monotonic(1e9), drain_until=Monotonic(0),
)  # fmt: skip


class World:
    """Database, committer and contracts, as much of them as counting needs."""

    def __init__(self) -> None:
        self.open = (VIEW,)
        self.view = VIEW
        self.stated: list[Facts] = []
        self.broken: list[tuple[Cause, list[Facts]]] = []
        self.drained_at: list[int] = []  # how much was stated when it was said that nothing runs any more
        self.answer = trio.Event()
        self.tickets: bytes | None = None

    async def read(self, question: object) -> tuple[bytes, bytes | None]:
        await self.answer.wait()
        return Tally({(1, 5): Facts(10, 100, 1000)}).pack(), self.tickets

    def add(self, *, ops: object = (), then: Any = None) -> None:
        if then is not None:
            then()

    def open_contracts(self) -> tuple[ContractView, ...]:
        return self.open

    def contract(self, contract: bytes) -> ContractView | None:
        return self.view if contract == CONTRACT else None

    def state(self, contract: bytes, facts: Facts, **rest: object) -> None:
        self.stated.append(facts)

    def heard(self, contract: bytes) -> None:
        pass

    def drained(self, contract: bytes) -> None:
        self.drained_at.append(len(self.stated))

    def post(self, event: object) -> None:
        pass

    async def breach(self, contract: bytes, cause: Cause, evidence: bytes, text: str) -> None:
        self.broken.append((cause, list(self.stated)))


def lending(world: World, nursery: trio.Nursery) -> Lending:
    fake = cast(Any, world)
    made = Lending(
        LENDER, b"n" * 16, fake, fake, cast(Any, type("Sessions", (), {"open": {}})()), fake, fake, lambda host, port: True, lambda slots: 0
    )
    made.nursery = nursery
    return made


def over(fragments: int) -> m.Seconded:
    return m.Seconded(CONTRACT, 2, 7, "over", fragments, fragments * 10, fragments * 100, 0, bytes(32), "done", "")


async def test_what_was_counted_before_a_restart_is_not_lost_to_a_quick_worker() -> None:
    world = World()
    async with trio.open_nursery() as nursery:
        made = lending(world, nursery)
        made.on_seconded("w", over(3))
        assert not world.stated, "the numbers of before are not read yet"
        world.answer.set()
    assert world.stated == [Facts(10, 100, 1000), Facts(13, 130, 1300)], "what was on disk and perhaps never stated is stated first"


class Channel:
    """What one worker is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def send_nowait(self, message: object) -> None:
        self.told.append(message)


def session_of(made: Lending, name: str) -> tuple[Any, Channel]:
    """A worker that is here."""
    channel = Channel()
    session = type("Session", (), {"worker": name, "channel": channel, "guest": None})()
    made.sessions.open[name] = session
    return session, channel


def ticket_row() -> bytes:
    """What is on disk of the one ticket that was out when this chief was killed."""
    now = read_unix()
    ticket = Ticket(
        lender=LENDER.public, worker=bytes(32), contract=CONTRACT, borrower=b"p" * 32, endpoints=(), relays=(), slots=1, duration_s=60,
        processor=bytes(32), memory_mib=64, disk_mib=1, fragment_s=5, lease_s=15, serial=2, created=now, expires=UnixTime(now + 60),
    )  # fmt: skip
    return pack_sent([Sent(ticket, *sign_ticket(LENDER, b"n" * 16, ticket), "w")])


async def test_the_last_count_is_confirmed_once_it_is_on_disk_and_never_before() -> None:
    world = SlowDisk()
    async with trio.open_nursery() as nursery:
        made = lending(world, nursery)
        made.tallies[CONTRACT] = Tally()
        _, channel = session_of(made, "w")
        made.on_seconded("w", over(3))
        assert not channel.told, "it is not on disk"
        nursery.start_soon(world.write)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert channel.told == [m.SecondedHeard(CONTRACT, 2, 7)]
        made.on_seconded("w", over(3))  # it had not heard that
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert channel.told[1:] == [m.SecondedHeard(CONTRACT, 2, 7)] and world.stated == [Facts(3, 30, 300)]
        nursery.cancel_scope.cancel()


async def test_a_chief_killed_while_slots_were_lent_waits_for_their_last_counts(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    world.tickets = ticket_row()
    world.answer.set()
    async with trio.open_nursery() as nursery:
        made = lending(world, nursery)
        nursery.start_soon(made._call_back, replace(VIEW, state=State.REVOKING))
        await trio.sleep(3)
        assert not world.drained_at, "its worker has not come back yet"
        session, channel = session_of(made, "w")
        world.view = replace(VIEW, state=State.REVOKING)
        made.worker_here(session)
        assert [type(x) for x in channel.told] == [m.Unsecond], "the ticket is not begun again"
        made.on_seconded("w", over(140))
        await trio.lowlevel.checkpoint()
    assert world.stated == [Facts(10, 100, 1000), Facts(150, 1500, 15000)] and world.drained_at == [2]
    assert not made.sent


async def test_a_worker_that_stays_away_is_waited_for_so_long_and_no_longer(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    world.tickets = ticket_row()
    world.answer.set()
    async with trio.open_nursery() as nursery:
        made = lending(world, nursery)
        await made._call_back(replace(VIEW, state=State.REVOKING))
    assert 5 < trio.current_time() < LAST_COUNTS_S, "the contract closes by then"
    assert world.drained_at == [1] and not made.sent


async def test_slots_of_a_worker_that_was_lost_are_placed_anew_after_its_lease(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    world.tickets = ticket_row()
    world.answer.set()
    async with trio.open_nursery() as nursery:
        made = lending(world, nursery)
        nursery.start_soon(made.run)
        await trio.sleep(1)
        assert [s.worker for s in made.sent.values()] == ["w"], "it is known who was sent"
        await trio.sleep(14)
        assert made.sent, "it may be working yet"
        await trio.sleep(6)
        assert not made.sent
        nursery.cancel_scope.cancel()


async def test_slots_leave_a_machine_that_its_owner_uses_and_it_is_not_asked_again_meanwhile(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("company.chief.secondment.lending.Channel", Channel)
    world = World()
    world.tickets = ticket_row()
    world.answer.set()
    busy: dict[str, str] = {}
    async with trio.open_nursery() as nursery:
        made = lending(world, nursery)
        made.busy = lambda: busy
        _, channel = session_of(made, "w")
        nursery.start_soon(made.run)
        await trio.sleep(1)
        assert [type(x) for x in channel.told] == [m.Second]
        busy["w"] = "its owner uses 50% of this machine"
        await trio.sleep(3)
        made.on_seconded("w", replace(over(2), state="working"))  # its notice is not over
        await trio.sleep(3)
        assert [type(x) for x in channel.told[1:]] == [m.Unsecond], "told once"
        made.on_seconded("w", over(3))
        assert not made.sent
        live = SimpleNamespace(takes_work=True, own_slots=1)
        state = SimpleNamespace(leases=SimpleNamespace(depth=lambda slot: 0), slots=SimpleNamespace(workers={"w": live}))
        made.engine, made._rests = cast(Any, SimpleNamespace(state=state)), {}
        made.sessions.open["w"].machine = SimpleNamespace(isolation="bubblewrap")
        assert not made._spare(CONTRACT), "its owner is there"
        busy.clear()
        assert [s.worker for s in made._spare(CONTRACT)] == ["w"]
        made.silent = lambda: {"w"}
        assert not made._spare(CONTRACT), "nobody knows whether its owner is there"
        nursery.cancel_scope.cancel()


async def test_another_cap_of_bandwidth_holds_for_workers_that_are_out(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    world.tickets = ticket_row()
    world.answer.set()
    cap = [0]
    async with trio.open_nursery() as nursery:
        made = lending(world, nursery)
        made.bandwidth = lambda slots: cap[0]
        _, channel = session_of(made, "w")
        nursery.start_soon(made.run)
        await trio.sleep(5)
        assert [x.bytes_per_s for x in channel.told] == [0]
        cap[0] = 70_000
        await trio.sleep(5)
        assert [x.bytes_per_s for x in channel.told] == [0, 70_000], "told once, with the same ticket"
        cap[0], world.view = 0, replace(VIEW, state=State.REVOKING)
        await trio.sleep(5)
        assert len(channel.told) == 2, "a ticket of a contract that ends is not sent again: it would begin anew"
        nursery.cancel_scope.cancel()


def test_tickets_that_are_out_are_taken_up_again_after_a_restart() -> None:
    kept = unpack_sent(ticket_row(), LENDER.public, b"n" * 16, 5.0)
    assert [(s.worker, s.state, s.away_at, s.lost_at) for s in kept] == [("w", "awaited", 5.0, 25.0)]
    assert not unpack_sent(ticket_row(), LENDER.public, b"o" * 16, 5.0), "of another network"
    assert not unpack_sent(b"", LENDER.public, b"n" * 16, 0.0)


class SlowDisk(World):
    """A committer that writes one thing after the other, later."""

    def __init__(self) -> None:
        super().__init__()
        self.send, self.receive = trio.open_memory_channel[Any](100)
        self.answer.set()

    def add(self, *, ops: object = (), then: Any = None) -> None:
        self.send.send_nowait(then)

    async def write(self) -> None:
        async for then in self.receive:
            await trio.testing.wait_all_tasks_blocked()
            if then is not None:
                then()


async def test_an_overrun_breaks_the_contract_after_its_last_counts_were_stated() -> None:
    world = SlowDisk()
    async with trio.open_nursery() as nursery:
        made = lending(world, nursery)
        made.sent[CONTRACT, "w"] = Sent(cast(Any, type("T", (), {"contract": CONTRACT, "serial": 2, "slots": 1})()), b"", b"", "w")
        made.tallies[CONTRACT] = Tally()
        nursery.start_soon(world.write)
        made.on_seconded("w", m.Seconded(CONTRACT, 2, 7, "overrun", 5, 50, 500, 0, bytes(32), "time-limit", "too long"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert world.broken == [(Cause.OVERRUN, [Facts(5, 50, 500)])]


def test_a_ticket_goes_out_with_its_slots_share_of_the_bandwidth() -> None:
    told: list[m.Second] = []
    fake = cast(Any, World())
    channel = type("Channel", (), {"send_nowait": staticmethod(told.append)})()
    sessions = type("Sessions", (), {"open": {"w": type("Session", (), {"channel": channel})()}})()
    made = Lending(
        LENDER, b"n" * 16, fake, fake, cast(Any, sessions), fake, fake, lambda host, port: True, lambda slots: 1000 * slots
    )  # fmt: skip
    made._send(Sent(cast(Any, type("T", (), {"slots": 3})()), b"body", b"signature", "w"))
    assert [(s.ticket, s.bytes_per_s) for s in told] == [(b"body", 3000)]


async def test_contracts_that_are_gone_are_forgotten() -> None:
    async with trio.open_nursery() as nursery:
        world = World()
        made = lending(world, nursery)
        made.tallies = {CONTRACT: Tally(), **{bytes([n]) * 32: Tally() for n in range(200)}}
        made._over = {GONE, CONTRACT}
        world.answer.set()
        nursery.start_soon(made.run)
        await trio.testing.wait_all_tasks_blocked()
        assert set(made.tallies) == {CONTRACT} and made._over == {CONTRACT}
        nursery.cancel_scope.cancel()


def test_a_job_that_ends_after_its_contract_is_forgotten_too() -> None:
    forgotten: list[str] = []
    checking = type("Checking", (), {"trials": {}, "forget_job": staticmethod(forgotten.append)})()
    checking.engine = type("Engine", (), {"runtimes": {}})()
    borrowing = type("Borrowing", (), {"accounts": {}})()
    made = Secondment(cast(Any, borrowing), cast(Any, None), cast(Any, checking), cast(Any, None))
    made.poke("job", "j-1")
    assert forgotten == ["j-1"]
