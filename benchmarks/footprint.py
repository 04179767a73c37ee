"""What one waits for and what it costs to have it running: start, first result, commands, idle CPU, memory (I/O)."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import psutil

from benchmarks.company import BenchCompany, rss_bytes, start_s, tree_cpu_s
from benchmarks.rows import Row
from benchmarks.work import calibrate

MIB = 1 << 20
BARE = "python -I -c pass"
SETTLE_S = 3.0  # after the last job, before idle is measured
_IMPORT = "import time; t = time.perf_counter(); import company; company.__version__; print(time.perf_counter() - t)"


def bare_interpreter_s() -> float:
    """Seconds that Python alone takes to start and end: what the machine makes of any command, now."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", "pass"], check=True)
    return time.perf_counter() - began


def start_row(rounds: int) -> Row:
    """How long a chief takes to be ready."""
    row = Row("company start to ready", "from running the command in a new home to its JSON line", "s", "less", goal=1.5)
    for _ in range(rounds):
        row.add("company", start_s())
        row.add(BARE, bare_interpreter_s())
    return row


def first_result_row(company: BenchCompany, rounds: int) -> Row:
    """How long a user waits for a first sign of life of a job."""
    row = Row("submit to first result", "submission of an uploaded package to the client seeing one fragment done", "s", "less", goal=1.0)
    turns = calibrate(0.010)
    for _ in range(rounds):
        row.add("company", company.first_result_s("burn", n=20, turns=turns))
    return row


def command_row(company: BenchCompany, rounds: int) -> Row:
    """How long a simple command takes."""
    row = Row("company job list --json", "wall time of the command, interpreter and request included", "ms", "less", goal=150)
    for _ in range(rounds):
        row.add("company", 1000 * company.command_s("job", "list", "--json"))
        row.add(BARE, 1000 * bare_interpreter_s())
    return row


def import_row(rounds: int) -> Row:
    """What ``import company`` costs a program."""
    row = Row("import company", "the import statement in a running interpreter, files in the page cache", "ms", "less", goal=60)
    for _ in range(rounds):
        said = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True).stdout
        row.add("company", 1000 * float(said))
    return row


def idle_rows(company: BenchCompany, seconds: float) -> list[Row]:
    """CPU of a chief and a worker with nothing to do, children included."""
    counted = f"CPU time of the process and its children over {seconds:g} s without a job, as a share of one core"
    chief = Row("idle chief", counted, "% of a core", "less", goal=1.0)
    worker = Row("idle worker", counted, "% of a core", "less", goal=0.5)
    time.sleep(SETTLE_S)
    watched: list[tuple[Row, psutil.Process]] = [(chief, company.process_of("chief")), (worker, company.process_of("w1"))]
    before = [tree_cpu_s(process) for _, process in watched]
    began = time.perf_counter()
    time.sleep(seconds)
    took = time.perf_counter() - began
    for (row, process), cpu_s in zip(watched, before, strict=True):
        row.add("company", 100 * max(0.0, tree_cpu_s(process) - cpu_s) / took)
    return [chief, worker]


def memory_rows(company: BenchCompany) -> list[Row]:
    """Resident memory after the jobs above."""
    counted = "resident memory of the process itself after all jobs of this run"
    worker = Row("worker memory", counted, "MiB", "less", goal=150)
    chief = Row("chief memory", counted, "MiB", "less")
    worker.add("company", rss_bytes(company.process_of("w1")) / MIB)
    chief.add("company", rss_bytes(company.process_of("chief")) / MIB)
    return [worker, chief]


def sandbox_row() -> Row:
    """What the sandbox costs a warm child, in a process of its own: it binds itself to one core."""
    row = Row(
        "sandboxed against bare child, warm",
        "time of the sandboxed child over time of the bare one for the same round trips of one small int by pipe, both on one core; "
        "the median of 80 pairs of short turns that alternate", "×", "less", goal=1.05,
    )  # fmt: skip
    said = subprocess.run([sys.executable, "-m", "benchmarks.sandbox_cost"], capture_output=True, text=True, check=True).stdout
    found = json.loads(said)
    if "round_trip_ratio" in found:
        row.add("company", found["round_trip_ratio"])
        row.add("batches of 20,000", found["bulk_ratio"])
        row.notes["company"] = f"{found['sandboxed_round_trips_per_s']:,} against {found['bare_round_trips_per_s']:,} round trips/s"
    else:
        row.notes["company"] = f"not measured: {found['why']}"
    return row
