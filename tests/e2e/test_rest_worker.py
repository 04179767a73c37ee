"""Workers driven by the seven REST calls alone: ours, and one that shares no code with us."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from company import messages as m
from company.chief.digests import range_digest
from company.chief.long_leases import LONG_S
from p2p.base.frames import FrameParser, encode_frame_of
from tests.support.company_processes import MERGE_COUNT, RunningCompany, until, value_of, write_package

INDEPENDENT = Path(__file__).parents[1] / "support" / "independent_worker.py"
SQUARE = "def process(fragment):\n    return fragment * fragment\n"
MACHINE = ["other", 1, 1, 1 << 30, "3.11.0", "x", "none", False, None, None, "1"]
SLOW = "import time\ndef process(fragment):\n    time.sleep(0.05)\n    return fragment\n"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[RunningCompany]:
    """A chief without any worker."""
    root = tmp_path / "company"
    root.mkdir()
    with RunningCompany(root) as running:
        running.start_chief()
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.txt"
    path.write_text("nothing\n")
    return path


def start_independent(company: RunningCompany, *arguments: str, name: str = "independent") -> dict[str, Any]:
    """Start the other worker; returns what its join was answered with."""
    token = str(company.client.create_token("worker")["token"])
    with open(company.log_of(name), "ab") as log:
        company.processes[name] = subprocess.Popen(
            [sys.executable, "-I", str(INDEPENDENT), str(company.ready["chief"]["http"]), token, *arguments],
            stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
    return company.wait_ready(name)


def start_ours(company: RunningCompany, name: str, token: str | None, *arguments: str) -> None:
    """Start our own worker with --transport rest; without a token it comes back with its bearer."""
    command = ["worker", "join", "--transport", "rest", "--slots", "2", "--name", name, "--json"]
    command += ["--chief-http", str(company.ready["chief"]["http"]), *(("--token-file", "-") if token else ()), *arguments]
    process = company._spawn(name, *command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    if token:
        process.stdin.write(token.encode() + b"\n")
    process.stdin.close()
    company.wait_ready(name)


def call(
    company: RunningCompany, method: str, path: str, body: bytes | None = None, *, bearer: str = "", **headers: str
) -> tuple[int, bytes]:
    """One call to the chief."""
    request = urllib.request.Request(f"{company.ready['chief']['http']}{path}", data=body, method=method, headers=headers)
    if bearer:
        request.add_header("Authorization", f"Bearer {bearer}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def outcome(token: int, job: str, first: int, value: int = 0, digest: bytes = b"") -> bytes:
    message = m.Outcome(token, job, first, 1, True, 1, 1, 0, 0, (), digest)
    head, body = encode_frame_of(message.as_array(), [bytes(1), bytes(4), b"", msgpack.packb(value)])
    return head + body


def test_an_independent_worker_completes_a_whole_job_alone(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    start_independent(alone)
    package = write_package(tmp_path / "p", "def process(fragment, factor):\n    return fragment * factor\n")
    job = alone.run(package, data, params={"n": 5000, "factor": 3})
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [3 * i for i in range(5000)]
    (worker,) = alone.client.workers()["items"]
    assert worker["transport"] == "rest"


def test_a_worker_without_an_address_asks_for_work(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    start_independent(alone, "--poll")
    job = alone.run(write_package(tmp_path / "p", SQUARE), data, params={"n": 1000})
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [i * i for i in range(1000)]


def test_a_fragment_too_large_to_inline_is_fetched(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    start_independent(alone)
    split = "def split(data):\n    yield b'x' * 6_000_000\n    yield b'y'\n"
    job = alone.run(write_package(tmp_path / "p", "def process(fragment):\n    return len(fragment)\n", split=split), data)
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [6_000_000, 1]


def test_what_process_raises_is_reported_over_rest_too(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    start_independent(alone)
    process = "def process(fragment):\n    if fragment == 7:\n        raise ValueError('seven')\n    return fragment\n"
    job = alone.run(write_package(tmp_path / "p", process, merge=MERGE_COUNT), data, params={"n": 20}, max_fails="1")
    assert job.state == "done", job.view
    assert job.view["fragments"]["failed"] == 1
    assert value_of(job, tmp_path / "out") == 19


def test_our_worker_by_rest_completes_a_job(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    start_ours(alone, "r1", str(alone.client.create_token("worker")["token"]))
    job = alone.run(write_package(tmp_path / "p", SQUARE), data, params={"n": 20_000})
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [i * i for i in range(20_000)]


def test_batches_of_a_killed_rest_worker_run_elsewhere(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    token = str(alone.client.create_token("worker", uses=2)["token"])
    start_ours(alone, "r1", token)
    start_ours(alone, "r2", token)
    job = alone.client.submit(write_package(tmp_path / "p", SLOW, merge=MERGE_COUNT), data, params={"n": 300})
    until(lambda: sum(w["slots_busy"] for w in alone.client.workers()["items"]) >= 4, "both workers are busy")
    alone.kill("r1")
    job.wait(60)
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == 300
    states = {w["name"]: w["state"] for w in alone.client.workers()["items"]}
    assert states["r1"] == "offline"
    start_ours(alone, "r1", None)  # comes back with its bearer, no token
    until(lambda: all(w["state"] == "idle" for w in alone.client.workers()["items"]), "it is back")
    assert len(alone.client.workers()["items"]) == 2


def test_a_rest_worker_is_found_again_after_the_chief_was_killed(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    start_ours(alone, "r1", str(alone.client.create_token("worker")["token"]))
    job_id = alone.client.submit(write_package(tmp_path / "p", SLOW, merge=MERGE_COUNT), data, params={"n": 100}).id
    until(lambda: alone.client.job(job_id).view["fragments"]["done"] > 0, "something is done")
    alone.kill("chief")
    alone.start_chief()
    job = alone.client.job(job_id).wait(60)
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == 100


def leases_on_disk(running: RunningCompany) -> int:
    """How many leases a restart of the chief would find."""
    database = sqlite3.connect(f"file:{running.home}/chief/company.sqlite?mode=ro", uri=True)
    try:
        return int(database.execute("select count(*) from lease").fetchone()[0])
    finally:
        database.close()


def test_what_rest_workers_were_running_is_not_run_again_after_a_restart_of_the_chief(
    alone: RunningCompany, data: Path, tmp_path: Path
) -> None:
    """Ours says what it holds; one that says nothing is believed when it brings the results of a lease of before."""
    start_ours(alone, "r1", str(alone.client.create_token("worker")["token"]))
    body = {"token": str(alone.client.create_token("worker")["token"]), "callback": "", "key": "", "machine": [9, *MACHINE]}
    headers = {"Content-Type": "application/json"}
    bearer = json.loads(call(alone, "POST", "/api/v1/workers/join", json.dumps(body).encode(), **headers)[1])["token"]
    stamp = "import time\ndef process(fragment):\n    began = time.time()\n    time.sleep(9)\n    return began\n"
    job_id = alone.client.submit(write_package(tmp_path / "p", stamp), data, params={"n": 3}).id
    _, answer = call(alone, "POST", "/api/v1/workers/next?wait=20", b"", bearer=bearer)
    run_frame = FrameParser().feed_untrusted(answer)[1]
    run = m.Run.parse_untrusted(run_frame.header)
    digest = range_digest(run_frame.sizes, [run_frame.body])  # a result of before without it cannot be checked, and runs again
    assert run.count == 1
    until(lambda: sum(w["slots_busy"] for w in alone.client.workers()["items"]) == 3, "all three run")
    # from here on the leases have rows, so the worker may take longer to come back than the first hold
    until(lambda: leases_on_disk(alone) == 3, f"leases older than {LONG_S} s are on disk")
    alone.kill("chief")
    killed_at = time.time()
    alone.start_chief()
    assert call(alone, "POST", "/upload/result-fragment", outcome(run.token, job_id, run.first, 5, digest), bearer=bearer)[0] in (200, 204)
    job = alone.client.job(job_id).wait(60)
    assert job.state == "done", job.view
    results = value_of(job, tmp_path / "out")
    assert results.pop(run.first) == 5
    assert all(began < killed_at for began in results), (results, killed_at)


def test_strangers_stale_leases_and_leases_of_others_are_refused(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "import time\ndef process(fragment):\n    time.sleep(3)\n    return fragment\n")
    token = str(alone.client.create_token("worker", uses=3)["token"])

    def join(**body: Any) -> tuple[int, dict[str, Any]]:
        given = {"machine": [9, *MACHINE], "callback": "", "key": "", **body}
        status, answer = call(alone, "POST", "/api/v1/workers/join", json.dumps(given).encode(), **{"Content-Type": "application/json"})
        return status, json.loads(answer)

    _, first = join(token=token)
    job = alone.client.submit(package, data, params={"n": 1})
    status, body = call(alone, "POST", "/api/v1/workers/next?wait=20", b"", bearer=first["token"])
    assert status == 200
    job_is, run_frame = FrameParser().feed_untrusted(body)
    run = m.Run.parse_untrusted(run_frame.header)
    assert m.JobIs.parse_untrusted(job_is.header).job == job.id

    _, second = join(token=token)
    # nobody, a join token, another worker's name
    assert call(alone, "POST", "/upload/result-fragment", outcome(run.token, job.id, 0))[0] == 401
    assert call(alone, "POST", "/upload/result-fragment", outcome(run.token, job.id, 0), bearer=first["token"] + "x")[0] == 401
    assert call(alone, "POST", "/upload/result-fragment", outcome(run.token, job.id, 0), bearer=token)[0] == 401
    assert call(alone, "GET", "/api/v1/jobs", bearer=first["token"])[0] == 403
    status, problem = join(worker=second["worker"], bearer=first["token"])
    assert (status, problem["code"]) == (403, "worker-unknown")
    # the lease of another worker
    lease = {"Company-Lease": str(run.token)}
    assert call(alone, "GET", f"/data-fragment/0?job={job.id}", bearer=second["token"], **lease)[0] == 409
    assert call(alone, "POST", "/upload/result-fragment", outcome(run.token, job.id, 0), bearer=second["token"])[0] == 409
    # its own one, a number that never was, fragments outside
    assert call(alone, "GET", f"/data-fragment/0?job={job.id}", bearer=first["token"], **lease)[0] == 200
    assert call(alone, "GET", f"/data-fragment/0?job={job.id}&count=2", bearer=first["token"], **lease)[0] == 422
    assert call(alone, "POST", "/upload/result-fragment", outcome(run.token + 1, job.id, 0), bearer=first["token"])[0] == 409
    assert call(alone, "POST", "/upload/result-fragment", b"\0" * 40, bearer=first["token"])[0] == 400
    # right; the same again is answered alike; other results of a lease that is over are not taken
    for _ in range(2):
        status, body = call(alone, "POST", "/upload/result-fragment", outcome(run.token, job.id, 0), bearer=first["token"])
        said = [m.JobOver.parse_untrusted(frame.header).job for frame in FrameParser().feed_untrusted(body)]
        assert (status, said) in ((204, []), (200, [job.id])), "nothing new, or that the job is over by then"
    assert call(alone, "POST", "/upload/result-fragment", outcome(run.token, job.id, 0, 1), bearer=first["token"])[0] == 409
    assert job.wait(30).state == "done"
    # addresses that the chief will not dial
    for address in ("http://example.com:80", "ftp://127.0.0.1:1", "http://127.0.0.1:1/x", "http://u@127.0.0.1:1", "http://127.0.0.1"):
        assert join(token=token, http=address, callback="ab" * 32)[1]["code"] == "join-invalid"
    # removed: its bearer is worth nothing
    alone.client.change_worker(first["worker"], "rm")
    assert call(alone, "POST", "/api/v1/workers/next?wait=0", b"", bearer=first["token"])[0] == 401
