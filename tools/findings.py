"""Draw the plots of docs/findings and print their numbers: ``python -m tools.findings [FOLDER [PART ...]]`` (some minutes)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from simulator.parameters import parse_all
from simulator.registry import SCENARIOS
from simulator.runs import at_path
from simulator.scenario import Plot, rounded
from simulator.svg import draw

ROOT = Path(__file__).resolve().parent.parent


def metrics(scenario: str, seed: int = 1, **given: Any) -> Mapping[str, Any]:
    """One run."""
    chosen = SCENARIOS[scenario]
    values = parse_all(chosen.parameters, {name.replace("_", "-"): value for name, value in given.items()})
    found: Mapping[str, Any] = rounded(chosen.run(values, seed, lambda _: None).metrics)
    return found


def mean(scenario: str, path: str, seeds: int, **given: Any) -> float | None:
    """One number, averaged over seeds; None where no run had it."""
    found = [x for seed in range(1, seeds + 1) if (x := at_path(metrics(scenario, seed, **given), path)) is not None]
    return sum(found) / len(found) if found else None


def company() -> Iterator[tuple[str, Plot]]:
    """Makespan over spreads of speed; who got what."""
    sigmas = [0.0, 0.3, 0.6, 1.0]
    kinds: dict[str, dict[str, Any]] = {
        "no batching": {"batching": "none"},
        "√n window, the papers' rounds": {"batching": "sqrt-window", "matching": "seed"},
        "√n window, one queued batch": {"batching": "sqrt-window"},
        "adaptive": {},
        "adaptive, no backups": {"backups": False},
    }
    for sizes in ("lognormal", "constant"):
        base = {"fragments": 1500, "workers": 16, "sizes": sizes, "validate_every": 0}
        curves = {name: [mean("company", "ratio", 2, sigma=s, **base, **kind) for s in sigmas] for name, kind in kinds.items()}
        yield f"makespan-{sizes}", Plot(f"makespan, {sizes} fragments", "σ of machine speeds", "makespan / lower bound", sigmas, curves)
    rows = sorted(
        metrics("company", fragments=6000, workers=40, batching="sqrt-window", matching="seed", validate_every=0)["profile"],
        key=lambda row: float(row["z"]),
    )
    x = [float(row["z"]) for row in rows]
    line = [max(0.0, 1 - (x[-1] - z) / 2) for z in x]
    name = "mean batch / the fastest machine's"
    yield (
        "profile",
        Plot("who gets what (Gale-Shapley)", "performance, z", name, x, {"assigned": [r["batch"] for r in rows], "the papers' line": line}),
    )


def slow() -> Iterator[tuple[str, Plot]]:
    """One machine that turns slow: what keeping it costs, and when it is noticed; batches of the √n window against n/e."""
    times = [1, 3, 10, 30, 100]
    kinds: dict[str, dict[str, Any]] = {"backup copies": {}, "it is kept": {"backups": False}, "z > 4 kicks": {"failure": "seed-z4"}}
    base = {"fragments": 1500, "workers": 16, "validate_every": 0}
    for name, path, y in (("slow", "ratio", "makespan / lower bound"), ("noticed", "noticed_after_s", "seconds")):
        curves = {kind: [mean("company", path, 3, slow_by=t, **base, **given) for t in times] for kind, given in kinds.items()}
        title = "one of 16 machines turns slow" if name == "slow" else "until a slow machine is noticed"
        yield name, Plot(title, "so many times slower", y, times, curves, log_x=True)
    counts = [250, 1000, 4000, 16_000]
    shares: dict[str, list[float | None]] = {}
    for sizes in ("uniform", "exponential", "lognormal", "constant"):
        found = [metrics("company", fragments=n, workers=16, batching="sqrt-window", sizes=sizes, validate_every=0) for n in counts]
        shares[sizes] = [m["batches"] / n for m, n in zip(found, counts, strict=True)]
    shares["1/e"] = [0.367879] * len(counts)
    yield "batches", Plot("batches of the √n window", "fragments", "batches per fragment", counts, shares, log_x=True)


def failure() -> Iterator[tuple[str, Plot]]:
    """Healthy leases that are taken for failed ones."""
    samples = [8, 16, 32, 64, 128, 256]
    curves: dict[str, list[float | None]] = {
        name: [mean("kicks", "healthy_kicked", 1, sizes=name, samples=n, trials=8000) for n in samples]
        for name in ("normal", "exponential", "lognormal", "pareto")
    }
    curves["log-z, lognormal"] = [
        mean("kicks", "healthy_kicked", 1, sizes="lognormal", samples=n, trials=8000, rule="log-z") if n >= 32 else None for n in samples
    ]
    yield "kicks", Plot("healthy leases beyond z > 4", "run times seen", "share", samples, curves, log_x=True)


def network() -> Iterator[tuple[str, Plot]]:
    """Hops, latency, adversaries, hot keys."""
    sizes = [100, 1_000, 10_000, 100_000, 1_000_000]
    hops = {f"k = {k}": [mean("dht", "hops.mean", 1, nodes=n, k=k, lookups=6000) for n in sizes] for k in (8, 20)}
    yield "hops", Plot("hops to a node", "nodes", "mean hops (α = 4, β = 1)", sizes, hops, log_x=True)
    dead = [0.0, 0.1, 0.2, 0.3, 0.4]
    curves: dict[str, list[float | None]] = {}
    recall: dict[str, list[float | None]] = {}
    for resiliency in (3, 20):
        found = [metrics("dht", target="key", lookups=3000, dead=d, resiliency=resiliency, alpha=8) for d in dead]
        for part in ("p50", "p99"):
            curves[f"{part}, {resiliency} must answer"] = [f["latency_s"][part] for f in found]
        recall[f"{resiliency} must answer"] = [f["recall"] for f in found]
    yield "latency", Plot("look-ups for a key, 10,000 nodes, α = 8", "share of dead contacts", "seconds", dead, curves)
    yield "recall", Plot("look-ups for a key", "share of dead contacts", "share of the 20 closest live nodes found", dead, recall)
    bad = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7]
    paths = {f"{d} paths": [mean("dht", "success", 1, k=16, lookups=2000, adversaries=m, disjoint=d) for m in bad] for d in (1, 2, 4, 8)}
    yield "adversaries", Plot("look-ups among adversaries", "share of adversaries", "success", bad, paths)
    companies = [10_000, 100_000, 1_000_000]
    load = {
        f"{'shipped shards' if s else 'one key'}, {name}": [mean("hotkeys", path, 1, companies=n, sharding=s) for n in companies]
        for s in (True, False)
        for name, path in (("busiest node", "bytes_per_s_max"), ("mean", "bytes_per_s_mean"))
    }
    yield "hotkeys", Plot("cost of advertisements", "companies", "bytes/s", companies, load, log_x=True, log_y=True)


def lookups() -> Iterator[tuple[str, Plot]]:
    """What a look-up for a key takes over nodes, k, queries in flight, churn and disjoint paths."""
    sizes = [100, 1_000, 10_000, 100_000, 1_000_000]
    base: dict[str, Any] = {"target": "key", "lookups": 3000}
    latency: dict[str, list[float | None]] = {}
    messages: dict[str, list[float | None]] = {}
    for k, alpha in ((8, 3), (20, 3), (20, 8), (20, 20)):
        found = [metrics("dht", nodes=n, k=k, alpha=alpha, **base) for n in sizes]
        latency[f"k = {k}, α = {alpha}"] = [f["latency_s"]["p50"] for f in found]
        messages[f"k = {k}, α = {alpha}"] = [f["messages_per_lookup"] for f in found]
    yield "latency-nodes", Plot("median look-up for a key", "nodes", "seconds", sizes, latency, log_x=True)
    yield "messages-nodes", Plot("requests of a look-up for a key", "nodes", "requests", sizes, messages, log_x=True)
    ages = [300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0]
    churn: dict[str, list[float | None]] = {}
    recall: dict[str, list[float | None]] = {}
    for preset in ("exponential-1h", "weibull-kad", "weibull-debian", "lognormal-ipfs"):
        found = [metrics("dht", churn=preset, refresh_s=age, alpha=8, **base) for age in ages]
        churn[preset] = [f["latency_s"]["p50"] for f in found]
        recall[preset] = [f["recall"] for f in found]
    x = "contacts were seen alive so long ago at most, s"
    yield "latency-churn", Plot("median look-up for a key under churn, 10,000 nodes", x, "seconds", ages, churn, log_x=True)
    yield "recall-churn", Plot("found of the 20 nearest under churn", x, "share", ages, recall, log_x=True)
    paths = [1, 2, 4, 8]
    asked = {
        f"{m:.0%} adversaries": [
            metrics("dht", k=16, lookups=2000, adversaries=m, disjoint=d)["messages_per_lookup_disjoint"] for d in paths
        ]
        for m in (0.05, 0.2, 0.5)
    }
    lengths: list[float | None] = [metrics("dht", k=16, lookups=2000, adversaries=0.2, disjoint=d)["path_length"] for d in paths]
    yield "paths", Plot("what disjoint paths cost", "paths", "requests, hops", paths, {**asked, "hops of a path": lengths})


def strangers() -> Iterator[tuple[str, Plot]]:
    """One job of strangers under what ships: check slots; cheats that agree or not (`tools.collusion` has the grid)."""
    slots = [1, 2, 4, 8, 16]
    base: dict[str, Any] = {"fragments": 6000, "saboteurs": 0.1, "validate_every": 0}
    curves = {
        f"{n} companies of two slots": [mean("strangers", "slowdown", 3, companies=n, check_slots=c, **base) for c in slots]
        for n in (5, 10, 20, 40)
    }
    yield (
        "check-slots",
        Plot("a job abroad, a tenth of the answers checked", "check slots at home", "time / time of all slots", slots, curves, log_x=True),
    )


def market() -> Iterator[tuple[str, Plot]]:
    """Error and cost of the policies; free riders."""
    bad = [0.05, 0.1, 0.2, 0.35]
    policies = ("none", "m2", "m3", "boinc", "spot", "credibility")
    found = {p: [metrics("market", companies=1000, rounds=120, policy=p, saboteurs=f, assumed=max(f, 0.05)) for f in bad] for p in policies}
    for name, path in (("error", "error_rate"), ("redundancy", "redundancy"), ("slowdown", "slowdown"), ("detection", "detection_rounds")):
        curves = {p: [m[path] for m in ms] for p, ms in found.items()}
        yield name, Plot(f"{name}, cheats lie in 20 % and collude", "share of saboteurs", name, bad, curves, log_y=name == "error")
    demands = [0.25, 0.5, 1.0, 2.0, 4.0]
    kinds: dict[str, dict[str, Any]] = {
        "nobody remembers": {"memory": "none"},
        "favours": {},
        "favours, new names": {"whitewash": True},
        "supply controlled": {"control": True},
    }
    runs = {n: [metrics("favours", rounds=600, demand=d, **k) for d in demands] for n, k in kinds.items()}
    contention = [m["contention"] for m in runs["favours"]]
    shares = {n: [m["share_per_free_rider"] for m in ms] for n, ms in runs.items()}
    yield "favours", Plot("25 % free riders", "demand / supply", "a free rider's share of a collaborator's", contention, shares, log_x=True)


def main() -> int:
    """Draw everything."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "findings"
    folder.mkdir(parents=True, exist_ok=True)
    parts = {part.__name__: part for part in (network, lookups, company, slow, market, strangers, failure)}
    for part in [parts[name] for name in sys.argv[2:]] or parts.values():
        for name, plot in part():
            (folder / f"{name}.svg").write_text(draw(plot), "utf-8")
            print(f"{name}: {plot.x_name} {[f'{x:.4g}' for x in plot.x] if len(plot.x) < 12 else len(plot.x)}", flush=True)
            for curve, ys in plot.curves.items():
                if len(ys) < 12:
                    print(f"    {curve}: {[None if y is None else float(f'{y:.4g}') for y in ys]}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
