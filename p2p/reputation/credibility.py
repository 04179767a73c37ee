"""How far results of strangers may be believed: every formula, one function each (pure).

``f``: share of bad companies, ``s``: how often a bad one cheats, ``q``: share of checks, ``n``: results per company, ``m``: equal answers
needed. Sources: Sarmenta 2001/2002 (voting, spot-checks, credibility); the group formula also stands in iExec's contract code; the
voting figures 15, 29 and 51 are those of Watanabe, Fukushi 2010.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

A = TypeVar("A")


def voting_error(m: int, phi: float) -> float:
    """Chance that ``m``-first voting accepts a wrong answer, if all wrong ones agree; ``phi`` = f·s is the share of wrong answers."""
    if m < 1:
        raise ValueError(f"at least one vote is needed, got {m}")
    n = 2 * m - 1
    return math.fsum(math.comb(n, j) * phi**j * (1 - phi) ** (n - j) for j in range(m, n + 1))


def votes_needed(phi: float, epsilon: float, most: int = 500) -> int:
    """The least ``m`` whose error is at most ``epsilon``. Raises `ValueError` where no number of votes helps."""
    votes = range(1, most + 1) if phi < 0.5 else range(0)  # where half of the answers are wrong, more of them do not help
    found = next((m for m in votes if voting_error(m, phi) <= epsilon), None)
    if found is None:
        raise ValueError(f"with {phi:.0%} of answers wrong, votes do not bring the error under {epsilon}")
    return found


def voting_cost(m: int, phi: float) -> float:
    """Expected answers per fragment until ``m`` of them agree."""
    total = 0.0
    for n in range(m, 2 * m):
        ways = math.comb(n - 1, m - 1)
        total += n * ways * (phi**m * (1 - phi) ** (n - m) + (1 - phi) ** m * phi ** (n - m))
    return total


def spot_check_error(f: float, s: float, q: float, n: int) -> float:
    """Share of wrong results that remain, when a failed check invalidates everything of its company."""
    survives = (1 - q * s) ** n
    return s * f * survives / ((1 - f) + f * survives)


def spot_check_bound(f: float, q: float, n: int) -> float:
    """The same at worst over all ``s``: a cheat does best at a rate that it can keep up unseen."""
    return f / (1 - f) / (q * n * math.e)


def company_credibility(f: float, passed: float) -> float:
    """Credibility of a result of a company that passed so many checks. New identities are free, so blacklisting is not assumed."""
    return 1 - f if passed < 1 else 1 - f / passed


def checks_needed(f: float, epsilon: float) -> int:
    """Passed checks until one company's result alone is believed."""
    return max(1, math.ceil(f / epsilon - 1e-9)) if f > epsilon else 0


def group_credibility(groups: Mapping[A, Sequence[float]]) -> dict[A, float]:
    """Credibility of each of the answers to one fragment, from the credibility of those who gave it."""
    odds = {answer: math.prod(p / (1 - p) for p in members) for answer, members in groups.items()}
    total = 1 + math.fsum(odds.values())
    return {answer: each / total for answer, each in odds.items()}
