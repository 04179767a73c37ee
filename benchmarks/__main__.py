"""``python -m benchmarks``: ours and the others in one run, one after the other within each round, medians (I/O).

Every section runs in a process of its own with a bound on its time, so that none can hold up the others: what is over its bound is
asked to stop, then killed, and named as missing. With --json one object on standard output; progress goes to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import psutil

from benchmarks import borrowed, bulk, dht, footprint, programs, throughput
from benchmarks.company import BenchCompany
from benchmarks.peer_process import open_peers
from benchmarks.rows import Row, table
from company import __version__
from company.demo_company import stopping_on_signals

SLOTS = 2
QUICK_BOUND_S = 90.0
STOP_S = 60.0  # a company ends its processes in this time, and the peers' end with them
REAP_S = 2.0
# seconds; at rest each takes about a third of it on two cores
BOUND_S = {
    "start": 60.0, "import": 30.0, "sandbox": 90.0, "waits": 120.0, "tiny": 420.0, "burn": 420.0, "large": 300.0,
    "million": 90.0, "upload": 240.0, "uneven": 600.0, "dht": 180.0, "borrowed": 300.0, "bandwidth": 150.0, "calls": 240.0,
    "script": 200.0, "engines": 240.0,
}  # fmt: skip


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="little of everything: shows that it works, measures nothing")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"only these: {', '.join(BOUND_S)}; all without")
    parser.add_argument("--only", action="append", default=[], choices=tuple(BOUND_S), help="the same as an option; may be repeated")
    parser.add_argument("--section", choices=tuple(BOUND_S), help=argparse.SUPPRESS)  # what the processes of the sections are told
    wanted = parser.parse_args()
    if unknown := sorted({*wanted.sections} - {*BOUND_S}):
        parser.error(f"there is no section {unknown[0]!r}; there are {', '.join(BOUND_S)}")
    if wanted.section:
        with stopping_on_signals():
            rows, missing = measure(wanted.section, quick=wanted.quick)
        print(json.dumps({"rows": [row.as_fields() for row in rows], "missing": missing}))
        return 0
    asked = {*wanted.sections, *wanted.only} or {*BOUND_S}
    rows, missing = run_sections([name for name in BOUND_S if name in asked], quick=wanted.quick)
    if wanted.json:
        facts = {
            "schema": "company.bench/2", "version": __version__, "python": platform.python_version(), "machine": platform.platform(),
            "cores": os.cpu_count(), "slots": SLOTS, "quick": wanted.quick, "load_average": os.getloadavg()[0], "at": int(time.time()),
        }  # fmt: skip
        print(json.dumps(facts | {"rows": [row.as_dict() for row in rows], "missing": missing}))
    else:
        print(table(rows, missing))
        if wanted.quick:
            print("--quick: this shows that everything runs; its numbers mean nothing")
    return 0


def run_sections(names: list[str], *, quick: bool) -> tuple[list[Row], dict[str, str]]:
    """Every section in a process of its own; what fails or takes too long is missing, with the reason."""
    rows: list[Row] = []
    missing: dict[str, str] = {}
    for name in names:
        say(f"{name} ...")
        command = [sys.executable, "-m", "benchmarks", "--section", name, *(["--quick"] if quick else [])]
        found = run_bounded(command, QUICK_BOUND_S if quick else BOUND_S[name])
        if isinstance(found, str):
            missing[f"section {name}"] = found
            continue
        rows += [Row(**fields) for fields in found["rows"]]
        missing |= found["missing"]
    return rows, missing


def run_bounded(command: list[str], bound_s: float) -> dict[str, Any] | str:
    """What the command printed as JSON, or why there is nothing. All that it started has ended when this returns."""
    with tempfile.TemporaryFile() as out:  # not a pipe: a process that was left behind would hold its other end open
        process = subprocess.Popen(command, stdout=out)
        try:
            process.wait(bound_s)
        except subprocess.TimeoutExpired:
            _stop(process)
            return f"not done within {bound_s:g} s"
        except BaseException:
            _stop(process)
            raise
        if process.returncode:
            return f"ended with {process.returncode}"
        out.seek(0)
        found: dict[str, Any] = json.loads(out.read().splitlines()[-1])
        return found


def _stop(process: subprocess.Popen[bytes]) -> None:
    below = _all_below(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()  # psutil compares the start time, too: never another process of the same number
    psutil.wait_procs(below, timeout=REAP_S)


def _all_below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def measure(name: str, *, quick: bool) -> tuple[list[Row], dict[str, str]]:
    """The rows of one section, and the peers that are not here."""
    rounds = 1 if quick else 5
    alone: dict[str, Callable[[], list[Row]]] = {
        "start": lambda: [footprint.start_row(1 if quick else 3)],
        "import": lambda: [footprint.import_row(rounds)],
        "sandbox": lambda: [footprint.sandbox_row()],
        "dht": lambda: dht.dht_rows(quick=quick),
        "borrowed": lambda: [borrowed.borrowed_row(100 if quick else 300, 1 if quick else 7, say)],
        "bandwidth": lambda: [borrowed.bandwidth_row((2 if quick else 12) << 20, say)],
    }
    if name in alone:
        return alone[name](), {}
    with BenchCompany() as company:
        company.start(tuple(f"w{number + 1}" for number in range(SLOTS)))
        company.upload()
        if name in ("tiny", "burn", "large"):
            return _beside_peers(name, company, throughput.Scale.of(quick=quick))
        if name == "calls":
            return programs.call_rows(company, SLOTS, say, quick=quick)
        if name == "engines":
            return programs.engine_rows(company, SLOTS, say, quick=quick)
        ours: dict[str, Callable[[], list[Row]]] = {
            "waits": lambda: _waits(company, rounds, quick=quick),
            "million": lambda: [bulk.million_row(company, 50_000 if quick else 1_000_000)],
            "upload": lambda: bulk.upload_rows(company, (32 << 20) if quick else (4 << 30)),
            "script": lambda: [programs.script_row(company, say, quick=quick)],
            "uneven": lambda: [bulk.uneven_row(company, 40 if quick else 2000, say)],
        }
        return ours[name](), {}


def _waits(company: BenchCompany, rounds: int, *, quick: bool) -> list[Row]:
    return [
        footprint.first_result_row(company, rounds),
        footprint.command_row(company, rounds),
        *footprint.idle_rows(company, 3.0 if quick else 20.0),
        *footprint.memory_rows(company),
    ]


def _beside_peers(name: str, company: BenchCompany, scale: throughput.Scale) -> tuple[list[Row], dict[str, str]]:
    with open_peers(SLOTS) as (peers, missing):
        if name == "tiny":
            return [throughput.tiny_row(company, peers, scale, SLOTS, say)], missing
        if name == "burn":
            return [throughput.burn_row(company, peers, scale, SLOTS, say)], missing
        return throughput.large_rows(company, peers, scale, SLOTS, say), missing


def say(text: str) -> None:
    """A line for the person who waits."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
