"""What a lender's chief counts: nothing is lost to a worker that reports before the database answers, nothing is kept for ever."""

from __future__ import annotations

from typing import Any, cast

import trio
import trio.testing

from company import messages as m
from company.chief.contracts.port import ContractView
from company.chief.network.contact import Contact
from company.chief.secondment.lending import Lending, Sent, Tally
from company.chief.secondment.service import Secondment
from p2p.base.clock import Monotonic
from p2p.base.keys import Identity
from p2p.contracts.table import State
from p2p.contracts.terms import Cause, Facts, Role
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
        self.stated: list[Facts] = []
        self.broken: list[tuple[Cause, list[Facts]]] = []
        self.answer = trio.Event()

    async def read(self, question: object) -> bytes:
        await self.answer.wait()
        return Tally({(1, 5): Facts(10, 100, 1000)}).pack()

    def add(self, *, ops: object, then: Any) -> None:
        then()

    def open_contracts(self) -> tuple[ContractView, ...]:
        return self.open

    def contract(self, contract: bytes) -> ContractView | None:
        return VIEW if contract == CONTRACT else None

    def state(self, contract: bytes, facts: Facts, **rest: object) -> None:
        self.stated.append(facts)

    def heard(self, contract: bytes) -> None:
        pass

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
    assert world.stated == [Facts(13, 130, 1300)]


class SlowDisk(World):
    """A committer that writes one thing after the other, later."""

    def __init__(self) -> None:
        super().__init__()
        self.send, self.receive = trio.open_memory_channel[Any](100)
        self.answer.set()

    def add(self, *, ops: object = (), then: Any) -> None:
        self.send.send_nowait(then)

    async def write(self) -> None:
        async for then in self.receive:
            await trio.testing.wait_all_tasks_blocked()
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
