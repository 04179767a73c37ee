"""The processes of the demo: a chief and its workers in a temporary home, stopped by pid whatever happens (I/O)."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from company.client import Client, connect
from p2p.base.errors import Unavailable

READY_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 20.0
LOG_LINES = 40
_COMPANY = (sys.executable, "-m", "company")


class DemoCompany:
    """A company that lives as long as the ``with`` block; on a failure the ends of its logs are printed first."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="company-demo-"))
        self.home = self._root / "home"
        self.scratch = self._root / "scratch"
        self.scratch.mkdir()
        # settings of the user's own company must not reach this one
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("COMPANY_")} | {"COMPANY_HOME": str(self.home)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._client: Client | None = None
        self.ready: dict[str, Any] = {}  # what the chief said when it was

    @property
    def client(self) -> Client:
        """The client, as the chief's owner."""
        if self._client is None:
            raise Unavailable("demo-not-started", "the demo's chief has not been started")
        return self._client

    def start(self, workers: tuple[str, ...], *, dht: str = "off", options: tuple[str, ...] = ()) -> None:
        """Start the chief and the workers, and return when all have said that they are ready. Raises `Unavailable`."""
        here = "127.0.0.1:0"
        self._spawn("chief", "start", "--workers", "0", "--http", here, "--rpc", here, "--dht", dht, "--json", *options)
        self.ready = ready = self._wait_ready("chief")
        self._client = connect(str(ready["http"]), str(ready["token"]), home=self.home)
        if not workers:
            return
        token = str(self._client.create_token("worker", uses=len(workers), label="demo")["token"])
        for name in workers:
            arguments = ("worker", "join", "--token-file", "-", "--slots", "1", "--name", name, "--json")
            process = self._spawn(name, *arguments, stdin=subprocess.PIPE)  # not as an argument: everyone may list processes
            assert process.stdin is not None
            process.stdin.write(token.encode() + b"\n")
            process.stdin.close()
        for name in workers:
            self._wait_ready(name)

    def command(self, *arguments: str) -> None:
        """Run one command of the command line in front of the user. Raises `Unavailable` when it fails."""
        print("$ company " + shlex.join(_short(a) for a in arguments), flush=True)
        try:
            done = subprocess.run([*_COMPANY, *arguments], env=self._environ, timeout=COMMAND_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise Unavailable("demo-timeout", f"company {' '.join(arguments[:2])} did not end within {COMMAND_TIMEOUT_S:g} s") from None
        if done.returncode:
            raise Unavailable("demo-step-failed", f"company {' '.join(arguments[:2])} ended with {done.returncode}")

    def __enter__(self) -> DemoCompany:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with _signals_deferred(is_ending=error is not None):  # none may leave processes behind; every wait below has an end
            if error is not None and not isinstance(error, KeyboardInterrupt):
                self._print_logs()
            if self._client is not None:
                self._client.close()
            self._stop_all()
            shutil.rmtree(self._root, ignore_errors=True)

    def _spawn(self, name: str, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        with open(self._log(name), "wb") as log:
            process = subprocess.Popen(
                [*_COMPANY, *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=log, env=self._environ,
                start_new_session=True,  # Ctrl-C on the terminal reaches this process alone, which then stops them in order
            )  # fmt: skip
        self._processes[name] = process
        return process

    def _log(self, name: str) -> Path:
        return self._root / f"{name}.log"

    def _wait_ready(self, name: str) -> dict[str, Any]:
        """The JSON line that a process prints when it is ready."""
        process = self._processes[name]
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], READY_TIMEOUT_S)[0]:
            raise Unavailable("demo-not-ready", f"{name} was not ready after {READY_TIMEOUT_S:g} s")
        line = process.stdout.readline()
        if not line:
            raise Unavailable("demo-not-ready", f"{name} ended with {process.wait()} before it was ready")
        found: dict[str, Any] = json.loads(line)
        return found

    def _stop_all(self) -> None:
        """Workers first, then the chief: each is asked, and killed when it does not go."""
        order = [name for name in self._processes if name != "chief"] + (["chief"] if "chief" in self._processes else [])
        for names in (order[:-1], order[-1:]):
            for name in names:
                self._processes[name].terminate()
            end = time.monotonic() + STOP_TIMEOUT_S
            for name in names:
                process = self._processes[name]
                try:
                    process.wait(max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                if process.stdout is not None:
                    process.stdout.close()

    def _print_logs(self) -> None:
        for name in self._processes:
            lines = self._log(name).read_text("utf-8", "replace").splitlines()[-LOG_LINES:] or ["(it said nothing)"]
            print(f"---- last lines of {name} ----\n" + "\n".join(lines), file=sys.stderr, flush=True)


def _short(argument: str) -> str:
    """A path below the current folder as a user would type it."""
    path = Path(argument)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else argument


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does, so that nothing is left running."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_deferred(*, is_ending: bool) -> Iterator[None]:
    """Ctrl-C and its like wait for the end of the block, and count then, unless it ``is_ending`` for another reason anyway."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came and not is_ending:
        raise KeyboardInterrupt
