"""A second machine that has nothing but Python: the install line, the join line, a job, and both sides started again.

As root it is a network namespace of its own, reached through a virtual cable; else an empty environment on this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.company_processes import RunningCompany, until, value_of, write_package

pytestmark = pytest.mark.slow
NAMESPACE, CABLE, HOST, GUEST = "company-test", "cmptest", "10.213.77.1", "10.213.77.2"
WHO = "import os, socket\ndef process(fragment):\n    return fragment * 2\n"


@dataclass(frozen=True)
class Machine:
    """Another machine as far as one machine can play it. ``chief_host``: under which the chief is reached from there."""

    home: Path
    prefix: tuple[str, ...]
    chief_host: str

    def environ(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": f"{self.home}/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}

    def start(self, line: str, log: Path) -> subprocess.Popen[bytes]:
        """Run a pasted line."""
        with log.open("ab") as file:
            command = [*self.prefix, "/bin/sh", "-c", f"exec {line}"]
            return subprocess.Popen(command, env=self.environ(), cwd=self.home, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def run(self, line: str, *, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run a pasted line to its end."""
        command = [*self.prefix, "/bin/sh", "-c", line]
        return subprocess.run(command, env=self.environ(), cwd=self.home, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    home = tmp_path / "far"
    (home / "bin").mkdir(parents=True)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (home / "bin" / name).symlink_to(os.path.realpath(sys.executable))  # the same Python, without this project's environment
    if os.geteuid() != 0 or not _lay_cable():
        yield Machine(home, (), "127.0.0.1")
        return
    yield Machine(home, ("ip", "netns", "exec", NAMESPACE), HOST)
    subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


def _lay_cable() -> bool:
    """Make the namespace and the way to it; False where that is not allowed."""
    for words in (
        f"netns add {NAMESPACE}", f"link add {CABLE} type veth peer name {CABLE}2", f"link set {CABLE}2 netns {NAMESPACE}",
        f"addr add {HOST}/24 dev {CABLE}", f"link set {CABLE} up", f"-n {NAMESPACE} addr add {GUEST}/24 dev {CABLE}2",
        f"-n {NAMESPACE} link set {CABLE}2 up", f"-n {NAMESPACE} link set lo up",
    ):  # fmt: skip
        try:
            done = subprocess.run(["ip", *words.split()], capture_output=True, check=False)
        except FileNotFoundError:
            return False
        if done.returncode:
            subprocess.run(["ip", "netns", "del", NAMESPACE], capture_output=True, check=False)
            return False
    return True


@pytest.fixture
def chief(tmp_path: Path, machine: Machine) -> Iterator[RunningCompany]:
    with RunningCompany(tmp_path) as company:
        company.rpc = f"{machine.chief_host}:0"
        company.start_chief()
        yield company


def test_the_two_lines_make_a_worker_that_outlives_restarts(chief: RunningCompany, machine: Machine, tmp_path: Path) -> None:
    done = chief.command("token", "create", "--role", "worker")
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
    install, join = lines[0], lines[1]
    installed = machine.run(install)
    assert installed.returncode == 0, installed.stderr
    assert "/.local/share/company/venv/bin/company worker join" in installed.stdout

    log = tmp_path / "far.log"
    worker = machine.start(f"{join} --slots 2 --name far", log)
    try:
        until(lambda: _state(chief, "far") == "idle", f"the worker has joined: {log.read_text()}", timeout_s=60)
        (tmp_path / "data.txt").write_text("x")
        package = write_package(tmp_path / "p", WHO)
        job = chief.run(package, tmp_path / "data.txt", params={"n": 200})
        assert value_of(job, tmp_path / "out") == [2 * i for i in range(200)]

        chief.kill("chief")
        chief.start_chief()
        until(lambda: _state(chief, "far") == "idle", "the worker came back to the chief", timeout_s=60)
        worker.kill()
        worker.wait()
        command = join.partition(" worker join ")[0]
        worker = machine.start(f"{command} worker join --slots 2 --name far", log)  # the machine was started again: no token
        until(lambda: _state(chief, "far") == "idle", "the worker is back without a token", timeout_s=60)
        assert value_of(chief.run(package, tmp_path / "data.txt", params={"n": 7}), tmp_path / "out2") == [2 * i for i in range(7)]
        assert len(chief.client.workers()["items"]) == 1
    finally:
        worker.kill()
        worker.wait()


def test_the_page_of_wheels_lists_what_the_line_installs(chief: RunningCompany, machine: Machine) -> None:
    line = json.loads(chief.command("token", "create", "--role", "worker", "--json").stdout)["install_line"]
    done = machine.run(f"{line} --target /dev/null/nowhere", timeout_s=120)
    assert done.returncode == 1
    assert "could not be made" in done.stderr
    page = chief.client.transport.request("GET", "/wheelhouse/").body.decode()
    assert "company_compute-" in page
    assert "msgpack-" in page


def _state(company: RunningCompany, name: str) -> str:
    """The state of the worker called ``name``; nil-like while it or the chief is not there."""
    return next((w["state"] for w in company.client.workers()["items"] if w["name"] == name), "")
