"""95 % intervals of a few numbers by Student's t, for tables and the findings' pages (pure)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

_T95: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179,
    2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086
)  # fmt: skip


def t95(freedom: int) -> float:
    """The factor of a standard error, by degrees of freedom from 1; past 20 that of 20, which is a little wide."""
    return _T95[min(freedom, len(_T95)) - 1]


def interval(values: Sequence[float]) -> str:
    """Mean and half the width of its 95 % interval; of one number itself."""
    if len(values) < 2:
        return f"{values[0]:.3g}" if values else "-"
    half = t95(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):.3g} ± {half:.2g}"
