"""What goes wrong in one round, and when: drawn from a seed, so that a round that failed can be run again (pure)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from tests.faults.crashing import POINTS

WORKERS = ("w1", "w2")
DURING = tuple(p for p in POINTS if not p.startswith("job-before-row") and p != "job-after-row")  # after the client has its job
KINDS = (
    "kill-chief", "kill-worker", "stop-worker", "stop-chief", "crash-chief", "unplug", "delay", "cut", "spoil-tail", "fill-disk",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong ``wait_s`` after the one before it. ``amount``: seconds, bytes or the n-th passage, as the kind has it."""

    kind: str
    wait_s: float
    target: str = ""
    amount: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """One round: a job of so many fragments, and its faults."""

    seed: int
    fragments: int
    fragment_s: float
    batching: str
    faults: tuple[Fault, ...]


def draw(seed: int, *, kinds: tuple[str, ...] = KINDS, most: int = 5) -> Plan:
    """The plan of a seed."""
    rng = Random(seed)
    return Plan(
        seed=seed, fragments=rng.choice([1, 40, 200, 600]), fragment_s=rng.choice([0.0, 0.005, 0.02]),
        batching=rng.choice(["adaptive", "adaptive", "none", "sqrt-window"]),
        faults=tuple(_fault(rng, kinds) for _ in range(rng.randint(1, most))),
    )  # fmt: skip


def _fault(rng: Random, kinds: tuple[str, ...]) -> Fault:
    kind, wait_s, worker = rng.choice(kinds), rng.uniform(0.0, 1.5), rng.choice(WORKERS)
    match kind:
        case "kill-worker":
            return Fault(kind, wait_s, worker)
        case "stop-worker" | "unplug":
            return Fault(kind, wait_s, worker, rng.choice([0.5, 3.0, 9.0]))
        case "delay":
            return Fault(kind, wait_s, worker, rng.choice([0.005, 0.05]))
        case "cut":
            return Fault(kind, wait_s, worker, rng.choice([1, 100, 5000, 100_000]))
        case "stop-chief":
            return Fault(kind, wait_s, "", rng.choice([0.5, 3.0, 8.0]))
        case "crash-chief":
            return Fault(kind, wait_s, rng.choice(DURING), rng.choice([1, 1, 2, 5]))
        case "spoil-tail":
            return Fault(kind, wait_s, "", rng.choice([1, 1000, 100_000]))
        case "fill-disk":
            return Fault(kind, wait_s, "", rng.choice([0.5, 3.0]))
        case _:
            return Fault(kind, wait_s)
