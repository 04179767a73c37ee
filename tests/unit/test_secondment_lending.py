"""What a lender's chief counts: nothing is lost to a worker that reports before the database answers, nothing is kept for ever."""

from __future__ import annotations

from typing import Any, cast

import trio
import trio.testing

from company import messages as m
from company.chief.contracts.port import ContractView
from company.chief.network.contact import Contact
from company.chief.secondment.lending import Lending, Tally
from company.chief.secondment.service import Secondment
from p2p.base.clock import Monotonic
from p2p.base.keys import Identity
from p2p.contracts.table import State
from p2p.contracts.terms import Facts, Role
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


def lending(world: World, nursery: trio.Nursery) -> Lending:
    fake = cast(Any, world)
    made = Lending(LENDER, b"n" * 16, fake, fake, cast(Any, type("Sessions", (), {"open": {}})()), fake, fake, lambda host, port: True)
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
