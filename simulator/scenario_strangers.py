"""Scenario ``strangers``: one job computed by strangers who may agree on wrong answers, under the shipped checks (pure)."""

from __future__ import annotations

from typing import Final

from p2p.reputation.checking import Policy
from simulator.checked_job import CheckedJob, JobRules
from simulator.parameters import Parameter
from simulator.scenario import Outcome, Progress, Scenario, Values

WAYS: Final = {"trial": "spot", "agreement": "spot", "vote": "vote", "none": "none"}  # and what a contract's terms call it
PARAMETERS = (
    Parameter("companies", 40, "companies that compute", 1, 1000),
    Parameter("slots", 2, "slots of each", 1, 64),
    Parameter("own-slots", 4, "own slots, whose answers are the checks", 1, 1000),
    Parameter("fragments", 12_000, "fragments of the job", 10, 200_000),
    Parameter("check-slots", 4, "trial: slots at home that compute answers again (a chief has one for ten borrowed slots)", 1, 1000),
    Parameter("policy", "trial", "trial: as shipped; agreement and vote: the machine that believes equal answers", choices=tuple(WAYS)),
    Parameter("saboteurs", 0.2, "share of companies that cheat (f)", 0, 0.9),
    Parameter("sabotage-rate", 0.2, "how often they cheat (s)", 0, 1),
    Parameter("collusion", 1.0, "probability that a wrong answer is the colluders' common one (c)", 0, 1),
    Parameter("check-rate", 0.1, "share of answers that are checked (q)", 0, 0.9),
    Parameter("error", 0.01, "accepted error", 1e-6, 0.5),
    Parameter("assumed", 0.2, "share of bad companies that the borrower assumes", 0.001, 0.49),
    Parameter("new-names", False, "who is caught is back at once as somebody else"),
    Parameter("validate-every", 997, "check the machine's invariants after every n-th event; 0 never", 0, 10_000_000),
)


def run(values: Values, seed: int, progress: Progress) -> Outcome:
    """One job."""
    v = values
    policy = Policy(kind=WAYS[v["policy"]], epsilon=v["error"], assumed_bad=v["assumed"], spot=v["check-rate"])
    rules = JobRules(
        way=v["policy"], policy=policy, companies=v["companies"], slots=v["slots"], own_slots=v["own-slots"], check_slots=v["check-slots"],
        fragments=v["fragments"], cheats=v["saboteurs"], rate=v["sabotage-rate"], collusion=v["collusion"], new_names=v["new-names"],
        validate_every=v["validate-every"],
    )  # fmt: skip
    job = CheckedJob(rules, seed)
    job.run()
    progress(1.0)
    return Outcome(job.measures())


STRANGERS = Scenario(
    "strangers",
    "One job computed by strangers under the shipped checks (exact): answers have contents, and cheats may agree on the same wrong ones. "
    "Error, answers per fragment, time and how soon a cheat is caught, over shares of cheats, how often they lie, collusion and policy.",
    PARAMETERS,
    run,
    ("error_rate", "redundancy", "slowdown", "check_share", "detected", "detection_results"),
)
