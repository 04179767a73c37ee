"""What a chief thinks of another company: score, limit, order, and an explanation that anybody can recompute (pure).

`explain` gives every number with the receipts it follows from; `recompute` takes nothing but those and must come to the same.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from p2p.base.clock import UnixTime
from p2p.base.keys import company_id_text
from p2p.base.record import record
from p2p.contracts.terms import Cause
from p2p.reputation.evidence import Evidence
from p2p.reputation.graph import CREDIT_SHARE, NEWCOMER_FLOOR_CORE_MS, Limit, hops, limit_of, order
from p2p.reputation.score import CERTAINTY, HALF_LIFE_S, PRIOR_BAD, PRIOR_GOOD, Observation, Score, score

FORMULA = (
    f"score = {1 - CERTAINTY:.0%} quantile of Beta({PRIOR_GOOD:g} + good, {PRIOR_BAD:g} + bad); "
    "each own contract counts once, as good unless it ended by a counting cause, "
    f"and weighs half after {HALF_LIFE_S // 86_400} days; credit = {NEWCOMER_FLOOR_CORE_MS} core-ms + "
    f"(computed for me + Σ min(i for me, it for i)) / {CREDIT_SHARE}, without contracts that ended for wrong results; "
    "owed = what I computed for it, by my own word where it signed for less, less what it computed for me"
)


@record
class Opinion:
    """One company, seen from here and now."""

    company: bytes
    score: Score
    limit: Limit
    hops: int
    is_forked: bool


def observations(evidence: Evidence, company: bytes, now: UnixTime) -> list[Observation]:
    """Own contracts with that company, one observation each: only my own cause is my own experience."""
    found = []
    for entry in evidence.own(company):
        found.append(Observation(entry.cause_against(company) is Cause.NONE, float(now - entry.ended)))
    return found


def opinion(evidence: Evidence, company: bytes, now: UnixTime) -> Opinion:
    """Score, limit and distance. A proof of a fork takes the limit and the score to nothing."""
    limit = limit_of(evidence, company)
    found = score(observations(evidence, company, now))
    is_forked = company in evidence.forked
    if is_forked:
        found = Score(0.0, found.good, found.bad, found.contracts, found.completed)
    return Opinion(company, found, limit, hops(limit), is_forked)


def ranking(evidence: Evidence, now: UnixTime) -> list[Opinion]:
    """Every company that is named in a receipt, the one to ask first before all others; forked ones last."""
    found = {c: opinion(evidence, c, now) for c in evidence.companies()}
    first = order(evidence, {c: o.score.value for c, o in found.items()})
    return [found[c] for c in [*first, *sorted(set(found) - set(first))]]


def explain(evidence: Evidence, company: bytes, now: UnixTime) -> dict[str, Any]:
    """Everything that the numbers follow from, as plain values."""
    found = opinion(evidence, company, now)
    limit = found.limit
    middle = {path.over for path in limit.paths}
    used = [
        x for x in evidence.entries.values()
        if (evidence.me in (x.borrower, x.lender) and (company in (x.borrower, x.lender) or x.lender in middle))
        or (x.lender == company and x.borrower in middle)
    ]  # fmt: skip
    return {
        "company": company_id_text(company), "key": company.hex(), "me": evidence.me.hex(), "now": now, "formula": FORMULA,
        "score": found.score.value, "good": found.score.good, "bad": found.score.bad, "contracts": found.score.contracts,
        "completed": found.score.completed, "hops": found.hops, "is_forked": found.is_forked,
        "limit": {
            "floor": limit.floor, "computed_for_me": limit.computed_for_me, "given": limit.given, "cut": limit.cut, "credit": limit.credit,
            "owed": limit.owed, "left": limit.left, "paths": [{**asdict(p), "over": p.over.hex(), "flow": p.flow} for p in limit.paths],
        },
        "receipts": [
            {
                "contract": x.contract.hex(), "borrower": x.borrower.hex(), "lender": x.lender.hex(), "core_ms": x.accepted.core_ms,
                "ended": x.ended, "counts_against_it": x.cause_against(company).name, "signed_by_borrower": x.borrower in x.signers,
                "earns": x.is_earned, "claimed_core_ms": x.claimed_core_ms,
                "signed_by_me": evidence.me in x.signers,
            }
            for x in sorted(used, key=lambda x: (x.ended, x.contract))
        ],
    }  # fmt: skip


def recompute(explained: dict[str, Any]) -> dict[str, Any]:
    """Score and limit from an explanation's receipts alone, to compare with what it says."""
    me, company, now = explained["me"], explained["key"], explained["now"]
    own = [r for r in explained["receipts"] if {r["borrower"], r["lender"]} == {me, company} and r["signed_by_me"]]
    found = score(Observation(r["counts_against_it"] == "NONE", float(now - r["ended"])) for r in own)

    def computed(by: str, for_: str, *, also_wrong: bool = False) -> int:
        mine = (r for r in explained["receipts"] if (r["lender"], r["borrower"]) == (by, for_) and r["signed_by_borrower"])
        return sum(r["core_ms"] for r in mine if r["earns"] or also_wrong)

    others = {r["lender"] for r in explained["receipts"]} - {me, company}
    cut = 0 if explained["is_forked"] else sum(min(computed(i, me), computed(company, i)) for i in others)
    mine = 0 if explained["is_forked"] else computed(company, me)
    floor = 0 if explained["is_forked"] else NEWCOMER_FLOOR_CORE_MS
    credit = floor + (mine + cut) // CREDIT_SHARE
    lent = (r for r in explained["receipts"] if (r["lender"], r["borrower"]) == (me, company) and r["signed_by_me"])
    by_my_word = sum(max(r["core_ms"], r["claimed_core_ms"]) for r in lent)
    owed = max(0, max(computed(me, company, also_wrong=True), by_my_word) - mine)
    return {"score": 0.0 if explained["is_forked"] else found.value, "cut": cut, "credit": credit, "left": max(0, credit - owed)}
