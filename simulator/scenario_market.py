"""Scenarios ``market``, ``votes`` and ``favours``: strangers' results and strangers' machines, vectorised (pure)."""

from __future__ import annotations

from typing import Any

import numpy as np

from p2p.base.errors import UsageError
from simulator.chance import seed_word, uniform
from simulator.favours_rounds import FavourRules, run_favours
from simulator.formulas import spot_check_error, voting_cost, voting_error
from simulator.market_rounds import Market, Rules
from simulator.parameters import Parameter
from simulator.scenario import Outcome, Plot, Progress, Scenario, Values
from simulator.scenario_exact_market import DEFAULT_HOURS, EXACT_PARAMETERS, run_exact

JOBS_AT_ONCE = 200_000

MARKET_PARAMETERS = (
    Parameter("companies", 2000, "companies that compute", 10, 1_000_000),
    Parameter("rounds", 200, "vector: pieces of work per company", 1, 100_000),
    Parameter("policy", "credibility", "vector: how results are checked", choices=("none", "m2", "m3", "boinc", "spot", "credibility")),
    Parameter("saboteurs", 0.05, "share of companies that cheat (f)", 0, 0.9),
    Parameter("sabotage-rate", 0.2, "how often they cheat (s)", 0, 1),
    Parameter("collusion", 1.0, "vector: probability that a wrong answer is the colluders' common one (c)", 0, 1),
    Parameter("check-rate", 0.1, "vector: share of work that is a check (q), for spot and credibility", 0, 0.9),
    Parameter("error", 0.01, "vector: accepted error of credibility", 1e-6, 0.5),
    Parameter("assumed", 0.2, "vector: share of bad companies that the borrower assumes", 0.001, 0.9),
    Parameter("blacklist", True, "vector: a failed check takes a company out for good"),
    *EXACT_PARAMETERS,
)  # fmt: skip


def run_market(values: Values, seed: int, progress: Progress) -> Outcome:
    """All rounds of one market, or all hours of an exact one."""
    v = values
    is_exact = v["engine"] == "exact" or (v["engine"] == "auto" and v["hours"] > 0)
    unused = "vector" if is_exact else "exact"
    advice = "say --hours 24, or leave it out" if v["engine"] == "auto" and not is_exact else "leave it out"
    wrong = [
        f"{p.name} is for engine {unused} alone: {advice}"
        for p in MARKET_PARAMETERS
        if p.name != "engine" and p.text.startswith(f"{unused}:") and v[p.name] != p.default
    ]
    if wrong:
        raise UsageError("simulation-parameters", "\n".join(wrong), errors=wrong)
    if is_exact:
        return run_exact({**v, "hours": v["hours"] or DEFAULT_HOURS}, seed, progress)
    rules = Rules(
        policy=v["policy"], cheats=v["saboteurs"], rate=v["sabotage-rate"], collusion=v["collusion"], check_rate=v["check-rate"],
        error=v["error"], assumed=v["assumed"], blacklist=v["blacklist"],
    )  # fmt: skip
    market = Market(v["companies"], rules, seed)
    for number in range(v["rounds"]):
        market.step()
        if number % 16 == 0:
            progress(number / v["rounds"])
    progress(1.0)
    return Outcome(market.measures())


VOTES_PARAMETERS = (
    Parameter("m", 2, "votes that an answer needs", 1, 100),
    Parameter("wrong", 0.1, "probability that a result is wrong, all the wrong agreeing (f·s)", 0, 0.95),
    Parameter("jobs", 400_000, "how many votes are held", 1, 100_000_000),
    Parameter("saboteurs", 0.2, "spot-checks: share of workers that cheat (f)", 0, 0.9),
    Parameter("sabotage-rate", 0.2, "spot-checks: how often they cheat (s)", 0, 1),
    Parameter("check-rate", 0.1, "spot-checks: share of work that is a check (q)", 0, 0.9),
    Parameter("results", 100, "spot-checks: results per worker (n)", 1, 100_000),
    Parameter("workers", 20_000, "spot-checks: workers", 10, 10_000_000),
)  # fmt: skip


def run_votes(values: Values, seed: int, progress: Progress) -> Outcome:
    """Votes and spot-checks, drawn one by one, beside their closed forms."""
    v, m = values, int(values["m"])
    wrong_wins = used = used_squares = 0
    for first in range(0, v["jobs"], JOBS_AT_ONCE):
        jobs = np.arange(first, min(first + JOBS_AT_ONCE, v["jobs"]))
        is_wrong = uniform(seed_word(seed, "votes"), jobs[:, None], np.arange(2 * m - 1)) < v["wrong"]
        wrong = np.cumsum(is_wrong, axis=1)
        right = np.arange(1, 2 * m) - wrong
        ends = np.argmax((wrong >= m) | (right >= m), axis=1)
        wrong_wins += int((wrong[np.arange(len(jobs)), ends] >= m).sum())
        used += int((ends + 1).sum())
        used_squares += int(((ends + 1) ** 2).sum())
        progress(0.5 * (first + len(jobs)) / v["jobs"])
    n = v["jobs"]
    error, cost = wrong_wins / n, used / n
    spot = _spot_checks(v, seed)
    metrics = {
        "error_rate": error,
        "error_rate_se": float(np.sqrt(max(error * (1 - error), 1 / n) / n)),
        "error_formula": voting_error(m, v["wrong"]),
        "redundancy": cost,
        "redundancy_se": float(np.sqrt(max(used_squares / n - cost * cost, 0.0) / n)),
        "redundancy_formula": voting_cost(m, v["wrong"]),
        **spot,
    }
    progress(1.0)
    return Outcome(metrics)


