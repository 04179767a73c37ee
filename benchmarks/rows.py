"""One row per question: what is counted, ours, the others' in the same minutes, and the goal (pure)."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Better = Literal["more", "less"]


@dataclass(slots=True)
class Row:
    """One line of the table. ``samples``: contender to values in ``unit``; ours is "company"."""

    name: str
    counted: str
    unit: str
    better: Better
    goal: float | None = None
    samples: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    beside: dict[str, dict[str, float]] = field(default_factory=dict)  # contender of ours -> peer -> least ratio

    def add(self, contender: str, value: float) -> None:
        """Take one measurement."""
        self.samples.setdefault(contender, []).append(value)

    @property
    def ours(self) -> float | None:
        """The median of our measurements."""
        return self.median("company")

    def median(self, contender: str) -> float | None:
        """The median of one contender."""
        found = self.samples.get(contender)
        return statistics.median(found) if found else None

    def ratios(self) -> list[tuple[str, str, float, float]]:
        """What was promised beside the others: (ours, theirs, ratio of the medians, least ratio). Peers that are not here are left out."""
        found: list[tuple[str, str, float, float]] = []
        for ours, goals in self.beside.items():
            for peer, least in goals.items():
                a, b = self.median(ours), self.median(peer)
                if a is not None and b:
                    found.append((ours, peer, a / b, least))
        return found

    @property
    def is_reached(self) -> bool | None:
        """Whether the goals are reached; nil where there is none."""
        ratios = [ratio >= least for _, _, ratio, least in self.ratios()]
        if self.ours is None or (self.goal is None and not ratios):
            return None
        if not all(ratios):
            return False
        if self.goal is None:
            return True
        return self.ours >= self.goal if self.better == "more" else self.ours <= self.goal

    def as_fields(self) -> dict[str, Any]:
        """What `Row` is made of again in another process."""
        return asdict(self)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        medians = {name: self.median(name) for name in self.samples}
        return {
            "name": self.name, "counted": self.counted, "unit": self.unit, "better": self.better, "goal": self.goal,
            "is_reached": self.is_reached, "medians": medians, "samples": self.samples, "notes": self.notes,
            "against": {n: self.ours / m for n, m in medians.items() if n != "company" and m and self.ours is not None},
            "ratios": [{"ours": a, "theirs": b, "ratio": r, "goal": g} for a, b, r, g in self.ratios()],
        }  # fmt: skip


def number(value: float | None) -> str:
    """Three significant digits, whole numbers with groups."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(rows: list[Row], missing: dict[str, str]) -> str:
    """The rows for people."""
    lines: list[str] = []
    for row in rows:
        goal = ("   " if row.beside else "") if row.goal is None else f"   goal {'≥' if row.better == 'more' else '≤'} {number(row.goal)}: "
        reached = {True: "reached", False: "NOT REACHED", None: ""}[row.is_reached]
        lines.append(f"{row.name}: {number(row.ours)} {row.unit}{goal}{reached}")
        lines.append(f"    counted: {row.counted}")
        for contender in row.samples:
            if contender != "company":
                median = row.median(contender)
                ratio = f", ours is {number(row.ours / median)} ×" if row.ours and median else ""
                lines.append(f"    {contender:<25}{number(median)} {row.unit}{ratio}")
        lines += [f"    {a} is {number(r)} × {b}, goal {number(g)} ×" for a, b, r, g in row.ratios()]
        lines += [f"    {who}: {text}" for who, text in row.notes.items()]
    lines += [f"not here: {name} ({why})" for name, why in missing.items()]
    return "\n".join(lines)
