"""A package that says how many processes it starts may start them on own workers, in its sandbox and bounded; others may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from company.errors import InvalidError
from tests.support.company_processes import RunningCompany, value_of, write_package

RUNS = """
import os, subprocess
def process(fragment):
    done = subprocess.run(["/bin/sh", "-c", "echo $$; cat /etc/shadow /root/.bashrc"], capture_output=True, text=True)
    uid = subprocess.run(["/usr/bin/id", "-u"], capture_output=True, text=True).stdout.strip()
    return [len(done.stdout.split()), uid, os.path.exists("/root")]
"""
BOMB = """
import os, signal, time
def process(fragment):
    pids = []
    try:
        while True:
            pid = os.fork()
            if pid == 0:
                time.sleep(600)
                os._exit(0)
            pids.append(pid)
    except OSError as error:
        return [len(pids) < 300, type(error).__name__]
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
"""


def test_programs_run_in_the_sandbox_of_the_fragment(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", RUNS)
    (package / "package.toml").write_text("processes = 8\n")
    job = company.run(package, numbers, params={"n": 1})
    assert job.state == "done", job.failures()
    assert value_of(job, tmp_path / "out") == [[1, "1000", False]]


def test_a_fork_bomb_ends_at_the_bound(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", BOMB)
    (package / "package.toml").write_text("processes = 16\n")
    job = company.run(package, numbers, params={"n": 1})
    assert job.state == "done", job.failures()
    assert value_of(job, tmp_path / "out") == [[True, "BlockingIOError"]]


def test_such_a_package_runs_on_own_workers_only(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", RUNS)
    (package / "package.toml").write_text("processes = 8\n")
    with pytest.raises(InvalidError, match="own workers"):
        company.client.submit(package, numbers, where="any")
