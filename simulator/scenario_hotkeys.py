"""Scenario ``hotkeys``: what popular capabilities cost the nodes that hold their advertisements (pure)."""

from __future__ import annotations

from typing import Any

import numpy as np

from p2p.dht.advertisement import MAX_LEVEL, level_for, levels_used, shard_key
from simulator.chance import seed_word, uniform, words
from simulator.dht_search import closest
from simulator.dht_tables import LOW, MAX_NODES, NONE, Tables
from simulator.parameters import Parameter
from simulator.scenario import Outcome, Plot, Progress, Scenario, Values

PARAMETERS = (
    Parameter("companies", 1_000_000, "companies, each a node", 100, MAX_NODES),
    Parameter("k", 20, "nodes that hold a key", 1, 256),
    Parameter("capabilities", 12, "kinds of machines offered", 1, 10_000),
    Parameter("skew", 1.2, "exponent of the popularity of capabilities (Zipf)", 0, 5),
    Parameter("lending", 0.5, "share of companies that advertise", 0, 1),
    Parameter("lifetime-s", 1800.0, "lifetime of a record; it is published again at a third of that", 1, 1e7),
    Parameter("looks-per-hour", 6.0, "look-ups for lenders per company and hour", 0, 1e6),
    Parameter("records-read", 40, "records that a reader wants", 1, 10_000),
    Parameter("record-bytes", 400, "size of a signed record", 50, 2000),
    Parameter("records-per-key", 64, "records that a node keeps per key", 1, 1_000_000),
    Parameter("sharding", True, "the shipped shards; no = one key per capability"),
)


def run(values: Values, seed: int, progress: Progress) -> Outcome:
    """Count records and requests on every node."""
    v = values
    tables = Tables(v["companies"], v["k"], seed)
    n = len(tables.ids)
    weights = 1 / np.arange(1, v["capabilities"] + 1) ** v["skew"]
    edges = np.cumsum(weights / weights.sum())
    offers = np.flatnonzero(uniform(seed_word(seed, "lends"), np.arange(n)) < v["lending"])
    kind = np.searchsorted(edges, uniform(seed_word(seed, "kind"), offers), side="right")
    level = level_for(n) if v["sharding"] else 0
    levels = levels_used(level) if v["sharding"] else (0,)
    kept, offered = np.zeros(n), np.zeros(n)
    reads = np.zeros(n)
    findable = on_one_total = 0.0
    for capability in range(v["capabilities"]):
        owners = offers[kind == capability]
        for one in levels:
            shards = 4**one
            counts = np.bincount((words(seed_word(seed, f"shard{one}"), owners) % np.uint64(shards)).astype(np.int64), minlength=shards)
            holders = _holders(tables, capability, one, shards)
            alive = holders >= 0
            np.add.at(offered, holders[alive], np.repeat(counts[:, None], holders.shape[1], axis=1)[alive])
            here = np.minimum(counts, v["records-per-key"])
            np.add.at(kept, holders[alive], np.repeat(here[:, None], holders.shape[1], axis=1)[alive])
            if one == level:
                on_one = here / np.maximum(counts, 1)  # what does not fit is thrown out at random, on each holder for itself
                findable += float((counts * (1 - (1 - on_one) ** alive.sum(axis=1))).sum())
                on_one_total += float(here.sum())
                readers = v["companies"] * v["looks-per-hour"] / 3600 * (weights[capability] / weights.sum())
                per_shard = np.maximum(counts, 1)
                shards_read = min(
                    float(shards), max(1.0, v["records-read"] / max(1.0, float(np.minimum(per_shard, v["records-per-key"]).mean())))
                )
                np.add.at(reads, holders[alive], readers * shards_read / shards / holders.shape[1] * 3)
        progress((capability + 1) / v["capabilities"])
    writes = offered / (v["lifetime-s"] / 3)
    metrics = {
        "level": level,
        "shards": 4**level,
        "advertising": len(offers),
        "findable_share": min(1.0, findable / max(1, len(offers))),
        "share_on_one_holder": min(1.0, on_one_total / max(1, len(offers))),
        "records_kept": _spread(kept),
        "memory_bytes_max": float(kept.max()) * v["record-bytes"],
        "stores_per_s": _spread(writes),
        "reads_per_s": _spread(reads),
        "bytes_per_s_max": float((writes * (v["record-bytes"] + 200) + reads * (1200 + 100)).max()),
        "bytes_per_s_mean": float((writes * (v["record-bytes"] + 200) + reads * (1200 + 100)).mean()),
        "nodes_with_records": float((kept > 0).mean()),
    }
    order = np.sort(writes + reads)[::-1]
    ranks = np.unique(np.geomspace(1, n, 60).astype(np.int64))
    plot = Plot(
        "requests per second on the busiest nodes",
        "rank of the node",
        "requests/s",
        ranks.tolist(),
        {"stores and reads": order[ranks - 1].tolist()},
        log_x=True,
        log_y=True,
    )
    return Outcome(metrics, (plot,))


def _holders(tables: Tables, capability: int, level: int, shards: int) -> Any:
    """Places of the k nodes closest to each shard's key; -1 where there are fewer."""
    name = f"spare/v1/x86_64/py3.{capability}/bubblewrap"
    keys = np.array([int.from_bytes(shard_key(name, level, shard)[:8], "big") for shard in range(shards)], dtype=np.uint64) & ~LOW
    found = closest(tables, keys, tables.k)
    place = np.searchsorted(tables.ids, found ^ keys[:, None])
    return np.where(found == NONE, -1, place)


def _spread(values: Any) -> dict[str, float]:
    p50, p99, p9999 = np.percentile(values, [50, 99, 99.99])
    return {"mean": float(values.mean()), "p50": p50, "p99": p99, "p99.99": p9999, "max": float(values.max())}


HOTKEYS = Scenario(
    "hotkeys",
    f"Load of advertisements on the nodes that hold them, up to millions of companies, with the shipped shards (at most 4^{MAX_LEVEL}) "
    "and with one key per capability.",
    PARAMETERS,
    run,
    ("shards", "findable_share", "records_kept.max", "stores_per_s.max", "reads_per_s.max", "bytes_per_s_max"),
)
