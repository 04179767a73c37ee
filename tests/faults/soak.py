"""`make soak`: many workers and one job after another for long; memory, descriptors and tasks of every process must stay flat (I/O).

``python -m tests.faults.soak --minutes 30 --workers 50 --json report.json``. Each process runs under this module too, which writes how
many trio tasks live in it; the rest is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
import trio

from tests.support.company_processes import RunningCompany, write_package

SAMPLE_S = 10.0
MORE_BYTES, MORE_DESCRIPTORS, MORE_TASKS = 16 << 20, 8, 8  # between the second quarter and the last: above this it grows
PROCESS = "import time\ndef process(fragment):\n    time.sleep(0.2)\n    print('did', fragment)\n    return fragment\n"
FRAGMENTS_PER_WORKER = 60  # of one job: 12 s, in which every worker starts one child
Sample = dict[str, int]


class TaskCount(trio.abc.Instrument):
    """Writes the number of living tasks every few seconds."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / str(os.getpid())
        self._due = 0.0

    def before_io_wait(self, timeout: float) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + SAMPLE_S / 3
            self._path.write_text(str(trio.lowlevel.current_statistics().tasks_living))


def as_company(folder: Path, arguments: list[str]) -> None:
    """Be a process of the company that counts its tasks."""
    run = trio.run

    def counted(*args: Any, **options: Any) -> Any:
        return run(*args, **{**options, "instruments": [TaskCount(folder)]})

    trio.run = counted
    from company.cli import main as command_line

    sys.argv = ["company", *arguments]
    raise SystemExit(command_line())


class Soak:
    """One run."""

    def __init__(self, root: Path, *, workers: int) -> None:
        self.company = RunningCompany(root)
        self.tasks = root / "tasks"
        self.tasks.mkdir()
        self.names = [f"w{n:02}" for n in range(workers)]
        program = (sys.executable, "-m", "tests.faults.soak", "--as-company", str(self.tasks))
        self.company.programs = dict.fromkeys(["chief", *self.names], program)
        self.package = write_package(root / "package", PROCESS)
        self.data = root / "data.txt"
        self.data.write_text("data\n")
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        self.jobs = self.fragments = 0

    def start(self) -> None:
        self.company.start_chief()
        token = str(self.company.client.create_token("worker", uses=len(self.names))["token"])
        for name in self.names:  # one after the other: the machine has few cores
            self.company.start_worker(name, token=token)
            self.company.wait_ready(name)

    def go_on(self, seconds: float) -> None:
        """Jobs until the time is over, samples in between. Old jobs are removed, as an administrator would."""
        end, due = time.monotonic() + seconds, 0.0
        old: list[Any] = []
        while time.monotonic() < end:
            job = self.company.client.submit(self.package, self.data, params={"n": FRAGMENTS_PER_WORKER * len(self.names)})
            while not job.is_over:
                job.status(wait_s=2.0)
                if time.monotonic() >= due:
                    due = time.monotonic() + SAMPLE_S
                    self.sample()
            assert job.state == "done", job.view
            self.jobs += 1
            self.fragments += int(job.view["fragments"]["done"])
            old.append(job)
            if len(old) > 5:
                old.pop(0).remove()

    def sample(self) -> None:
        for name, process in self.company.processes.items():
            found = psutil.Process(process.pid)
            path = self.tasks / str(process.pid)
            said = path.read_text() if path.exists() else ""
            self.samples[name].append(
                {"rss": found.memory_info().rss, "descriptors": found.num_fds(), "tasks": int(said or 0), "threads": found.num_threads()}
            )

    def report(self) -> dict[str, Any]:
        """Second quarter against last quarter, medians; the worst worker stands for all."""
        growth = {name: growth_of(rows) for name, rows in self.samples.items()}
        workers = {key: max(growth[name][key] for name in self.names) for key in growth["chief"]}
        grows = [n for n, g in growth.items() if g["rss"] > MORE_BYTES or g["descriptors"] > MORE_DESCRIPTORS or g["tasks"] > MORE_TASKS]
        return {
            "workers": len(self.names), "samples": len(self.samples["chief"]), "jobs": self.jobs, "fragments": self.fragments,
            "growth_chief": growth["chief"], "growth_worst_worker": workers, "last_chief": self.samples["chief"][-1],
            "last_worker": self.samples[self.names[0]][-1], "grows": grows,
        }  # fmt: skip


def growth_of(rows: list[Sample]) -> Sample:
    quarter = max(1, len(rows) // 4)
    second, last = rows[quarter : 2 * quarter] or rows, rows[-quarter:]
    return {key: int(statistics.median(r[key] for r in last) - statistics.median(r[key] for r in second)) for key in rows[0]}


def main() -> int:
    if sys.argv[1:2] == ["--as-company"]:
        as_company(Path(sys.argv[2]), sys.argv[3:])
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(Path(folder), workers=given.workers)
        with soak.company:
            soak.start()
            began = time.monotonic()
            try:
                soak.go_on(given.minutes * 60)
            except KeyboardInterrupt:  # what there is by then counts
                print("interrupted", file=sys.stderr)
            report = soak.report() | {"minutes": round((time.monotonic() - began) / 60, 1)}
    text = json.dumps(report, indent=1)
    if given.json:
        given.json.write_text(text)
    print(text)
    return 1 if report["grows"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
