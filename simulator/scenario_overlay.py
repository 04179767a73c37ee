"""Scenario ``overlay``: a small network with everything in it, as shipped, and what faults do to it (pure)."""

from __future__ import annotations

from typing import Any

import numpy as np

from simulator.churn import PRESETS
from simulator.market_exact import MarketRules
from simulator.overlay import Faults, OverlayWorld
from simulator.parameters import Parameter
from simulator.scenario import Outcome, Progress, Scenario, Values
from simulator.scenario_exact_market import KINDS, measures

PARAMETERS = (
    Parameter("companies", 60, "companies, each with a node of the DHT", 4, 5000),
    Parameter("workers", 10, "workers of each company", 1, 1024),
    Parameter("hours", 2.0, "virtual hours", 0.01, 10_000),
    Parameter("load", 0.6, "wanted work as a share of all workers' time", 0.01, 10),
    Parameter("job-hours", 20.0, "core-hours of a job", 0.01, 1e6),
    *(Parameter(name, 0.0, f"share of companies: {kind}", 0, 0.9) for name, kind in KINDS.items()),
    Parameter("sabotage-rate", 0.2, "how often saboteurs cheat", 0, 1),
    Parameter("whitewash", False, "free riders and caught saboteurs come back under new names"),
    Parameter("churn", "none", "sessions; away for half an hour on average", choices=("none", *PRESETS)),
    Parameter("epoch-s", 300, "seconds between statements; a lease is three of them", 10, 3600),
    Parameter("loss", 0.0, "share of packets lost", 0, 0.9),
    Parameter("journal-ms", 3.0, "until a record is on disk", 0, 60_000),
    Parameter("lost-records", 0, "records that the disk had only claimed to have, at every crash", 0, 100),
    Parameter("fault-at-s", 3600.0, "when the faults below happen", 0, 1e8),
    Parameter("fault-for-s", 600.0, "how long they last", 0, 1e8),
    Parameter("crashed", 0.0, "share of companies that are killed and come back", 0, 1),
    Parameter("frozen", 0.0, "share that stands still and goes on", 0, 1),
    Parameter("cut-off", 0.0, "share that is on an island of its own", 0, 1),
    Parameter("skewed", 0.0, "share whose calendars leap", 0, 1),
    Parameter("skew-s", 300.0, "… by so much", -1e9, 1e9),
    Parameter("validate-every", 101, "check a book's invariants after every n-th event; 0 never", 0, 10_000_000),
)  # fmt: skip


def run(values: Values, seed: int, progress: Progress) -> Outcome:
    """One overlay."""
    v = values
    rules = MarketRules(
        companies=v["companies"], workers=v["workers"], hours=v["hours"], kinds={kind: v[name] for name, kind in KINDS.items() if v[name]},
        sabotage_rate=v["sabotage-rate"], whitewash=v["whitewash"], load=v["load"], job_hours=v["job-hours"],
        churn=None if v["churn"] == "none" else PRESETS[v["churn"]], epoch_s=v["epoch-s"], lease_s=3 * v["epoch-s"], loss=v["loss"],
        journal_s=v["journal-ms"] / 1000, lost_records=v["lost-records"], validate_every=v["validate-every"],
    )  # fmt: skip
    faults = Faults(
        at_s=v["fault-at-s"], for_s=v["fault-for-s"], crashed=v["crashed"], frozen=v["frozen"], cut_off=v["cut-off"], skewed=v["skewed"],
        skew_s=v["skew-s"],
    )  # fmt: skip
    world = OverlayWorld(rules, seed, faults)
    world.run(progress)
    return Outcome(measures(world) | {"dht": dht_measures(world)})


def dht_measures(world: OverlayWorld) -> dict[str, Any]:
    """What the nodes did."""
    count, seconds = world.finds["all"], world.rules.hours * 3600 * len(world.nodes)
    return {
        "finds": count,
        "found_share": world.finds["found"] / max(1, count),
        "listings_per_find": world.finds["listings"] / max(1, count),
        "find_s": {"p50": float(np.median(world.find_s)), "p99": float(np.percentile(world.find_s, 99))} if world.find_s else None,
        "contacts": float(np.mean([len(n.agent.core.table) for n in world.nodes])),
        "datagrams_per_s_per_node": world.datagrams / seconds,
        "bytes_per_s_per_node": world.dht_bytes / seconds,
    }


OVERLAY = Scenario(
    "overlay",
    "Everything together, as shipped: nodes of the DHT that join, publish and look for lenders, contracts, ledgers, receipts, reputation, "
    "favours; with churn, loss, crashes, freezes, islands, leaping calendars and disks that lie.",
    PARAMETERS,
    run,
    (
        "contracts",
        "borrowed_share",
        "error_rate",
        "forks",
        "dht.found_share",
        "dht.find_s.p50",
        "dht.bytes_per_s_per_node",
        "bytes_per_s_per_company",
    ),
)
