"""Workers that are stopped, or whose network is unplugged: their work runs elsewhere, their leases are theirs through the grace."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from company.client import Job
from tests.faults.rounds import Harmed
from tests.support.company_processes import until, value_of, write_package

pytestmark = pytest.mark.slow
LONG = "import time\ndef process(fragment):\n    time.sleep({s})\n    return [fragment, time.time()]\n"
GRACE_S = 30.0


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harmed]:
    with Harmed(tmp_path_factory.mktemp("cut-off")) as company:
        company.open()
        yield company


def worker_of(company: Harmed, name: str) -> dict[str, object]:
    return next(w for w in company.client.workers()["items"] if w["name"] == name)


def begun(company: Harmed, package: Path, numbers: Path, n: int) -> Job:
    """A job of which both workers have something."""
    job = company.client.submit(package, numbers, params={"n": n}, batching="none")
    until(lambda: all(worker_of(company, name)["slots_busy"] for name in ("w1", "w2")), "both at work")
    return job


def test_what_a_stopped_worker_held_runs_elsewhere_and_it_comes_back_within_the_grace(
    cut_off: Harmed, numbers: Path, tmp_path: Path
) -> None:
    job = begun(cut_off, write_package(tmp_path / "p", LONG.format(s=0.3)), numbers, 30)
    pid = cut_off.processes["w1"].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert job.wait(60).state == "done", job.view  # without it
        assert [value[0] for value in value_of(job, tmp_path / "out")] == list(range(30))
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: worker_of(cut_off, "w1")["state"] == "idle", "back, healthy, with nothing locked")
    assert cut_off.is_running("w1")
    assert not any(f["tries"] or f["final"] for f in job.failures()["items"]), "no try is used up"


def test_a_worker_whose_network_is_unplugged_briefly_hands_over_what_it_computed(cut_off: Harmed, numbers: Path, tmp_path: Path) -> None:
    """One fragment that outlasts the silence; the copy begins later, so the first result, which wins, is the one of the cut-off worker."""
    job = cut_off.client.submit(write_package(tmp_path / "p", LONG.format(s=12)), numbers, params={"n": 1})
    name = str(until(lambda: next((w["name"] for w in cut_off.client.workers()["items"] if w["slots_busy"]), None), "a lease"))
    began = time.time()
    until(lambda: time.time() > began + 1.5, "the batch at its worker and running")
    cut_off.cables[name].unplug()
    until(lambda: worker_of(cut_off, name)["state"] == "offline", "its silence noticed", timeout_s=25)
    cut_off.cables[name].plug()
    assert job.wait(60).state == "done", job.view
    ((_, ended),) = value_of(job, tmp_path / "out")
    assert ended - began < 15.0, "what was computed before the cut counts"
    until(lambda: worker_of(cut_off, name)["state"] == "idle", "back")


@pytest.mark.skipif(not os.environ.get("FAULTS_FULL"), reason="waits for the whole grace; make chaos runs it")
def test_a_worker_away_past_the_grace_is_told_that_its_answer_came_too_late(cut_off: Harmed, numbers: Path, tmp_path: Path) -> None:
    job = begun(cut_off, write_package(tmp_path / "p", LONG.format(s=2)), numbers, 6)
    under_way = time.monotonic() + 1.0
    until(lambda: time.monotonic() > under_way, "the batch at its worker")
    cut_off.cables["w2"].unplug()
    assert job.wait(60).state == "done", job.view
    gone = time.monotonic() + GRACE_S + 5
    until(lambda: time.monotonic() > gone, "the grace over", timeout_s=GRACE_S + 10)
    cut_off.cables["w2"].plug()
    until(lambda: worker_of(cut_off, "w2")["state"] == "idle", "back, with nothing locked")
    until(lambda: "came too late and is not taken: job-over" in cut_off.tail_of("w2"), "told why")
    assert [r.index for r in job.results()] == list(range(6))
