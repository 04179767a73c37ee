"""The event heap: virtual time for the shipped machines, with no clock, no event loop and no thread (pure).

Events at the same time run in the order in which they were planned, so one program has one history. `Host` drives a machine exactly as
`p2p.net.driver` does in real time: event in, effects out, a tick when the machine's deadline comes.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush, heapreplace
from typing import Any, Generic, Protocol, TypeVar

from p2p.base.clock import Monotonic
from p2p.base.errors import InvariantBroken

Handler = Callable[[Any], object]


class Engine:
    """Virtual time. ``now`` is the time of the event that is being handled.

    The event being handled stays at the heap's root until its handler plans the next one, which then takes its place: one sift instead of
    two for the usual handler, that plans exactly one. A handler that returns a float is planned again after so many seconds.
    """

    __slots__ = ("_heap", "_is_root_done", "_planned", "events", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._planned = 0
        self._is_root_done = False
        self._heap: list[tuple[float, int, Handler, Any]] = []

    def at(self, when: float, handler: Handler, argument: Any = None) -> None:
        """Plan ``handler(argument)``; what would lie in the past happens now, after what is planned for now already."""
        self.after(when - self.now, handler, argument, when)

    def after(self, delay: float, handler: Handler, argument: Any = None, when: float | None = None) -> None:
        """Plan ``handler(argument)`` that much later (``when``: the exact time, where the sum would be rounded)."""
        self._planned = number = self._planned + 1
        if delay <= 0:
            when = self.now
        elif when is None:
            when = self.now + delay
        if self._is_root_done:
            self._is_root_done = False
            heapreplace(self._heap, (when, number, handler, argument))
        else:
            heappush(self._heap, (when, number, handler, argument))

    @property
    def pending(self) -> int:
        """How many events are planned."""
        return len(self._heap) - self._is_root_done

    def run(self, *, until: float = float("inf"), max_events: int = 1 << 62) -> int:
        """Handle events up to and including time ``until``, at most so many; returns their number. Not for handlers to call."""
        heap = self._heap
        done = 0
        try:
            while heap and done < max_events:
                when, _, handler, argument = heap[0]
                if when > until:
                    break
                self.now = when
                done += 1
                self._is_root_done = True
                again = handler(argument)
                if again.__class__ is float:
                    self._planned = number = self._planned + 1
                    entry = (when + again, number, handler, argument) if again > 0.0 else (when, number, handler, argument)
                    if self._is_root_done:
                        heapreplace(heap, entry)
                    else:
                        heappush(heap, entry)
                elif self._is_root_done:
                    heappop(heap)
                self._is_root_done = False
        finally:
            if self._is_root_done:  # the handler raised before it planned anything
                self._is_root_done = False
                heappop(heap)
            self.events += done
        if until != float("inf") and done < max_events and self.now < until:
            self.now = until
        return done

    def run_while(self, condition: Callable[[], bool], *, max_events: int, why: Callable[[], str]) -> None:
        """Go on while the condition holds. Raises `InvariantBroken` when nothing will ever end it."""
        while condition():
            if not self._heap:
                raise InvariantBroken(f"nothing will ever happen any more at {self.now:.3f} s: {why()}")
            if self.events > max_events:
                raise InvariantBroken(f"no end after {max_events} events at {self.now:.3f} s: {why()}")
            self.run(max_events=1)


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
