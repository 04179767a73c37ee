"""Contract path 5/8 - which results of one job other companies computed, and which of them are believed (pure).

A foreign result is on disk like any other and *provisional*: merge and readers do not see it until its company is believed in this
job. What is believed is remembered too, because one wrong answer takes everything of its company back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from company.chief.ranges import Piece, RangeSet
from p2p.base.record import record


@record
class Worked:
    """What one company did of a job under one contract. ``contract``: hex."""

    company: str
    contract: str
    results: int
    run_us: int


@dataclass(slots=True)
class Foreign:
    """By company id. ``abroad``: whether own runs of one fragment agree, so that answers can be compared at all; None: not known."""

    abroad: bool | None = None
    why: str = ""
    provisional: dict[str, RangeSet] = field(default_factory=dict)
    believed: dict[str, RangeSet] = field(default_factory=dict)
    caught: set[str] = field(default_factory=set)

    def came(self, origin: str, ranges: Iterable[Piece], *, is_checked: bool = True) -> None:
        """These were accepted from a company. Without checks they count at once, as its contract says."""
        mine = (self.provisional if is_checked else self.believed).setdefault(origin, RangeSet())
        for first, count in ranges:
            mine.add(first, count)

    def believe(self, origin: str) -> int:
        """All of a company's results so far count; returns how many those are."""
        mine = self.provisional.pop(origin, None)
        if mine is None:
            return 0
        kept = self.believed.setdefault(origin, RangeSet())
        for first, count in mine:
            kept.add(first, count)
        return mine.total

    @property
    def is_open(self) -> bool:
        """Whether a result waits to be believed."""
        return bool(self.provisional)

    @property
    def waiting(self) -> int:
        """How many results wait to be believed."""
        return sum(mine.total for mine in self.provisional.values())

    def of(self, origin: str) -> int:
        """How many results of a company there are."""
        return sum(group[origin].total for group in (self.provisional, self.believed) if origin in group)

    def origins(self) -> set[str]:
        return {*self.provisional, *self.believed}

    def shown(self, first: int, count: int) -> list[Piece]:
        """The parts of a range that readers may see."""
        parts = [(first, count)]
        for mine in self.provisional.values():
            parts = [x for a, n in parts for x in mine.missing(a, n)]
        return parts
