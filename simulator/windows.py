"""Events of a million nodes in windows of time, many at once (pure, vectorised).

All events inside one window are handled together, so a window must be shorter than the shortest delay between nodes: what happens in one
node in a window cannot reach another in the same window. Where random numbers are counters, the order inside a window does not matter.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from simulator.chance import Floats

Handle = Callable[[npt.NDArray[np.int64], Floats], Floats]


def run_windows(next_at: Floats, window_s: float, until_s: float, handle: Handle) -> int:
    """Advance every node; ``handle(nodes, times)`` returns when each is due next. ``next_at`` is changed. Returns the events handled."""
    handled = 0
    now = float(next_at.min(initial=until_s))
    while now < until_s:
        end = min(now + window_s, until_s)
        while True:
            nodes = np.flatnonzero(next_at < end)
            if not len(nodes):
                break
            next_at[nodes] = handle(nodes, next_at[nodes])
            handled += len(nodes)
        now = max(end, float(next_at.min(initial=until_s)))
    return handled
