"""Scenario ``dht``: look-ups in a network of any size up to 16 million nodes, vectorised (pure)."""

from __future__ import annotations

from typing import Any

import numpy as np

from p2p.base.errors import UsageError
from p2p.dht.parameters import Parameters
from simulator.churn import PRESETS
from simulator.dht_exact import ExactNetwork
from simulator.dht_hops import hop_counts
from simulator.dht_paths import UNFINISHED, disjoint_lookups, predicted_success
from simulator.dht_search import Found, Search, search
from simulator.dht_tables import MAX_NODES, Tables
from simulator.parameters import Parameter
from simulator.scenario import Outcome, Plot, Progress, Scenario, Values, mean_and_error

EXACT_NODES = 20_000
PARAMETERS = (
    Parameter("nodes", 10_000, "size of the network", 2, MAX_NODES),
    Parameter("k", 20, "contacts per bucket", 1, 256),
    Parameter("alpha", 4, "queries in flight", 1, 32),
    Parameter("beta", 1, "contacts that a reply carries in the hop-count setting", 1, 32),
    Parameter("resiliency", 3, "closest nodes that must have answered before a look-up for a key ends", 1, 256),
    Parameter("lookups", 20_000, "how many look-ups", 1, 50_000_000),
    Parameter("target", "node", "look for a node, or for the nodes closest to a key", choices=("node", "key")),
    Parameter("dead", 0.0, "share of contacts that do not answer", 0, 0.95),
    Parameter("churn", "none", "sessions that make contacts stale (adds to dead)", choices=("none", *PRESETS)),
    Parameter("refresh-s", 3600.0, "how long ago a contact was seen alive at most", 1, 1e7),
    Parameter("loss", 0.0, "share of packets lost, each way", 0, 0.9),
    Parameter("timeout-s", 1.0, "until a request is sent again", 0.01, 60),
    Parameter("retransmits", 1, "how often a request is sent again", 0, 10),
    Parameter("hedge-s", 0.5, "after that a late query frees its place in the window", 0.01, 60),
    Parameter("adversaries", 0.0, "share of nodes that return only colluders", 0, 0.99),
    Parameter("disjoint", 1, "disjoint paths", 1, 32),
    Parameter("engine", "vector", "vector: any size; exact: the shipped core, to some thousands of nodes", choices=("vector", "exact")),
)  # fmt: skip


def run(values: Values, seed: int, progress: Progress) -> Outcome:
    """Build the network and look up."""
    v = values
    if v["engine"] == "exact":
        return _run_exact(v, seed, progress)
    tables = Tables(v["nodes"], v["k"], seed)
    progress(0.05)
    stale = PRESETS[v["churn"]].stale_share(v["refresh-s"]) if v["churn"] != "none" else 0.0
    dead = 1 - (1 - v["dead"]) * (1 - stale)
    how = Search(
        alpha=v["alpha"], resiliency=v["resiliency"], target=v["target"], dead=dead, loss=v["loss"], timeout_s=v["timeout-s"],
        retransmits=v["retransmits"], hedge_s=v["hedge-s"],
    )  # fmt: skip
    found = search(tables, how, lookups=v["lookups"], seed=seed)
    progress(0.6)
    metrics = window_metrics(found)
    metrics["dead_share"] = dead
    if v["target"] == "node" and dead == 0 and v["loss"] == 0:
        hops, messages = hop_counts(tables, alpha=v["alpha"], beta=v["beta"], lookups=v["lookups"], seed=seed)
        metrics["hops"] = hop_metrics(hops)
        metrics["messages_per_lookup_rounds"] = float(messages.mean())
    progress(0.8)
    if v["adversaries"] > 0 or v["disjoint"] > 1:
        metrics |= _adversaries(tables, values, seed)
    metrics["network_bytes"] = tables.size_bytes
    progress(1.0)
    return Outcome(metrics, plots(metrics, found))


