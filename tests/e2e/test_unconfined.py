"""A machine that cannot confine what it runs: its worker finds that out before it takes work, and takes none but on its owner's word."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.company_processes import RunningCompany, until, value_of, write_package

pytestmark = pytest.mark.slow
PROGRAM = (sys.executable, "-m", "tests.support.unconfined")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[RunningCompany]:
    """A chief without any worker."""
    root = tmp_path / "c"
    root.mkdir()
    with RunningCompany(root) as running:
        running.start_chief()
        yield running


def test_a_worker_whose_sandbox_does_not_hold_takes_no_work_and_says_why(alone: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    alone.programs["w1"] = PROGRAM
    package = write_package(tmp_path / "p", "def process(fragment):\n    return fragment\n")
    job = alone.client.submit(package, numbers, params={"n": 3})
    alone.start_worker("w1", token=str(alone.client.create_token("worker")["token"]))
    process = alone.processes["w1"]
    until(lambda: process.poll() is not None, "it left")
    assert process.returncode == 2
    said = alone.log_of("w1").read_text() + (process.stdout.read().decode() if process.stdout is not None else "")
    assert "no-sandbox" in said and "no-fork" in said and "--i-understand" in said, said
    job.status(wait_s=1.0)
    assert job.status()["fragments"]["done"] == 0 and not job.is_over, "nothing ran there"
    assert not [w for w in alone.client.workers()["items"] if w["state"] == "idle"]

    # on the owner's word it works for its own company, and everybody sees how it stands
    command = [
        *PROGRAM,
        "worker",
        "join",
        "--name",
        "w2",
        "--slots",
        "1",
        "--json",
        "--token-file",
        "-",
        "--sandbox",
        "none",
        "--i-understand",
    ]
    with open(alone.log_of("w2"), "ab") as log:
        alone.processes["w2"] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=alone.environ, start_new_session=True
        )
    assert alone.processes["w2"].stdin is not None
    alone.processes["w2"].stdin.write(str(alone.client.create_token("worker")["token"]).encode() + b"\n")
    alone.processes["w2"].stdin.close()
    alone.wait_ready("w2")
    (worker,) = [w for w in alone.client.workers()["items"] if w["name"] == "w2"]
    assert worker["isolation"] == "none"
    assert job.wait(60).state == "done", job.view
    assert value_of(job, tmp_path / "out") == [0, 1, 2]


def test_doctor_says_that_nothing_confines_modules_here(tmp_path: Path) -> None:
    with RunningCompany(tmp_path) as company:
        done = subprocess.run([*PROGRAM, "doctor", "--json"], env=company.environ, capture_output=True, text=True, timeout=120, check=False)
    found = {f["id"]: f for f in json.loads(done.stdout)["items"]}["isolation"]
    assert done.returncode == 78 and found["verdict"] == "fail", found
    assert "no-fork" in json.dumps(found)
