"""Distributions of fragment sizes and of machine speeds, by counter, each of mean 1 (pure)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from simulator.chance import Floats, exponential, normal, seed_word, uniform

Draw = Callable[[int, npt.NDArray[Any]], Floats]


def _lognormal(sigma: float) -> Draw:
    return lambda key, at: np.asarray(np.exp(sigma * normal(key, at) - sigma * sigma / 2))


def _pareto(alpha: float) -> Draw:
    return lambda key, at: np.asarray((alpha - 1) / alpha * (1.0 - uniform(key, at)) ** (-1 / alpha))


def _bimodal(key: int, at: npt.NDArray[Any]) -> Floats:
    return np.where(uniform(key, at) < 0.9, 0.5, 5.5)


# name → numbers of mean 1; "pareto" has tail index 2.1: finite variance, as measured for session lengths and file sizes
DISTRIBUTIONS: Final[dict[str, Draw]] = {
    "constant": lambda key, at: np.ones(len(at)),
    "uniform": lambda key, at: np.asarray(2.0 * uniform(key, at)),
    "normal": lambda key, at: np.asarray(np.maximum(0.05, 1.0 + 0.25 * normal(key, at))),
    "exponential": exponential,
    "lognormal": _lognormal(1.0),
    "bimodal": _bimodal,
    "pareto": _pareto(2.1),
}


def draw_sizes(name: str, seed: int, count: int) -> Floats:
    """``count`` sizes of mean about 1, by name."""
    return DISTRIBUTIONS[name](seed_word(seed, f"sizes/{name}"), np.arange(count))


def draw_speeds(sigma: float, seed: int, count: int) -> Floats:
    """Speeds of machines: lognormal with that spread, median 1."""
    return np.asarray(np.exp(sigma * normal(seed_word(seed, "speeds"), np.arange(count))))


def lower_bound(durations: Floats, speeds: Floats) -> float:
    """No schedule ends sooner: all the work on all the machines, or the longest fragment on the fastest."""
    if not len(durations):
        return 0.0
    return max(math.fsum(durations) / math.fsum(speeds), float(durations.max() / speeds.max()))
