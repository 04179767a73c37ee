"""The exact market over several seeds: ``python -m tools.market_findings [FOLDER] [--strict|--newcomers]`` (some minutes of one core each).

Draws what each kind of cheat takes beside its bound, over time, and writes a table of means with 95 % intervals (Student's t).
``--newcomers``: draws how long a newcomer waits for help instead.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from simulator.churn import PRESETS
from simulator.market_bounds import most_taken
from simulator.market_exact import MarketRules, MarketWorld
from simulator.runs import at_path
from simulator.scenario import Plot, rounded
from simulator.scenario_exact_market import TAKERS, measures
from simulator.student import interval
from simulator.svg import draw

ROOT = Path(__file__).resolve().parent.parent
CORE_HOUR_MS: Final = 3_600_000
ATTACK_SEEDS: Final = 4
ATTACK_HOURS: Final = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
SEEDS: Final = 6
NEWCOMER_LOADS: Final = (0.3, 0.6, 0.9, 1.2, 1.8)
NEWCOMER_SEEDS: Final = 3
KINDS: Final = ("free-rider", "over-claimer", "slanderer", "exit-scam", "saboteur", "withholder")
ROWS: Final = {
    "contracts": "contracts", "crashes": "crashes", "useful_after_hours": "hours until a newcomer is helped, median",
    "detected": "share of saboteurs caught", "detection_hours": "hours until a saboteur is caught", "error_rate": "wrong among accepted",
    "accepted_share": "share of what came in that was accepted", "share_per_free_rider": "a free rider's share of an honest one's",
    "slowdown": "time of a job, as a share of what own workers alone take", "gini": "Gini coefficient of what was received",
    "over_credit_core_hours": "core-hours beyond credit", "forks": "proofs of forks",
    "unheard_share": "share of packets that nobody was there for",
    "bytes_per_s_per_company": "bytes/s per company",
}  # fmt: skip


def attack(kind: str, seed: int, *, whitewash: bool = False) -> list[float]:
    """Core-hours that one lender lost at worst, by hour."""
    rules = MarketRules(
        companies=20, workers=6, hours=ATTACK_HOURS[-1], kinds={kind: 0.25}, whitewash=whitewash, load=0.4, job_hours=8.0, epoch_s=600,
        frame_s=1800, again_s=600.0, loads={kind: 4.0} if kind in TAKERS else {},
    )  # fmt: skip
    world, found = MarketWorld(rules, seed), []
    for hour in ATTACK_HOURS:
        world.engine.run(until=hour * 3600)
        found.append(most_taken(world, kind) / CORE_HOUR_MS)
    return found


def attacks() -> Plot:
    """Every kind beside the bound: the worst of all seeds."""
    curves: dict[str, Sequence[float | None]] = {}
    for name, kind, whitewash in [(k, k, False) for k in KINDS] + [("free-rider with new names", "free-rider", True)]:
        runs = [attack(kind, seed, whitewash=whitewash) for seed in range(1, ATTACK_SEEDS + 1)]
        curves[name] = [round(max(column), 6) for column in zip(*runs, strict=True)]
    curves["bound: a newcomer's floor"] = [1.0] * len(ATTACK_HOURS)
    return Plot("what a cheat takes of one lender, unvouched for, at worst", "hours", "core-hours", list(ATTACK_HOURS), curves)


def newcomers() -> Plot:
    """Hours until the median newcomer is helped, over contention."""
    curves: dict[str, Sequence[float | None]] = {}
    for name, strict in (("a tenth of each moment's idle slots", False), ("what newcomers hold counts against it", True)):
        curves[name] = []
        for load in NEWCOMER_LOADS:
            found = [market(seed, strict=strict, load=load)["useful_after_hours"] for seed in range(1, NEWCOMER_SEEDS + 1)]
            known = [float(hours) for hours in found if hours is not None]
            curves[name] = [*curves[name], round(sum(known) / len(known), 3) if known else None]
            print(name, load, found, flush=True)
    return Plot(
        "a newcomer's way to being helped, median over companies, mean of seeds", "wanted work / time of all machines", "hours",
        list(NEWCOMER_LOADS), curves,
    )  # fmt: skip


def market(seed: int, *, strict: bool = False, load: float = 0.6) -> dict[str, Any]:
    """A day of sixty companies; ``strict``: what newcomers hold already counts against their tenth."""
    rules = MarketRules(
        companies=60, kinds={"free-rider": 0.25, "saboteur": 0.05}, churn=PRESETS["weibull-kad"], epoch_s=1200, lease_s=3600,
        validate_every=997, strict_newcomers=strict, load=load,
    )  # fmt: skip
    world = MarketWorld(rules, seed)
    world.run()
    found = measures(world)
    accepted, received = (sum(getattr(c.tally, name) for c in world.companies) for name in ("accepted", "received"))
    return dict(rounded({**found, "accepted_share": accepted / max(1.0, received)}))


def table(runs: Sequence[dict[str, Any]]) -> str:
    """One row per number; runs that have none are left out, and counted."""
    lines = ["| of a day | mean | seeds |\n|---|---|---|"]
    for path, text in ROWS.items():
        values = [float(x) for run in runs if (x := at_path(run, path)) is not None]
        lines.append(f"| {text} | {interval(values)} | {len(values)} |")
    return "\n".join(lines)


def main() -> int:
    """Run, draw, write."""
    strict, given = "--strict" in sys.argv, [word for word in sys.argv[1:] if not word.startswith("--")]
    folder = Path(given[0]) if given else ROOT / "docs" / "findings"
    folder.mkdir(parents=True, exist_ok=True)
    if "--newcomers" in sys.argv:
        (folder / "newcomers.svg").write_text(draw(newcomers()), "utf-8")
        return 0
    if not strict:
        plot = attacks()
        (folder / "attacks.svg").write_text(draw(plot), "utf-8")
        print({name: values[-1] for name, values in plot.curves.items()}, flush=True)
    text = table([market(seed, strict=strict) for seed in range(1, SEEDS + 1)])
    head = (
        "Sixty companies of ten workers, a quarter free riders, a twentieth saboteurs, churn `weibull-kad`; 95 % intervals over seeds.\n\n"
    )
    made = f"Made by `python -m tools.market_findings{' --strict' if strict else ''}`. "
    title = "# The exact market over seeds" + (", where what newcomers hold counts against their tenth" if strict else "")
    (folder / f"market-exact{'-strict' if strict else ''}.md").write_text(f"{title}\n\n{made}{head}{text}\n", "utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
