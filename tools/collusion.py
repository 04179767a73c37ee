r"""The page and plot of wrong answers that agree: ``python -m tools.collusion STRANGERS MARKET [FOLDER]``, from two sweeps' folders.

Made before by (a quarter of an hour of one core, resumable), with GRID = ``--param saboteurs=0.05,0.1,0.2,0.35
--param sabotage-rate=0.05,0.2,1 --param collusion=0,0.1,1``::

    python -m simulator sweep strangers --param policy=trial,agreement,none GRID --set fragments=6000 --repeat 3 --out STRANGERS
    python -m simulator sweep market --param policy=none,m2,m3,boinc,spot,credibility GRID --set companies=1000 \
        --set rounds=120 --repeat 2 --out MARKET
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from simulator.scenario import Plot
from simulator.svg import draw

ROOT = Path(__file__).resolve().parent.parent
F: Final = (0.05, 0.1, 0.2, 0.35)
S: Final = (0.05, 0.2, 1.0)
C: Final = (0.0, 0.1, 1.0)
MACHINES: Final = ("trial", "agreement", "none")
POLICIES: Final = ("m2", "m3", "boinc", "spot", "credibility")
Cells = dict[tuple[str, float, float, float], dict[str, Any]]


def cells(folder: Path) -> Cells:
    """Metrics of each point."""
    points = json.loads((folder / "summary.json").read_text("utf-8"))["points"]
    names = ("policy", "saboteurs", "sabotage-rate", "collusion")
    return {tuple(point["parameters"][n] for n in names): point["metrics"] for point in points}


def mean(found: Cells, policy: str, f: float, s: float, c: float, metric: str) -> float | None:
    """One number; None where no run had it."""
    value = found[policy, f, s, c].get(metric)
    return None if value is None else float(value["mean"])


def table(found: Cells, policies: tuple[str, ...], metric: str, *, percent: bool) -> str:
    """Rows of f and s; a cell is one number where collusion changes nothing, else c = 0 / 0.1 / 1."""
    lines = [f"| cheats f | they lie s | {' | '.join(policies)} |\n|---|---|" + "---|" * len(policies)]
    for f in F:
        for s in S:
            row = []
            for policy in policies:
                shown = [_shown(mean(found, policy, f, s, c, metric), percent) for c in C]
                row.append(shown[0] if len(set(shown)) == 1 else " / ".join(shown))
            lines.append(f"| {f:g} | {s:g} | {' | '.join(row)} |")
    return "\n".join(lines)


def _shown(value: float | None, percent: bool) -> str:
    return "-" if value is None else f"{value:.2%}" if percent else f"{value:.3g}"


def page(strangers: Cells, market: Cells) -> str:
    """All cells."""
    parts = [
        "# Wrong answers that agree\n\nMade by `python -m tools.collusion`. Cheats are a share f, lie in a share s of their work, and "
        "a lie is the colluders' common one with probability c ∈ {0, 0.1, 1}. A cell with one number is the same for every c; three are "
        "c = 0, 0.1 and 1.\n"
    ]
    for title, found, policies in (
        ("one job under the machines (`strangers`: 40 companies, 6,000 fragments, 4 check slots, three seeds)", strangers, MACHINES),
        ("rounds (`market`, vectorised: 1,000 companies, 120 pieces each, two seeds)", market, POLICIES),
    ):
        seen = "detection_results" if found is strangers else "detection_rounds"
        for name, metric in (("Wrong among accepted", "error_rate"), ("Answers per fragment", "redundancy"), ("Time", "slowdown"),
                             ("Results of a cheat until it is caught", seen)):  # fmt: skip
            chosen = tuple(p for p in policies if metric == "error_rate" or p != "none")
            parts.append(f"## {name}: {title}\n\n{table(found, chosen, metric, percent=metric == 'error_rate')}\n")
    return "\n".join(parts)


def plot(strangers: Cells, market: Cells) -> Plot:
    """Errors where every lie is the common one, and where none is."""
    s = 1.0
    curves: dict[str, list[float | None]] = {}
    for found, policy in ((strangers, "none"), (strangers, "trial"), (strangers, "agreement"), (market, "m2"), (market, "boinc")):
        name = "what ships" if policy == "trial" else "no check" if policy == "none" else policy
        for c in (0.0, 1.0) if found is market else (1.0,):
            curves[f"{name}, {'all agree' if c else 'none agrees'}" if found is market else name] = [
                (mean(found, policy, f, s, c, "error_rate") or 0.0) or 1e-5 for f in F
            ]
    return Plot("wrong among accepted, cheats always lie (10⁻⁵: none)", "share of cheats", "error", list(F), curves, log_y=True)


def main() -> int:
    """Read, draw, write."""
    strangers, market = cells(Path(sys.argv[1])), cells(Path(sys.argv[2]))
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else ROOT / "docs" / "findings"
    (folder / "collusion.md").write_text(page(strangers, market), "utf-8")
    (folder / "collusion.svg").write_text(draw(plot(strangers, market)), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
