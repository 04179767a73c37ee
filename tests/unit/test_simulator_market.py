"""The exact market and the overlay: shipped contracts, ledgers, reputation and nodes in virtual time, small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2p.base.errors import InvariantBroken
from p2p.contracts import book as b
from p2p.contracts import events as e
from p2p.contracts.table import HOLDING
from p2p.contracts.terms import Role
from simulator.churn import PRESETS
from simulator.cli import main
from simulator.market_bounds import computed
from simulator.market_choices import terms_of
from simulator.market_company import Company
from simulator.market_exact import MarketRules, MarketWorld
from simulator.overlay import Faults, OverlayWorld
from simulator.parameters import parse_all
from simulator.registry import SCENARIOS
from simulator.runs import run_once
from simulator.scenario import digest
from simulator.scenario_exact_market import measures

DOCS = Path(__file__).parents[2] / "docs"
CORE_HOUR_MS = 3_600_000


def rules(**changes: Any) -> MarketRules:
    """Small machines and short frames, so that much happens in little time."""
    small: dict[str, Any] = {
        "companies": 12, "workers": 4, "hours": 2.0, "job_hours": 4.0, "load": 0.8, "frame_s": 1800, "epoch_s": 300, "lease_s": 900,
        "look_s": 300.0, "review_s": 1200.0, "settle_s": 900.0, "fragment_s": 30.0, "validate_every": 7,
    }  # fmt: skip
    return MarketRules(**{**small, **changes})


def market(seed: int = 1, **changes: Any) -> tuple[MarketWorld, dict[str, Any]]:
    world = MarketWorld(rules(**changes), seed)
    world.run()
    return world, measures(world)


def check(world: MarketWorld) -> None:
    """What holds of all companies together, whoever they are and whatever happened."""
    for company in world.companies:
        company.book.validate()
        assert company.book.slots.promised <= world.rules.workers
        held = sum(c.a.slots for c in company.book.contracts.values() if c.a.role is Role.LENDER and c.state in HOLDING)
        assert held <= company.book.slots.promised
        chain = [half.message for half in company.book.chain.halves]
        assert [half.chain_sequence for half in chain] == list(range(1, len(chain) + 1))  # type: ignore[attr-defined]
    done = sum(c.tally.own + c.tally.accepted for c in world.companies)
    assert done <= sum(c.tally.wanted for c in world.companies) * (1 + 1e-9) + sum(c.tally.undone for c in world.companies)
    assert world.over_credit_ms == 0  # nobody ever owes more than the limit that its lender computed before it signed


GOLDEN: tuple[tuple[str, dict[str, Any], str], ...] = (
    (
        "market",
        {"engine": "exact", "companies": 12, "hours": 2, "job-hours": 8, "free-riders": 0.2, "churn": "weibull-kad"},
        "98138b0f5fcdfb59",
    ),
    (
        "overlay",
        {"companies": 8, "hours": 0.5, "job-hours": 4, "load": 1, "loss": 0.02, "fault-at-s": 900, "crashed": 0.3},
        "5108dc0735b5109b",
    ),
)


@pytest.mark.parametrize(("name", "given", "golden"), GOLDEN, ids=["market", "overlay"])
def test_the_same_seed_gives_the_same_bytes_on_every_machine(name: str, given: dict[str, Any], golden: str) -> None:
    scenario = SCENARIOS[name]
    values = parse_all(scenario.parameters, given)
    first, again, other = (run_once(scenario, values, seed, lambda _: None)[0] for seed in (1, 1, 2))
    assert digest(first) == digest(again) != digest(other)
    json.dumps(first, allow_nan=False)
    assert first["metrics"]["contracts"] > 0
    assert digest(first["metrics"]) == golden


def test_every_book_is_whole_after_every_event_though_companies_crash_and_disks_lie() -> None:
    faults: dict[str, Any] = {"churn": PRESETS["weibull-debian"], "away_s": 200.0, "lost_records": 2, "loss": 0.05, "journal_s": 0.003}
    world, found = market(hours=1.0, validate_every=1, kinds={"free-rider": 0.2}, **faults)
    check(world)
    assert world.crashes > 8 and found["contracts"] > 10
    assert found["ends"]["rated"] > 10
    assert world.forks > 0  # who forgot what it had signed signs another message with that number: its disk, not its will


def test_saboteurs_are_found_and_nobody_else_is() -> None:
    world, found = market(companies=16, kinds={"saboteur": 0.2}, sabotage_rate=0.5, validate_every=0)
    assert sum(c.kind == "saboteur" for c in world.companies) > 3
    assert found["detected"] == 1 and found["error_rate"] <= 0.01
    assert {world.companies[number].kind for number in world.first_caught} == {"saboteur"}
    assert world.broken["bad-result"] > 0


def test_a_lender_is_credited_with_what_it_did_and_not_with_what_it_claims() -> None:
    world, _ = market(kinds={"over-claimer": 0.4})
    liars = [c for c in world.companies if c.kind == "over-claimer"]
    done = {liar.number: sum(work.core_ms for work in world.work.values() if work.lender is liar) for liar in liars}
    believed = {liar.number: sum(computed(liar, other.key.public) for other in world.companies) for liar in liars}
    assert sum(believed.values()) > CORE_HOUR_MS
    assert all(believed[number] <= done[number] for number in done)


def test_an_invariant_that_breaks_inside_a_command_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: MarketWorld, company: Company) -> None:
        raise InvariantBroken("on purpose")

    world = MarketWorld(rules(validate_every=1), 1)
    borrower, lender = world.companies[:2]
    offer = e.Propose(terms_of(1, 1800, 300, 900), 60, borrower.wall)
    monkeypatch.setattr(MarketWorld, "validate", broken)
    with pytest.raises(InvariantBroken, match="on purpose"):
        borrower.order(b.Key(lender.key.public, world.nonce(borrower, 1)), offer)


def overlay(faults: Faults, **changes: Any) -> OverlayWorld:
    small = rules(companies=12, hours=0.6, load=1.0, epoch_s=120, lease_s=360, loss=0.02, journal_s=0.003, **changes)
    world = OverlayWorld(small, 1, faults)
    world.run()
    for node in world.nodes:
        node.agent.core.validate()
    check(world)
    return world


def test_lenders_are_found_in_the_shipped_dht() -> None:
    world = overlay(Faults(at_s=1e9))
    assert world.finds["found"] > world.finds["empty"]
    assert world.contracts > 5 and world.datagrams > 1000
    assert all(len(node.agent.core.table) >= 10 for node in world.nodes)


def test_faults_leave_every_book_and_every_node_whole() -> None:
    faults = Faults(at_s=900.0, for_s=600.0, crashed=0.25, frozen=0.25, cut_off=0.25, skewed=0.25, skew_s=900.0)
    world = overlay(faults, lost_records=1)
    assert world.crashes > 0 and all(c.is_here for c in world.companies)
    assert any(c.frozen_until for c in world.companies) and any(c.skew_s for c in world.companies)
    assert world.network.lost > 0.03 * world.network.sent  # more than the two per cent that get lost anyway
    assert world.contracts > 5


def test_a_scenario_file_is_run_by_its_scenario_and_the_command_line_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    less = ["--hours", "0.1", "--companies", "5", "--json"]
    assert main(["run", "overlay", str(DOCS / "overlay.toml"), *less]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["companies"] == 5 and found["parameters"]["lost-records"] == 2
    assert main(["run", "dht", str(DOCS / "overlay.toml")]) == 2
    assert "overlay.toml" in capsys.readouterr().err


def test_what_the_chosen_engine_would_not_look_at_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words, mistakes in (
        (["market", "--engine", "vector", "--hours", "1"], ["hours is for engine exact alone: leave it out"]),
        (["market", "--free-riders", "0.2", "--workers", "3"], ["free-riders is for engine exact alone: say --hours 24", "workers is for"]),
        (["market", "--hours", "1", "--collusion", "0.5", "--policy", "m2"], ["collusion is for engine vector alone", "policy is for"]),
        (["market", "--engine", "exact", "--rounds", "3"], ["rounds is for engine vector alone"]),
        (["dht", "--engine", "exact", "--churn", "weibull-kad"], ["add --target key", "has no churn"]),
    ):
        assert main(["run", *words]) == 2
        said = capsys.readouterr().err
        assert all(mistake in said for mistake in mistakes), said
