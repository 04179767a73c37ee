"""The fragment strip: runs of states as rectangles, and the same as a table (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from p2p.base.record import record

STATES: Final = ("done", "failed", "leased", "waiting")
MAX_ROWS: Final = 40  # of the table twin; what is left out is said


@record
class Run:
    """Neighbouring fragments in one state. ``first`` and ``last``: fragment numbers; ``x``, ``width``: cells."""

    state: str
    first: int
    last: int
    x: int
    width: int


@record
class Strip:
    """What the job page draws."""

    runs: tuple[Run, ...]
    cells: int
    per_cell: int
    total: int

    @property
    def rows(self) -> tuple[Run, ...]:
        """The first runs, for the table."""
        return self.runs[:MAX_ROWS]


def strip_of(heatmap: dict[str, Any]) -> Strip:
    """The strip of a heat-map as `Chief.heatmap` gives it: cells as [state, run length] in order."""
    per_cell, total = max(1, int(heatmap.get("per_cell", 1))), int(heatmap.get("total") or 0)
    runs: list[Run] = []
    x = 0
    for state, width in _joined(heatmap.get("cells", ())):
        last = (x + width) * per_cell - 1
        runs.append(Run(state, x * per_cell, min(last, total - 1) if total else last, x, width))
        x += width
    return Strip(tuple(runs), x, per_cell, total)


def _joined(cells: Iterable[tuple[Any, Any]]) -> list[tuple[str, int]]:
    """Runs with equal neighbours joined and empty ones dropped."""
    joined: list[tuple[str, int]] = []
    for state, width in cells:
        name = state if state in STATES else "waiting"
        if joined and joined[-1][0] == name:
            joined[-1] = (name, joined[-1][1] + int(width))
        elif int(width) > 0:
            joined.append((name, int(width)))
    return joined
