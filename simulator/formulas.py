"""Closed forms that simulated cells are held to (pure).

Source: Sarmenta 2002, "Sabotage-tolerance mechanisms for volunteer computing systems"; Watanabe, Fukushi 2010 (m-first voting, eq. 7);
Anderson 2020 (BOINC's adaptive replication). Own implementation, so that it can disagree with the one that ships.
"""

from __future__ import annotations

import math


def voting_error(m: int, wrong: float) -> float:
    """P(m equal wrong answers come before m right ones), all the wrong agreeing; ``wrong`` = f·s."""
    n = 2 * m - 1
    return math.fsum(math.comb(n, j) * wrong**j * (1 - wrong) ** (n - j) for j in range(m, n + 1))


def voting_cost(m: int, wrong: float) -> float:
    """Expected answers until one side has m."""
    right = 1 - wrong
    return math.fsum(n * math.comb(n - 1, m - 1) * (wrong**m * right ** (n - m) + right**m * wrong ** (n - m)) for n in range(m, 2 * m))


def votes_needed(error: float, wrong: float, *, at_most: int = 200) -> int:
    """The smallest m whose error is at most that; raises ValueError where none up to ``at_most`` is."""
    for m in range(1, at_most + 1):
        if voting_error(m, wrong) <= error:
            return m
    raise ValueError(f"no m up to {at_most} reaches {error}")


def spot_check_error(f: float, s: float, q: float, n: int) -> float:
    """Share of wrong results left after n results per worker, caught saboteurs blacklisted and all their results undone."""
    left = (1 - q * s) ** n
    return s * f * left / ((1 - f) + f * left)


def spot_check_worst(f: float, q: float, n: int) -> float:
    """The bound over all s: f/(1−f) · 1/(q·n·e)."""
    return f / (1 - f) / (q * n * math.e)


def group_credibility(answers: dict[int, list[float]]) -> dict[int, float]:
    """Probability that each answer is right, from the credibilities of those who gave it; at most one answer is."""
    odds = {answer: math.prod(p / (1 - p) for p in ps) for answer, ps in answers.items()}
    total = 1 + math.fsum(odds.values())
    return {answer: o / total for answer, o in odds.items()}
