"""Favours: who gets idle slots while several want them, and how many are offered at all (pure).

A balance per company, never below zero, so a fresh identity is never better than a spent one. Received favours raise it, given ones lower
it. Slots go in proportion to balances; what is left goes to newcomers within their bound. It works under contention only, so the amount
offered is controlled too: a chief whose favours are not returned offers less.
Sources: Andrade et al. 2004 (network of favours: non-negative balance); Falcão et al. 2015 (control of the amount offered); the value
per finished fragment as in OurGrid's relative accounting. Code and sentences are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from p2p.base.record import record
from p2p.reputation.graph import newcomer_slots

FAIRNESS_WANTED = 0.95  # favours received per favour given, below which less is offered
CONTROL_STEP = 0.1  # of the capacity, per period
LEAST_OFFERED = 0.1  # of the capacity: who offers nothing can never be paid back


def favour_value(fragments: int, core_ms: int, own_core_ms_per_fragment: float | None) -> float:
    """What finished fragments are worth in core-ms, by one's own workers' yardstick where there is one: slowness does not pay."""
    if fragments <= 0:
        return 0.0
    return fragments * own_core_ms_per_fragment if own_core_ms_per_fragment is not None else float(core_ms)


@dataclass(slots=True)
class Favours:
    """One chief's balances, in core-milliseconds."""

    balances: dict[bytes, float] = field(default_factory=dict)

    def received(self, company: bytes, value: float) -> None:
        """It computed for me."""
        self.balances[company] = self.balances.get(company, 0.0) + max(0.0, value)

    def given(self, company: bytes, value: float) -> None:
        """I computed for it."""
        left = max(0.0, self.balances.get(company, 0.0) - max(0.0, value))
        if left > 0:
            self.balances[company] = left
        else:
            self.balances.pop(company, None)  # zero and unknown are the same, on purpose

    def share(self, wanted: Mapping[bytes, int], idle_slots: int, held: Mapping[bytes, int] | None = None) -> dict[bytes, int]:
        """Divide idle slots among who wants them: in proportion to balances; newcomers within their bound.

        ``held``: slots by who has them already. What newcomers hold counts against their bound, or a stream of them would have everything.
        """
        got = dict.fromkeys(sorted(wanted), 0)
        known = {c: self.balances[c] for c in got if self.balances.get(c, 0.0) > 0}
        new = sum(slots for company, slots in (held or {}).items() if self.balances.get(company, 0.0) <= 0)
        for_new = min(idle_slots, max(0, newcomer_slots(idle_slots + new) - new))
        reserved = min(for_new, sum(wanted[c] for c in got if c not in known)) if known else 0
        left = _fill(got, wanted, known, idle_slots - reserved)
        newcomers = dict.fromkeys((c for c in got if c not in known), 1.0)
        _fill(got, wanted, newcomers, min(left + reserved, for_new))
        return got


def _fill(got: dict[bytes, int], wanted: Mapping[bytes, int], weights: Mapping[bytes, float], slots: int) -> int:
    """Give slots one by one to whoever is furthest below its share; return how many nobody wanted."""
    total = sum(weights.values())
    while slots > 0:
        open_ = [c for c in weights if got[c] < wanted[c]]
        if not open_:
            break
        best = min(open_, key=lambda c: ((got[c] + 1) * total / weights[c], c))
        got[best] += 1
        slots -= 1
    return slots


@record
class Supply:
    """How much of its idle capacity a chief offers; the state of the control."""

    offered: float = 1.0  # share of the capacity
    step: float = CONTROL_STEP

    def next(self, given: float, received: float) -> Supply:
        """After a period: less when favours are not returned, more when they are."""
        if given <= 0:
            return replace(self, offered=min(1.0, self.offered + self.step))
        is_fair = received / given >= FAIRNESS_WANTED
        moved = self.offered + (self.step if is_fair else -self.step)
        return replace(self, offered=min(1.0, max(LEAST_OFFERED, moved)))
