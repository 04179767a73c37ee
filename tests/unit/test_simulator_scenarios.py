"""Scenarios: the shipped chief in virtual time, markets, favours, and that the same question gets the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from company.chief.specs import JobSpec
from simulator.company_world import JOB, CompanyWorld
from simulator.formulas import group_credibility, votes_needed, voting_cost, voting_error
from simulator.market_rounds import Market, Rules
from simulator.parameters import parse_all
from simulator.registry import SCENARIOS
from simulator.runs import run_once
from simulator.scenario import digest
from simulator.sizes import DISTRIBUTIONS, draw_sizes, draw_speeds, lower_bound

GOLDEN_RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("dht", {"nodes": 2000, "lookups": 500, "adversaries": 0.2, "disjoint": 4}),
    ("dht", {"nodes": 2000, "lookups": 300, "target": "key", "churn": "weibull-kad", "loss": 0.05}),
    ("company", {"workers": 6, "fragments": 300}),
    ("market", {"companies": 100, "rounds": 30}),
    ("strangers", {"companies": 8, "fragments": 300, "policy": "agreement", "new-names": True}),
    ("strangers", {"companies": 8, "fragments": 300}),
    ("votes", {"jobs": 2000, "workers": 500, "results": 20}),
    ("favours", {"rounds": 60, "control": True}),
    ("kicks", {"trials": 300}),
    ("hotkeys", {"companies": 20_000}),
)


def run(name: str, given: Mapping[str, Any], seed: int = 1) -> dict[str, Any]:
    scenario = SCENARIOS[name]
    return run_once(scenario, parse_all(scenario.parameters, given), seed, lambda _: None)[0]


@pytest.mark.parametrize(("name", "given"), GOLDEN_RUNS, ids=lambda v: v if isinstance(v, str) else "")
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(name: str, given: dict[str, Any]) -> None:
    first, again, other = run(name, given), run(name, given), run(name, given, seed=2)
    assert digest(first) == digest(again)
    assert digest(first) != digest(other)
    json.dumps(first, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "given", "golden"),
    [
        ("votes", {"jobs": 2000, "workers": 500, "results": 20}, "0965a734eb87396e"),
        ("market", {"companies": 100, "rounds": 30, "policy": "m2"}, "7e5467eb20290a8a"),
        ("kicks", {"trials": 300, "sizes": "uniform"}, "8f99720c8df397fe"),
    ],
)
def test_runs_give_the_bytes_they_have_always_given(name: str, given: dict[str, Any], golden: str) -> None:
    assert digest(run(name, given)) == golden  # without logarithms, so that no machine rounds otherwise


def strangers(**more: Any) -> dict[str, Any]:
    given = {"companies": 20, "fragments": 2500, "saboteurs": 0.35, "validate-every": 1, **more}
    found: dict[str, Any] = run("strangers", given)["metrics"]
    return found


def test_without_checks_what_cheats_return_is_what_is_believed() -> None:
    found = strangers(policy="none", fragments=1200, **{"sabotage-rate": 0.2})
    assert found["error_rate"] == pytest.approx(0.35 * 0.2, rel=0.2) and found["redundancy"] == 1


@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_agreeing_on_a_wrong_answer_gains_nothing_where_answers_are_computed_again_at_home(rate: float) -> None:
    alone, together = (strangers(collusion=c, **{"sabotage-rate": rate}) for c in (0.0, 1.0))
    assert alone == together
    assert together["error_rate"] <= 0.01 and together["caught"] == together["cheats"] == 7


@pytest.mark.parametrize(("policy", "new_names"), [("agreement", False), ("agreement", True), ("vote", False)])
def test_colluders_do_not_pass_for_honest_ones_where_agreement_counts(policy: str, new_names: bool) -> None:
    """Every invariant after every event; a job in which cheats come back under new names for ever ends all the same."""
    found = strangers(policy=policy, companies=16, fragments=300, **{"sabotage-rate": 0.2, "new-names": new_names})
    assert found["error_rate"] <= 0.02
    assert found["redundancy"] > 1.5 and found["caught"] >= 1


def spec(**more: Any) -> JobSpec:
    return JobSpec(id=JOB, owner="a", package=b"p", processor=b"q", dataset=b"d", name=JOB, **more)


@pytest.mark.parametrize("batching", ["adaptive", "sqrt-window", "none"])
@pytest.mark.parametrize("matching", ["stable", "seed"])
def test_every_fragment_is_accepted_once_and_no_schedule_beats_the_bound(batching: str, matching: str) -> None:
    durations, speeds = draw_sizes("lognormal", 1, 250) * 0.1, draw_speeds(0.5, 1, 7)
    world = CompanyWorld(
        durations=durations, speeds=speeds, slots=1, spec=spec(batching=batching, matching=matching), seed=1, backups=True, validate_every=1
    )
    world.run()  # raises unless each fragment was accepted exactly once
    assert world.ended_at >= lower_bound(durations, speeds)
    assert sum(w.busy_s * w.speed for w in world.workers) >= durations.sum() * 0.999


def test_a_company_survives_crashes_with_the_invariants_whole() -> None:
    durations, speeds = draw_sizes("exponential", 2, 400) * 0.2, draw_speeds(0.3, 2, 5)
    world = CompanyWorld(durations=durations, speeds=speeds, slots=2, spec=spec(), seed=2, backups=True, validate_every=1)
    for number in range(5):
        world.engine.at(0.7 + 0.9 * number, lambda n: world.crash(n, back_after_s=1.0), number)
    world.run()
    assert sum(w.life for w in world.workers) >= 3


def test_a_worker_that_turns_slow_is_noticed_and_backed_up() -> None:
    given = {"workers": 10, "fragments": 1500, "slow-by": 60, "mean-ms": 200, "sigma": 0.1}
    slow, alone = run("company", given)["metrics"], run("company", {**given, "backups": False})["metrics"]
    assert slow["copies"] >= 1 and slow["noticed_after_s"] is not None
    assert alone["copies"] == 0 and alone["makespan_s"] > slow["makespan_s"]


def test_the_papers_unbounded_queues_cost_more_than_one_queued_batch() -> None:
    given = {"workers": 10, "fragments": 800, "sigma": 0.8, "sizes": "constant", "batching": "none"}
    assert run("company", {**given, "matching": "seed"})["metrics"]["ratio"] > 1.3 * run("company", given)["metrics"]["ratio"]


def test_distributions_have_mean_one() -> None:
    for name in DISTRIBUTIONS:
        assert abs(float(draw_sizes(name, 1, 200_000).mean()) - 1) < 0.03, name


def test_the_closed_forms_give_the_published_numbers() -> None:
    assert [votes_needed(e, 0.35) for e in (0.05, 0.01, 0.001)] == [15, 29, 51]
    assert round(voting_error(2, 0.1), 4) == 0.028 and round(voting_cost(2, 0.1), 2) == 2.18
    # two of credibility 0.9 against one of 0.8: odds 81 against 4, and 1 for neither
    assert group_credibility({1: [0.9, 0.9], 2: [0.8]})[1] == pytest.approx(81 / 86)


def test_a_market_without_cheats_makes_no_errors_and_voting_costs_its_votes() -> None:
    for policy, least in (("none", 1.0), ("m2", 2.0), ("m3", 3.0)):
        market = Market(200, Rules(policy=policy, cheats=0, rate=1, collusion=1, check_rate=0.1), 1)  # type: ignore[arg-type]
        for _ in range(30):
            market.step()
        found = market.measures()
        assert found["error_rate"] == 0 and found["redundancy"] == pytest.approx(least)


def test_a_market_of_voters_errs_as_the_formula_says() -> None:
    for policy, m in (("m2", 2), ("m3", 3)):
        market = Market(3000, Rules(policy=policy, cheats=0.2, rate=0.5, collusion=1, check_rate=0.1), 1)  # type: ignore[arg-type]
        for _ in range(60):
            market.step()
        found = market.measures()
        assert abs(found["error_rate"] - voting_error(m, 0.1)) < 4 * found["error_rate_se"] + 0.002


def test_without_a_blacklist_credibility_still_takes_out_nobody() -> None:
    market = Market(300, Rules(policy="credibility", cheats=0.2, rate=0.2, collusion=1, check_rate=0.1, blacklist=False), 1)
    for _ in range(60):
        market.step()
    assert not market.is_out.any()
    assert market.measures()["detected"] > 0.5


def test_favours_marginalise_free_riders_under_contention_and_new_names_do_not_help() -> None:
    base = {"demand": 2.0, "rounds": 300, "free-riders": 0.25}
    share = {m: run("favours", {**base, "memory": m})["metrics"]["share_per_free_rider"] for m in ("none", "favours")}
    assert abs(share["none"] - 1) < 0.1
    assert share["favours"] < 0.1
    assert run("favours", {**base, "whitewash": True})["metrics"]["share_per_free_rider"] < 0.1


def test_shards_spread_the_load_that_one_key_puts_on_twenty_nodes() -> None:
    sharded = run("hotkeys", {"companies": 100_000})["metrics"]
    single = run("hotkeys", {"companies": 100_000, "sharding": False})["metrics"]
    assert single["stores_per_s"]["max"] > 20 * sharded["stores_per_s"]["max"]
    assert np.isclose(sharded["stores_per_s"]["mean"], 3 * single["stores_per_s"]["mean"], rtol=0.05)  # three levels
