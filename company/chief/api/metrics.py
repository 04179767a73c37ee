"""Numbers for Prometheus; labels are bounded by the code, never by what users or strangers send (I/O: reads the chief's memory).

prometheus_client comes when it is first asked for them (`company.chief.api.exposition`): importing it takes long.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from company.chief.facade import Chief

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)  # what Prometheus' clients use


@dataclass(slots=True)
class Times:
    """How long requests of one method took: how many within each bound (the last: longer), and the sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0


class Metrics:
    """The counters of one chief; nothing is registered globally."""

    def __init__(self, chief: Chief) -> None:
        self._chief = chief
        self.requests: Counter[tuple[str, str, str]] = Counter()  # by route, method, status
        self.times: dict[str, Times] = {}
        self.refused: Counter[str] = Counter()

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer; ``route`` is the pattern, not the path."""
        method = method if method in _METHODS else "other"
        self.requests[route, method, str(status)] += 1
        times = self.times.setdefault(method, Times())
        times.counts[bisect_left(BOUNDS_S, seconds)] += 1
        times.total_s += seconds

    def count_refusal(self, kind: str) -> None:
        """Count one refusal at the door: host, origin, token or csrf."""
        self.refused[kind] += 1

    def text(self) -> bytes:
        """The exposition format."""
        from company.chief.api.exposition import exposition

        return exposition(self._chief, self)
