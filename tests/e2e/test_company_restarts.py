"""Processes that are killed: a job goes on, its results count once, its result is the same bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.company_processes import RunningCompany, until, value_of, write_package

pytestmark = pytest.mark.slow

N = 400
PROCESS = """
    import hashlib, time
    def process(fragment):
        time.sleep(0.01)
        return hashlib.sha256(str(fragment).encode()).hexdigest()
"""
MERGE_FILE = """
    def merge(results, output):
        with (output / "digests.txt").open("w") as file:
            for number, result in enumerate(results):
                file.write(f"{number} {result}\\n")
"""


def expected() -> bytes:
    import hashlib

    return "".join(f"{i} {hashlib.sha256(str(i).encode()).hexdigest()}\n" for i in range(N)).encode()


@pytest.fixture
def own_company(tmp_path: Path) -> Iterator[RunningCompany]:
    """A company that a test may harm."""
    root = tmp_path / "c"
    root.mkdir()
    with RunningCompany(root) as running:
        running.start_chief()
        running.start_workers("w1", "w2")
        yield running


def test_a_worker_killed_in_the_middle_of_a_job_costs_nothing_but_time(own_company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", PROCESS, merge=MERGE_FILE)
    job = own_company.client.submit(package, numbers, params={"n": N})
    until(lambda: job.status()["fragments"]["done"] > 20, "results")
    own_company.kill("w1")
    assert not job.is_over
    assert job.wait(60).state == "done", job.view
    (path,) = job.download(tmp_path / "out")
    assert path.read_bytes() == expected()
    assert job.view["fragments"]["failed"] == 0
    assert all(f["tries"] == 0 for f in job.failures()["items"]), "a lost worker uses up no try"
    # the dead worker comes back with its own key and no new token
    own_company.start_worker("w1")
    own_company.wait_ready("w1")
    until(lambda: {w["name"]: w["state"] for w in own_company.client.workers()["items"]}.get("w1") == "idle", "w1 back")


def test_a_chief_killed_in_the_middle_of_a_job_goes_on_with_it(own_company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", PROCESS, merge=MERGE_FILE)
    job = own_company.client.submit(package, numbers, params={"n": N})
    until(lambda: job.status()["fragments"]["done"] > 40, "results")
    shown = {r.index: r.value for r in job.results()}
    own_company.kill("chief")
    own_company.start_chief()
    again = own_company.client.job(job.id)
    assert not again.is_over
    assert shown.items() <= {r.index: r.value for r in again.results()}.items(), "a result that was given out was on disk"
    assert again.wait(90).state == "done", again.view
    (path,) = again.download(tmp_path / "out")
    assert path.read_bytes() == expected()
    indices = [r.index for r in again.results()]
    assert indices == list(range(N)), "every fragment exactly once"
    assert own_company.is_running("w1")
    assert own_company.is_running("w2")


def test_a_long_fragment_is_not_run_again_because_the_chief_was(own_company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p", "import time\ndef process(fragment):\n    began = time.time()\n    time.sleep(9)\n    return began\n"
    )
    job = own_company.client.submit(package, numbers, params={"n": 1})
    until(lambda: job.status()["fragments"]["leased"], "a lease")
    old_enough = time.time() + 6.0  # a lease of 5 s gets a row
    until(lambda: time.time() > old_enough, "the lease on disk")
    own_company.kill("chief")
    killed = time.time()
    own_company.start_chief()
    again = own_company.client.job(job.id)
    assert again.wait(60).state == "done", again.view
    assert value_of(again, tmp_path / "out")[0] < killed, "it began before, and once"


def test_a_job_survives_any_number_of_kills(own_company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", PROCESS, merge=MERGE_FILE)
    job = own_company.client.submit(package, numbers, params={"n": N})

    def progress(more: int) -> None:
        at = job.status()["fragments"]["done"]
        until(lambda: job.status()["fragments"]["done"] >= min(N, at + more) or job.is_over, f"{more} results more than {at}")

    for _ in range(2):
        progress(40)
        own_company.kill("w1")
        own_company.start_worker("w1")
        own_company.wait_ready("w1")
        progress(20)
        own_company.kill("chief")
        own_company.start_chief()
        job = own_company.client.job(job.id)
    assert job.wait(90).state == "done", job.view
    (path,) = job.download(tmp_path / "out")
    assert path.read_bytes() == expected()


def test_a_chief_that_is_stopped_in_order_goes_on_with_its_jobs_and_keeps_the_ended_ones(
    own_company: RunningCompany, numbers: Path, tmp_path: Path
) -> None:
    package = write_package(tmp_path / "p", PROCESS, merge=MERGE_FILE)
    ended = own_company.run(package, numbers, params={"n": 3})
    job = own_company.client.submit(package, numbers, params={"n": N})
    until(lambda: job.status()["fragments"]["done"] > 40, "results")
    assert own_company.stop("chief") == 0
    own_company.start_chief()
    again = own_company.client.job(job.id)
    assert again.wait(90).state == "done", again.view
    (path,) = again.download(tmp_path / "out")
    assert path.read_bytes() == expected()
    old = own_company.client.job(ended.id)
    assert (old.state, old.view["result_digest"]) == ("done", ended.view["result_digest"])
    assert own_company.stop("w1") == 0


def test_a_backup_restored_elsewhere_has_jobs_and_results(own_company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", PROCESS, merge=MERGE_FILE)
    job = own_company.run(package, numbers, params={"n": 5})
    archive = tmp_path / "backup.tar"
    made = own_company.command("admin", "backup", str(archive))
    assert made.returncode == 0, made.stderr
    root = tmp_path / "d"
    root.mkdir()
    with RunningCompany(root) as other:
        restored = other.command("admin", "restore", str(archive))
        assert restored.returncode == 0, restored.stderr
        other.start_chief()
        again = other.client.job(job.id)
        assert again.state == "done"
        (path,) = again.download(tmp_path / "out")
        (original,) = job.download(tmp_path / "original")
        assert path.read_bytes() == original.read_bytes()
