"""The shape of every rule-keeping part: a machine takes events and a time, and returns effects (pure).

A machine never does what it decides: a driver performs the effects and reports what came of them as further events.
`p2p.net.driver` runs machines in real time, `simulator.engine` in virtual time.
"""

from typing import Protocol, TypeVar

from p2p.base.clock import Monotonic

Event = TypeVar("Event", contravariant=True)
Effect = TypeVar("Effect", covariant=True)


class Machine(Protocol[Event, Effect]):
    """Decides; owns no clock, socket, file or random source."""

    def handle(self, event: Event, now: Monotonic) -> tuple[Effect, ...]:
        """Apply one event and return what must be done because of it, in order."""

    def next_deadline(self) -> Monotonic | None:
        """When the machine wants to be woken although nothing happened, or None."""

    def validate(self) -> None:
        """Check every invariant. Raises `InvariantBroken` with the values that contradict each other."""
