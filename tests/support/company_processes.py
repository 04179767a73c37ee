"""A real company for end-to-end tests: one chief process and its workers in a home of their own, and small packages to run on it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from company.client import Client, Job, connect

READY_S = 60.0
STOP_S = 20.0
COMPANY = (sys.executable, "-m", "company")

SPLIT_RANGE = "def split(data, n=10):\n    yield from range(n)\n"
MERGE_LIST = "def merge(results, output):\n    return list(results)\n"
MERGE_COUNT = "def merge(results, output):\n    return sum(1 for _ in results)\n"


class RunningCompany:
    """Processes by name: "chief" and the workers. Stopped and reaped at the end of the ``with`` block."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        # settings of the developer's own company must not reach this one
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("COMPANY_")} | {"COMPANY_HOME": str(self.home)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ready: dict[str, dict[str, Any]] = {}
        self.http = self.rpc = "127.0.0.1:0"
        self.programs: dict[str, tuple[str, ...]] = {}  # another program for one of them, such as tests.faults.crashing
        self._client: Client | None = None

    @property
    def url(self) -> str:
        """The chief's page, with its certificate's fingerprint where it has one."""
        chief = self.ready["chief"]
        return str(chief["http"]) + (f"#sha256:{chief['fingerprint']}" if "fingerprint" in chief else "")

    @property
    def client(self) -> Client:
        """A client with the owner's token."""
        if self._client is None:
            self._client = connect(self.url, str(self.ready["chief"]["token"]), home=self.home)
        return self._client

    def client_with(self, token: str) -> Client:
        """A client with another token, and no other identity."""
        return connect(str(self.ready["chief"]["http"]), token, home=self.root / "elsewhere")

    # ---- processes ----------------------------------------------------------------------------------------------------
    def start_chief(self, *options: str) -> None:
        """Start the chief, with further ``options`` if need be, and keep its ports for later starts."""
        self._spawn("chief", "start", "--workers", "0", "--http", self.http, "--rpc", self.rpc, "--dht", "off", "--json", *options)
        said = self.wait_ready("chief")
        self.http = str(said["http"]).partition("://")[2]
        self.rpc = str(said["rpc"])
        if self._client is not None:
            self._client.close()
            self._client = None

    def start_worker(self, name: str, *, token: str | None = None, slots: int = 1, http: str = "", public: str = "") -> None:
        """Start a worker that joins with ``token``, else comes back with its own key."""
        arguments = ["worker", "join", "--slots", str(slots), "--name", name, "--json"]
        arguments += ["--http", http] if http else []
        arguments += ["--http-public", public] if public else []
        if token is not None:
            arguments += ["--token-file", "-"]
        process = self._spawn(name, *arguments, stdin=subprocess.PIPE)
        assert process.stdin is not None
        if token is not None:
            process.stdin.write(token.encode() + b"\n")
        process.stdin.close()

    def start_workers(self, *names: str, slots: int = 1) -> None:
        """Start workers with one token and wait until all have joined."""
        token = str(self.client.create_token("worker", uses=len(names))["token"])
        for name in names:
            self.start_worker(name, token=token, slots=slots)
        for name in names:
            self.wait_ready(name)

    def _spawn(self, name: str, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        with open(self.log_of(name), "ab") as log:
            process = subprocess.Popen(
                [*self.programs.get(name, COMPANY), *arguments],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environ,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def wait_ready(self, name: str) -> dict[str, Any]:
        """The JSON line that a process prints when it is ready."""
        process = self.processes[name]
        assert process.stdout is not None
        is_there = select.select([process.stdout], [], [], READY_S)[0]
        line = process.stdout.readline() if is_there else b""
        assert line, f"{name} was not ready within {READY_S} s (exit {process.poll()}):\n{self.tail_of(name)}"
        self.ready[name] = json.loads(line)
        return self.ready[name]

    def log_of(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def tail_of(self, name: str, lines: int = 60) -> str:
        return "\n".join(self.log_of(name).read_text("utf-8", "replace").splitlines()[-lines:])

    def kill(self, name: str) -> None:
        """SIGKILL, as a power cut would."""
        process = self.processes.pop(name)
        process.kill()
        _reap(process)

    def stop(self, name: str) -> int:
        """SIGTERM and wait; returns the exit code."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{name} did not stop within {STOP_S} s:\n{self.tail_of(name)}") from None
        finally:
            _reap(process)
        return process.returncode

    def is_running(self, name: str) -> bool:
        return name in self.processes and self.processes[name].poll() is None

    def children_of(self, name: str) -> set[int]:
        """Pids of all living processes below one of ours."""
        below = psutil.Process(self.processes[name].pid).children(recursive=True)
        return {p.pid for p in below if is_alive(p.pid)}

    def close(self) -> None:
        """Stop the workers, then the chief."""
        if self._client is not None:
            self._client.close()
        faults = []
        for name in sorted(self.processes, key=lambda n: n == "chief"):
            try:
                if self.is_running(name):
                    self.stop(name)
                else:
                    _reap(self.processes.pop(name))
            except AssertionError as fault:
                faults.append(str(fault))
        assert not faults, "\n".join(faults)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ---- commands and jobs --------------------------------------------------------------------------------------------
    def command(
        self, *arguments: str, environ: Mapping[str, str] | None = None, timeout_s: float = 120.0, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run one command of the command line to its end."""
        return subprocess.run(
            [*COMPANY, *arguments], env=self.environ | dict(environ or {}), input=stdin, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip

    def run(self, package: Path, data: Path, *, timeout_s: float = 90.0, **options: Any) -> Job:
        """Submit a job and wait for its end."""
        return self.client.submit(package, data, engine="company", **options).wait(timeout_s)


def _reap(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def is_alive(pid: int) -> bool:
    """Whether a process lives; a zombie that nobody has reaped yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], Any], what: str, *, timeout_s: float = 30.0) -> Any:
    """Ask until it is true, for conditions of other processes that no call waits for; returns what ``condition`` gave."""
    end = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < end, f"after {timeout_s} s still not: {what}"
        pause.wait(0.02)
    return found


def write_package(
    folder: Path, process: str, *, split: str = SPLIT_RANGE, merge: str = MERGE_LIST, manifest: str = "", split_name: str = "split.py"
) -> Path:
    """A package folder out of sources."""
    (folder / "processor").mkdir(parents=True, exist_ok=True)
    (folder / "processor" / "main.py").write_text(textwrap.dedent(process))
    (folder / split_name).write_text(textwrap.dedent(split))
    (folder / "merge.py").write_text(textwrap.dedent(merge))
    if manifest:
        (folder / "package.toml").write_text(textwrap.dedent(manifest))
    return folder


def value_of(job: Job, folder: Path) -> Any:
    """The JSON of a job whose merge returned a value."""
    (path,) = job.download(folder)
    assert path.name == "result.json"
    return json.loads(path.read_bytes())
