"""The same package on Dask, on Ray and here: the same bytes, the same report of what failed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import company as company_module
from company.client import Client
from company.client.address import ChiefAddress
from company.errors import TEMPORARY, USAGE, FragmentsFailed
from tests.support import call_samples as samples
from tests.support.clusters import RAY_ENVIRON, cluster_running
from tests.support.company_processes import COMPANY, RunningCompany, until, write_package

pytestmark = pytest.mark.slow
LENT_S = 180.0
MERGE = """
import json
def merge(results, output):
    (output / "all.json").write_text(json.dumps([[a, b.hex() if isinstance(b, bytes) and len(b) < 100 else len(b)] for a, b in results]))
"""
SPLIT = "def split(data, n, size=16):\n    for i in range(n):\n        yield i, i.to_bytes(4, 'big') * (size // 4)\n"


@pytest.fixture(scope="module", params=["dask", "ray"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[request.param])
    with cluster_running(request.param, tmp_path_factory.mktemp(request.param)) as address:
        yield request.param, address


def package(folder: Path, process: str) -> Path:
    return write_package(folder, process, split=SPLIT, merge=MERGE)


def run(package: Path, data: Path, out: Path, *options: str, code: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", "company", "run", str(package), str(data), "--out", str(out), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=os.environ | RAY_ENVIRON)
    assert done.returncode == code, done.stderr
    return dict(json.loads(done.stdout or done.stderr.splitlines()[-1]))


def on(cluster: tuple[str, str]) -> tuple[str, ...]:
    return ("--engine", cluster[0], "--address", cluster[1])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").write_text("x\n")
    return tmp_path / "data"


def test_the_result_has_the_same_bytes_as_here(cluster: tuple[str, str], data: Path, tmp_path: Path) -> None:
    made = package(tmp_path / "p", "def process(fragment):\n    print('at', fragment[0])\n    return fragment[0] ** 2, fragment[1]\n")
    for options in ("-p", "n=60"), ("-p", "n=2", "-p", "size=6000000"):
        there = run(made, data, tmp_path / "there", *options, *on(cluster))
        here = run(made, data, tmp_path / "here", *options)
        assert (there["fragments"], there["done"], there["engine"]) == (here["fragments"], here["done"], cluster[0])
        assert (tmp_path / "there" / "all.json").read_bytes() == (tmp_path / "here" / "all.json").read_bytes()
        assert sorted((tmp_path / "there.log").read_bytes().splitlines()) == sorted((tmp_path / "here.log").read_bytes().splitlines())


def test_failures_are_told_as_they_are_here(cluster: tuple[str, str], data: Path, tmp_path: Path) -> None:
    made = package(
        tmp_path / "p",
        """
        import os, time
        def process(fragment):
            if fragment[0] == 7:
                raise ValueError("seven")
            if fragment[0] == 11:
                os._exit(3)
            if fragment[0] == 13:
                while True: pass
            return fragment
        """,
    )
    options = ("-p", "n=20", "--max-fails", "3", "--time-limit", "0.5s")
    there = run(made, data, tmp_path / "there", *options, *on(cluster), code=3)
    here = run(made, data, tmp_path / "here", *options, code=3)
    keys = ("fragment", "tries", "final", "cause", "exc_type", "message", "exit_code", "preview")
    assert [{k: f[k] for k in keys} for f in there["failures"]] == [{k: f[k] for k in keys} for f in here["failures"]]
    assert [f["cause"] for f in there["failures"]] == ["raised", "exited", "time-limit"]
    assert "processor/main.py" in there["failures"][0]["traceback"]
    assert (tmp_path / "there" / "all.json").read_bytes() == (tmp_path / "here" / "all.json").read_bytes()


def test_a_client_hands_a_package_to_the_cluster_as_it_does_to_its_chief(
    cluster: tuple[str, str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = package(
        tmp_path / "p",
        """
        import time
        def process(fragment):
            time.sleep(0.02)
            print("at", fragment[0])
            if fragment[0] == 7:
                raise ValueError("seven")
            return fragment
        """,
    )
    for name, value in RAY_ENVIRON.items():
        monkeypatch.setenv(name, value)
    client = Client(ChiefAddress(False, "127.0.0.1", 9, "none"))  # nobody is asked there
    seen: list[tuple[str, int, int]] = []
    found = {}
    for engine, address in (cluster, ("local", None)):
        options: dict[str, Any] = {"params": {"n": 30}, "max_fails": "1", "retries": 2, "progress": lambda *told: seen.append(told)}
        with client.submit(made, data, engine=engine, address=address, **options) as run_:  # type: ignore[call-overload]
            assert (run_.wait(100, progress=False).state, run_.view["engine"]) == ("done", engine), run_.view
            assert run_.view["fragments"] == {"done": 29, "failed": 1, "total": 30}
            with pytest.raises(FragmentsFailed):
                run_.raise_for_state()
            (path,) = run_.download(tmp_path / engine)
            keys = ("fragment", "tries", "final", "cause", "exc_type", "message", "preview", "traceback")
            told = [{k: f[k] for k in keys} for f in run_.failures()["items"]]
            found[engine] = path.read_bytes(), told, run_.errors()[0]["place"], [line["text"] for line in run_.logs(fragment=3)]
        assert not run_.folder.exists()
    assert found[cluster[0]] == found["local"]
    assert found["local"][2:] == ("processor/main.py:7", ["at 3\n"])
    assert {what for what, _, _ in seen} == {"run"}, "progress was told while it ran"


def test_a_slot_that_is_killed_costs_nothing_but_time(cluster: tuple[str, str], data: Path, tmp_path: Path) -> None:
    made = package(tmp_path / "p", "import time\ndef process(fragment):\n    time.sleep(0.05)\n    return fragment\n")
    command = [sys.executable, "-m", "company", "run", str(made), str(data), "--out", str(tmp_path / "out"), "--json", "-p", "n=120"]
    run_ = subprocess.Popen(
        [*command, *on(cluster)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | RAY_ENVIRON
    )
    killed = 0
    began = time.monotonic()
    while killed < 1 and time.monotonic() - began < 60 and run_.poll() is None:
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [])[-1:] == ["company.cluster.node"] and any("bwrap" in c.name() for c in _children(process)):
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
                break
        time.sleep(0.1)
    told, errors = run_.communicate(timeout=100)
    assert run_.returncode == 0, errors
    assert killed == 1
    assert json.loads(told)["done"] == 120
    assert [a for a, _ in json.loads((tmp_path / "out" / "all.json").read_text())] == list(range(120))


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def test_a_cluster_that_is_not_there_is_said_in_words(data: Path, tmp_path: Path) -> None:
    made = package(tmp_path / "p", "def process(fragment):\n    return fragment\n")
    told = run(made, data, tmp_path / "out", "-p", "n=1", "--engine", "dask", "--address", "tcp://127.0.0.1:9", code=TEMPORARY)
    assert told["code"] == "cluster-unreachable"
    told = run(made, data, tmp_path / "out", "-p", "n=1", "--engine", "dask", code=USAGE)
    assert "--address" in told["detail"]


# ---- nodes as workers -------------------------------------------------------------------------------------------------
def lent(company: RunningCompany, name: str) -> dict[str, str]:
    return {w["id"]: w["state"] for w in company.client.workers()["items"] if w["name"].startswith(name)}


def test_nodes_work_for_a_company_until_they_are_taken_back(cluster: tuple[str, str], company: RunningCompany) -> None:
    """By Ctrl-C from Dask, by the chief from Ray."""
    engine, address = cluster
    name = f"lent-{engine}-{os.getpid()}"
    token = str(company.client.create_token("worker", uses=2)["token"])
    place = f"{engine}://{address.removeprefix('tcp://')}"
    command = [*COMPANY, "worker", "join", "--on", place, "--slots", "2", "--name", name, "--token-file", "-", "--json"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=company.environ | RAY_ENVIRON, **pipes) as process:  # type: ignore[call-overload]
        try:
            process.stdin.write(token + "\n")
            process.stdin.close()
            assert select.select([process.stdout], [], [], LENT_S)[0], "nothing was said"
            line = process.stdout.readline()
            assert line, process.stderr.read()
            told = json.loads(line)
            assert (told["slots"], {n["state"] for n in told["nodes"]}) == (2, {"joined"})
            assert sorted(lent(company, name)) == sorted(n["worker"] for n in told["nodes"])
            with company_module.Executor(company.client, progress=False) as ex:
                futures = [ex.submit(samples.slow, 0.2) for _ in range(16)]
                assert [f.result(LENT_S) for f in futures] == [0.2] * 16
                assert {f.worker for f in futures} & set(lent(company, name)), "none was computed there"
            if engine == "dask":
                process.send_signal(signal.SIGINT)
                assert process.wait(LENT_S) == 130
            else:
                for worker in lent(company, name):
                    company.client.change_worker(worker, "drain")
                assert process.wait(LENT_S) == 0, process.stderr.read()
        finally:
            process.kill()
    until(lambda: set(lent(company, name).values()) <= {"offline"}, "they have left", timeout_s=LENT_S)
    assert not [p for p in psutil.process_iter(["cmdline"]) if any(part.startswith(name) for part in p.info["cmdline"] or ())]
    for worker in lent(company, name):
        company.client.change_worker(worker, "rm")
