"""A score for the speed of one slot, measured on the chief's machine (I/O: reads the clock).

Thousands of steps of plain Python per second; it compares machines with each other roughly, and is signed in the advertisement.
"""

from __future__ import annotations

import time

MEASURED_S = 0.05


def measure_speed() -> int:
    """The score; takes 50 ms of one core."""
    rounds, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < MEASURED_S:
        total = 0
        for n in range(1000):
            total = (total * 31 + n) % 1_000_003
        rounds += 1
    return int(rounds / took)
