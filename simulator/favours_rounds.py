"""A network of favours: who is lent to when everybody remembers who lent to him (pure, vectorised).

A round: each collaborator wants ``demand`` machines with probability ρ and otherwise offers one; a free rider always wants and never
offers. A lender divides its machine among those who ask in proportion to what it owes them; what is left goes to all alike. received:
balance += value; given: balance = max(0, balance − value). With control of supply, a lender offers less while lending more brings no
better ratio of received to given (hill climbing on its own ratio).

Source: Andrade, Brasileiro, Cirne, Mowbray 2004/2007 (network of favours); Falcão, Brasileiro et al. 2015 (FD-NoF: feedback on the amount).
The model is ours: the published curves could not be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from simulator.chance import Floats, seed_word, uniform

PASSES: Final = 4  # what a full borrower leaves is offered to the others so many times
STEP: Final = 0.1
REVIEW_ROUNDS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FavourRules:
    """``memory``: none (all alike), favours, or favours with the root of what was ever received added."""

    peers: int
    free_riders: float
    wants: float
    demand: float
    memory: Literal["none", "favours", "history"] = "favours"
    whitewash: bool = False
    control: bool = False
    rounds: int = 1500


def run_favours(rules: FavourRules, seed: int) -> dict[str, Any]:
    """Run the rounds; shares are those of the last third."""
    n, key = rules.peers, seed_word(seed, "favours")
    riders = np.arange(n) < round(rules.free_riders * n)
    owed, history = np.zeros((n, n)), np.zeros((n, n))  # [lender, borrower]
    got, gave, wanted = np.zeros(n), np.zeros(n), np.zeros(n)
    offer, direction, last_ratio = np.ones(n), np.full(n, -1.0), np.zeros(n)
    window_got, window_gave = np.zeros(n), np.zeros(n)
    supply_total = demand_total = 0.0
    for number in range(rules.rounds):
        wants = riders | (uniform(key, np.arange(n), number) < rules.wants)
        demand = np.where(wants, rules.demand, 0.0)
        supply = np.where(wants, 0.0, offer)
        weight = {"none": np.ones((n, n)), "favours": owed, "history": np.maximum(0.0, owed + np.sqrt(np.maximum(0.0, history)))}[
            rules.memory
        ]
        lent = _share(weight, supply, demand)
        owed = np.maximum(0.0, owed - lent)
        owed += lent.T  # whoever received owes
        history += lent.T
        if rules.whitewash:
            owed[:, riders] = history[:, riders] = 0.0
        received, given = lent.sum(axis=0), lent.sum(axis=1)
        window_got += received
        window_gave += given
        if rules.control and number % REVIEW_ROUNDS == REVIEW_ROUNDS - 1:
            ratio = window_got / np.maximum(window_gave, 1e-9)
            direction = np.where(ratio < last_ratio, -direction, direction)
            offer = np.clip(offer + STEP * direction, STEP, 1.0)
            last_ratio, window_got, window_gave = ratio, np.zeros(n), np.zeros(n)
        if number >= rules.rounds * 2 // 3:
            got, gave, wanted = got + received, gave + given, wanted + demand
            supply_total, demand_total = supply_total + float(supply.sum()), demand_total + float(demand.sum())
    return _measures(riders, got, gave, wanted, supply_total, demand_total)


def _share(weight: Floats, supply: Floats, demand: Floats) -> Floats:
    """What each lender gives each borrower: by weight first, then alike, nobody more than he wants."""
    lenders, borrowers = np.flatnonzero(supply > 0), np.flatnonzero(demand > 0)
    lent = np.zeros((len(supply), len(demand)))
    left, room = supply[lenders].copy(), demand[borrowers].copy()
    for by_weight in (True,) * PASSES + (False,) * PASSES:
        parts = weight[np.ix_(lenders, borrowers)] if by_weight else np.ones((len(lenders), len(borrowers)))
        parts = parts * (room > 1e-12)
        total = parts.sum(axis=1, keepdims=True)
        offered = np.divide(parts * left[:, None], total, out=np.zeros_like(parts), where=total > 0)
        asked = offered.sum(axis=0)
        offered *= np.minimum(1.0, np.divide(room, asked, out=np.ones_like(room), where=asked > 0))
        lent[np.ix_(lenders, borrowers)] += offered
        left -= offered.sum(axis=1)
        room -= offered.sum(axis=0)
    return lent


def _measures(riders: Any, got: Floats, gave: Floats, wanted: Floats, supply: float, demand: float) -> dict[str, Any]:
    honest = ~riders
    share = got / np.maximum(wanted, 1e-9)  # of what was wanted: a free rider wants more often
    ordered = np.sort(got)
    n = len(got)
    return {
        "contention": demand / supply if supply else None,
        "share_per_free_rider": float(share[riders].mean() / max(float(share[honest].mean()), 1e-9)) if riders.any() else None,
        "satisfaction": float(share[honest].mean()),
        "satisfaction_of_free_riders": float(share[riders].mean()) if riders.any() else None,
        "received_per_given": float(got[honest].sum() / max(float(gave[honest].sum()), 1e-9)),
        "gini": float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * max(float(ordered.sum()), 1e-9))),
    }
