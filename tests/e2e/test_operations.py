"""The operator's side on real processes: what may be exposed, one chief per home, stopping, being killed, disks, the doctor."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from company.client import connect
from company.errors import IntegrityError
from company.home_lock import holder_pid
from p2p.base.clock import UnixTime
from p2p.net.local import ADDRESS
from p2p.net.tls import browser_certificate
from tests.support.company_processes import RunningCompany, is_alive, until, value_of, write_package

pytestmark = pytest.mark.slow
START = ("start", "--dht", "off", "--json")
LOOPBACK = ("--http", "127.0.0.1:0", "--rpc", "127.0.0.1:0")
STOP_WITHIN_S = 3.0 * float(os.environ.get("COMPANY_TEST_PATIENCE", "3"))  # 3 s on an idle machine
SLOW = "import time\ndef process(fragment):\n    time.sleep(0.2)\n    return fragment\n"


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[RunningCompany]:
    """A home in which nothing runs yet."""
    with RunningCompany(tmp_path) as company:
        yield company


def start(company: RunningCompany, *options: str) -> dict[str, Any]:
    """Start a chief with these options and return its line."""
    company._spawn("chief", *START, *options)
    return company.wait_ready("chief")


def write_certificate(folder: Path, *names: str, now: float | None = None) -> Path:
    """A certificate with its key in one file."""
    pem, key = browser_certificate(names or ("127.0.0.1", "localhost"), now=UnixTime(int(now or time.time())))
    path = folder / "cert.pem"
    path.write_bytes(pem.rstrip() + b"\n" + key)
    return path


def status_of(http_url: str, host: str, *, path: str = "/api/v1/health/live") -> int:
    """The status of a GET with this Host header; no certificate is checked."""
    scheme, _, address = http_url.partition("://")
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    options = {"context": ssl._create_unverified_context()} if scheme == "https" else {}
    connection = kind("127.0.0.1", int(address.rpartition(":")[2]), timeout=10, **options)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status


# ---- what may be exposed
def test_a_page_for_other_machines_without_tls_is_refused_in_words(empty: RunningCompany) -> None:
    done = empty.command(*START, "--http", "0.0.0.0:0", "--rpc", "127.0.0.1:0")
    assert done.returncode == 78
    said = json.loads(done.stderr)
    assert said["code"] == "http-without-tls"
    assert "not encrypted" in said["detail"]
    assert "ssh -L" in said["hint"]


def test_with_a_certificate_the_page_is_open_to_others_and_the_command_line_pins_it(empty: RunningCompany, tmp_path: Path) -> None:
    cert = write_certificate(tmp_path, "127.0.0.1", "grid.example")
    said = start(empty, "--workers", "0", "--http", "0.0.0.0:0", "--rpc", "127.0.0.1:0", "--tls-cert", str(cert))
    assert said["http"].startswith("https://grid.example:")
    assert json.loads(empty.command("status", "--json").stdout)["http"] == said["http"]
    port = said["http"].rpartition(":")[2]
    other = connect(f"https://127.0.0.1:{port}#sha256:{'0' * 64}", said["token"], home=tmp_path / "other")
    with pytest.raises(IntegrityError) as caught:
        other.company()
    assert caught.value.facts["found"] == said["fingerprint"]
    pinned = connect(f"https://127.0.0.1:{port}#sha256:{said['fingerprint']}", said["token"], home=tmp_path / "other")
    assert pinned.company()["http"] == said["http"]
    assert status_of(said["http"], f"grid.example:{port}") == 200  # a name of the certificate
    assert status_of(said["http"], socket.gethostname()) == 200
    assert status_of(said["http"], "evil.example") == 421


@pytest.mark.parametrize("fault", ["no key", "other key", "no certificate", "expired"])
def test_a_certificate_that_cannot_be_used_is_found_before_anything_starts(fault: str, empty: RunningCompany, tmp_path: Path) -> None:
    cert = write_certificate(tmp_path, now=time.time() - 500 * 86400 if fault == "expired" else None)
    pem, mark, key = cert.read_bytes().partition(b"-----BEGIN PRIVATE")
    if fault == "no key":
        cert.write_bytes(pem)
    elif fault == "other key":
        cert.write_bytes(pem + browser_certificate(("x",), now=UnixTime(int(time.time())))[1])
    elif fault == "no certificate":
        cert.write_bytes(mark + key)
    done = empty.command(*START, *LOOPBACK, "--tls-cert", str(cert))
    assert done.returncode == 78
    assert str(cert) in json.loads(done.stderr)["detail"]
    assert holder_pid(empty.home / "chief") is None


def test_a_foreign_host_header_is_refused(empty: RunningCompany) -> None:
    said = start(empty, "--workers", "0", *LOOPBACK, "--allow-host", "grid.example")
    assert status_of(said["http"], "evil.example") == 421
    assert status_of(said["http"], "grid.example:99") == 200
    assert status_of(said["http"], said["http"].partition("://")[2]) == 200


def test_a_token_for_a_chief_on_loopback_says_that_others_cannot_reach_it(empty: RunningCompany) -> None:
    start(empty, "--workers", "0", *LOOPBACK)
    done = empty.command("token", "create", "--role", "worker")
    assert "this machine alone" in done.stderr
    assert "--rpc 0.0.0.0" in done.stderr
    assert "/venv/bin/company worker join cmpw1." in done.stdout


def test_a_person_is_told_where_the_page_is_and_how_to_reach_it_from_elsewhere(empty: RunningCompany) -> None:
    process = empty._spawn("chief", "start", "--dht", "off", "--workers", "0", *LOOPBACK)
    assert process.stdout is not None
    lines = [process.stdout.readline().decode() for _ in range(7)]
    text = "".join(lines)
    assert "ssh -L" in text
    assert "(only from this machine)" in text
    assert lines[-1].startswith("Ctrl-C")


# ---- one chief per home, and its end
def test_a_second_chief_in_the_same_home_names_the_first(empty: RunningCompany) -> None:
    start(empty, "--workers", "0", *LOOPBACK)
    done = empty.command(*START, *LOOPBACK)
    assert done.returncode == 17
    said = json.loads(done.stderr)
    assert said["code"] == "home-in-use"
    assert str(empty.processes["chief"].pid) in said["detail"]
    assert json.loads(empty.command("status", "--json").stdout)["http"] == empty.ready["chief"]["http"]


@pytest.mark.parametrize("option", ["--http", "--rpc"])
def test_a_port_that_is_taken_is_named(option: str, empty: RunningCompany) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = empty.command(*START, *LOOPBACK, option, f"127.0.0.1:{port}", "--workers", "0")
    assert done.returncode == 75
    said = json.loads(done.stderr.splitlines()[-1])
    assert said["code"] == "port-taken"
    assert str(port) in said["detail"]
    assert not (empty.home / "chief/run/address.json").exists()


def test_stop_ends_the_chief_of_its_own_home_only(empty: RunningCompany, tmp_path: Path) -> None:
    start(empty, "--workers", "0", *LOOPBACK)
    with RunningCompany(tmp_path / "two") as other:
        other.root.mkdir(exist_ok=True)
        start(other, "--workers", "1", *LOOPBACK)
        until(lambda: other.client.company()["slots"] == 1, "its own worker")
        below = other.children_of("chief") | {holder_pid(other.home / "workers/local") or 0}
        assert other.command("stop").returncode == 0
        assert other.processes["chief"].wait(5) == 0
        assert not [pid for pid in below if is_alive(pid)], "its worker and children are gone when stop returns"
        assert "no chief runs" in other.command("stop").stdout
    assert empty.is_running("chief")
    assert empty.command("status").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_chief_with_running_jobs_soon_and_the_next_start_goes_on(
    number: signal.Signals, empty: RunningCompany, tmp_path: Path
) -> None:
    start(empty, "--workers", "2", *LOOPBACK)
    (tmp_path / "data.txt").write_text("x")
    package = write_package(tmp_path / "p", SLOW)
    job = empty.client.submit(package, tmp_path / "data.txt", params={"n": 30}, batching="none")
    until(lambda: job.status()["fragments"]["done"], "a first result")
    began = time.monotonic()
    process = empty.processes["chief"]
    process.send_signal(number)
    assert process.wait(30) == 0
    took = time.monotonic() - began
    assert holder_pid(empty.home / "workers/local") is None
    assert "Traceback" not in empty.tail_of("chief", 1000)
    empty.processes.pop("chief")
    empty._client = None
    start(empty, "--workers", "2", *LOOPBACK)
    again = empty.client.job(job.id).wait(60)
    assert again.state == "done"
    assert value_of(again, tmp_path / "out") == list(range(30))
    assert took < STOP_WITHIN_S, took


def test_a_chief_that_was_killed_starts_again_and_takes_its_worker_over(empty: RunningCompany) -> None:
    first = start(empty, "--workers", "1", *LOOPBACK)
    until(lambda: empty.client.company()["slots"] == 1, "its own worker")
    worker = holder_pid(empty.home / "workers/local")
    assert worker is not None
    empty.kill("chief")
    empty._client = None
    try:
        assert (empty.home / "chief/run/address.json").exists()
        assert (empty.home / "chief/run/rpc.sock").is_socket(), "what a dead chief leaves is in nobody's way"
        done = empty.command("status")
        assert done.returncode == 69, "a stale address is no chief"
        address = first["rpc"]
        start(empty, "--workers", "1", "--http", "127.0.0.1:0", "--rpc", address)
        until(lambda: empty.client.company()["slots"] == 1, "the worker of before, back")
        assert holder_pid(empty.home / "workers/local") == worker
        assert "home-in-use" not in empty.tail_of("chief", 1000)
        until(lambda: empty.client.workers()["items"][0]["address"] == ADDRESS, "it came by the socket again")
        empty.stop("chief")
        assert not is_alive(worker)
        assert not (empty.home / "chief/run/rpc.sock").exists()
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(worker).kill()


def test_an_own_worker_that_dies_is_started_again(empty: RunningCompany) -> None:
    start(empty, "--workers", "1", *LOOPBACK)
    assert empty.client.company()["needs_you"] == []  # its own worker is starting: nobody is told to add one
    until(lambda: empty.client.company()["slots"] == 1, "its own worker")
    worker = holder_pid(empty.home / "workers/local")
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    until(lambda: holder_pid(empty.home / "workers/local") not in (worker, None), "another one")
    until(lambda: empty.client.workers()["items"][0]["state"] == "idle", "it is back under its name")
    assert len(empty.client.workers()["items"]) == 1


# ---- noise, disks, the doctor
def test_a_client_that_leaves_a_long_wait_leaves_no_trace_in_the_log(empty: RunningCompany) -> None:
    said = start(empty, "--workers", "0", *LOOPBACK)
    host, port = said["http"].removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as line:
            request = f"GET /api/v1/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {said['token']}\r\n\r\n"
            line.sendall(request.encode())
            assert line.recv(20)
    empty.stop("chief")
    assert "Traceback" not in empty.tail_of("chief", 1000)
    assert "ERROR" not in empty.tail_of("chief", 1000)


def test_the_last_answer_of_an_upload_may_be_lost(empty: RunningCompany) -> None:
    start(empty, "--workers", "0", *LOOPBACK)
    transport = empty.client.transport
    tus = {"Tus-Resumable": "1.0.0"}
    made = transport.request("POST", "/api/v1/uploads", body=b"", headers=tus | {"Upload-Length": "5", "Content-Length": "0"})
    path = made.headers["location"]
    piece = tus | {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    digest = transport.request("PATCH", path, body=b"hello", headers=piece).headers["company-digest"]
    empty.stop("chief")
    empty._client = None
    start(empty, "--workers", "0", *LOOPBACK)
    transport = empty.client.transport
    assert transport.request("HEAD", path, headers=tus).headers["upload-offset"] == "5"
    assert transport.json("GET", path)["result"]["digest"] == digest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_a_problem_507_and_the_chief_lives_on(small_disk: Path) -> None:
    with RunningCompany(small_disk) as company:
        said = start(company, "--workers", "0", *LOOPBACK)
        host, port = said["http"].removeprefix("http://").split(":")
        auth = {"Authorization": f"Bearer {said['token']}", "Host": f"{host}:{port}"}
        block = bytes(1 << 20)

        def upload(count: int, *, chunked: bool) -> tuple[int, dict[str, Any]]:
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            headers = dict(auth) if chunked else auth | {"Content-Length": str(count << 20)}
            with contextlib.closing(connection):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
                    connection.request("POST", "/upload/data?name=big", body=iter([block] * count), headers=headers, encode_chunked=chunked)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())

        for chunked in (False, True):
            status, problem = upload(200, chunked=chunked)
            assert (status, problem["code"]) == (507, "storage-full"), problem
        assert upload(1, chunked=True)[0] == 201
        findings = {f["id"]: f for f in company.client.doctor()}
        assert findings["disk"]["verdict"] == "fail"


def test_the_doctor_speaks_of_this_machine_where_no_chief_runs(empty: RunningCompany) -> None:
    done = empty.command("doctor", "--json")
    findings = {f["id"]: f for f in json.loads(done.stdout)["items"]}
    assert set(findings) == {"client-python", "bytecode", "isolation", "limits", "disk", "file-system", "ports", "chief"}
    assert findings["chief"]["verdict"] == "warn"
    assert done.returncode == (78 if any(f["verdict"] == "fail" for f in findings.values()) else 0)
    start(empty, "--workers", "0", *LOOPBACK)
    findings = {f["id"]: f for f in json.loads(empty.command("doctor", "--json").stdout)["items"]}
    assert set(findings) == {
        "client-python",
        "bytecode",
        "isolation",
        "limits",
        "disk",
        "file-system",
        "ports",
        "python",
        "release",
        "clock",
    }
    assert findings["ports"]["verdict"] == "warn"
    page = (Path(__file__).parents[2] / "docs/doctor.md").read_text()
    for one in findings.values():
        assert f"\n## {one['link'].partition('#')[2]}\n" in page
