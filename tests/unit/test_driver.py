"""Rules of the driver; time is trio's mock clock, so nothing waits."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from p2p.base.clock import Monotonic
from p2p.base.errors import InvariantBroken
from p2p.net.driver import MAX_WAITING_EVENTS, Driver


@dataclass(slots=True)
class Alarm:
    """Echoes words; wants a tick at ``due``."""

    due: Monotonic | None = None
    handled: list[tuple[str, float]] = field(default_factory=list)
    is_broken: bool = False

    def handle(self, event: str, now: Monotonic) -> tuple[str, ...]:
        self.handled.append((event, now))
        if event == "tick":
            self.due = None
        return (event.upper(), event + "!")

    def next_deadline(self) -> Monotonic | None:
        return self.due

    def validate(self) -> None:
        if self.is_broken:
            raise InvariantBroken("it is broken")


def clock() -> Monotonic:
    return Monotonic(trio.current_time())


async def test_effects_are_performed_in_order_and_a_burst_is_one_turn(autojump_clock: trio.testing.MockClock) -> None:
    machine = Alarm()
    effects: list[str] = []
    turns: list[int] = []
    driver: Driver[str, str] = Driver(machine, effects.append, clock, tick="tick", turn_ended=lambda: turns.append(len(effects)))
    for word in ("a", "b", "c"):
        await driver.post(word)
    async with trio.open_nursery() as nursery:
        await nursery.start(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert effects == ["A", "a!", "B", "b!", "C", "c!"]
    assert turns == [6]


async def test_the_machine_is_woken_at_its_deadline_and_not_before(autojump_clock: trio.testing.MockClock) -> None:
    start = clock()
    machine = Alarm(due=Monotonic(start + 30))
    driver: Driver[str, str] = Driver(machine, lambda _: None, clock, tick="tick")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(10)
        driver.post_nowait("early")
        await trio.sleep(50)
        nursery.cancel_scope.cancel()
    assert [(e, round(t - start, 3)) for e, t in machine.handled] == [("early", 10), ("tick", 30)]


async def test_events_are_handled_although_a_deadline_is_always_due(autojump_clock: trio.testing.MockClock) -> None:
    class Restless(Alarm):
        def next_deadline(self) -> Monotonic | None:
            return Monotonic(0.0)

    machine = Restless()
    driver: Driver[str, str] = Driver(machine, lambda _: None, clock, tick="tick")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        await driver.post("heard")
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert "heard" in [e for e, _ in machine.handled]


async def test_a_deadline_is_kept_although_events_never_cease(autojump_clock: trio.testing.MockClock) -> None:
    machine = Alarm(due=clock())
    driver: Driver[str, str] = Driver(machine, lambda e: driver.post_nowait("more") if e == "MORE" else None, clock, tick="tick")
    driver.post_nowait("more")
    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(driver.run)
            while ("tick", clock()) not in machine.handled:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert [e for e, _ in machine.handled][:2] == ["more", "tick"]


async def test_an_effect_that_waits_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    done: list[str] = []

    async def perform(effect: str) -> None:
        await trio.sleep(1)
        done.append(effect)

    driver: Driver[str, str] = Driver(Alarm(), perform, clock, tick="tick")
    driver.post_nowait("a")
    with trio.move_on_after(5):
        await driver.run()
    assert done == ["A", "a!"]


async def test_events_wait_in_bounded_room(autojump_clock: trio.testing.MockClock) -> None:
    driver: Driver[str, str] = Driver(Alarm(), lambda _: None, clock, tick="tick")
    for _ in range(MAX_WAITING_EVENTS):
        driver.post_nowait("x")
    with pytest.raises(trio.WouldBlock):
        driver.post_nowait("x")


async def test_a_broken_invariant_ends_the_driver(autojump_clock: trio.testing.MockClock) -> None:
    driver: Driver[str, str] = Driver(Alarm(is_broken=True), lambda _: None, clock, tick="tick", is_checked=True)
    driver.post_nowait("a")
    with pytest.raises(InvariantBroken):
        await driver.run()
