"""Scenario ``company``: one job on one company of the shipped chief, in virtual time (pure)."""

from __future__ import annotations

from typing import Any

import numpy as np

from company.chief.specs import JobSpec
from simulator.chance import Floats, exponential, seed_word
from simulator.company_world import JOB, CompanyWorld
from simulator.parameters import Parameter
from simulator.scenario import Outcome, Plot, Progress, Scenario, Values
from simulator.sizes import DISTRIBUTIONS, draw_sizes, draw_speeds, lower_bound

PARAMETERS = (
    Parameter("workers", 20, "machines", 1, 10_000),
    Parameter("slots", 1, "slots per machine", 1, 64),
    Parameter("fragments", 4000, "fragments of the job", 1, 2_000_000),
    Parameter("mean-ms", 100.0, "mean time of a fragment on a machine of speed 1", 0.01, 1e7),
    Parameter("sizes", "lognormal", "distribution of fragment sizes; time is in proportion", choices=tuple(DISTRIBUTIONS)),
    Parameter("sigma", 0.3, "spread of the machines' speeds (lognormal)", 0, 3),
    Parameter("batching", "adaptive", "how fragments become batches", choices=("adaptive", "sqrt-window", "none")),
    Parameter("matching", "stable", "how batches meet slots", choices=("stable", "seed", "gale-shapley")),
    Parameter("failure", "log-z", "when a lease is late", choices=("log-z", "seed-z4")),
    Parameter("backups", True, "copy late leases to idle slots (log-z only)"),
    Parameter("slow-by", 1.0, "machine 0 gets so many times slower at a fifth of the lower bound", 1, 1e6),
    Parameter("crashes-per-hour", 0.0, "kills of each machine, which is back after 5 s", 0, 3600),
    Parameter("validate-every", 97, "check the machine's invariants after every n-th event; 0 never", 0, 1_000_000),
)  # fmt: skip
BACK_AFTER_S = 5.0


def run(values: Values, seed: int, progress: Progress) -> Outcome:
    """Build a company, run the job."""
    v = values
    durations = draw_sizes(v["sizes"], seed, v["fragments"]) * v["mean-ms"] / 1000
    speeds = draw_speeds(v["sigma"], seed, v["workers"])
    bound = lower_bound(durations, np.repeat(speeds, v["slots"]))
    matching = "seed" if v["matching"] == "seed" else "stable"
    batching = v["batching"]
    if v["matching"] == "gale-shapley":
        matching = "seed"  # the papers' own rounds
    spec = JobSpec(
        id=JOB, owner="a", package=b"p", processor=b"q", dataset=b"d", name=JOB, batching=batching, matching=matching, failure=v["failure"]
    )
    world = CompanyWorld(
        durations=durations, speeds=speeds, slots=v["slots"], spec=spec, seed=seed, backups=v["backups"] or v["failure"] == "seed-z4",
        validate_every=v["validate-every"],
    )  # fmt: skip
    if v["slow-by"] > 1:
        world.workers[0].slow_from_s, world.workers[0].slow_by = bound / 5, v["slow-by"]
    if v["crashes-per-hour"]:
        _plan_crashes(world, v["crashes-per-hour"], seed, bound * 20 + 60)
    progress(0.05)
    world.run()
    progress(1.0)
    slow_id = world.workers[0].spec.name
    noticed = (
        [at - bound / 5 for at, name in (*world.kicked, *world.copied) if name == slow_id and at >= bound / 5] if v["slow-by"] > 1 else []
    )
    total_s = float(durations.sum())
    metrics = {
        "makespan_s": world.ended_at,
        "lower_bound_s": bound,
        "ratio": world.ended_at / bound,
        "batches": world.batches,
        "batches_per_fragment": world.batches / v["fragments"],
        "messages": world.messages,
        "copies": world.copies,
        "kicks": world.kicks,
        "healthy_kicks": sum(name != slow_id for _, name in world.kicked) if v["slow-by"] > 1 else world.kicks,
        "noticed_after_s": min(noticed) if noticed else None,
        "utilisation": sum(w.busy_s * w.speed for w in world.workers if w.slow_by == 1) / max(total_s, 1e-12),
        "events": world.engine.events,
        "profile": profile(world, speeds),
    }
    return Outcome(metrics, plots(metrics))


def _plan_crashes(world: CompanyWorld, per_hour: float, seed: int, until_s: float) -> None:
    key = seed_word(seed, "crashes")
    for number in range(len(world.workers)):
        at, event = 0.0, 0
        while True:
            at += float(exponential(key, np.array([number]), event)[0]) * 3600 / per_hour
            event += 1
            if at > until_s:
                break
            world.engine.at(at, lambda n: world.crash(n, back_after_s=BACK_AFTER_S), number)


def profile(world: CompanyWorld, speeds: Floats) -> list[dict[str, Any]]:
    """Mean batch per machine, fastest first: z of its speed, and the batch as a share of the fastest machine's."""
    sums, counts = np.zeros(len(speeds)), np.zeros(len(speeds))
    for number, size in world.assigned:
        sums[number] += size
        counts[number] += 1
    mean = sums / np.maximum(counts, 1)
    sigma = float(speeds.std()) or 1.0
    order = np.argsort(-speeds, kind="stable")
    largest = float(mean[order[0]]) or 1.0
    return [{"z": (speeds[i] - speeds.mean()) / sigma, "batch": mean[i] / largest, "batches": counts[i]} for i in order]


def plots(metrics: dict[str, Any]) -> tuple[Plot, ...]:
    """Assigned batch against performance, beside the papers' line from M to M/2 at one σ below the fastest."""
    rows = sorted(metrics["profile"], key=lambda row: row["z"])
    x = [float(row["z"]) for row in rows]
    top = x[-1]
    return (
        Plot(
            "batch against performance", "performance, z-score", "mean batch, share of the fastest machine's", x,
            {"assigned": [float(row["batch"]) for row in rows], "the papers' line M/2 at one σ": [max(0.0, 1 - (top - z) / 2) for z in x]},
        ),
    )  # fmt: skip


COMPANY = Scenario(
    "company",
    "One job on one company: the shipped chief with its batching, matching, backup copies and failure rules, workers of different speed; "
    "makespan against the lower bound, who got what, who was kicked.",
    PARAMETERS,
    run,
    ("makespan_s", "lower_bound_s", "ratio", "batches", "copies", "kicks"),
)
