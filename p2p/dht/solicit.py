"""Ask everybody, let the idle answer, choose among the answers with statistics (pure).

One small signed question goes to the m best candidates in parallel; what comes within the deadline is judged: values far from the others
are set aside, the rest is ranked. The deadline moves forward once enough have answered, because the last answers are the slowest ones.
Source: outliers by the modified z-score over the median absolute deviation, Iglewicz, Hoaglin 1993, threshold 3.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median, pstdev
from typing import assert_never

from p2p.base.clock import Monotonic
from p2p.base.errors import InvariantBroken
from p2p.base.record import record

MAX_CANDIDATES = 64
OUTLIER_Z = 3.5
MIN_FOR_OUTLIERS = 5  # fewer say nothing about what is usual
MAD_TO_SIGMA = 0.6745  # of a normal distribution
ENOUGH_SHARE = 0.8  # of the candidates; then only as long again as these took
CPU_WEIGHT, NEAR_WEIGHT, TRUST_WEIGHT, PRICE_WEIGHT = 1.0, 0.5, 1.0, 0.5


@record(kw_only=True)
class Candidate:
    """A company that may be asked. ``trust``: 0..1, None while nothing is known of it."""

    key: bytes
    slots: int
    trust: float | None = None


@record(kw_only=True)
class Answer:
    """What a candidate said, verified to be its own."""

    key: bytes
    idle_slots: int
    speed: int = 0  # of one slot; 0: not measured
    price_milli: int = 0
    queued: int = 0  # its own jobs that wait
    max_frame_s: int = 0
    round_trip_s: float = 0.0


@record
class Began:
    """Ask now."""


@record
class Answered:
    """An answer came."""

    answer: Answer


@record
class Failed:
    """A candidate cannot be reached, or refused: ``code`` says which."""

    key: bytes
    code: str


@record
class Tick:
    """Time has passed."""


@record
class Ask:
    """Send the question."""

    candidate: Candidate


@record
class Over:
    """It is over: stop asking whoever has not answered."""

    outcome: Outcome


@record
class Spread:
    """What the answers say of one quantity, outliers left out."""

    count: int
    mean: float
    spread: float  # standard deviation
    dropped: int


@record
class Ranked:
    """One candidate that answered, and its place."""

    answer: Answer
    score: float
    outlier: str = ""  # which quantity lies far from the others; such a candidate comes last


@record
class Outcome:
    """Everything that asking brought."""

    ranked: tuple[Ranked, ...] = ()
    spreads: tuple[tuple[str, Spread], ...] = ()
    refused: tuple[tuple[bytes, str], ...] = ()  # key and code, "no-answer" for those that stayed silent


Event = Began | Answered | Failed | Tick
Effect = Ask | Over
QUANTITIES: tuple[tuple[str, Callable[[Answer], float]], ...] = (
    ("idle_slots", lambda a: float(a.idle_slots)),
    ("speed", lambda a: float(a.speed)),
    ("price_milli", lambda a: float(a.price_milli)),
    ("round_trip_s", lambda a: a.round_trip_s),
)


class Solicitation:
    """One round of asking."""

    def __init__(self, candidates: Sequence[Candidate], *, most: int, now: Monotonic, deadline_s: float) -> None:
        best = sorted(candidates, key=lambda c: (-(c.trust if c.trust is not None else 0.0), -c.slots, c.key))
        self._candidates = {c.key: c for c in best[: min(most, MAX_CANDIDATES)]}
        self._waiting = set(self._candidates)
        self._answers: dict[bytes, Answer] = {}
        self._refused: dict[bytes, str] = {}
        self._began_at = now
        self._deadline = Monotonic(now + deadline_s)
        self.outcome: Outcome | None = None

    def handle(self, event: Event, now: Monotonic) -> tuple[Effect, ...]:
        """Apply one event; after `Over` nothing changes any more."""
        if self.outcome is not None:
            return ()
        effects: list[Effect] = []
        match event:
            case Began():
                effects += [Ask(candidate) for candidate in self._candidates.values()]
            case Answered(answer):
                if answer.key in self._waiting:
                    self._waiting.discard(answer.key)
                    self._answers[answer.key] = answer
                    self._hurry(now)
            case Failed(key, code):
                if key in self._waiting:
                    self._waiting.discard(key)
                    self._refused[key] = code
            case Tick():
                pass
            case _:
                assert_never(event)
        if not self._waiting or now >= self._deadline:
            silent = dict.fromkeys(self._waiting, "no-answer")
            trust = {key: c.trust for key, c in self._candidates.items()}
            self.outcome = judge(list(self._answers.values()), trust, self._refused | silent)
            effects.append(Over(self.outcome))
        return tuple(effects)

    def _hurry(self, now: Monotonic) -> None:
        if len(self._answers) == max(2, math.ceil(ENOUGH_SHARE * len(self._candidates))):
            self._deadline = min(self._deadline, Monotonic(now + max(0.2, now - self._began_at)))

    def next_deadline(self) -> Monotonic | None:
        """When asking ends."""
        return self._deadline if self.outcome is None else None

    def validate(self) -> None:
        """Check invariants."""
        if len(self._waiting) + len(self._answers) + len(self._refused) != len(self._candidates):
            raise InvariantBroken("a candidate is lost or counted twice", candidates=len(self._candidates))


def judge(answers: Sequence[Answer], trust: dict[bytes, float | None], refused: dict[bytes, str]) -> Outcome:
    """Rank the answers: idle computing power first, then nearness, trust and price, each against the middle of all."""
    far: dict[bytes, str] = {}
    spreads: list[tuple[str, Spread]] = []
    for name, value in QUANTITIES:
        values = {a.key: value(a) for a in answers}
        out = outliers(values)
        kept = [v for key, v in values.items() if key not in out]
        if kept:
            spreads.append((name, Spread(len(kept), fmean(kept), pstdev(kept), len(out))))
        for key in out:
            far.setdefault(key, name)
    middle_s = median([a.round_trip_s for a in answers]) if answers else 0.0
    usual_speed = median([a.speed for a in answers if a.speed] or [1])

    def score(a: Answer) -> float:
        power = a.idle_slots * (a.speed or usual_speed) / usual_speed
        near = middle_s / (middle_s + a.round_trip_s) if middle_s + a.round_trip_s > 0 else 0.5
        known = trust.get(a.key)
        return (
            CPU_WEIGHT * math.log2(1 + power)
            + NEAR_WEIGHT * near
            + TRUST_WEIGHT * (known if known is not None else 0.0)
            - PRICE_WEIGHT * a.price_milli / 1000
        )

    ranked = [Ranked(a, round(score(a), 4), far.get(a.key, "")) for a in answers]
    ranked.sort(key=lambda r: (r.answer.idle_slots == 0, bool(r.outlier), -r.score, r.answer.key))
    return Outcome(tuple(ranked), tuple(spreads), tuple(sorted(refused.items())))


def outliers(values: dict[bytes, float]) -> set[bytes]:
    """Those whose modified z-score passes 3.5. Of fewer than five, or where most are equal, none is."""
    if len(values) < MIN_FOR_OUTLIERS:
        return set()
    middle = median(values.values())
    mad = median([abs(v - middle) for v in values.values()])
    if mad == 0:
        return set()
    return {key for key, v in values.items() if MAD_TO_SIGMA * abs(v - middle) / mad > OUTLIER_Z}
