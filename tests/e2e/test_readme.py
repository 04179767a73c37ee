"""The lines that README.md and docs/operations.md tell a user to type, typed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.company_processes import RunningCompany

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120.0


def block(page: str, mark: str) -> str:
    """The shell lines after the comment that begins with ``mark``."""
    found = re.search(rf"<!-- {mark}:[^>]*-->\n```sh\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no block {mark!r}"
    return found[1]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A home of its own, free ports, one slot, and the command where `activate` would put it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("COMPANY_")}
    return clean | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COMPANY_HOME": str(tmp_path / "home"),
        "COMPANY_START_HTTP": "127.0.0.1:0", "COMPANY_START_RPC": "127.0.0.1:0", "COMPANY_START_DHT": "off", "COMPANY_START_WORKERS": "1",
    }  # fmt: skip


def wait_for(process: subprocess.Popen[str], wanted: str) -> None:
    """Read what a process says up to the line that contains ``wanted``; one that never says it is ended, and the test with it."""
    assert process.stdout is not None
    watchdog = threading.Timer(TIMEOUT_S, process.kill)
    watchdog.start()
    try:
        if not any(wanted in line for line in process.stdout):
            pytest.fail(f"it never said {wanted!r}")
    finally:
        watchdog.cancel()


@pytest.mark.slow
def test_the_quick_start_works_as_it_is_written(tmp_path: Path, environ: dict[str, str]) -> None:
    lines = block("README.md", "quick start").replace("/tmp/", f"{tmp_path}/").splitlines()
    assert len(lines) <= 10
    assert lines[0] == ". .venv/bin/activate"  # here the environment does that
    said: dict[str, str] = {}
    running: dict[str, subprocess.Popen[str]] = {}

    def start(command: str, ready: str, **more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], env=environ | more, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        running[command] = process
        wait_for(process, ready)
        return process

    try:
        for line in lines[1:]:
            if line.endswith("&"):
                chief = start(line.removesuffix(" &"), "Ctrl-C stops the chief")
                continue
            done = subprocess.run(
                ["bash", "-c", line], env=environ, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
            assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
            said[line] = done.stdout
            if "token create" in line:
                join = re.search(r"company worker join \S+", done.stdout)
                assert join is not None
                start(f"{join[0]} --slots 1 --name second", "Joined", COMPANY_HOME=str(tmp_path / "second machine"))
        assert "second" in said["company worker list"]
        assert list((tmp_path / "first-result").iterdir()) != []
        assert chief.wait(30) == 0  # `company stop` was the last line
    finally:
        for process in running.values():
            process.terminate()
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine; on Debian: apt-get install curl")
def test_a_job_by_curl_alone_works_as_it_is_written(company: RunningCompany, tmp_path: Path) -> None:
    chief = company.ready["chief"]
    environ = os.environ | {"COMPANY_URL": str(chief["http"]), "COMPANY_TOKEN": str(chief["token"])}
    script = "set -eu\n" + block("docs/operations.md", "by curl").replace("/tmp/", f"{tmp_path}/")
    done = subprocess.run(["bash", "-c", script], env=environ, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert b'"primes"' in (tmp_path / "primes.result").read_bytes() or (tmp_path / "primes.result").read_bytes().startswith(b"PK")
