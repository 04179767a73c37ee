"""Several companies in one network: chiefs as processes, each in a home of its own."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from company.client import Client
from tests.support.company_processes import COMPANY, RunningCompany, until


class Companies:
    """Chiefs by name; all are stopped at the end of the ``with`` block."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.of: dict[str, RunningCompany] = {}
        self.tracker: subprocess.Popen[bytes] | None = None

    def start(self, name: str, *options: str, dht: str = "127.0.0.1:0", workers: int = 1) -> RunningCompany:
        """Start one and wait until it is ready."""
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        running = self.of.setdefault(name, RunningCompany(folder))
        running._spawn(
            "chief", "start", "--name", name, "--workers", str(workers), "--http", running.http, "--rpc", running.rpc, "--dht", dht,
            "--json", *options,
        )  # fmt: skip
        said = running.wait_ready("chief")
        running.http, running.rpc = str(said["http"]).removeprefix("http://"), str(said["rpc"])
        return running

    def client(self, name: str) -> Client:
        """As the owner of one."""
        return self.of[name].client

    def dht(self, name: str) -> str:
        """Where its node listens."""
        return str(self.of[name].ready["chief"]["dht"])

    def start_tracker(self) -> str:
        """A tracker's address."""
        self.tracker = subprocess.Popen(
            [*COMPANY, "tracker", "--http", "127.0.0.1:0", "--json"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self.tracker.stdout is not None
        return str(json.loads(self.tracker.stdout.readline())["http"])

    def lend(self, name: str, slots: int = 1) -> None:
        """Lend as soon as there is something to lend."""
        self.client(name).network.lend(slots)

    def sees(self, name: str, other: str, *, timeout_s: float) -> dict[str, Any]:
        """Wait until one company finds the other's offer, and that answers that it is idle."""
        wanted = str(self.of[other].ready["chief"]["company"])

        def found() -> dict[str, Any] | None:
            offers = self.client(name).network.search(slots=1)["offers"]
            return next((dict(o) for o in offers if o["company"] == wanted and o["answer"] == "idle"), None)

        return dict(until(found, f"{name} sees the offer of {other}", timeout_s=timeout_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.tracker is not None:
            self.tracker.terminate()
            self.tracker.wait(10)
            assert self.tracker.stdout is not None
            self.tracker.stdout.close()
        if self.of:
            with ThreadPoolExecutor(len(self.of)) as pool:  # a chief's farewells take a moment
                list(pool.map(RunningCompany.close, self.of.values()))
