"""How far the calendars of other nodes are from ours, as their signed packets say (pure)."""

from __future__ import annotations

import statistics
from random import Random

ANSWERS_KEPT = 64
REFUSED_KEPT, REFUSED_S = 16, 600.0  # nodes whose packets were thrown away for their date, and for how long that is of interest


class PeerClocks:
    """Differences in seconds, theirs minus ours."""

    __slots__ = ("_answers", "_refused", "_rng")

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._answers: list[float] = []
        self._refused: dict[bytes, tuple[float, float]] = {}  # by key: difference, when

    def answered(self, skew_s: float) -> None:
        """A node that was asked says what time it is there."""
        if len(self._answers) < ANSWERS_KEPT:
            self._answers.append(skew_s)
        else:
            self._answers[self._rng.randrange(ANSWERS_KEPT)] = skew_s

    def refused(self, public: bytes, skew_s: float, now: float) -> None:
        """A packet of this key was thrown away for its date."""
        self._refused.pop(public, None)
        self._refused[public] = (skew_s, now)
        if len(self._refused) > REFUSED_KEPT:
            del self._refused[next(iter(self._refused))]

    def median(self, now: float, *, is_alone: bool) -> float | None:
        """The difference; None until some were heard. is_alone: nobody answers, so packets that were thrown away tell more."""
        late = [skew_s for skew_s, at in self._refused.values() if now - at <= REFUSED_S]
        if is_alone and late:
            return statistics.median(late)
        return statistics.median(self._answers) if self._answers else None
