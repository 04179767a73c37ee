"""What a scenario is, and how its numbers are written down (pure).

A scenario is a function of its parameters and a seed: nothing else goes in, and the same numbers come out whatever the machine, the size
of a batch or the number of processes. Floats are rounded to 9 significant digits, so that the last bit of a logarithm does not matter.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from simulator.parameters import Parameter, Value

DIGITS: Final = 9
Progress = Callable[[float], None]  # told the share that is done
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture: curves over a common axis. ``curves``: name → y values (None = nothing there)."""

    title: str
    x_name: str
    y_name: str
    x: Sequence[float]
    curves: Mapping[str, Sequence[float | None]]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found."""

    metrics: dict[str, Any]
    plots: tuple[Plot, ...] = ()
    events: tuple[dict[str, Any], ...] = ()  # what happened when, where the engine keeps it


@dataclass(frozen=True, slots=True)
class Scenario:
    """A question that can be asked."""

    name: str
    text: str
    parameters: tuple[Parameter, ...]
    run: Callable[[Values, int, Progress], Outcome]
    headline: tuple[str, ...] = field(default=())  # metrics of the short table


def rounded(value: Any) -> Any:
    """The value as it is written: plain types, floats of 9 significant digits, no NaN (None instead)."""
    match value:
        case bool() | int() | str() | None:
            return value
        case float() | np.floating():
            number = float(value)
            return float(f"{number:.{DIGITS}g}") if math.isfinite(number) else None
        case np.bool_():
            return bool(value)
        case np.integer():
            return int(value)
        case np.ndarray():
            return [rounded(v) for v in value.tolist()]
        case Mapping():
            return {str(k): rounded(v) for k, v in value.items()}
        case _:
            return [rounded(v) for v in value]


def summary(scenario: Scenario, values: Mapping[str, Value], seed: int, outcome: Outcome) -> dict[str, Any]:
    """The object of ``--json``, without ``wall_s``."""
    return {"scenario": scenario.name, "parameters": rounded(values), "seed": seed, "metrics": rounded(outcome.metrics)}


def digest(result: Mapping[str, Any]) -> str:
    """A hash of everything but ``wall_s``: equal runs have equal digests."""
    plain = {k: v for k, v in result.items() if k != "wall_s"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def mean_and_error(values: Any) -> tuple[float, float]:
    """Mean and its standard error; error 0 for a single value."""
    x = np.asarray(values, dtype=np.float64)
    return float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else 0.0
