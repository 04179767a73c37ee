"""Favours: who gets idle slots while several want them, and how many are offered at all (pure).

A balance per company, never below zero, so a fresh identity is never better than a spent one. Received favours raise it, given ones lower
it. Slots go in proportion to balances; what is left goes to newcomers within their bound. It works under contention only, so the amount
offered is controlled too: a chief whose favours are not returned offers less. Chief and simulator ask the same functions here.
Sources: Andrade et al. 2004 (network of favours: non-negative balance); Falcão et al. 2015 (control of the amount offered); the value
per finished fragment as in OurGrid's relative accounting. Code and sentences are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


@record
class Ask:
    """One offer, or one contract: whose it is and how many slots it is about."""

    company: bytes
    slots: int


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

    def owed(self, company: bytes) -> float:
        """What this chief owes it; 0: nothing, or nothing is known of it."""
        return self.balances.get(company, 0.0)

    def share(
        self, wanted: Mapping[bytes, int], idle_slots: int, held: Mapping[bytes, int] | None = None, *, is_taken_back: bool = False
    ) -> dict[bytes, int]:
        """Divide idle slots among who wants them: in proportion to balances; newcomers within their bound.

        ``held``: slots by who has them already. What newcomers hold counts against their bound, or a stream of them would have everything.
        The last slot of all is no newcomer's while somebody owed wants it: on one slot the bound would be all there is. A balance is spent
        by what it buys, so that the wait is as long as the balance. Equals are served in the order of ``wanted``, which is that of asking:
        by key, who makes its key small would always come first.
        ``is_taken_back``: slots go back to who is owed as soon as it asks (`to_take_back`), so newcomers may have what nobody owed wants.
        """
        got = dict.fromkeys(wanted, 0)
        known = {c: self.balances[c] for c in got if self.balances.get(c, 0.0) > 0}
        new = sum(slots for company, slots in (held or {}).items() if self.balances.get(company, 0.0) <= 0)
        for_new = min(idle_slots, max(0, newcomer_slots(idle_slots + new) - new))
        reserved = max(0, min(for_new, idle_slots - 1, sum(wanted[c] for c in got if c not in known))) if known else 0
        left = _fill(got, wanted, known, idle_slots - reserved)
        newcomers = dict.fromkeys((c for c in got if c not in known), 1.0)
        _fill(got, wanted, newcomers, left + reserved if is_taken_back else min(left + reserved, for_new))
        return got

    def grant(
        self, asks: Sequence[Ask], idle_slots: int, held: Mapping[bytes, int] | None = None, *, is_taken_back: bool = False
    ) -> list[int]:
        """Slots for each of several offers that wait at one moment: a company's share goes to its offers in their order."""
        wanted: dict[bytes, int] = {}
        for ask in asks:
            wanted[ask.company] = wanted.get(ask.company, 0) + max(0, ask.slots)
        left = self.share(wanted, idle_slots, held, is_taken_back=is_taken_back) if idle_slots > 0 else {}
        found = []
        for ask in asks:
            slots = min(max(0, ask.slots), left.get(ask.company, 0))
            found.append(slots)
            left[ask.company] = left.get(ask.company, 0) - slots
        return found

    def to_take_back(self, lent: Sequence[Ask], asker: bytes, needed: int, capacity: int) -> list[int]:
        """Places in ``lent`` (oldest first) of contracts whose slots go back because a company that is owed asks for ``needed`` more.

        Only of companies that are owed nothing, the newest first, and no further than newcomers' share of the capacity: who is owed
        something is never displaced, by however much another is owed more, or contracts would end each other for ever.
        """
        if self.owed(asker) <= 0:
            return []
        unowed = [n for n, ask in enumerate(lent) if self.owed(ask.company) <= 0 and ask.company != asker]
        has = sum(lent[n].slots for n in unowed)
        kept = min(newcomer_slots(capacity), max(0, capacity - 1))
        found: list[int] = []
        for place in reversed(unowed):
            if needed <= 0 or has <= kept:
                break
            found.append(place)
            needed, has = needed - lent[place].slots, has - lent[place].slots
        return found


def _fill(got: dict[bytes, int], wanted: Mapping[bytes, int], weights: Mapping[bytes, float], slots: int) -> int:
    """Give slots one by one to whoever is furthest below its share; return how many nobody wanted."""
    total = sum(weights.values())
    while slots > 0:
        open_ = [c for c in weights if got[c] < wanted[c]]
        if not open_:
            break
        best = min(open_, key=lambda c: (got[c] + 1) * total / weights[c])
        got[best] += 1
        slots -= 1
    return slots


@record
class Supply:
    """How much of its idle capacity a chief offers; the state of the control."""

    offered: float = 1.0  # share of the capacity
    step: float = CONTROL_STEP

    def next(self, given: float, received: float, *, has_asked: bool = True) -> Supply:
        """After a period: less when favours are not returned, more when they are, or when none was given or asked for."""
        if given <= 0 or not has_asked:
            return replace(self, offered=min(1.0, self.offered + self.step))
        is_fair = received / given >= FAIRNESS_WANTED
        moved = self.offered + (self.step if is_fair else -self.step)
        return replace(self, offered=min(1.0, max(LEAST_OFFERED, moved)))

    def slots(self, capacity: int) -> int:
        """How many of so many slots are offered: one at least, where there is one."""
        return max(min(1, capacity), math.floor(capacity * self.offered + 1e-9))  # steps of a tenth do not add up to the last bit
