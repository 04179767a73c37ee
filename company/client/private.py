"""`company.local()`: a company of this program alone, gone when its block ends (I/O).

The chief and its slots are child processes with a home in a temporary folder, so that a program behaves the same on it as on a real one:
same sandbox, same limits, same code. The chief ends with this process, however that ends, since it reads the other end of a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

from company.client.address import find_chief
from company.client.client import Client
from company.errors import ChiefUnreachable
from company.paths import KEPT_ENVIRONMENTS, make_passable, make_private

READY_S = 60.0
STOP_S = 20.0
KEPT, KEPT_UNUSED_S = 8, 7 * 86400.0  # environments: this many, and those that were used in the last week
_START = """
import ctypes, os, runpy, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(0)
sys.argv[1:2] = []
sys.argv[0] = "company"
runpy.run_module("company", run_name="__main__", alter_sys=True)
"""


class PrivateCompany(Client):
    """A client of a company that lives as long as it does."""

    def __init__(self, workers: int | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="company-local-", ignore_cleanup_errors=True)
        home = Path(self._folder.name)
        slots = workers or len(os.sched_getaffinity(0))
        environ = {k: v for k, v in os.environ.items() if not k.startswith("COMPANY_")} | {"COMPANY_HOME": str(home)}
        environ |= _kept_environments()
        arguments = ["start", "--workers", "0", "--http", "127.0.0.1:0", "--rpc", "127.0.0.1:0", "--dht", "off", "--json"]
        self._log = (home / "chief.log").open("wb")
        self._environ = environ
        self._processes: list[subprocess.Popen[bytes]] = []
        self._end = weakref.finalize(self, _end, self._processes, self._folder)
        try:
            said = self._start(arguments)
            address = find_chief(home, environ | {"COMPANY_TOKEN": str(said["token"])}, url=str(said["http"]))
            super().__init__(address, state=home / "client")
            self._join(slots)
        except BaseException:
            self._end()
            raise

    def _join(self, slots: int) -> None:
        """Its slots: they may take what the program has imported, since it is this machine's own and its owner runs the program."""
        arguments = ["worker", "join", "--slots", str(slots), "--name", "local", "--allow-requirements", "--json", "--token-file", "-"]
        self._start(arguments, str(self.create_token("worker")["token"]).encode() + b"\n")
        end = time.monotonic() + READY_S
        while int(self.company()["slots"]) < slots:
            if time.monotonic() > end:
                raise self._failed("its slots did not join")
            time.sleep(0.02)

    def _start(self, arguments: list[str], stdin: bytes = b"") -> dict[str, object]:
        """Start one process and return the line that it prints when it is ready."""
        process = subprocess.Popen(
            [sys.executable, "-c", _START, str(os.getpid()), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, env=self._environ, start_new_session=True,
        )  # fmt: skip
        self._processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(stdin)
        process.stdin.close()
        is_there = select.select([process.stdout], [], [], READY_S)[0]
        line = process.stdout.readline() if is_there else b""
        try:
            return dict(json.loads(line))
        except ValueError:
            raise self._failed("no word from it") from None

    def _failed(self, what: str) -> ChiefUnreachable:
        self._log.flush()
        told = Path(self._log.name).read_text("utf-8", "replace")[-2000:]
        text = f"a company on this machine did not start: {told or what}"
        return ChiefUnreachable("local-company-failed", text, hint="company doctor")

    def close(self) -> None:
        """End the company and forget everything in it."""
        if (executors := sys.modules.get("company.client.open_executors")) is not None:  # not imported where there are none
            executors.end_with(self)
        with contextlib.suppress(AttributeError):
            super().close()
        self._end()
        self._log.close()


def local(workers: int | None = None) -> PrivateCompany:
    """A company of this program alone, on this machine: ``workers`` slots, default one per core.

    >>> import company
    >>> with company.local(workers=1) as client:
    ...     print(client.company()["slots"])
    1
    """
    return PrivateCompany(workers)


def _kept_environments() -> dict[str, str]:
    """What tells its slots where folders of packages are kept from one such company to the next: scipy is unpacked once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "company" / "environments"
    try:
        make_private(folder.parent)
        make_passable(folder)  # the uids of sandboxes go through
        is_much = sum(1 for _ in os.scandir(folder)) > KEPT
    except (OSError, RuntimeError):  # no home, or not ours: then they are made anew each time
        return {}
    if is_much:
        from company.requirements import forget_environments

        forget_environments(folder, keep=KEPT, unused_s=KEPT_UNUSED_S)
    return {KEPT_ENVIRONMENTS: str(folder)}


def _end(processes: list[subprocess.Popen[bytes]], folder: tempfile.TemporaryDirectory[str]) -> None:
    for process in reversed(processes):  # the slots before their chief
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()
    folder.cleanup()
