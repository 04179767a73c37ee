"""When to dial the chief again, and when its silence means that the channel is dead (pure).

Source: exponential back-off with full jitter on the upper half, so that a company's workers do not come back in one wave.
"""

from __future__ import annotations

from random import Random

from p2p.base.clock import Monotonic

FIRST_WAIT_S = 0.2
MAX_WAIT_S = 5.0
SILENT_INTERVALS = 3  # missed heartbeats before the channel is given up


def wait_before_attempt_s(attempt: int, rng: Random) -> float:
    """Seconds to wait before try number ``attempt`` (1 is the first after a loss)."""
    ceiling = min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempt - 1, 16))
    return ceiling * (0.5 + 0.5 * rng.random())


class Heartbeat:
    """Says when to ping, and when the other side is to be taken for gone."""

    def __init__(self, interval_s: float, now: Monotonic) -> None:
        self._interval_s = max(0.05, interval_s)
        self._heard = now
        self._next_ping = Monotonic(now + self._interval_s)

    def on_heard(self, now: Monotonic) -> None:
        """Anything at all came from the chief."""
        self._heard = now

    def is_dead(self, now: Monotonic) -> bool:
        return now >= self._heard + SILENT_INTERVALS * self._interval_s

    def is_ping_due(self, now: Monotonic) -> bool:
        """Whether to ping now; a yes moves the next one."""
        if now < self._next_ping:
            return False
        self._next_ping = Monotonic(now + self._interval_s)
        return True

    def next_deadline(self) -> Monotonic:
        return min(self._next_ping, Monotonic(self._heard + SILENT_INTERVALS * self._interval_s))
