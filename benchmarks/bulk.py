"""Much of something: a million fragments, four gibibytes, and one worker four times slower than the other (I/O)."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Self

import psutil

from benchmarks.company import BenchCompany, PeakMemory
from benchmarks.rows import Row
from benchmarks.work import calibrate
from company.client.source import open_source
from company.client.upload import upload_dataset

MIB = 1 << 20
SLOWER = 4
RUN_S = 0.005  # how long the slow worker's children run at a time, before they are stopped for three times as long


def million_row(company: BenchCompany, count: int) -> Row:
    """Whether the chief's memory grows with the number of fragments."""
    row = Row(f"chief memory during {count:,} fragments", "most resident memory above what it had before the job", "MiB", "less", goal=150)
    with PeakMemory(company.process_of("chief")) as peak:
        company.finish(company.submit("identity", n=count))
    row.add("company", peak.grown_mib)
    return row


def upload_rows(company: BenchCompany, size: int) -> list[Row]:
    """A large dataset; removed from the disk with the company's home."""
    name = f"{size / (1 << 30):g} GiB dataset upload"
    speed = Row(
        name, "from first request to the answer that the dataset is there, the chief's digest and fsync included; the client hashes the "
        "file once before, which \"with the client's digest\" includes", "MB/s", "more", goal=200,
    )  # fmt: skip
    memory = Row(f"{name}: chief memory", "most resident memory above what it had before", "MiB", "less", goal=50)
    path = company.folder / "large.bin"
    block = Random(1).randbytes(MIB)
    try:
        with path.open("wb") as file:
            for number in range(size // MIB):
                file.write(number.to_bytes(8, "big") + block[8:])
        began = time.perf_counter()
        source = _Hashed(open_source(path, None))
        hashed_s = time.perf_counter() - began
        with PeakMemory(company.process_of("chief")) as peak:
            began = time.perf_counter()
            upload_dataset(company.client.transport, source, state=None, progress=None)  # type: ignore[arg-type]
            took_s = time.perf_counter() - began
        speed.add("company", size / 1e6 / took_s)
        speed.add("with the client's digest", size / 1e6 / (took_s + hashed_s))
        speed.add("copy with fsync", size / 1e6 / _copied_s(path, path.with_suffix(".copy")))  # what the disk allows
        memory.add("company", peak.grown_mib)
    finally:
        path.unlink(missing_ok=True)
        path.with_suffix(".copy").unlink(missing_ok=True)
    return [speed, memory]


def _copied_s(source: Path, target: Path) -> float:
    """Seconds that a copy takes until it is on the disk."""
    began = time.perf_counter()
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, MIB)
        writer.flush()
        os.fsync(writer.fileno())
    return time.perf_counter() - began


class _Hashed:
    """A source whose digest is known already."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._digest = source.digest(None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def digest(self, progress: Any) -> Any:
        return self._digest


class Slowed:
    """The sandboxed children of one worker run a quarter of the time, as on a machine that is four times slower."""

    def __init__(self, worker: psutil.Process) -> None:
        self._worker = worker
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        looked_at, children = 0.0, list[psutil.Process]()
        while not self._over.is_set():
            if time.monotonic() - looked_at > 0.5:
                looked_at, children = time.monotonic(), self._worker.children(recursive=True)
            _signal(children, signal.SIGSTOP)
            time.sleep(RUN_S * (SLOWER - 1))
            _signal(children, signal.SIGCONT)
            time.sleep(RUN_S)


def _signal(children: list[psutil.Process], number: int) -> None:
    for child in children:
        try:
            os.kill(child.pid, number)
        except ProcessLookupError:
            continue


def turns_a_second(children: list[list[float]]) -> tuple[float, float]:
    """Of the faster and the slower worker, from (turns, seconds within fragments) of every child of either.

    A worker may have had several, since a batch called back can end its child: each belongs to the one of the two busiest that it is like.
    """
    busy = sorted(((turns, within_s) for turns, within_s in children if within_s > 0), key=lambda child: -child[1])
    fast, slow = sorted(busy[:2], key=lambda child: -child[0] / child[1])
    between = math.sqrt(fast[0] / fast[1] * slow[0] / slow[1])
    groups = [[child for child in busy if (child[0] / child[1] > between) is is_fast] for is_fast in (True, False)]
    of_fast, of_slow = (sum(turns for turns, _ in group) / sum(within_s for _, within_s in group) for group in groups)
    return of_fast, of_slow


def uneven_row(company: BenchCompany, count: int, say: Callable[[str], None]) -> Row:
    """Two workers, one of which is slowed.

    What each of the two workers could do is what it did: turns over the time it spent within fragments, stopped or not. So the bound
    holds on a machine whose other programs, or whose hyper-threads, take their share, too.
    """
    row = Row(
        f"{count:,} fragments of 5-50 ms, one of two workers {SLOWER} times slower",
        "submission to the last fragment's end by its own clock, over the lower bound: all turns over the sum of the turns a second that "
        "each of the two workers made while it was within a fragment",
        "× the lower bound", "less", goal=1.05,
    )  # fmt: skip
    ways = {"company": {}, "--batching sqrt-window --matching seed": {"batching": "sqrt-window", "matching": "seed"}}
    with Slowed(company.process_of("w2")):
        for name, options in ways.items():
            a_second = calibrate(1.0)
            began = time.time()
            ended, children = company.finish(company.submit("uneven", options=options, n=count, low=a_second // 200, high=a_second // 20))
            fast, slow = turns_a_second(children)
            bound_s = sum(turns for turns, _ in children) / (fast + slow)
            row.add(name, (ended - began) / bound_s)
            row.notes[name] = (
                f"bound {bound_s:.1f} s; {len(children)} children; one worker's made {fast / slow:.1f} times as many turns a second"
            )
            say(f"  {row.samples} {row.notes}")
    return row
