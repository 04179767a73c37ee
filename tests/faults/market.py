"""Many companies as real processes that lend and borrow at random while chiefs and workers are killed (I/O).

``python -m tests.faults.market [--companies 40] [--workers 3] [--minutes 10] [--seed 1] [--json FILE]``. Every company has workers of its
own and lends them to anybody; jobs are submitted, slots asked for, contracts ended, chiefs and workers killed with -9 and started again.
Each chief checks its books after every event. At the end all jobs are finished and all contracts over, and whatever two books say of one
contract is compared: no slot was promised twice, every fragment was merged exactly once, every receipt has both halves.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from company.client import Job
from company.errors import CompanyError
from tests.faults.books import OVER, ask, contracts_of, faults_of
from tests.support.companies import Companies
from tests.support.company_processes import RunningCompany, until, value_of, write_package

LEASE_S = 60  # a chief that was killed is back before that, also on a busy machine
END_S = 300.0  # for what is open when nothing is killed any more
PROCESS = "def process(fragment):\n    import time\n    time.sleep(0.03)\n    return fragment * fragment\n"
ACTIONS = {"submit": 4, "borrow": 4, "end": 1, "kill-chief": 1, "kill-worker": 1}


@dataclass
class Outcome:
    """What was done, and what did not hold."""

    done: Counter[str] = field(default_factory=Counter)
    contracts: Counter[str] = field(default_factory=Counter)  # by the state in which they ended
    fragments_abroad: int = 0  # that both books accepted
    faults: list[str] = field(default_factory=list)


class Market:
    """Companies by name."""

    def __init__(self, root: Path, *, companies: int, workers: int, seed: int) -> None:
        self.root = root
        self.rng = Random(seed)
        self.workers = workers
        self.names = [f"c{number:02}" for number in range(companies)]
        self.all = Companies(root)
        self.outcome = Outcome()
        self.jobs: list[tuple[str, str, int]] = []  # company, job, fragments
        self.data = root / "data"
        self.data.write_text("none")
        self.package = write_package(root / "p", PROCESS, manifest='time_limit = "10s"\n')
        for name in self.names:
            (root / name).mkdir()
            running = self.all.of[name] = RunningCompany(root / name)
            running.programs["chief"] = (sys.executable, "-m", "tests.faults.contract_crashing")
            running.environ |= {
                "FAULT_FILE": str(root / name / "fuse"), "FAULT_VIOLATIONS": str(root / name / "violations"), "FAULT_SLOTS": str(workers),
            }  # fmt: skip

    def client(self, name: str) -> Any:
        return self.all.client(name)

    def open(self) -> None:
        """Start everybody; the first is the others' way into the network."""
        for name in self.names:
            options = () if name == self.names[0] else ("--bootstrap", self.all.dht(self.names[0]))
            self.all.start(name, *options, workers=0)
            self.all.of[name].start_workers(*(f"{name}-w{number}" for number in range(self.workers)))
            self.client(name).network.lend(self.workers, auto_accept="any")
        for name in self.names:
            until(lambda name=name: self._offers(name), f"{name} finds others", timeout_s=120)

    def _offers(self, name: str) -> list[str]:
        """Companies that lend now, as this one sees it."""
        found = ask(lambda: self.client(name), lambda c: c.network.search(slots=1)["offers"])
        return [str(offer["company"]) for offer in found or [] if offer["answer"] == "idle"]

    # ---- what happens ----------------------------------------------------------------------------------------------------------
    def run(self, seconds: float, pause_s: float) -> None:
        """One thing after the other."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            action = self.rng.choices(list(ACTIONS), list(ACTIONS.values()))[0]
            self.do(action, self.rng.choice(self.names))
            time.sleep(pause_s)

    def do(self, action: str, name: str) -> None:
        """Let one thing happen to one company."""
        match action:
            case "submit":
                self._submit(name)
            case "borrow":
                self._borrow(name)
            case "end":
                live = [i for i, row in (contracts_of(lambda: self.client(name)) or {}).items() if "revoke" in row["actions"]]
                if live:
                    ask(lambda: self.client(name), lambda c: c.contracts.act(self.rng.choice(live), "revoke", notice_s=0))
            case "kill-chief":
                self._kill_chief(name)
            case "kill-worker":
                worker = f"{name}-w{self.rng.randrange(self.workers)}"
                self.all.of[name].kill(worker)
                self.all.of[name].start_worker(worker)
        self.outcome.done[action] += 1

    def _submit(self, name: str) -> None:
        count = self.rng.randrange(50, 300)
        job = ask(
            lambda: self.client(name),
            lambda c: c.submit(
                self.package, self.data, params={"n": count}, where="any", yes_foreign=True, name=f"{name}-{len(self.jobs)}"
            ),
        )
        if job is not None:
            self.jobs.append((name, job.id, count))

    def _borrow(self, name: str) -> None:
        offers = self._offers(name)
        if offers and any(owner == name for owner, _, _ in self.jobs):
            lender, slots = self.rng.choice(offers), self.rng.randint(1, self.workers)
            ask(
                lambda: self.client(name),
                lambda c: c.contracts.request(
                    lender, package="p", slots=slots, time_frame_s=self.rng.choice((15, 60, 600)), lease_s=LEASE_S, valid_s=120
                ),
            )

    def _kill_chief(self, name: str) -> None:
        running = self.all.of[name]
        running.kill("chief")
        running._client = None
        other = next(n for n in self.names if n != name)
        self.all.start(name, "--bootstrap", self.all.dht(other), dht=self.all.dht(name), workers=0)

    # ---- the end ---------------------------------------------------------------------------------------------------------------
    def finish(self) -> Outcome:
        """Let everything come to its end, then compare."""
        waiting: list[tuple[str, str, int]] = []
        for name, id_, count in self.jobs:
            self._judge_job(name, self.client(name).job(id_), count, waiting)
        self.outcome.done["waited-for-lent-slots"] = len(waiting)
        end = time.monotonic() + END_S
        while (left := self._end_all()) and time.monotonic() < end:
            time.sleep(0.2)
        self.outcome.faults += [f"not over after {END_S:g} s: {row}" for row in left]
        for name, id_, count in waiting:
            self._judge_job(name, self.client(name).job(id_), count)
        self._compare()
        for name in self.names:
            said = self.root / name / "violations"
            if said.exists():
                self.outcome.faults.append(f"{name}: {said.read_text()[:2000]}")
        return self.outcome

    def _judge_job(self, name: str, job: Job, count: int, waiting: list[tuple[str, str, int]] | None = None) -> None:
        """``waiting``: takes what does not go on because all its company's slots are lent, which is a promise and no fault."""
        try:
            job.wait(END_S)
            value = value_of(job, Path(tempfile.mkdtemp(dir=self.root)))
        except (CompanyError, TimeoutError) as error:
            why = ask(lambda: self.client(name), lambda c: c.job(job.id).explain()) or []
            if waiting is not None and any(reason["code"] == "slots-lent" for reason in why):
                waiting.append((name, job.id, count))
            else:
                self.outcome.faults.append(f"{name} {job.id}: {error}; {json.dumps(why)}")
            return
        if value != [i * i for i in range(count)] or [r.index for r in job.results()] != list(range(count)):
            self.outcome.faults.append(f"{name} {job.id}: another result than {count} squares, each once")

    def _end_all(self) -> list[str]:
        """End what runs; returns what is not over yet."""
        left = []
        for name in self.names:
            rows = contracts_of(lambda name=name: self.client(name))
            if rows is None:
                left.append(f"{name} does not answer")
            for id_, row in (rows or {}).items():
                if row["state"] not in OVER:
                    left.append(f"{name} {id_} {row['state']}")
                    action = next((a for a in ("revoke", "reject", "withdraw") if a in row["actions"]), None)
                    if action is not None and row["role"] == "borrower":
                        verb = "reject" if action == "withdraw" else action
                        ask(lambda name=name: self.client(name), lambda c, id_=id_, verb=verb: c.contracts.act(id_, verb))
        return left

    def _compare(self) -> None:
        by_company = {str(self.all.of[name].ready["chief"]["company"]): name for name in self.names}
        for name in self.names:
            for id_, row in (contracts_of(lambda name=name: self.client(name)) or {}).items():
                if row["role"] != "borrower":
                    continue
                self.outcome.contracts[row["state"]] += 1
                self.outcome.faults += faults_of(id_, self.client(name), self.client(by_company[row["company"]]))
                if row["state"] == "rated":
                    self.outcome.fragments_abroad += row["accepted"]["fragments"]


def run(root: Path, *, companies: int, workers: int, seconds: float, seed: int, pause_s: float = 0.5) -> Outcome:
    """The whole of it in a folder of its own."""
    market = Market(root, companies=companies, workers=workers, seed=seed)
    with market.all:
        market.open()
        for name in market.names:
            market.do("submit", name)
        market.run(seconds, pause_s)
        return market.finish()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.market", description=__doc__)
    parser.add_argument("--companies", type=int, default=40)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="market-"))
    found = run(folder, companies=given.companies, workers=given.workers, seconds=given.minutes * 60, seed=given.seed)
    told = {
        "companies": given.companies, "workers": given.workers, "minutes": given.minutes, "seed": given.seed, "done": dict(found.done),
        "contracts": dict(found.contracts), "fragments_abroad": found.fragments_abroad, "faults": found.faults,
    }  # fmt: skip
    print(json.dumps(told, indent=1))
    if given.json:
        given.json.write_text(json.dumps(told, indent=1))
    if found.faults:
        print(f"the companies' homes, with their logs: {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
