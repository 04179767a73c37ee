"""Companies that compute for strangers, some of which cheat, and the ways of checking them; vectorised, in rounds (pure).

A round: every company that is not out is given one piece of work, an open job or, with probability q, a check whose answer is known. Right
answers agree; a cheat's wrong answer agrees with other cheats' with probability c. A job ends when its policy accepts an answer. A failed
check takes a company out; all it gave to jobs of this run is undone (jobs are delivered at the run's end) and done again by the same
policy. Nobody is put back under a new name: with that, no policy but replication holds (see the scenario's text).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from simulator.chance import Floats, seed_word, uniform

Policy = Literal["none", "m2", "m3", "boinc", "spot", "credibility"]
VOTES: Final = {"none": 1, "m2": 2, "m3": 3, "spot": 1, "boinc": 2}
MAX_ANSWERS: Final = 24
TRUST_FROM: Final = 10  # BOINC: that many valid replicated results in a row before a host is trusted at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """``error``: accepted error of credibility; ``assumed``: the share of bad companies that the borrower assumes."""

    policy: Policy
    cheats: float
    rate: float
    collusion: float
    check_rate: float
    error: float = 0.01
    assumed: float = 0.2
    blacklist: bool = True


class Market:
    """State of all companies and open jobs."""

    def __init__(self, companies: int, rules: Rules, seed: int) -> None:
        self.rules, self.n = rules, companies
        self.key = seed_word(seed, "market")
        who = np.arange(companies)
        self.is_cheat = uniform(self.key, who, 1) < rules.cheats
        self.passed = np.zeros(companies, dtype=np.int64)
        self.valid = np.zeros(companies, dtype=np.int64)
        self.is_out = np.zeros(companies, dtype=bool)
        self.caught_at = np.full(companies, -1, dtype=np.int64)
        self.results = np.zeros(companies, dtype=np.int64)
        self.work = self.checks = 0
        self.round = 0
        jobs = companies
        self.right, self.wrong = np.zeros(jobs), np.zeros(jobs)  # votes, or log-odds of the group
        self.single = np.zeros(jobs)  # odds of answers that stand alone, summed
        self.count = np.zeros(jobs, dtype=np.int64)
        self.need = np.full(jobs, VOTES.get(rules.policy, 0), dtype=np.int64)
        self.givers = np.full((jobs, MAX_ANSWERS), -1, dtype=np.int64)
        self.answers = np.zeros((jobs, MAX_ANSWERS), dtype=np.int8)  # 1 right, 2 the colluders', 3 alone
        self.done: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]] = []

    def step(self) -> None:
        """One round."""
        self.round += 1
        base, rules = self.round * 16, self.rules
        workers = np.flatnonzero(~self.is_out)
        is_check = uniform(self.key, workers, base) < (rules.check_rate if rules.policy in ("spot", "credibility") else 0.0)
        cheats_now = self.is_cheat[workers] & (uniform(self.key, workers, base + 1) < rules.rate)
        self.work += len(workers)
        self.checks += int(is_check.sum())
        self.results[workers] += 1
        checked = workers[is_check]
        fails = cheats_now[is_check]
        self.passed[checked[~fails]] += 1
        self._catch(checked[fails])
        giving, bad = workers[~is_check], cheats_now[~is_check]
        order = np.argsort(uniform(self.key, np.arange(len(self.count)), base + 2), kind="stable")
        # the oldest jobs first would be as good; a random order keeps companies from meeting the same partners
        jobs = order[: len(giving)]
        colludes = uniform(self.key, giving, base + 3) < rules.collusion
        self._give(giving, jobs, np.where(~bad, 1, np.where(colludes, 2, 3)).astype(np.int8))
        self._accept(jobs)

    def _catch(self, companies: npt.NDArray[np.int64]) -> None:
        if not len(companies):
            return
        first = companies[self.caught_at[companies] < 0]
        self.caught_at[first] = self.round
        if not self.rules.blacklist:
            self.passed[companies] = 0
            return
        self.is_out[companies] = True
        hit = np.isin(self.givers, companies).any(axis=1)  # open jobs that they answered begin again
        self._reset(np.flatnonzero(hit))

    def _reset(self, jobs: npt.NDArray[np.int64]) -> None:
        self.right[jobs] = self.wrong[jobs] = self.single[jobs] = 0.0
        self.count[jobs] = 0
        self.need[jobs] = VOTES.get(self.rules.policy, 0)
        self.givers[jobs] = -1
        self.answers[jobs] = 0

    def _give(self, companies: npt.NDArray[np.int64], jobs: npt.NDArray[np.int64], answers: npt.NDArray[np.int8]) -> None:
        if self.rules.policy == "boinc":
            trusted = self.valid[companies] >= TRUST_FROM
            alone = trusted & (uniform(self.key, companies, self.round * 16 + 4) > 1 / np.maximum(self.valid[companies], 1))
            first = self.count[jobs] == 0
            self.need[jobs[first]] = np.where(alone[first], 1, 2)
        self.givers[jobs, self.count[jobs]] = companies
        self.answers[jobs, self.count[jobs]] = answers
        self.count[jobs] += 1
        weight = self._log_odds(companies) if self.rules.policy == "credibility" else np.ones(len(companies))
        self.right[jobs] += np.where(answers == 1, weight, 0.0)
        self.wrong[jobs] += np.where(answers == 2, weight, 0.0)
        self.single[jobs] += np.where(answers == 3, np.exp(weight) if self.rules.policy == "credibility" else 1.0, 0.0)

    def _log_odds(self, companies: npt.NDArray[np.int64]) -> Floats:
        assumed = self.rules.assumed
        credibility = np.where(self.passed[companies] > 0, 1 - assumed / np.maximum(self.passed[companies], 1), 1 - assumed)
        return np.asarray(np.log(credibility / (1 - credibility)))

    def _accept(self, jobs: npt.NDArray[np.int64]) -> None:
        right, wrong, single = self.right[jobs], self.wrong[jobs], self.single[jobs]
        answers = self.answers[jobs]
        if self.rules.policy == "credibility":
            odds_right = np.where((answers == 1).any(axis=1), np.exp(right), 0.0)
            odds_wrong = np.where((answers == 2).any(axis=1), np.exp(wrong), 0.0)
            total = 1 + odds_right + odds_wrong + single
            enough = 1 - self.rules.error
            takes_right = odds_right / total >= enough
            takes_wrong = (odds_wrong / total >= enough) | ((self.count[jobs] == 1) & (single / total >= enough))
        else:
            need = self.need[jobs]
            takes_right = right >= need
            takes_wrong = (wrong >= need) | ((need == 1) & (single >= 1))
        takes_wrong |= ~takes_right & (self.count[jobs] >= MAX_ANSWERS)  # never seen below f = 0.5; counted as an error
        over = takes_right | takes_wrong
        ended, is_right = jobs[over], takes_right[over]
        if self.rules.policy == "boinc":
            self._validate(ended, is_right)
        self.done.append((self.givers[ended].copy(), is_right, self.count[ended].copy()))
        self._reset(ended)

    def _validate(self, jobs: npt.NDArray[np.int64], is_right: npt.NDArray[np.bool_]) -> None:
        replicated = self.count[jobs] > 1
        for place in range(MAX_ANSWERS):
            there = replicated & (self.count[jobs] > place)
            if not there.any():
                break
            companies = self.givers[jobs[there], place]
            agrees = self.answers[jobs[there], place] == np.where(is_right[there], 1, 2)
            np.add.at(self.valid, companies[agrees], 1)
            self.valid[companies[~agrees]] = 0
            caught = companies[~agrees & self.is_cheat[companies]]
            self.caught_at[caught[self.caught_at[caught] < 0]] = self.round

    def measures(self) -> dict[str, Any]:
        """What the run came to: of everything accepted and not undone."""
        givers = np.concatenate([g for g, _, _ in self.done])
        is_right = np.concatenate([r for _, r, _ in self.done])
        out = np.append(self.is_out, False)  # giver -1 is nobody
        kept = ~out[givers].any(axis=1) if self.rules.policy in ("spot", "credibility") else np.ones(len(givers), dtype=bool)
        accepted = int(kept.sum())
        errors = int((kept & ~is_right).sum())
        seen = self.caught_at[self.is_cheat]
        open_work = int(self.count.sum())
        caught = seen[seen >= 0]
        return {
            "accepted": accepted,
            "undone": int((~kept).sum()),
            "error_rate": errors / max(1, accepted),
            "error_rate_se": float(np.sqrt(max(errors, 1)) / max(1, accepted)),
            "redundancy": (self.work - open_work) / max(1, accepted),
            "slowdown": self.n * self.round / max(1, accepted),
            "check_share": self.checks / max(1, self.work),
            "detected": len(caught) / max(1, len(seen)) if len(seen) else None,
            "detection_rounds": float(caught.mean()) if len(caught) else None,
        }
