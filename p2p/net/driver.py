"""Runs one machine in real time: events in, effects out, woken at its deadlines (I/O).

One task owns the machine; everybody else posts events through a bounded channel. A turn takes all events that wait, up to a
limit, so that a burst costs one turn; ``turn_ended`` is where a group commit belongs. The simulator runs the same machines
from an event heap (`simulator.engine`).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Generic, Never, TypeVar

import trio

from p2p.base.clock import Monotonic
from p2p.base.machine import Machine
from p2p.net.clock import read_monotonic

EventT = TypeVar("EventT")
EffectT = TypeVar("EffectT")
MAX_WAITING_EVENTS = 4096
MAX_TURN_EVENTS = 512


class Driver(Generic[EventT, EffectT]):
    """``perform`` does one effect: starts it if it takes time, and posts what came of it as an event.

    ``tick`` is the event given to the machine when its deadline has come. ``is_checked`` validates after every turn.
    """

    def __init__(
        self,
        machine: Machine[EventT, EffectT],
        perform: Callable[[EffectT], Awaitable[None] | None],
        clock: Callable[[], Monotonic] = read_monotonic,
        *,
        tick: EventT,
        turn_ended: Callable[[], Awaitable[None] | None] = lambda: None,
        is_checked: bool = False,
    ) -> None:
        self._machine = machine
        self._perform = perform
        self._clock = clock
        self._tick = tick
        self._turn_ended = turn_ended
        self._is_checked = is_checked
        self._post, self._events = trio.open_memory_channel[EventT](MAX_WAITING_EVENTS)

    async def post(self, event: EventT) -> None:
        """Hand over an event; waits while too many wait. Never from ``perform``, which would wait for itself: use `post_nowait` there."""
        await self._post.send(event)

    def post_nowait(self, event: EventT) -> None:
        """Hand over an event. Raises `trio.WouldBlock` when too many wait."""
        self._post.send_nowait(event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> Never:
        """Own the machine until cancelled; an error of the machine or of ``perform`` ends it."""
        task_status.started()
        while True:
            events = await self._next_events()
            now = self._clock()
            deadline = self._machine.next_deadline()
            if deadline is not None and deadline <= now:
                events.append(self._tick)  # after what came before it, also when events never cease
            for event in events:
                for effect in self._machine.handle(event, now):
                    waiting = self._perform(effect)
                    if waiting is not None:
                        await waiting
            if self._is_checked:
                self._machine.validate()
            waiting = self._turn_ended()
            if waiting is not None:
                await waiting

    async def _next_events(self) -> list[EventT]:
        """All events that wait, at least one unless the machine's deadline comes first."""
        await trio.lowlevel.checkpoint()  # a machine that is always busy lets others run, and can be cancelled
        events: list[EventT] = []
        self._take_waiting(events)
        if not events:
            deadline = self._machine.next_deadline()
            with trio.move_on_after(math.inf if deadline is None else max(0.0, deadline - self._clock())):
                events.append(await self._events.receive())
            self._take_waiting(events)
        return events

    def _take_waiting(self, events: list[EventT]) -> None:
        while len(events) < MAX_TURN_EVENTS:
            try:
                events.append(self._events.receive_nowait())
            except trio.WouldBlock:
                return
