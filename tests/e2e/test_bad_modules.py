"""Modules that take what they can get: the fragment at fault fails with a cause in words, and nobody else notices."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from company.chief.window import WINDOW_BYTES
from company.client import Job
from tests.e2e.test_company_failures import BAD, failing, only_failure
from tests.support.company_processes import RunningCompany, until, value_of, write_package

pytestmark = pytest.mark.slow
LARGE_BYTES = 1 << 30 if os.environ.get("FAULTS_FULL") else 192 << 20  # a gibibyte takes a minute on a busy machine
GREEDY = {  # what the fragment does; causes; words of which one is told
    "100-gb-at-once": ("x = bytearray(100 << 30)", {"raised", "memory-limit"}, ("memory",)),
    "100-gb-in-bits": ("x = []\n                while True: x.append(bytes(1 << 24))", {"raised", "memory-limit"}, ("memory",)),
    "fork-bomb": ("\n                while True: os.fork()", {"raised"}, ("not permitted",)),
    "thread-bomb": (
        "import threading\n                while True: threading.Thread(target=time.sleep, args=(60,)).start()",
        {"raised", "memory-limit"}, ("can't start new thread", "memory"),
    ),
    "full-scratch": (
        "f = open(os.environ['TMPDIR'] + '/x', 'wb')\n                while True: f.write(bytes(1 << 20))",
        {"raised", "disk-limit"}, ("space left", "too large", "disk", "scratch"),
    ),
    "output-flood-of-one-line": (
        "sys.stdout.write('x' * (64 << 20))\n                sys.stdout.flush()\n                raise ValueError('said it all')",
        {"raised", "output-flood"}, ("said it all", "output"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GREEDY)
def test_a_greedy_fragment_fails_alone_and_in_words(company: RunningCompany, numbers: Path, tmp_path: Path, name: str) -> None:
    how, causes, words = GREEDY[name]
    job, failure = only_failure(company, failing(tmp_path / "p", how), numbers, memory_bytes=256 << 20, time_limit_s=20.0)
    said = f"{failure['exc_type']}: {failure['message']}".lower()
    assert failure["cause"] in causes, failure
    assert any(word in said for word in words), said
    assert failure["tries"] == 3
    assert value_of(job, tmp_path / "out") == [i for i in range(40) if i != BAD]


def test_a_flood_of_output_costs_no_memory_and_the_log_says_that_it_was_cut(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    before = {name: memory_of(company, name) for name in ("chief", "w1", "w2")}
    package = write_package(
        tmp_path / "p",
        "def process(fragment):\n    for _ in range(40000): print('x' * 1000)\n    return fragment\n",  # 40 MB each
    )
    job = company.run(package, numbers, params={"n": 6})
    assert job.state == "done", job.view
    kept = sum(len(line["text"]) for line in job.logs())
    assert kept < 6 << 20, f"{kept} bytes of 240 MB kept"
    assert all(memory_of(company, name) - was < 64 << 20 for name, was in before.items())


def memory_of(company: RunningCompany, name: str) -> int:
    return psutil.Process(company.processes[name].pid).memory_info().rss


# ---- split ------------------------------------------------------------------------------------------------------------------
def test_a_million_fragments_leave_the_chief_as_small_as_it_was(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p",
        "def process(fragment):\n    return fragment\n",
        merge="def merge(results, output):\n    return [sum(1 for _ in results)]\n",
    )
    before = peak = memory_of(company, "chief")
    job = company.client.submit(package, numbers, params={"n": 1_000_000})
    while not job.is_over:
        job.status(wait_s=0.3)
        peak = max(peak, memory_of(company, "chief"))
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [1_000_000]
    assert peak - before < 150 << 20, f"{(peak - before) >> 20} MiB more"


def test_a_split_that_is_faster_than_the_work_does_not_pile_up_in_the_chief(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    """300 MB of fragments, which split could yield in a second; the chief holds its window of them, and split waits."""
    count, size = 1500, 200_000
    package = write_package(
        tmp_path / "p",
        "import time\ndef process(fragment):\n    time.sleep(0.006)\n    return len(fragment)\n",
        split=f"def split(data):\n    for n in range({count}):\n        yield bytes([n % 251]) * {size}\n",
        merge="def merge(results, output):\n    return [sum(results)]\n",
    )
    before = peak = memory_of(company, "chief")
    job = company.client.submit(package, numbers)
    ahead = 0
    while not job.is_over:
        job.status(wait_s=0.1)
        peak = max(peak, memory_of(company, "chief"))
        counts = job.view["fragments"]
        ahead = max(ahead, counts["at_least"] - counts["done"] - counts["failed"])
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [count * size]
    assert peak - before < 180 << 20, f"{(peak - before) >> 20} MiB more"
    # the window, and what a chunk of split and a piece of results that are not on disk yet may add
    assert ahead <= (WINDOW_BYTES + (32 << 20)) // size, f"split was {ahead} fragments ahead"


def test_one_fragment_of_a_gibibyte_is_streamed(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p",
        "import zlib\ndef process(fragment):\n    return len(fragment), zlib.crc32(fragment)\n",
        split=f"def split(data):\n    yield bytes({LARGE_BYTES})\n",
    )
    before = {name: memory_of(company, name) for name in ("chief", "w1", "w2")}
    peak = dict(before)
    job = company.client.submit(package, numbers, memory_bytes=5 << 30)
    while not job.is_over:
        job.status(wait_s=0.2)
        peak = {name: max(was, memory_of(company, name)) for name, was in peak.items()}
    assert job.state == "done", (job.view["reason"], job.failures())
    assert value_of(job, tmp_path / "out")[0][0] == LARGE_BYTES
    assert all(peak[name] - was < 100 << 20 for name, was in before.items()), {n: (peak[n] - was) >> 20 for n, was in before.items()}


UNEVEN = """
import random, time
def process(fragment):
    kind, number = fragment
    draw = random.Random(number)
    seconds = {"exponential": draw.expovariate(1), "lognormal": draw.lognormvariate(-0.5, 1), "pareto": draw.paretovariate(1.5) / 3}[kind]
    time.sleep(0.5 if number == 150 else min(0.4, 0.01 * seconds))
    return number
