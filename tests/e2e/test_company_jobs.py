"""Whole jobs on a real company: results, parameters, values, sizes, files."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

from tests.support.company_processes import MERGE_COUNT, RunningCompany, until, value_of, write_package

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_word_job_gives_what_one_plain_process_counts(company: RunningCompany, tmp_path: Path) -> None:
    data = tmp_path / "library"
    data.mkdir()
    import email
    import json as json_package

    for module in (email, json_package):
        for path in Path(module.__file__).parent.glob("*.py"):
            (data / f"{module.__name__}-{path.name}").write_bytes(path.read_bytes())
    job = company.run(EXAMPLES / "wordcount", data, params={"top": 20})
    assert job.state == "done", job.view
    report = next(p for p in job.download(tmp_path / "out") if p.name == "report.json")
    plain = subprocess.run([sys.executable, EXAMPLES / "wordcount" / "reference.py", data, "20"], capture_output=True, check=True).stdout
    assert json.loads(report.read_bytes()) == json.loads(plain)


def test_results_are_merged_in_fragment_order(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "def process(fragment):\n    return fragment * fragment\n")
    job = company.run(package, numbers, params={"n": 20_000})
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [i * i for i in range(20_000)]
    counts = {"total": 20_000, "at_least": 20_000, "done": 20_000, "failed": 0, "leased": 0, "waiting": 0}
    assert job.view["fragments"] == counts
    (listed,) = [j for j in company.client.jobs()["items"] if j["id"] == job.id]
    assert listed["started"] <= listed["first_result"] <= listed["finished"]


def test_each_function_gets_the_parameters_that_it_names(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p",
        "def process(fragment, factor, **params):\n    return [fragment * factor, sorted(params)]\n",
        split="def split(data, n):\n    yield from range(n)\n",
        merge="def merge(results, output, *, word='none', **params):\n    return [word, sorted(params), list(results)]\n",
    )
    job = company.run(package, numbers, params={"n": 2, "factor": 7, "word": "yes"})
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == ["yes", ["factor", "n"], [[0, ["n", "word"]], [7, ["n", "word"]]]]


def test_values_of_every_kind_survive_all_three_ways(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    values = """
        import datetime as dt
        from decimal import Decimal
        import numpy as np
        def values():
            return [
                None, True, -1, 2**200, 0.1, float("inf"), 1 + 2j, Decimal("1.10"), "é\\u20ac", b"\\0\\xff", [1, [2]], (1, (2,), "t"),
                {1, 2}, frozenset({"a"}), {1: "one", (2, 3): "two", None: 0}, dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, 3, 4, 5),
                np.float32(1.5), np.int64(-3), np.arange(6, dtype="<i2").reshape(2, 3), np.zeros((0, 4)), np.array([1 + 1j]),
            ]
        def same(a, b):
            if isinstance(a, (np.ndarray, np.generic)):
                return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and bool(np.all(a == b))
            return type(a) is type(b) and a == b
    """
    package = write_package(
        tmp_path / "p",
        """
        from values import same, values
        def process(fragment):
            number, value = fragment
            return number, value, same(value, values()[number])
        """,
        split="from processor.values import values\ndef split(data):\n    yield from enumerate(values())\n",
        merge="""
        from processor.values import same, values
        def merge(results, output):
            return [i for i, value, was_same in results if not was_same or not same(value, values()[i])]
        """,
    )
    (package / "processor" / "values.py").write_text(textwrap.dedent(values))
    job = company.run(package, numbers)
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == []


def test_a_large_fragment_and_a_large_result_go_through(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p",
        "def process(fragment):\n    return fragment[::-1]\n",
        split="""
        def split(data):
            for i in range(3):
                yield bytes([i]) + b"x" * (10 << 20) + b"end"
                yield b"small"
        """,
        merge="""
        import hashlib
        def merge(results, output):
            return [[len(r), hashlib.sha256(r).hexdigest()] for r in results]
        """,
    )
    job = company.run(package, numbers)
    assert job.state == "done", job.view
    wanted = []
    for i in range(3):
        for value in (bytes([i]) + b"x" * (10 << 20) + b"end", b"small"):
            wanted.append([len(value), hashlib.sha256(value[::-1]).hexdigest()])
    assert value_of(job, tmp_path / "out") == wanted


def test_an_empty_split_is_a_job_with_an_empty_result(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    job = company.run(write_package(tmp_path / "p", "def process(fragment):\n    return 1\n"), numbers, params={"n": 0})
    assert job.state == "done", job.view
    assert job.view["fragments"]["total"] == 0
    assert value_of(job, tmp_path / "out") == []


def test_several_output_files_and_a_value_come_as_one_zip(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p",
        "def process(fragment):\n    return fragment\n",
        merge="""
        def merge(results, output):
            total = 0
            (output / "deep").mkdir()
            for r in results:
                (output / "deep" / f"{r}.txt").write_text(str(r))
                total += r
            (output / "top.bin").write_bytes(b"\\0" * 10)
            return {"total": total}
        """,
    )
    job = company.run(package, numbers, params={"n": 4})
    assert job.state == "done", job.view
    (packed,) = job.download(tmp_path / "zip", unpack=False)
    with zipfile.ZipFile(io.BytesIO(packed.read_bytes())) as archive:
        assert sorted(archive.namelist()) == ["deep/0.txt", "deep/1.txt", "deep/2.txt", "deep/3.txt", "result.json", "top.bin"]
    job.download(tmp_path / "out")
    assert json.loads((tmp_path / "out/result.json").read_bytes()) == {"total": 6}
    assert (tmp_path / "out/deep/3.txt").read_text() == "3"


def test_split_may_be_called_split_with_a_capital(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "def process(fragment):\n    return fragment + 1\n", split_name="Split.py")
    job = company.run(package, numbers, params={"n": 3})
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [1, 2, 3]


def test_partial_results_can_be_read_while_the_job_runs(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "import time\ndef process(fragment):\n    time.sleep(0.1)\n    return fragment * 10\n")
    job = company.client.submit(package, numbers, params={"n": 60})
    seen = [(r.index, r.value) for r in until(lambda: list(job.results()), "a first result")]
    assert job.status()["state"] in ("splitting", "running")
    assert 0 < len(seen) < 60
    assert all(value == index * 10 for index, value in seen)
    everything = {r.index: r.value for r in job.as_completed(poll_s=0.2)}
    assert everything == {i: i * 10 for i in range(60)}
    assert job.state == "done"


def test_two_jobs_run_at_once(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "import time\ndef process(fragment):\n    time.sleep(0.05)\n    return 1\n", merge=MERGE_COUNT)
    first = company.client.submit(package, numbers, params={"n": 60})
    second = company.client.submit(package, numbers, params={"n": 61})
    assert until(lambda: first.status()["fragments"]["done"] and second.status()["fragments"]["done"], "results of both")
    assert not (first.is_over and second.is_over)
    assert first.wait(60).state == second.wait(60).state == "done"
    assert value_of(first, tmp_path / "a") == 60
    assert value_of(second, tmp_path / "b") == 61


def test_prints_statuses_and_artifacts_belong_to_their_fragment(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p",
        """
        import sys, time
        from company import task
        def process(fragment):
            print("out of", fragment)
            print("err of", fragment, file=sys.stderr)
            task.log("logged by", fragment)
            task.status(f"half of {fragment}", 0.5)
            task.artifact(f"note-{fragment}.txt", f"of {fragment}")
            time.sleep(0.2)
            return task.index()
        """,
    )
    job = company.client.submit(package, numbers, params={"n": 8})
    status = until(lambda: job.status()["status"], "a task.status")
    assert status[0]["text"] == f"half of {status[0]['fragment']}"
    assert status[0]["fraction"] == 0.5
    assert job.wait(60).state == "done", job.view
    assert value_of(job, tmp_path / "out") == list(range(8))
    lines = list(job.logs(fragment=5))
    said = {stream: "".join(x["text"] for x in lines if x["stream"] == stream) for stream in ("stdout", "stderr")}
    assert job.failures()["items"] == []
    assert said == {"stdout": "out of 5\nlogged by 5\n", "stderr": "err of 5\n"}
    assert {x["fragment"] for x in lines} <= {5, None}
    left = job.artifacts()
    assert sorted((a["fragment"], a["name"], a["size"]) for a in left) == [(i, f"note-{i}.txt", 4) for i in range(8)]
    body = company.client.transport.request("GET", job.artifact_path(3, "note-3.txt")).body
    assert body == b"of 3"
