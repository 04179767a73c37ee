"""How long machines stay and stay away: session models with the published presets, or a trace (pure).

Source: Stutzbach, Rejaie 2006 (Weibull fits of BitTorrent swarms; 55 % of live Kad peers have been up for more than 5 h); Li et al. 2005
(exponential, mean 1 h); Heep 2010 (Weibull, shape 0.5, mean 10,000 s); Trautwein et al. 2022 (IPFS: median 24.2 min in Hong Kong, 87.6 %
of sessions below 8 h, here a lognormal through both); figures via reading notes. The fits of KAD and IPFS to those facts are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from p2p.base.errors import UsageError
from simulator.chance import Floats, exponential, normal, seed_word, uniform

MINUTE: Final = 60.0
_GRID: Final = 4001


@dataclass(frozen=True, slots=True)
class Sessions:
    """A distribution of session lengths. ``scale_s``: mean (exponential), scale (weibull) or median (lognormal), seconds."""

    kind: Literal["exponential", "weibull", "lognormal", "trace"]
    scale_s: float
    shape: float = 1.0
    trace_s: tuple[float, ...] = ()

    @property
    def mean_s(self) -> float:
        """Mean session length."""
        match self.kind:
            case "exponential":
                return self.scale_s
            case "weibull":
                return self.scale_s * math.gamma(1 + 1 / self.shape)
            case "lognormal":
                return self.scale_s * math.exp(self.shape**2 / 2)
            case "trace":
                return math.fsum(self.trace_s) / len(self.trace_s)

    def survival(self, age_s: Floats) -> Floats:
        """P(a session lasts longer than that)."""
        match self.kind:
            case "exponential":
                return np.asarray(np.exp(-age_s / self.scale_s))
            case "weibull":
                return np.asarray(np.exp(-((age_s / self.scale_s) ** self.shape)))
            case "lognormal":
                z = np.log(np.maximum(age_s, 1e-9) / self.scale_s) / self.shape
                return np.asarray([0.5 * math.erfc(x / math.sqrt(2)) for x in z.ravel()]).reshape(np.shape(age_s))
            case "trace":
                ordered = np.sort(np.asarray(self.trace_s))
                return np.asarray(1 - np.searchsorted(ordered, age_s, side="right") / len(ordered))

    def draw(self, seed: int, node: npt.NDArray[Any], session: npt.NDArray[Any] | int) -> Floats:
        """Length of each node's session number ``session``."""
        key = seed_word(seed, "sessions")
        match self.kind:
            case "exponential":
                return self.scale_s * exponential(key, node, session)
            case "weibull":
                return np.asarray(self.scale_s * exponential(key, node, session) ** (1 / self.shape))
            case "lognormal":
                return np.asarray(self.scale_s * np.exp(self.shape * normal(key, node, session)))
            case "trace":
                return np.asarray(self.trace_s)[(uniform(key, node, session) * len(self.trace_s)).astype(np.int64)]

    def stale_share(self, refresh_s: float) -> float:
        """The share of contacts that have left, when each was seen alive at a uniformly random time within the last ``refresh_s``.

        A live peer is met in proportion to its session's length; so what it still stays follows P(> a) = ∫_a^∞ S / mean.
        """
        ages = np.linspace(0.0, refresh_s, _GRID)
        survival = self.survival(ages)
        step = ages[1] - ages[0]
        gone = np.concatenate(([0.0], np.cumsum((survival[1:] + survival[:-1]) / 2 * step))) / self.mean_s
        return float(np.clip(np.mean((gone[1:] + gone[:-1]) / 2), 0.0, 1.0))


PRESETS: Final[dict[str, Sessions]] = {
    "exponential-1h": Sessions("exponential", 3600.0),
    "weibull-kad": Sessions("weibull", 7790.0, 0.5),
    "weibull-oversim": Sessions("weibull", 5000.0, 0.5),
    "weibull-redhat": Sessions("weibull", 21.3 * MINUTE, 0.34),
    "weibull-debian": Sessions("weibull", 42.4 * MINUTE, 0.38),
    "weibull-flatout": Sessions("weibull", 41.9 * MINUTE, 0.59),
    "lognormal-ipfs": Sessions("lognormal", 24.2 * MINUTE, 2.587),
}


def from_trace(lengths_s: Sequence[float]) -> Sessions:
    """Sessions drawn from measured lengths. Raises `UsageError` for an empty trace or a length that is not positive."""
    if not lengths_s or not all(0 < x < math.inf for x in lengths_s):
        raise UsageError("simulation-parameters", "a trace of session lengths has one positive number of seconds per line")
    return Sessions("trace", 0.0, trace_s=tuple(float(x) for x in lengths_s))
