"""Two real companies, and kill -9 of one of them at every record of a contract: ``python -m tests.faults.contract_crashes`` (I/O).

Each point is a contract of its own through request, acceptance, work, metering and settlement, between the same two companies on
loopback. One side dies at its n-th record and is started again; n grows until a contract is over before it gets there. After each: both
books say the same, both exports verify, no slot was promised twice (a second offer competes for the only one), every fragment was merged
exactly once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from company.client import Job
from tests.faults.books import OVER, ask, contracts_of, faults_of
from tests.faults.contract_crashing import MOMENTS
from tests.support.companies import Companies
from tests.support.company_processes import RunningCompany, until, value_of, write_package

T = TypeVar("T")
SIDES = ("borrower", "lender")
FRAGMENTS = 150
LEASE_S = 12  # an epoch is a third of it
POINT_S = 180.0
PROCESS = "def process(fragment):\n    import time\n    time.sleep(0.025)\n    return fragment * fragment\n"
MANIFEST = 'time_limit = "5s"\n'


@dataclass
class Point:
    """One kill, and what came of it."""

    side: str
    record: int
    moment: str
    is_killed: bool = False
    seconds: float = 0.0
    states: list[str] = field(default_factory=list)  # of every contract that the job needed, at the borrower
    causes: dict[str, str] = field(default_factory=dict)
    accepted: int = 0  # fragments that both books say
    claimed: int = 0
    second_offer: str = ""  # the state of the one that competed
    faults: list[str] = field(default_factory=list)


class Pair:
    """The two companies. ``down_s``: how long a killed side stays dead."""

    def __init__(self, root: Path, *, down_s: float = 0.0, fragments: int = FRAGMENTS) -> None:
        self.root = root
        self.down_s = down_s
        self.fragments = fragments
        self.companies = Companies(root)
        for name in SIDES:
            folder = root / name
            folder.mkdir(parents=True)
            running = self.companies.of[name] = RunningCompany(folder)
            running.programs["chief"] = (sys.executable, "-m", "tests.faults.contract_crashing")
            running.environ |= {
                "FAULT_FILE": str(folder / "fuse"), "FAULT_VIOLATIONS": str(folder / "violations"), "FAULT_SLOTS": "1",
            }  # fmt: skip
        self.data = root / "data"
        self.data.write_text("none")
        self.package = write_package(root / "p", PROCESS, manifest=MANIFEST)
        self.lender_id = ""

    def open(self) -> None:
        """Start both; the lender has one worker, a process of its own, the borrower none."""
        both = self.companies
        self.lender_id = str(both.start("lender", workers=0).ready["chief"]["company"])
        both.of["lender"].start_workers("lent0")
        both.client("lender").network.lend(1, auto_accept="any")
        both.start("borrower", "--bootstrap", both.dht("lender"), workers=0)
        both.sees("borrower", "lender", timeout_s=60)

    def restart(self, side: str) -> None:
        """Start a side again that was killed, where it was before."""
        running = self.companies.of[side]
        running.kill("chief")  # it is dead: this reaps it
        time.sleep(self.down_s)
        running._client = None
        other = ("--bootstrap", self.companies.dht("lender")) if side == "borrower" else ()
        self.companies.start(side, *other, dht=self.companies.dht(side), workers=0)

    def ask(self, side: str, question: Callable[[Any], T]) -> T | None:
        return ask(lambda: self.companies.client(side), question)

    def contracts(self, side: str) -> dict[str, dict[str, Any]] | None:
        return contracts_of(lambda: self.companies.client(side))

    # ---- one point ---------------------------------------------------------------------------------------------------------
    def point(self, side: str, record: int, moment: str) -> Point:
        """One contract, one kill."""
        found = Point(side, record, moment)
        began = time.monotonic()
        until(lambda: self.ask("lender", _is_free), "the lender's slot is free", timeout_s=60)
        before = set(self.contracts("borrower") or ())
        job = self.companies.client("borrower").submit(
            self.package, self.data, params={"n": self.fragments}, where="any", yes_foreign=True
        )  # fmt: skip
        fuse = self.companies.of[side].root / "fuse"
        fuse.with_suffix(".new").write_text(f"{moment} {record}")
        fuse.with_suffix(".new").rename(fuse)
        second = self._run(found, job.id, before, fuse)
        try:
            fuse.unlink()
        except FileNotFoundError:  # taken by the side that dies of it, perhaps when everything was over
            if not found.is_killed:
                until(lambda: not self.companies.of[side].is_running("chief"), f"the {side} is dead", timeout_s=10)
                found.is_killed = True
                self.restart(side)
        mine = [id_ for id_ in self.contracts("borrower") or () if id_ not in before and id_ != second]
        self._judge(found, self.companies.client("borrower").job(job.id), mine, second)
        found.seconds = round(time.monotonic() - began, 1)
        return found

    def _run(self, found: Point, job: str, before: set[str], fuse: Path) -> str:
        """Until the job is done and every contract is over on both sides. Returns the id of the offer that competed."""
        second, state, rows, end = "", "", {}, time.monotonic() + POINT_S
        while time.monotonic() < end:
            time.sleep(0.05)
            if not self.companies.of[found.side].is_running("chief"):
                found.is_killed = True
                self.restart(found.side)
            ours, theirs = self.contracts("borrower"), self.contracts("lender")
            view = self.ask("borrower", lambda c: c.job(job).view)
            if ours is None or theirs is None or view is None:
                continue
            rows, state = {id_: row for id_, row in ours.items() if id_ not in before}, str(view["state"])
            open_ = [id_ for id_, row in rows.items() if row["state"] not in OVER]
            if found.is_killed and not second and any(theirs.get(id_, {}).get("section") == "active" for id_ in rows):
                second = self._request(seconds=30)
            elif state in ("failed", "cancelled"):
                break
            elif state != "done" and not [i for i in open_ if i != second] and self.ask("lender", _is_free):
                self._request(seconds=3600)  # the first one, or one after a contract that ended early
            elif state == "done":
                for id_ in open_:
                    action = "revoke" if "revoke" in rows[id_]["actions"] else "reject"  # an offer without an answer is taken back
                    self.ask("borrower", lambda c, id_=id_, action=action: c.contracts.act(id_, action))
                if rows and not open_ and all(theirs.get(i, rows[i])["state"] in OVER for i in rows):
                    return second
        found.faults.append(f"not over after {POINT_S:g} s: job {state}, {[(i, r['state']) for i, r in rows.items()]}")
        return second

    def _request(self, *, seconds: int) -> str:
        made = self.ask("borrower", lambda c: c.contracts.request(self.lender_id, slots=1, time_frame_s=seconds, lease_s=LEASE_S))
        return str(made["id"]) if made is not None else ""

    def _judge(self, found: Point, job: Job, mine: list[str], second: str) -> None:
        """Everything that must hold."""
        folder = Path(tempfile.mkdtemp(dir=self.root))
        if value_of(job, folder) != [i * i for i in range(self.fragments)]:
            found.faults.append("the merged result is another one")
        if [r.index for r in job.results()] != list(range(self.fragments)):
            found.faults.append("a fragment is there twice, or not at all")
        for id_ in [*mine, *([second] if second else [])]:
            self._compare(found, id_, is_second=id_ == second)
        for name in SIDES:
            said = self.companies.of[name].root / "violations"
            if said.exists():
                found.faults.append(f"{name}: {said.read_text()[:2000]}")
                said.unlink()

    def _compare(self, found: Point, id_: str, *, is_second: bool) -> None:
        borrower, lender = (self.companies.client(name) for name in SIDES)
        view = borrower.contracts.show(id_)
        found.faults += faults_of(id_, borrower, lender)
        if is_second:
            found.second_offer = str(view["state"])
            return
        found.states.append(str(view["state"]))
        if view["state"] == "rated":
            found.causes |= view["causes"]
            found.accepted += view["accepted"]["fragments"]
            found.claimed += view["claimed"]["fragments"]

    def close(self) -> None:
        self.companies.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _is_free(client: Any) -> bool:
    now = client.network.lending()
    return now["slots"] > 0 and now["promised"] == 0


def run(pair: Pair, *, sides: tuple[str, ...], moments: tuple[str, ...], first: int, last: int) -> Iterator[Point]:
    """Every point, side by side; ends for a side where its contract has no such record any more."""
    for moment in moments:
        for side in sides:
            for record in range(first, last + 1):
                found = pair.point(side, record, moment)
                if not found.is_killed and not found.faults:
                    break
                yield found


def line(point: Point) -> str:
    """One row of the report."""
    causes = ", ".join(f"{who}: {why}" for who, why in point.causes.items())
    units = f"{point.accepted} of {point.claimed} fragments"
    bad = f"  {len(point.faults)} FAULTS" if point.faults else ""
    second = f"second offer {point.second_offer or '-'}"
    where = f"{point.side:<9}{point.record:>3} {point.moment:<10}{'+'.join(point.states):<16}"
    return f"{where}{units:<24}{second:<22}{point.seconds:>6} s  {causes}{bad}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.contract_crashes", description=__doc__)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--moments", default="written", help=f"of {', '.join(MOMENTS)}")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--last", type=int, default=60)
    parser.add_argument("--down", type=float, default=0.0, help=f"seconds that a killed side stays dead; the lease is {LEASE_S} s")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    points: list[Point] = []
    with tempfile.TemporaryDirectory(prefix="contract-crashes-") as folder, Pair(Path(folder), down_s=given.down) as pair:
        pair.open()
        for point in run(
            pair, sides=tuple(given.sides.split(",")), moments=tuple(given.moments.split(",")), first=given.first, last=given.last
        ):  # fmt: skip
            points.append(point)
            print(line(point), *point.faults, sep="\n    ", flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(p) for p in points], indent=1))
    bad = sum(bool(p.faults) for p in points)
    short = sum(p.accepted < p.claimed for p in points)
    print(f"{len(points)} kills, {bad} with faults, {short} with work that was not accepted, {sum(p.seconds for p in points):.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
