"""Calendars that differ, leap and change their zone between two real companies: a contract runs by each side's own clock."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from company.client import Job
from tests.support.companies import Companies
from tests.support.company_processes import RunningCompany, until, write_package

pytestmark = pytest.mark.slow
FRAGMENTS = 5000  # more than are done while a chief is away
WORK = "def process(fragment):\n    import time\n    time.sleep(0.02)\n    return fragment * fragment\n"


def shifted(root: Path, name: str, shift_s: float) -> RunningCompany:
    """A company whose calendar is so far ahead."""
    (root / name).mkdir()
    made = RunningCompany(root / name)
    made.programs["chief"] = (sys.executable, "-m", "tests.support.shifted_clock")
    made.environ["CLOCK_SHIFT"] = str(root / name / "shift")
    (root / name / "shift").write_text(str(shift_s))
    return made


def done_of(job: Job, least: int) -> int:
    done = int(job.status()["fragments"]["done"])
    return done if done >= least else 0


def test_a_contract_goes_on_when_calendars_differ_leap_during_a_restart_and_change_their_zone(tmp_path: Path) -> None:
    with Companies(tmp_path) as both:
        both.of["lender"] = shifted(tmp_path, "lender", 300.0)  # five minutes ahead of the borrower
        both.of["borrower"] = shifted(tmp_path, "borrower", 0.0)
        both.start("lender", workers=0)
        both.of["lender"].start_workers("lent0")
        both.client("lender").network.lend(1, auto_accept="any")
        both.start("borrower", "--bootstrap", both.dht("lender"), workers=0)
        both.sees("borrower", "lender", timeout_s=60)
        data = tmp_path / "data"
        data.write_text("none")
        lender_id = str(both.of["lender"].ready["chief"]["company"])
        job = both.client("borrower").submit(
            write_package(tmp_path / "p", WORK), data, params={"n": FRAGMENTS}, where="any", yes_foreign=True
        )
        id_ = str(both.client("borrower").contracts.request(lender_id, slots=1, time_frame_s=600, lease_s=120)["id"])
        until(partial(done_of, job, 20), "work flows", timeout_s=60)
        for name, shift_s, zone in (("borrower", 7500.0, "Asia/Tokyo"), ("lender", -7500.0, "America/Lima")):
            company = both.of[name]
            company.kill("chief")
            (tmp_path / name / "shift").write_text(str(shift_s))
            company.environ["TZ"] = zone
            company._client = None
            both.start(name, workers=0, dht=both.dht(name))
            again = both.client("borrower").job(job.id)
            least = int(again.status()["fragments"]["done"]) + 20
            until(partial(done_of, again, least), f"it goes on after the leap of the {name}", timeout_s=60)
        shown: list[dict[str, Any]] = [both.client(name).contracts.show(id_) for name in ("borrower", "lender")]
        assert [(c["state"], c["causes"]) for c in shown] == [("active", {}), ("active", {})], shown
        assert all(0 < c["ends_in_s"] <= 600 for c in shown), "its time frame runs on, by each side's own clock"
        assert [c["id"] for c in both.client("borrower").contracts.list()["items"]] == [id_], "and no other contract was needed"
        again.cancel()
