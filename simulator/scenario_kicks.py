"""Scenario ``kicks``: healthy workers that the shipped rules of slowness take for failed ones (pure)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from company.chief.health import new_slowness
from simulator.parameters import Parameter
from simulator.scenario import Outcome, Progress, Scenario, Values
from simulator.sizes import DISTRIBUTIONS, draw_sizes

PARAMETERS = (
    Parameter("rule", "seed-z4", "the rule that is asked", choices=("seed-z4", "log-z")),
    Parameter("sizes", "lognormal", "distribution of healthy run times", choices=tuple(DISTRIBUTIONS)),
    Parameter("mean-s", 10.0, "mean run time", 0.001, 1e6),
    Parameter("samples", 8, "run times that the rule has seen", 1, 100_000),
    Parameter("trials", 20_000, "how many healthy leases are judged", 1, 10_000_000),
    Parameter("slow-by", 10.0, "a slow worker takes so many times longer", 1, 1e6),
    Parameter(
        "prediction", "mean", "what log-z predicts: the mean of the job, or each lease's own time (declared costs)", choices=("mean", "own")
    ),
)


def run(values: Values, seed: int, progress: Progress) -> Outcome:
    """Judge fresh rules: each has seen ``samples`` healthy run times and is asked about one more."""
    v = values
    n, trials, mean_s = v["samples"], v["trials"], v["mean-s"]
    kind: Literal["log-z", "seed-z4"] = "seed-z4" if v["rule"] == "seed-z4" else "log-z"
    groups = max(1, min(trials, 200_000 // (n + 1)))
    asked_each = -(-trials // groups)
    kicked = asked = silent = 0
    slow_seen: list[float] = []
    for group in range(groups):
        times = draw_sizes(v["sizes"], seed * 1_000_003 + group, n + asked_each) * mean_s
        rule = new_slowness(kind)
        for t in times[:n]:
            rule.observe(_predicted(v, float(t)), float(t))
        for t in times[n:]:
            after = rule.slow_after_s(_predicted(v, float(t)), 0)
            asked += 1
            silent += after is None
            kicked += after is not None and t > after
            if after is not None and t * v["slow-by"] > after:
                slow_seen.append(after)
        if group % 64 == 0:
            progress(group / groups)
    progress(1.0)
    share = kicked / asked
    metrics: dict[str, Any] = {
        "healthy_kicked": share,
        "healthy_kicked_se": float(np.sqrt(max(share * (1 - share), 1 / asked) / asked)),
        "undecided": silent / asked,
        "slow_noticed": len(slow_seen) / asked,
        "slow_noticed_after_means": float(np.mean(slow_seen)) / mean_s if slow_seen else None,
    }
    return Outcome(metrics)


def _predicted(v: Values, own_s: float) -> float:
    return own_s if v["prediction"] == "own" else float(v["mean-s"])


KICKS = Scenario(
    "kicks",
    "The shipped rules of slowness, asked about healthy leases and about slow ones: the papers' z > 4 (--failure seed-z4) and the default "
    "on log(observed/predicted).",
    PARAMETERS,
    run,
    ("healthy_kicked", "slow_noticed", "slow_noticed_after_means", "undecided"),
)
