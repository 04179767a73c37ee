"""The event queue: virtual time for the shipped machines, with no clock, no event loop and no thread (pure).

Events at the same time run in the order in which they were planned, so one program has one history. `Host` drives a machine exactly as
`p2p.net.driver` does in real time: event in, effects out, a tick when the machine's deadline comes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from typing import Any, Final, Generic, Protocol, TypeVar

from p2p.base.clock import Monotonic
from p2p.base.errors import InvariantBroken

Handler = Callable[[Any], object]
Entry = tuple[float, int, Handler, Any]
LEAST_NEAR: Final = 64  # events that are put in order at once, at least
SELDOM: Final = 200_000  # objects more than before, for the collector to look at the youngest
NEAR_SHIFT: Final = 2  # … and at least a quarter of all; measured best of 1/2 … 1/16


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for garbage in cycles a three-hundredth as often: worlds keep millions of objects, and next to none dies in a cycle."""
    before = gc.get_threshold()
    gc.set_threshold(SELDOM, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Engine:
    """Virtual time. ``now`` is the time of the event that is being handled.

    What is planned lies in three places: ``near``, sorted, its end comes next; ``late``, a heap of what was planned since then to happen
    before ``edge``; ``far``, in no order, everything from ``edge`` on. When near and late are empty, far is sorted (it mostly is already)
    and gives its first part to near. So an event that waits long costs an append and its share of a sort, not two sifts of a heap; the
    worst case is that of a heap. A handler that returns a float is planned again after so many seconds.

    Source: Tang, Goh, Thng 2005, "Ladder queue" (the idea: nothing is sorted before it is near).
    """

    __slots__ = ("_edge", "_far", "_late", "_near", "_planned", "events", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._planned = 0
        self._near: list[Entry] = []  # latest first
        self._late: list[Entry] = []
        self._far: list[Entry] = []
        self._edge = 0.0

    def at(self, when: float, handler: Handler, argument: Any = None) -> None:
        """Plan ``handler(argument)``; what would lie in the past happens now, after what is planned for now already."""
        self._planned = number = self._planned + 1
        if when < self.now:
            when = self.now
        if when >= self._edge:
            self._far.append((when, number, handler, argument))
        else:
            heappush(self._late, (when, number, handler, argument))

    def after(self, delay: float, handler: Handler, argument: Any = None) -> None:
        """Plan ``handler(argument)`` that much later."""
        self._planned = number = self._planned + 1
        when = self.now + delay if delay > 0.0 else self.now
        if when >= self._edge:
            self._far.append((when, number, handler, argument))
        else:
            heappush(self._late, (when, number, handler, argument))

    @property
    def pending(self) -> int:
        """How many events are planned."""
        return len(self._near) + len(self._late) + len(self._far)

    def _refill(self) -> float:
        """Put the first part of what is far in order. Returns the new edge."""
        far = self._far
        far.sort()
        take = max(LEAST_NEAR, len(far) >> NEAR_SHIFT)
        self._near[:] = far[:take][::-1]
        del far[:take]
        self._edge = far[0][0] if far else self._near[0][0]
        return self._edge

    def run(self, *, until: float = float("inf"), max_events: int = 1 << 62, condition: Callable[[], bool] | None = None) -> int:
        """Handle events up to and including time ``until``, at most so many, while ``condition`` holds; returns their number.

        Not for handlers to call.
        """
        near, late, far, edge = self._near, self._late, self._far, self._edge
        done = 0
        try:
            while done < max_events and (condition is None or condition()):
                if near:
                    entry = near.pop() if not late or near[-1] < late[0] else heappop(late)
                elif late:
                    entry = heappop(late)
                elif far:
                    edge = self._refill()
                    continue
                else:
                    break
                when, _, handler, argument = entry
                if when > until:
                    heappush(late, entry)
                    break
                self.now = when
                done += 1
                again = handler(argument)
                if again.__class__ is float:
                    self._planned = number = self._planned + 1
                    if again > 0.0:
                        when += again
                    if when >= edge:
                        far.append((when, number, handler, argument))
                    else:
                        heappush(late, (when, number, handler, argument))
        finally:
            self.events += done
        if until != float("inf") and done < max_events and self.now < until:
            self.now = until
        return done

    def run_while(self, condition: Callable[[], bool], *, max_events: int, why: Callable[[], str]) -> None:
        """Go on while the condition holds. Raises `InvariantBroken` when nothing will ever end it."""
        self.run(max_events=max_events - self.events, condition=condition)
        if condition():
            if self.pending:
                raise InvariantBroken(f"no end after {max_events} events at {self.now:.3f} s: {why()}")
            raise InvariantBroken(f"nothing will ever happen any more at {self.now:.3f} s: {why()}")


E = TypeVar("E", contravariant=True)
F = TypeVar("F", covariant=True)


class Driven(Protocol[E, F]):
    """What a host needs of a machine (`p2p.base.machine.Machine`)."""

    def handle(self, event: E, now: Monotonic, /) -> tuple[F, ...]: ...
    def next_deadline(self) -> Monotonic | None: ...
    def validate(self) -> None: ...


Ev = TypeVar("Ev")
Ef = TypeVar("Ef")


class Host(Generic[Ev, Ef]):
    """One machine in virtual time. ``perform(effect, cause)`` does what it decides; ``tick`` is the event of a deadline."""

    def __init__(
        self, engine: Engine, machine: Driven[Ev, Ef], perform: Callable[[Ef, Ev], None], tick: Callable[[], Ev], *, validate_every: int = 0
    ) -> None:
        """``validate_every``: check the machine's invariants after every n-th event; 0 never."""
        self._engine, self._machine, self._perform, self._tick = engine, machine, perform, tick
        self._validate_every = validate_every
        self._tick_at: float | None = None
        self.handled = 0

    def post(self, event: Ev) -> tuple[Ef, ...]:
        """Hand an event to the machine and do what it says."""
        engine = self._engine
        effects = self._machine.handle(event, Monotonic(engine.now))
        self.handled += 1
        if self._validate_every and self.handled % self._validate_every == 0:
            self._machine.validate()
        for effect in effects:
            self._perform(effect, event)
        due = self._machine.next_deadline()
        if due is not None and (self._tick_at is None or due < self._tick_at):
            self._tick_at = due
            engine.at(due, self._wake)
        return effects

    def _wake(self, _: None) -> None:
        now, due = self._engine.now, self._machine.next_deadline()
        if self._tick_at is not None and self._tick_at <= now:
            self._tick_at = None
        if due is None:
            return
        if due > now:
            if self._tick_at is None or due < self._tick_at:
                self._tick_at = due
                self._engine.at(due, self._wake)
            return
        self.post(self._tick())
        after = self._machine.next_deadline()
        if after is not None and after <= now:
            raise InvariantBroken(f"a deadline that does not move: {after} at {now}")
