"""What this chief owes each company, from its receipts and the settled epochs of contracts that run (pure).

A receipt counts in the order in which this chief signed them, because a balance stops at zero: the same receipts in another order may owe
another amount, and when a contract ended is partly the other side's word. `explained` gives each step, `recomputed` needs those alone.
Received: what I signed to have accepted, unless results were wrong, at what my own workers took for fragments of the same jobs, where they
ran any: a slow lender earns no more than a quick one. Given: what I know that I computed, whatever the other side signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from p2p.base.record import record
from p2p.reputation.evidence import Entry, Evidence
from p2p.reputation.favours import Favours, favour_value

RULE = (
    "favours owed = received − given, contract by contract in the order of my own receipts and then of those that run, never below 0; "
    "received counts what I accepted and found right, each fragment at what such ones took on my own workers where they ran any, given "
    "what I computed"
)


@record
class Step:
    """What one contract adds to a balance or takes from it."""

    contract: bytes
    is_given: bool  # I computed for it; else it computed for me
    fragments: int
    core_ms: int
    is_running: bool = False  # no receipt yet: what both have signed of its epochs
    own_core_ms: float | None = None  # of one such fragment on my own workers; None: they ran none, or it was I who computed

    @property
    def value(self) -> float:
        return favour_value(self.fragments, self.core_ms, self.own_core_ms)


def step_of(entry: Entry, me: bytes) -> Step:
    """One own receipt."""
    facts = entry.accepted
    if entry.lender == me:
        return Step(entry.contract, True, max(1, facts.fragments), max(facts.core_ms, entry.claimed_core_ms))
    return Step(entry.contract, False, facts.fragments if entry.is_earned else 0, facts.core_ms if entry.is_earned else 0)


def steps_of(
    evidence: Evidence, company: bytes, running: Iterable[Step] = (), yardsticks: Mapping[bytes, float] | None = None
) -> list[Step]:
    """Everything that the balance of one company is made of, in order. A proof of a fork ends every favour.

    ``yardsticks``: by contract, core-milliseconds of a fragment like its own on my own workers.
    """
    if company in evidence.forked:
        return []
    own = evidence.own_in_order(company)
    known = {entry.contract for entry in own}
    steps = [step_of(entry, evidence.me) for entry in own] + [step for step in running if step.contract not in known]
    return [step if step.is_given else replace(step, own_core_ms=(yardsticks or {}).get(step.contract)) for step in steps]


def enter(favours: Favours, company: bytes, steps: Iterable[Step]) -> Favours:
    """Take one company's steps into balances."""
    for step in steps:
        (favours.given if step.is_given else favours.received)(company, step.value)
    return favours


def explained(company: bytes, steps: Sequence[Step]) -> dict[str, Any]:
    """The balance with its inputs, as plain values."""
    return {
        "rule": RULE, "owed_core_ms": enter(Favours(), company, steps).owed(company),
        "steps": [
            {
                "contract": s.contract.hex(), "what": "given" if s.is_given else "received", "fragments": s.fragments,
                "core_ms": s.core_ms, "own_core_ms_per_fragment": s.own_core_ms, "running": s.is_running,
            }
            for s in steps
        ],
    }  # fmt: skip


def recomputed(said: dict[str, Any]) -> float:
    """The balance from an explanation's steps alone."""
    steps = (
        Step(bytes.fromhex(s["contract"]), s["what"] == "given", s["fragments"], s["core_ms"], own_core_ms=s["own_core_ms_per_fragment"])
        for s in said["steps"]
    )
    return enter(Favours(), b"", steps).owed(b"")
