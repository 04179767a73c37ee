"""How far a job is and when it may end: always a range, never a promise (pure).

The range is the 25th to 75th percentile of simulated endings: finished batches are drawn again with replacement, so that few or
uneven observations give a wide range by themselves. Before enough was seen there is no estimate.

Source: Efron 1979 (bootstrap); Graham 1969: a job ends neither before each slot's share of the work nor before its longest fragment.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from p2p.base.record import record

MIN_BATCHES = 5  # finished batches before the first estimate
WINDOW = 128  # batches remembered: the newest tell most about what comes
DRAWS = 200
LEAST_SPREAD = 0.05  # of the low end: equal durations still are no promise


@record
class Eta:
    """Seconds from now until the job is done."""

    low_s: float
    high_s: float
    basis: str  # in words: "from 812 fragments"


@record
class Progress:
    """Fragments ended so far, of how many."""

    ended: int
    total: int | None  # None until split has ended or `count` has told
    at_least: int  # seen so far

    @property
    def fraction(self) -> float | None:
        """Ended over total, 0..1, and 1 only when all have ended; None while the total is unknown."""
        if self.total is None:
            return None
        if self.ended >= self.total:
            return 1.0
        return min(self.ended / self.total, math.nextafter(1.0, 0.0))

    @property
    def text(self) -> str:
        """ "x of y", or "x of at least y"."""
        if self.total is None:
            return f"{self.ended} of at least {max(self.at_least, self.ended)}"
        return f"{min(self.ended, self.total)} of {self.total}"

    @property
    def percent(self) -> int | None:
        """Whole per cent, rounded down: 100 only when all have ended."""
        return None if self.fraction is None else int(self.fraction * 100)


class Estimator:
    """The finished batches of one job, and what they say about the rest."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, float]] = deque(maxlen=WINDOW)  # (fragments, seconds)
        self._fragments = 0

    def observe(self, count: int, run_us: float) -> None:
        """Learn one finished batch or part; nonsense is ignored, it comes from a worker."""
        if count >= 1 and 0 <= run_us < math.inf:
            self._batches.append((count, run_us / 1e6))
            self._fragments += count

    def expected_s(self, remaining: int, slots: int = 1) -> float | None:
        """Mean estimate for the queue, from the first batch on: seconds for ``remaining`` fragments on ``slots`` slots."""
        counts, seconds = sum(c for c, _ in self._batches), sum(s for _, s in self._batches)
        return seconds / counts * max(0, remaining) / max(1, slots) if counts else None

    def estimate(self, remaining: int | None, slots: int, rng: np.random.Generator) -> Eta | None:
        """Range of seconds until ``remaining`` fragments have ended on ``slots`` slots.

        None while the total is unknown, before `MIN_BATCHES` batches, or without a slot. About 1 ms: for pages, not for every batch.
        """
        seen = len(self._batches)
        if remaining is None or seen < MIN_BATCHES or slots < 1:
            return None
        left = max(0, remaining)
        batches = np.array(self._batches, dtype=np.float64)
        drawn = batches[rng.integers(0, seen, (DRAWS, seen))]
        per_fragment = drawn[:, :, 1].sum(axis=1) / drawn[:, :, 0].sum(axis=1)
        last_round = drawn[:, : min(left, slots, seen)]  # one fragment a slot
        longest = (last_round[:, :, 1] / last_round[:, :, 0]).max(axis=1, initial=0.0)
        low, high = np.percentile(np.maximum(per_fragment * left / slots, longest), (25, 75))
        return Eta(float(low), max(float(high), float(low) * (1 + LEAST_SPREAD)), f"from {self._fragments} fragments")
