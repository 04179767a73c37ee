"""How much of what could be lent is offered, period by period, from own receipts (pure).

A period is an hour of the calendar. It counts as soon as something is settled in it, and is judged anew at each settlement; hours in which
nothing was given, or in which this company asked nobody for anything, bring the offer back: who wants nothing is not kept short by anyone.
The rule of one period is `p2p.reputation.favours.Supply`. Bounded: three days are kept, which is long past where the rule forgets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from p2p.base.clock import UnixTime
from p2p.contracts.signing import Signed
from p2p.reputation.evidence import entry_of
from p2p.reputation.favours import FAIRNESS_WANTED, Supply
from p2p.reputation.owed import step_of

PERIOD_S = 3600
MAX_PERIODS = 72


@dataclass(slots=True)
class Period:
    """One hour, in core-milliseconds."""

    given: float = 0.0
    received: float = 0.0
    has_asked: bool = False  # this company offered somebody terms for slots


@dataclass(slots=True)
class Control:
    """The periods that are kept, and what follows from them."""

    me: bytes
    periods: dict[int, Period] = field(default_factory=dict)  # by the number of the hour
    _found: tuple[int, Supply] | None = None  # of this hour, until something comes

    def settled(self, half: Signed) -> None:
        """Own halves of receipts, each once."""
        entry = entry_of(half)
        step, period = step_of(entry, self.me), self._period(entry.ended)
        if step.is_given:
            period.given += step.value
        else:
            period.received += step.value

    def asked(self, at: UnixTime) -> bool:
        """This company asks another one for slots; False where that hour is known to have asked."""
        period = self._period(at)
        was, period.has_asked = period.has_asked, True
        return not was

    def asked_hours(self) -> list[int]:
        """For the database: whether it has asked stands in no receipt."""
        return sorted(number for number, period in self.periods.items() if period.has_asked)

    def take_asked(self, hours: Iterable[int]) -> None:
        """Out of the database."""
        for number in hours:
            self.asked(UnixTime(number * PERIOD_S))

    def at(self, now: UnixTime) -> Supply:
        """What is offered now."""
        current, supply = now // PERIOD_S, Supply()
        if self._found is not None and self._found[0] == current:
            return self._found[1]
        for number in range(max(min(self.periods, default=current), current - MAX_PERIODS), current + 1):
            period = self.periods.get(number, Period())
            if number < current or period.given or period.received:
                supply = supply.next(period.given, period.received, has_asked=period.has_asked)
        self._found = (current, supply)
        return supply

    def why(self, now: UnixTime) -> str:
        """In words, where less than all is offered; else nothing."""
        supply, current = self.at(now), now // PERIOD_S
        if supply.offered >= 1.0:
            return ""
        unfair = [n for n, p in self.periods.items() if n <= current and _is_unfair(p)]
        if not unfair:
            return f"{supply.offered:.0%} of what may be lent is offered"
        last, ago = self.periods[max(unfair)], current - max(unfair)
        at = "in this hour" if not ago else "in the hour before this one" if ago == 1 else f"{ago} hours ago"
        return (
            f"{supply.offered:.0%} of what may be lent is offered, because favours were not returned: {at} "
            f"{last.given / 3.6e6:.2f} core-hours were given and {last.received / 3.6e6:.2f} received, while this company asked others "
            "for slots; every hour without such a loss brings a tenth back"
        )

    def _period(self, at: UnixTime) -> Period:
        self._found = None
        found = self.periods.setdefault(at // PERIOD_S, Period())
        while len(self.periods) > MAX_PERIODS:
            del self.periods[min(self.periods)]
        return found


def _is_unfair(period: Period) -> bool:
    return period.has_asked and period.given > 0 and period.received / period.given < FAIRNESS_WANTED