def _spot_checks(v: Values, seed: int) -> dict[str, Any]:
    """Each saboteur's n results, and its chance to live through them; the standard error is over workers."""
    f, s, q, n = v["saboteurs"], v["sabotage-rate"], v["check-rate"], int(v["results"])
    who = np.arange(round(f * v["workers"]))
    survives = np.ones(len(who), dtype=bool)
    bad = np.zeros(len(who), dtype=np.int64)
    for number in range(n):
        cheats = uniform(seed_word(seed, "cheat"), who, number) < s
        survives &= ~(cheats & (uniform(seed_word(seed, "spot"), who, number) < q))
        bad += cheats
    # the closed form counts the results of survivors as wrong at rate s, whatever they were: so it is compared with expected ones
    left, honest = int(survives.sum()), v["workers"] - len(who)
    kept = (left + honest) * n
    share = left / max(1, len(who))
    slope = s * f * (1 - f) / ((1 - f) + f * share) ** 2
    return {
        "spot_error": s * left * n / max(1, kept),
        "spot_error_se": float(slope * np.sqrt(max(share * (1 - share), 1 / max(1, len(who))) / max(1, len(who)))),
        "spot_error_formula": spot_check_error(f, s, q, n),
        "spot_error_as_delivered": int(bad[survives].sum()) / max(1, kept),
    }


FAVOUR_PARAMETERS = (
    Parameter("peers", 60, "companies", 4, 2000),
    Parameter("free-riders", 0.25, "share that wants and never offers", 0, 0.9),
    Parameter("wants", 0.5, "probability that a collaborator wants machines in a round", 0, 1),
    Parameter("demand", 1.0, "machines that one wants", 0.01, 1000),
    Parameter("memory", "favours", "what lenders go by", choices=("none", "favours", "history")),
    Parameter("whitewash", False, "free riders come back under a new name every round"),
    Parameter("control", False, "lenders control how much they offer"),
    Parameter("rounds", 1500, "rounds; the last third is measured", 30, 1_000_000),
)  # fmt: skip


def run_favour_scenario(values: Values, seed: int, progress: Progress) -> Outcome:
    """One network of favours."""
    v = values
    rules = FavourRules(
        peers=v["peers"], free_riders=v["free-riders"], wants=v["wants"], demand=v["demand"], memory=v["memory"], whitewash=v["whitewash"],
        control=v["control"], rounds=v["rounds"],
    )  # fmt: skip
    metrics = run_favours(rules, seed)
    progress(1.0)
    return Outcome(metrics, (Plot("share", "run", "share of a free rider", [0.0], {"share": [metrics["share_per_free_rider"]]}),))


MARKET = Scenario(
    "market",
    "Companies compute for strangers and some cheat: error, redundancy, slowdown and time to detect under no check, m-first voting, "
    "BOINC's adaptive replication, spot-checks and credibility. A company that is caught stays out; "
    "where identities are free that does not hold, so set blacklist=false to see what is left. With engine=exact (or hours) shipped "
    "contracts, ledgers, receipts, limits and favours in virtual time: free riders, over-claimers, slanderers, exit scams, crashes.",
    MARKET_PARAMETERS,
    run_market,
    (
        "error_rate",
        "redundancy",
        "slowdown",
        "detected",
        "detection_rounds",
        "detection_hours",
        "contracts",
        "borrowed_share",
        "share_per_free_rider",
        "over_credit_core_hours",
        "useful_after_hours",
        "bytes_per_s_per_company",
        "machine_events",
    ),
)
VOTES = Scenario(
    "votes",
    "m-first voting and spot-checking drawn one by one, beside their closed forms.",
    VOTES_PARAMETERS,
    run_votes,
    ("error_rate", "error_formula", "redundancy", "redundancy_formula", "spot_error", "spot_error_formula"),
)
FAVOURS = Scenario(
    "favours",
    "A network of favours with free riders: what a free rider gets, per head, of what a collaborator gets, over contention, with and "
    "without control of supply, and with whitewashing.",
    FAVOUR_PARAMETERS,
    run_favour_scenario,
    ("contention", "share_per_free_rider", "satisfaction", "received_per_given", "gini"),
)
