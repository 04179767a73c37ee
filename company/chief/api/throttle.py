"""How often one address may fail to log in (pure).

A bucket of failures per address that empties with time. The table is bounded: the least recently failing address is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from p2p.base.clock import Monotonic

MAX_ADDRESSES: Final = 4096


class FailureLimit:
    """Counts failures; `is_over` asks, `failed` counts. Callers pass ``now``."""

    def __init__(self, *, burst: int = 20, per_s: float = 0.5) -> None:
        self._burst = burst
        self._per_s = per_s
        self._levels: OrderedDict[str, tuple[float, Monotonic]] = OrderedDict()

    def failed(self, address: str, now: Monotonic) -> None:
        """Count one failure."""
        level = self._level(address, now) + 1
        self._levels[address] = (min(level, 2.0 * self._burst), now)
        self._levels.move_to_end(address)
        while len(self._levels) > MAX_ADDRESSES:
            self._levels.popitem(last=False)

    def is_over(self, address: str, now: Monotonic) -> bool:
        """Whether this address has used up its failures."""
        return self._level(address, now) >= self._burst

    def retry_after_s(self, address: str, now: Monotonic) -> float:
        """Seconds until one more failure is allowed."""
        return max(0.0, (self._level(address, now) - self._burst + 1) / self._per_s)

    def _level(self, address: str, now: Monotonic) -> float:
        level, since = self._levels.get(address, (0.0, now))
        return max(0.0, level - (now - since) * self._per_s)
