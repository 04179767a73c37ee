"""What goes wrong inside one fragment, split or merge stays there, is told in words, and costs nobody else anything."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.company_processes import RunningCompany, until, value_of, write_package

BAD = 7


def failing(folder: Path, how: str, *, n_seconds: str = "0") -> Path:
    return write_package(
        folder,
        f"""
        import os, sys, time, ctypes
        def process(fragment):
            print("begin", fragment)
            if fragment == {BAD}:
                {how}
            time.sleep({n_seconds})
            return fragment
        """,
    )


def only_failure(company: RunningCompany, package: Path, data: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Run 40 fragments of which one is bad and may be; check that the others are there and the workers live on."""
    before = {name: company.processes[name].pid for name in ("w1", "w2")}
    job = company.run(package, data, params={"n": 40}, max_fails="1", **options)
    assert job.state == "done", job.view
    assert (job.view["fragments"]["done"], job.view["fragments"]["failed"]) == (39, 1)
    items = job.failures()["items"]
    assert [f["fragment"] for f in items if f["final"]] == [BAD]
    assert [f["fragment"] for f in items] == [BAD], f"a neighbour was blamed: {items}"
    assert all(company.is_running(name) and company.processes[name].pid == pid for name, pid in before.items())
    return job, items[0]


def test_a_fragment_that_raises_is_tried_three_times_and_alone_in_failing(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = failing(tmp_path / "p", "raise ValueError(f'cannot do {fragment}')")
    job, failure = only_failure(company, package, numbers)
    assert value_of(job, tmp_path / "out") == [i for i in range(40) if i != BAD]
    assert failure["tries"] == 3
    assert (failure["exc_type"], failure["message"]) == ("ValueError", "cannot do 7")
    assert "processor/main.py" in failure["traceback"]
    assert "raise ValueError" in failure["traceback"]
    assert failure["preview"] == "7"
    assert failure["log_tail"] == "begin 7\n"
    assert failure["cause"] == "raised"
    assert failure["reproducible"]
    assert failure["worker"]


def test_a_job_with_too_many_failures_fails_and_says_so(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = failing(tmp_path / "p", "raise ValueError('no')")
    job = company.run(package, numbers, params={"n": 40})
    assert job.state == "failed"
    assert job.view["reason"]["code"] == "too-many-failed", job.view["reason"]
    assert BAD in [f["fragment"] for f in job.failures()["items"]]


def test_exit_codes_tell_a_whole_a_partial_and_a_failed_job_apart(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = str(failing(tmp_path / "p", "raise ValueError('no')"))
    submit = ("job", "submit", package, str(numbers), "--wait")
    assert company.command(*submit, "-p", "n=5").returncode == 0
    assert company.command(*submit, "-p", "n=9", "--max-fails", "1").returncode == 3
    assert company.command(*submit, "-p", "n=9").returncode == 4


@pytest.mark.parametrize(
    ("how", "cause", "words"),
    [
        ("os._exit(3)", "exited", "exit code 3"),
        ("ctypes.string_at(0)", "crashed", "SIGSEGV"),
    ],
)
def test_a_fragment_that_ends_its_process_fails_alone(
    company: RunningCompany, numbers: Path, tmp_path: Path, how: str, cause: str, words: str
) -> None:
    job, failure = only_failure(company, failing(tmp_path / "p", how), numbers)
    assert failure["cause"] == cause
    assert words in failure["message"]
    assert failure["tries"] == 3
    assert "begin 7" in failure["log_tail"]
    assert failure["preview"] == "7"
    assert value_of(job, tmp_path / "out") == [i for i in range(40) if i != BAD]


def test_an_endless_fragment_is_killed_at_its_time_limit(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    job, failure = only_failure(company, failing(tmp_path / "p", "while True: pass"), numbers, time_limit_s=1.0)
    assert failure["cause"] == "time-limit"
    assert "1 s" in failure["message"]
    assert value_of(job, tmp_path / "out") == [i for i in range(40) if i != BAD]


def test_a_fragment_that_eats_memory_fails_by_its_limit(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = failing(tmp_path / "p", "x = bytearray(1 << 30); x[:] = b'1' * (1 << 30)")
    job, failure = only_failure(company, package, numbers, memory_bytes=256 << 20)
    assert failure["cause"] in ("raised", "memory-limit")
    assert "MemoryError" in failure["exc_type"] or "memory" in failure["message"]
    assert value_of(job, tmp_path / "out") == [i for i in range(40) if i != BAD]


def test_an_unencodable_result_fails_its_fragment_with_the_type_named(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    _, failure = only_failure(company, failing(tmp_path / "p", "return object()"), numbers)
    assert "object" in failure["message"]
    assert "cannot travel" in failure["message"]


def test_max_fails_in_per_cent_is_judged_over_all_fragments(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p", "def process(fragment):\n    if fragment % 10 == 0: raise ValueError(fragment)\n    return fragment\n"
    )
    assert company.run(package, numbers, params={"n": 50}, max_fails="10%").state == "done"
    assert company.run(package, numbers, params={"n": 50}, max_fails="9%").state == "failed"


def test_a_package_that_cannot_be_imported_fails_the_job_with_its_traceback(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "def process(fragment):\n    return 1\nimport nothing_of_that_name\n")
    job = company.run(package, numbers, params={"n": 3})
    assert job.state == "failed"
    said = json.dumps(job.view["reason"]) + json.dumps(job.failures()["items"])
    assert "nothing_of_that_name" in said


def test_a_split_that_raises_halfway_fails_the_job_with_its_traceback(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p",
        "def process(fragment):\n    return fragment\n",
        split="def split(data):\n    yield 1\n    yield 2\n    raise LookupError('no third')\n",
    )
    job = company.run(package, numbers)
    assert job.state == "failed"
    reason = job.view["reason"]
    assert reason["code"] == "split-failed"
    assert "LookupError" in reason["text"]
    assert "no third" in reason["text"]
    assert "split.py" in reason["facts"]["traceback"]


def test_a_merge_that_raises_is_run_again_alone_by_retry(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    good_from = time.time() + 6
    package = write_package(
        tmp_path / "p",
        "def process(fragment):\n    print('processed')\n    return fragment\n",
        merge=f"""
        import time
        def merge(results, output):
            got = list(results)
            if time.time() < {good_from}:
                raise ArithmeticError(f"of {{len(got)}}")
            return got
        """,
    )
    job = company.run(package, numbers, params={"n": 5})
    assert job.state == "failed", job.view
    assert job.view["reason"]["code"] == "merge-failed"
    assert "ArithmeticError: of 5" in job.view["reason"]["text"]
    assert "merge.py" in job.view["reason"]["facts"]["traceback"]
    cpu_before, attempt = job.view["cpu_s"], job.view["merge_attempt"]
    until(lambda: time.time() > good_from, "the time when it works")
    job.retry(merge=True).wait(60)
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == list(range(5))
    assert job.view["merge_attempt"] == attempt + 1
    assert job.view["cpu_s"] == cpu_before, "nothing was computed again"
    prints = [line for line in job.logs() if line["stream"] == "stdout"]
    assert sum(line["text"].count("processed") for line in prints) == 5


def test_failed_fragments_are_tried_again_by_retry_and_the_result_is_whole(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    good_from = time.time() + 6
    package = write_package(
        tmp_path / "p",
        f"""
        import time
        def process(fragment):
            if fragment == 7 and time.time() < {good_from}:
                raise TimeoutError("too early")
            return fragment
        """,
    )
    job = company.run(package, numbers, params={"n": 12}, max_fails="1")
    assert (job.state, job.view["fragments"]["failed"]) == ("done", 1)
    until(lambda: time.time() > good_from, "the time when it works")
    job.retry().wait(60)
    assert job.state == "done", job.view
    assert job.view["fragments"]["failed"] == 0
    assert value_of(job, tmp_path / "out") == list(range(12))


def test_cancel_kills_what_runs(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    named = "import ctypes, time\nctypes.CDLL(None).prctl(15, b'of-the-job')\n"  # PR_SET_NAME: blank children have another one
    package = write_package(
        tmp_path / "p",
        named + "def process(fragment):\n    time.sleep(600)\n",
        split=named + "def split(data):\n    yield from range(4)\n    time.sleep(600)\n    yield 4\n",
    )
    job = company.client.submit(package, numbers)
    until(lambda: job.status()["fragments"]["leased"] >= 2, "both workers at work")
    until(lambda: all(_of_the_job(company, name) for name in company.processes), "a child below the chief and both workers")
    job.cancel()
    assert job.wait(20).state == "cancelled"
    until(lambda: all(w["slots_busy"] == 0 for w in company.client.workers()["items"]), "no slot busy")
    until(lambda: not any(_of_the_job(company, name) for name in company.processes), "no child of the job left")


def _of_the_job(company: RunningCompany, name: str) -> list[int]:
    """Processes below one of ours that took the name that the job's package gives them."""
    found = []
    for pid in company.children_of(name):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "of-the-job\n":
                found.append(pid)
    return found


def test_pause_gives_out_nothing_more_and_resume_goes_on(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "import time\ndef process(fragment):\n    time.sleep(0.1)\n    return fragment\n")
    job = company.client.submit(package, numbers, params={"n": 40}, batching="none")
    until(lambda: job.status()["fragments"]["done"], "a first result")
    job.pause()
    until(lambda: job.status()["fragments"]["leased"] == 0, "no lease")
    at = job.view["fragments"]["done"]
    assert job.view["paused"]
    assert 0 < at < 40
    job.status(wait_s=1.0)  # a second in which nothing may happen
    assert job.status()["fragments"]["done"] == at
    assert job.view["reason"]["code"], "a paused job says why it does not go on"
    job.resume()
    assert job.wait(60).state == "done"
    assert value_of(job, tmp_path / "out") == list(range(40))


@pytest.mark.parametrize("lost", ["a bit of a record", "a large result"])
def test_results_that_the_disk_has_damaged_are_named_and_computed_again(
    company: RunningCompany, numbers: Path, tmp_path: Path, lost: str
) -> None:
    package = write_package(
        tmp_path / "p",
        """
        def process(fragment):
            if fragment == 2:
                raise ValueError("never")
            return bytes([fragment]) * (5 << 20 if fragment == 1 else 10)
        """,
        merge="def merge(results, output):\n    return [(len(r), r[0]) for r in results]\n",
    )
    job = company.run(package, numbers, params={"n": 3}, max_fails="1")
    assert job.state == "done"
    results = company.home / "chief" / "jobs" / job.id / "results"
    if lost == "a large result":
        (results / "blob-1").unlink()
    else:
        with (results / "000000.seg").open("r+b") as file:
            file.seek(-1, 2)
            last = file.read(1)
            file.seek(-1, 2)
            file.write(bytes([last[0] ^ 1]))
    assert job.retry().wait(60).state == "failed"
    assert job.view["reason"]["code"] == "result-damaged"
    assert job.retry().wait(60).state == "done", job.view
    assert value_of(job, tmp_path / "out") == [[10, 0], [5 << 20, 1]]
