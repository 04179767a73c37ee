"""Ours: a chief and worker processes as a user starts them, from the command line, in a temporary home (I/O)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import psutil

from benchmarks.work import write_packages
from company.client import Job, connect
from company.demo_company import DemoCompany

POLL_S = 0.002
JOB_TIMEOUT_S = 600.0
COMMAND = Path(sys.executable).with_name("company")  # the console script


class BenchCompany(DemoCompany):
    """A running company with the benchmark packages uploaded."""

    def __init__(self) -> None:
        super().__init__()
        self.packages: dict[str, str] = {}
        self.dataset = ""
        self.folder = self.scratch / "packages"

    def __enter__(self) -> Self:
        return self

    def start_chief_s(self) -> float:
        """Seconds from nothing, in a new home, to the line that says that the chief is ready."""
        began = time.perf_counter()
        self._spawn("chief", "start", "--workers", "0", "--http", "127.0.0.1:0", "--rpc", "127.0.0.1:0", "--dht", "off", "--json")
        self._wait_ready("chief")
        return time.perf_counter() - began

    def start_own(self, slots: int) -> None:
        """A chief that runs ``slots`` slots of its own, and no other worker."""
        self._spawn("chief", "start", "--workers", str(slots), "--http", "127.0.0.1:0", "--rpc", "127.0.0.1:0", "--dht", "off", "--json")
        ready = self._wait_ready("chief")
        self._client = connect(str(ready["http"]), str(ready["token"]), home=self.home)

    def upload(self) -> None:
        """Upload what the jobs need, so that they name it by digest."""
        self.folder.mkdir()
        for name, path in write_packages(self.folder).items():
            self.packages[name] = str(self.client.upload_package(path)["digest"])
        self.dataset = str(self.client.upload_data(self.folder / "data.txt")["digest"])

    def submit(self, package: str, *, options: dict[str, Any] | None = None, **params: Any) -> Job:
        """Submit a job of an uploaded package."""
        return self.client.submit(self.packages[package], self.dataset, engine="company", params=params, **(options or {}))

    def finish(self, job: Job) -> Any:
        """Wait for a job's end and return its value. Raises `RuntimeError` when it did not end well."""
        job.wait(JOB_TIMEOUT_S)
        if job.state != "done":
            raise RuntimeError(f"{job.id} is {job.state}: {job.view.get('reason')}")
        return json.loads(self.client.transport.request("GET", "/final-result", query={"job": job.id}).body)

    def first_result_s(self, package: str, **params: Any) -> float:
        """Seconds from before the submission to the moment when a first result is seen."""
        began = time.perf_counter()
        job = self.submit(package, **params)
        while not job.status()["fragments"]["done"]:
            time.sleep(POLL_S)
        took = time.perf_counter() - began
        self.finish(job)
        return took

    def process_of(self, name: str) -> psutil.Process:
        """The process of the chief or of a worker."""
        return psutil.Process(self._processes[name].pid)

    @property
    def environ(self) -> dict[str, str]:
        """Of commands that are to find this company."""
        return dict(self._environ)

    def command_s(self, *arguments: str) -> float:
        """Wall seconds of one command as a user types it, its output thrown away."""
        began = time.perf_counter()
        subprocess.run([COMMAND, *arguments], env=self._environ, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


class PeakMemory:
    """The most that a process was resident with while the ``with`` block ran, looked at every 20 ms."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.before_bytes = self.peak_bytes = rss_bytes(process)

    @property
    def grown_mib(self) -> float:
        """How much more than before."""
        return (self.peak_bytes - self.before_bytes) / (1 << 20)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, rss_bytes(self._process))


def start_s() -> float:
    """One cold start, stopped again."""
    with BenchCompany() as company:
        return company.start_chief_s()


def tree_cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process and all that live below it."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def rss_bytes(process: psutil.Process) -> int:
    """Resident memory of the process itself."""
    return int(process.memory_info().rss)
