"""Each attack of docs/threats.md as a market: greedy cheats among few honest lenders for half a day, with what bounds them.

Bounds are what the design says, in core-hours that were truly computed (`Work`, not what anybody signed). `tests/faults/break_list.py`
breaks the rule behind each one: the test must go red, so in every market the cheat takes several times the bound without it.
"""

from __future__ import annotations

from typing import Any

from p2p.reputation.trust import opinion
from simulator.churn import PRESETS
from simulator.market_choices import held_by
from simulator.market_company import Company
from simulator.market_exact import MarketRules, MarketWorld

CORE_HOUR_MS = 3_600_000
FLOOR = 1.0  # core-hours of a newcomer at one lender
ROUNDING = 0.01


def market(kinds: dict[str, float], seed: int = 1, **changes: Any) -> MarketWorld:
    """Ten companies of twenty workers; honest ones are mostly idle, cheats want four times what their own machines could do."""
    rules: dict[str, Any] = {
        "companies": 10, "workers": 20, "hours": 6.0, "job_hours": 10.0, "load": 0.3, "loads": dict.fromkeys(kinds, 4.0),
        "frame_s": 1800, "epoch_s": 300, "lease_s": 900, "look_s": 300.0, "again_s": 600.0, "review_s": 3600.0, "settle_s": 900.0,
        "fragment_s": 30.0, "patience_s": 600.0,
    }  # fmt: skip
    world = MarketWorld(MarketRules(kinds=kinds, **{**rules, **changes}), seed)
    world.run()
    return world


def honest(world: MarketWorld) -> list[Company]:
    return [c for c in world.companies if c.kind == "honest"]


def had_of(world: MarketWorld, lender: Company, cheat: Company, identity: int) -> float:
    """Core-hours that a lender truly computed for one name of a cheat."""
    name = world.public_key(cheat.number, identity)[:24]  # what its offers' nonces begin with
    return sum(w.core_ms for nonce, w in world.work.items() if w.lender is lender and nonce[:24] == name) / CORE_HOUR_MS


def most_had(world: MarketWorld, kind: str) -> float:
    """Of one lender under one name, at worst."""
    cheats = [(c, identity) for c in world.companies if c.kind == kind for identity in range(c.identity)]
    return max(had_of(world, lender, *cheat) for lender in honest(world) for cheat in cheats)


def gave(lender: Company, borrower: Company) -> float:
    """Core-hours that a borrower had of a lender and signed for, in its own receipts."""
    return borrower.evidence.earned(lender.key.public, borrower.key.public) / CORE_HOUR_MS


def test_free_riders_get_a_newcomers_floor_of_each_lender() -> None:
    world = market({"free-rider": 0.3})
    assert FLOOR / 2 < most_had(world, "free-rider") <= FLOOR + ROUNDING


def test_each_new_name_gets_a_newcomers_floor_again_and_no_more() -> None:
    world = market({"free-rider": 0.3}, whitewash=True, review_s=7200.0, hours=8.0)
    riders = [c for c in world.companies if c.kind == "free-rider"]
    assert max(c.identity for c in riders) >= 3
    assert FLOOR / 2 < most_had(world, "free-rider") <= FLOOR + ROUNDING
    assert max(sum(had_of(world, lender, c, i) for i in range(c.identity)) for lender in honest(world) for c in riders) > 1.5 * FLOOR


def test_new_names_together_hold_a_tenth_of_what_is_idle() -> None:
    """However many come one after another: a bound on each moment's idle slots alone would let a stream of them have everything."""
    rules = MarketRules(
        companies=12, workers=20, hours=1.0, job_hours=10.0, load=0.001, kinds={"free-rider": 0.75}, loads={"free-rider": 6.0},
        look_s=120.0, strict_newcomers=True, frame_s=1800, epoch_s=300, lease_s=900, patience_s=600.0,
    )  # fmt: skip
    world, most = MarketWorld(rules, 1), 0
    for minute in range(60):
        world.engine.run(until=60.0 * minute)
        most = max(most, max(sum(held_by(lender).values()) for lender in honest(world)))
    assert len(honest(world)) <= 3
    assert most == 2  # of twenty


def test_who_calls_what_it_had_wrong_still_owes_it_and_lowers_nobody_in_a_third_partys_eyes() -> None:
    world = market({"slanderer": 0.3})
    assert world.broken["bad-result"] > 10
    assert 0 < most_had(world, "slanderer") <= FLOOR + ROUNDING
    told = 0
    for company in honest(world):
        for other in (o for o in honest(world) if o is not company):
            seen = opinion(company.evidence, other.key.public, company.wall)
            assert seen.score.bad == 0
            entries = company.evidence.entries.values()
            told += sum(x.lender == other.key.public and x.borrower_cause.name == "BAD_RESULT" for x in entries)
    assert told > 5  # it was heard


def test_an_exit_scam_takes_the_floor_and_half_of_what_it_gave() -> None:
    world = market({"exit-scam": 0.3}, seed=2)
    scams = [c for c in world.companies if c.kind == "exit-scam"]
    beyond = []
    for lender, scam in ((lender, scam) for lender in honest(world) for scam in scams):
        vouched = sum(min(gave(i, lender), gave(scam, i)) for i in world.companies if i not in (lender, scam))
        beyond.append(had_of(world, lender, scam, 0) - gave(scam, lender) - (gave(scam, lender) + vouched) / 2)
    assert FLOOR / 2 < max(beyond) <= FLOOR + ROUNDING
    assert max(gave(c, lender) for lender in honest(world) for c in scams) > FLOOR / 2


def test_a_ring_that_vouches_for_its_own_carries_half_of_what_the_vouching_one_did() -> None:
    """False receipts of a thousand core-hours: what passes is bounded by the work that was really done for the lender."""
    loads = {"sybil": 6.0, "front": 0.02}
    world = market({"front": 0.2, "sybil": 0.1}, loads=loads, load=0.2, hours=9.0, review_s=1200.0)
    fronts, sybils = ([c for c in world.companies if c.kind == kind] for kind in ("front", "sybil"))
    did = {lender.number: sum(gave(front, lender) for front in fronts) for lender in honest(world)}
    beyond = [had_of(world, lender, sybil, 0) - did[lender.number] / 2 for lender in honest(world) for sybil in sybils]
    assert FLOOR / 2 < max(beyond) <= FLOOR + ROUNDING
    assert most_had(world, "sybil") > 1.2 * FLOOR  # the vouching was believed


def test_who_signs_for_nothing_is_remembered_by_who_computed_for_it() -> None:
    world = market({"withholder": 0.3})
    withheld = [c for c in world.companies if c.kind == "withholder"]
    assert all(lender.evidence.computed(lender.key.public, c.key.public) == 0 for lender in honest(world) for c in withheld)
    assert FLOOR / 4 < most_had(world, "withholder") <= FLOOR + ROUNDING


def test_nothing_is_lent_to_who_has_signed_two_things_with_one_number() -> None:
    """Here it is disks that lie; the proof is the same for who does it on purpose."""
    world = market({}, churn=PRESETS["weibull-debian"], away_s=200.0, lost_records=2)
    assert world.forks > 20
    assert world.lent_to_forked == 0