def _run_exact(v: Values, seed: int, progress: Progress) -> Outcome:
    """Look-ups for keys by the shipped core; churn, adversaries and hedging times are not among what it takes."""
    wrong = [
        text
        for is_wrong, text in (
            (v["target"] != "key", "engine exact looks for keys: add --target key"),
            (v["adversaries"] > 0, "engine exact has no adversaries: those are the vectorised engine's, or scenario overlay's faults"),
            (v["churn"] != "none", "engine exact has no churn among its contacts; say --dead instead, or see scenario overlay"),
            (v["nodes"] > EXACT_NODES, f"engine exact takes at most {EXACT_NODES} nodes, got {v['nodes']}"),
        )
        if is_wrong
    ]
    if wrong:
        raise UsageError("simulation-parameters", "\n".join(wrong), errors=wrong)
    rto_s = v["timeout-s"]
    shipped = Parameters(
        k=v["k"], alpha=v["alpha"], resiliency=v["resiliency"], paths=v["disjoint"], first_rto_s=rto_s, min_rto_s=rto_s, max_rto_s=rto_s
    )
    world = ExactNetwork(v["nodes"], seed=seed, parameters=shipped, dead=v["dead"], loss=v["loss"], validate_every=101)
    progress(0.3)
    found = world.found(world.look_up(v["lookups"], width=v["resiliency"]))
    metrics = window_metrics(found) | {"events": world.engine.events, "datagrams": world.network.sent, "bytes": world.network.sent_bytes}
    progress(1.0)
    return Outcome(metrics, plots(metrics, found))


def hop_metrics(hops: Any) -> dict[str, Any]:
    """Mean, its standard error and the distribution."""
    mean, error = mean_and_error(hops)
    return {"mean": mean, "error": error, "cdf": [float((hops <= h).mean()) for h in range(1, int(hops.max()) + 1)]}


def window_metrics(found: Found) -> dict[str, Any]:
    """What the sliding-window look-ups came to."""
    p50, p90, p99 = np.percentile(found.latency_s, [50, 90, 99])
    return {
        "success": float(found.is_success.mean()),
        "recall": float(found.recall.mean()),
        "hops": hop_metrics(found.hops),
        "latency_s": {"p50": p50, "p90": p90, "p99": p99, "mean": float(found.latency_s.mean())},
        "messages_per_lookup": float(found.messages.mean()),
    }


def _adversaries(tables: Tables, v: Values, seed: int) -> dict[str, Any]:
    calm = disjoint_lookups(tables, paths=v["disjoint"], adversaries=0.0, lookups=v["lookups"], seed=seed)
    paths = disjoint_lookups(tables, paths=v["disjoint"], adversaries=v["adversaries"], lookups=v["lookups"], seed=seed)
    mean, error = mean_and_error(paths.is_success)
    return {
        "success": mean,
        "success_error": error,
        "success_formula": predicted_success(calm.lengths, v["adversaries"]),
        "path_length": float(calm.lengths[calm.lengths != UNFINISHED].mean()),
        "messages_per_lookup_disjoint": float(paths.messages.mean()),
    }


def plots(metrics: dict[str, Any], found: Found) -> tuple[Plot, ...]:
    """Hops and latency as distributions."""
    cdf = metrics["hops"]["cdf"]
    shares = np.linspace(0.01, 0.99, 99)
    return (
        Plot("hops", "hops", "share of look-ups that took at most so many", [0, *range(1, len(cdf) + 1)], {"measured": [0.0, *cdf]}),
        Plot("latency", "seconds", "share of look-ups", np.quantile(found.latency_s, shares).tolist(), {"measured": shares.tolist()}),
    )


DHT = Scenario(
    "dht",
    "Look-ups in a stabilised Kademlia network: hop counts in the setting of the literature, and latency, messages, recall and success "
    "of sliding-window look-ups under dead contacts, churn, packet loss, adversaries and disjoint paths.",
    PARAMETERS,
    run,
    ("hops.mean", "success", "recall", "latency_s.p50", "latency_s.p99", "messages_per_lookup"),
)
