"""One's own experience as one number: a decayed Beta lower bound (pure).

Each contract is one observation, good or bad; it weighs half after 30 days. The score is the value that the share of good contracts
passes with 95 % certainty, from the prior 1:1; so few contracts give a low score and no contract 0.05.
Source: Jøsang, Ismail 2002 (Beta reputation, forgetting); the incomplete beta function by Lentz's continued fraction, DLMF 8.17.22.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from p2p.base.record import record

HALF_LIFE_S = 30 * 86_400
PRIOR_GOOD = 1.0
PRIOR_BAD = 1.0
CERTAINTY = 0.95
MAX_AGE_HALF_LIVES = 60  # older evidence weighs nothing that a float could show


@record
class Observation:
    """One contract's outcome."""

    is_good: bool
    age_s: float


@record
class Score:
    """The number with everything it is made of."""

    value: float
    good: float  # decayed, without the prior
    bad: float
    contracts: int
    completed: int


def weight(age_s: float) -> float:
    """What an observation of that age weighs; one dated in the future weighs 1."""
    return float(0.5 ** min(MAX_AGE_HALF_LIVES, max(0.0, age_s) / HALF_LIFE_S))


def score(observations: Iterable[Observation]) -> Score:
    """The decayed lower bound of all observations."""
    good = bad = 0.0
    contracts = completed = 0
    for seen in observations:
        contracts += 1
        if seen.is_good:
            completed += 1
            good += weight(seen.age_s)
        else:
            bad += weight(seen.age_s)
    return Score(beta_quantile(PRIOR_GOOD + good, PRIOR_BAD + bad, 1 - CERTAINTY), good, bad, contracts, completed)


def beta_quantile(a: float, b: float, p: float) -> float:
    """The x below which a Beta(a, b) variable lies with probability ``p``; by Newton's steps within a shrinking bracket, to 1e-12."""
    low, high = 0.0, 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    x = a / (a + b)
    for _ in range(100):
        too_much = beta_cdf(a, b, x) - p
        low, high = (x, high) if too_much < 0 else (low, x)
        slope = math.exp(log_front + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x))
        following = x - too_much / slope if slope > 0 else -1.0
        if not low < following < high:
            following = (low + high) / 2  # the step left the bracket: halve it instead
        if abs(following - x) < 1e-13 * max(x, 1e-3) or high - low < 1e-15:
            return following
        x = following
    return x


def beta_cdf(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _continued_fraction(a, b, x) / a
    return 1 - front * _continued_fraction(b, a, 1 - x) / b


def _continued_fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    value = d
    for n in range(1, 1000):
        even = n * (b - n) * x / ((a + 2 * n - 1) * (a + 2 * n))
        odd = -(a + n) * (a + b + n) * x / ((a + 2 * n) * (a + 2 * n + 1))
        for part in (even, odd):
            d = 1 / (1 + part * d or tiny)
            c = 1 + part / c or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return value