"""


def test_long_fragments_put_no_healthy_worker_under_suspicion(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    """Three distributions, each with one fragment fifty times as long. How little is copied: tests/unit/test_chief_pace.py."""
    package = write_package(tmp_path / "p", UNEVEN, split="def split(data, kind):\n    for n in range(300):\n        yield kind, n\n")
    jobs = [company.client.submit(package, numbers, params={"kind": kind}) for kind in ("exponential", "lognormal", "pareto")]
    for number, job in enumerate(jobs):
        assert job.wait(90).state == "done", job.view
        assert value_of(job, tmp_path / f"out{number}") == list(range(300))
        assert not job.failures()["items"]
        assert not is_told(company, job, "worker-kicked")
    assert {w["state"] for w in company.client.workers()["items"]} == {"idle"}


def test_a_split_that_yields_nothing_gives_an_empty_merge(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "def process(fragment):\n    return 1\n", split="def split(data):\n    return iter(())\n")
    job = company.run(package, numbers)
    assert (job.state, job.view["fragments"]["total"]) == ("done", 0), job.view
    assert value_of(job, tmp_path / "out") == []


def test_jobs_that_are_over_hold_no_descriptor_of_the_chief(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "def process(fragment):\n    print(fragment)\n    return fragment\n")
    chief = psutil.Process(company.processes["chief"].pid)
    company.run(package, numbers, params={"n": 5})
    before = chief.num_fds()
    for _ in range(10):
        company.run(package, numbers, params={"n": 5})
    blank = 12  # two children that wait for a job have some each; a job that kept three would be thirty more by now
    assert until(lambda: chief.num_fds() <= before + blank, "descriptors given back", timeout_s=10)


CLOCK = "import time\ndef split(data):\n    now = time.time_ns()\n    for i in range(60):\n        yield [now, i]\n"


# ---- who goes away ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def own(tmp_path: Path) -> Iterator[RunningCompany]:
    """A company that a test may harm."""
    root = tmp_path / "c"
    root.mkdir()
    with RunningCompany(root) as running:
        running.start_chief()
        running.start_workers("w1")
        yield running


def test_a_client_that_disappears_leaves_its_job_running(own: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "import time\ndef process(fragment):\n    time.sleep(0.2)\n    return fragment\n")
    own._spawn("client", "job", "submit", str(package), str(numbers), "-p", "n=20", "--wait", "--name", "left")
    view = until(lambda: next((v for v in own.client.jobs()["items"] if v["fragments"]["done"] >= 2), None), "results")
    own.kill("client")
    job = own.client.job(view["id"])
    assert job.wait(60).state == "done", job.view
    for _ in range(2):
        assert own.stop("chief") == 0
        own.start_chief()
        (listed,) = own.client.jobs()["items"]
        assert (listed["name"], listed["state"]) == ("left", "done")
    assert value_of(own.client.job(view["id"]), tmp_path / "out") == list(range(20))


def test_a_split_that_differs_each_time_starts_over_once_and_then_fails(own: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    """split reads a clock. The results of two runs are never mixed, and nobody waits for ever."""
    package = write_package(
        tmp_path / "p", "import time\ndef process(fragment):\n    time.sleep(0.05)\n    return fragment\n", split=CLOCK.replace("60", "400")
    )
    job = own.client.submit(package, numbers, batching="none")
    for kills in (1, 2):
        until(lambda job=job: job.status()["fragments"]["done"] > 5, "results")
        own.kill("chief")
        own.start_chief()
        job = own.client.job(job.id)
        if kills == 1:
            until(lambda job=job: is_told(own, job, "starts-over"), "the start over")
    assert job.wait(60).state == "failed", job.view
    assert job.view["reason"]["code"] == "split-not-deterministic"
    assert not job.view.get("result_digest")


def is_told(own: RunningCompany, job: Job, kind: str) -> bool:
    """Whether the job's story has an event of this kind."""
    database = sqlite3.connect(f"file:{own.home}/chief/company.sqlite?mode=ro", uri=True)
    try:
        return bool(database.execute("SELECT count(*) FROM story WHERE job = ? AND kind = ?", (job.id, kind)).fetchone()[0])
    finally:
        database.close()


def test_a_split_that_yields_something_else_once_gives_the_results_of_one_run(own: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p",
        "import time\ndef process(fragment):\n    time.sleep(0.05)\n    return fragment\n",
        split=CLOCK,
        merge="def merge(results, output):\n    got = list(results)\n    return [len({r[0] for r in got}), [r[1] for r in got]]\n",
    )
    job = own.client.submit(package, numbers, batching="none")
    until(lambda: job.status()["fragments"]["done"] > 5, "results")
    own.kill("chief")
    own.kill("w1")  # else what it still holds shows that split is another one
    own.start_chief()
    own.start_worker("w1")
    job = own.client.job(job.id)
    assert job.wait(60).state == "done", job.view
    assert value_of(job, tmp_path / "out") == [1, list(range(60))], "results of two runs were mixed"
