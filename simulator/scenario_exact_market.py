"""What the exact market comes to: shares, errors, bounds and costs per company (pure)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from simulator.churn import PRESETS
from simulator.market_company import Company
from simulator.market_exact import MarketRules, MarketWorld
from simulator.parameters import Parameter
from simulator.scenario import Outcome, Progress, Values

KINDS: Final = {
    "free-riders": "free-rider", "saboteurs": "saboteur", "over-claimers": "over-claimer", "slanderers": "slanderer",
    "exit-scams": "exit-scam", "withholders": "withholder", "fronts": "front", "sybils": "sybil",
}  # fmt: skip
TAKERS: Final = ("free-rider", "slanderer", "exit-scam", "withholder", "sybil")
DEFAULT_HOURS: Final = 24.0
EXACT_PARAMETERS = (
    Parameter("engine", "auto", "vector: rounds; exact: shipped machines; auto: exact with hours", choices=("auto", "vector", "exact")),
    Parameter("hours", 0.0, "exact: virtual hours (0 = 24)", 0, 10_000),
    Parameter("workers", 10, "exact: workers of each company", 1, 1024),
    Parameter("load", 0.6, "exact: wanted work as a share of all workers' time", 0.01, 10),
    Parameter("job-hours", 40.0, "exact: core-hours of a job", 0.01, 1e6),
    Parameter("free-riders", 0.0, "exact: share that borrows and never lends", 0, 0.9),
    Parameter("over-claimers", 0.0, "exact: share that states half as much again as it did", 0, 0.9),
    Parameter("slanderers", 0.0, "exact: share that revokes whatever it borrows for a bad result", 0, 0.9),
    Parameter("exit-scams", 0.0, "exact: share that earns credit for half of the time and only takes then", 0, 0.9),
    Parameter("withholders", 0.0, "exact: share that borrows and never co-signs anything", 0, 0.9),
    Parameter("fronts", 0.0, "exact: share that works honestly and signs false receipts for every sybil", 0, 0.9),
    Parameter("sybils", 0.0, "exact: share that only borrows, vouched for by fronts", 0, 0.9),
    Parameter("cheats-load", 0.0, "exact: what takers want, as a share of all workers' time (0 = as the others)", 0, 100),
    Parameter("whitewash", False, "exact: free riders and caught saboteurs come back under new names"),
    Parameter("control", True, "exact: lenders offer less where favours are not returned"),
    Parameter("strict-newcomers", False, "exact: what newcomers hold already counts against their tenth of the idle slots"),
    Parameter("churn", "none", "exact: sessions; away for half an hour on average", choices=("none", *PRESETS)),
    Parameter("epoch-s", 1200, "exact: seconds between statements; a lease is three of them", 10, 3600),
    Parameter("validate-every", 997, "exact: check a book's invariants after every n-th event; 0 never", 0, 10_000_000),
)  # fmt: skip


def run_exact(v: Values, seed: int, progress: Progress) -> Outcome:
    """One market."""
    loads: dict[str, float] = dict.fromkeys(TAKERS, float(v["cheats-load"])) if v["cheats-load"] else {}
    rules = MarketRules(
        companies=v["companies"], workers=v["workers"], hours=v["hours"], kinds={kind: v[name] for name, kind in KINDS.items() if v[name]},
        sabotage_rate=v["sabotage-rate"], whitewash=v["whitewash"], load=v["load"],
        loads=loads, job_hours=v["job-hours"], control=v["control"], strict_newcomers=v["strict-newcomers"],
        churn=None if v["churn"] == "none" else PRESETS[v["churn"]], epoch_s=v["epoch-s"], lease_s=3 * v["epoch-s"],
        validate_every=v["validate-every"],
    )  # fmt: skip
    world = MarketWorld(rules, seed)
    world.run(progress)
    return Outcome(measures(world))


def measures(world: MarketWorld) -> dict[str, Any]:
    """Of all companies, and of each kind."""
    rules = world.rules
    by_kind: dict[str, list[Company]] = {}
    for company in world.companies:
        by_kind.setdefault(company.kind, []).append(company)
    kinds = {kind: _of(found, rules.hours) for kind, found in sorted(by_kind.items())}
    all_ = world.companies
    accepted, wrong = sum(c.tally.accepted for c in all_), sum(c.tally.wrong for c in all_)
    received = sum(c.tally.received for c in all_)
    honest = kinds.get("honest", {})
    free = kinds.get("free-rider", {})
    given = np.sort([c.tally.received for c in all_ if c.kind == "honest"])
    n, seconds = len(given), rules.hours * 3600 * len(all_)
    helped = [c.first_help for c in all_ if c.first_help is not None and c.kind == "honest"]
    return {
        "contracts": world.contracts,
        "borrowed_share": received / max(1.0, sum(c.tally.wanted for c in all_)),
        "error_rate": wrong / max(1.0, accepted),
        "redundancy": received / accepted if accepted else None,
        "check_share": sum(c.tally.checked for c in all_) / max(1.0, received),
        "undone_share": sum(c.tally.undone for c in all_) / max(1.0, received),
        "slowdown": honest.get("slowdown"),
        "share_per_free_rider": free["received_per_wanted"] / max(1e-9, honest["received_per_wanted"]) if free else None,
        "gini": float((2 * np.arange(1, n + 1) - n - 1) @ given / (n * max(float(given.sum()), 1e-9))) if n else None,
        "detected": len(world.first_caught) / max(1, len(by_kind.get("saboteur", ()))) if "saboteur" in by_kind else None,
        "detection_hours": float(np.mean(list(world.first_caught.values()))) / 3600 if world.first_caught else None,
        "useful_after_hours": float(np.median(helped)) / 3600 if helped else None,
        "over_credit_core_hours": world.over_credit_ms / 3.6e6,
        "forks": world.forks,
        "ends": dict(sorted(world.ends.items())),
        "broken": dict(sorted(world.broken.items())),
        "crashes": world.crashes,
        "kinds": kinds,
        "messages_per_contract": world.network.sent / max(1, world.contracts),
        "unheard_share": world.unheard / max(1, world.network.sent),
        "bytes_per_s_per_company": world.network.sent_bytes / seconds,
        "halves_per_company": float(np.mean([len(c.book.chain.halves) for c in all_])),
        "evidence_per_company": float(np.mean([len(c.evidence.entries) for c in all_])),
        "machine_events": world.machine_events,
        "events": world.engine.events,
    }


def _of(companies: list[Company], hours: float) -> dict[str, Any]:
    total = {name: sum(getattr(c.tally, name) for c in companies) for name in ("wanted", "received", "given", "own", "alone_s", "took_s")}
    return {
        "companies": len(companies),
        "received_per_wanted": total["received"] / max(1.0, total["wanted"]),
        "received_per_given": total["received"] / total["given"] if total["given"] else None,
        "own_share": total["own"] / max(1.0, total["wanted"]),
        "slowdown": total["took_s"] / total["alone_s"] if total["alone_s"] else None,
        "received_core_hours": total["received"] / 3.6e6 / len(companies),
    }
