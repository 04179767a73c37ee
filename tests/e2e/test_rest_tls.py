"""Workers by REST beyond this machine: TLS both ways, each side told by its key, and an address that the chief must be able to call."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from company.http_pass import make_pass
from p2p.base.clock import UnixTime
from p2p.base.keys import Identity
from p2p.net.identity_file import load_or_create_identity
from p2p.net.tls import browser_certificate, peer_certificate, server_context
from tests.e2e.test_relay import network_without_the_chief
from tests.e2e.test_rest_worker import SLOW, SQUARE, data, start_independent, start_ours
from tests.support.company_processes import COMPANY, MERGE_COUNT, RunningCompany, until, value_of, write_package

__all__ = ["data"]  # a fixture


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCompany]:
    """A chief whose page has a certificate that nobody has signed."""
    root = tmp_path_factory.mktemp("company")
    cert, key = browser_certificate(["localhost", "127.0.0.1"], now=UnixTime(int(time.time())))
    (root / "cert.pem").write_bytes(cert + b"\n" + key)
    with RunningCompany(root) as running:
        running.start_chief("--tls-cert", str(root / "cert.pem"))
        yield running


def join(company: RunningCompany, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A join of ours that is not expected to succeed."""
    token = str(company.client.create_token("worker")["token"])
    chief = str(company.ready["chief"]["http"])
    command = (
        "worker",
        "join",
        "--transport",
        "rest",
        "--slots",
        "1",
        "--name",
        "r9",
        "--token-file",
        "-",
        "--json",
        "--chief-http",
        chief,
    )
    return company.command(*command, *arguments, stdin=token + "\n")


@contextmanager
def somebody_else(identity: Identity) -> Iterator[int]:
    """A TLS server with another key, which nobody gets to know any secret of; yields its port."""
    context, heard = server_context(identity), []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    with context.wrap_socket(connection, server_side=True) as stream:
                        heard.append(stream.recv(1000))
                except OSError:
                    if listener.fileno() < 0:
                        return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert not any(heard), heard


def test_our_worker_and_an_independent_one_complete_a_job_over_tls_both_ways(encrypted: RunningCompany, data: Path, tmp_path: Path) -> None:
    pem = tmp_path / "worker.pem"
    certificate, key = peer_certificate(Identity(b"i" * 32))
    pem.write_bytes(key + certificate)
    start_independent(encrypted, "--tls", str(pem), "127.0.0.1")
    start_ours(encrypted, "r1", str(encrypted.client.create_token("worker")["token"]), "--http", "https://127.0.0.1:0")
    assert str(encrypted.ready["r1"]["http"]).startswith("https://127.0.0.1:")
    job = encrypted.client.submit(write_package(tmp_path / "p", SLOW, merge=MERGE_COUNT), data, params={"n": 100})
    until(lambda: len([w for w in encrypted.client.workers()["items"] if w["slots_busy"]]) == 2, "both work")
    assert job.wait(60).state == "done", job.view
    assert value_of(job, tmp_path / "out") == 100
    encrypted.stop("r1")
    job = encrypted.run(write_package(tmp_path / "q", SQUARE), data, params={"n": 2000})  # by the independent one alone
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out2") == [i * i for i in range(2000)]
    encrypted.kill("independent")


def test_addresses_that_are_wrong_are_refused_with_the_reason_before_the_token_is_used(encrypted: RunningCompany) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nowhere = f"https://127.0.0.1:{free.getsockname()[1]}"
    shut = join(encrypted, "--http", "127.0.0.1:0", "--http-public", nowhere)
    assert json.loads(shut.stderr)["code"] == "worker-unreachable" and nowhere in shut.stderr, shut
    with somebody_else(Identity(b"e" * 32)) as port:
        wrong = join(encrypted, "--http", "127.0.0.1:0", "--http-public", f"https://127.0.0.1:{port}")
        assert json.loads(wrong.stderr)["code"] == "worker-unreachable" and "does not show the expected key" in wrong.stderr, wrong
        # the other direction: a page with another key, also one that an authority might vouch for
        chief = join(encrypted, "--chief-http", f"https://127.0.0.1:{port}")
        assert json.loads(chief.stderr)["code"] == "wrong-key", chief
    assert [w for w in encrypted.client.workers()["items"] if w["name"] == "r9"] == []
    assert [t["uses_left"] for t in encrypted.client.tokens()["items"] if t["role"] == "worker"][:3] == [1, 1, 1]  # the newest first


def test_a_worker_with_a_channel_also_answers_its_chief_by_http_when_it_is_told_to_listen(encrypted: RunningCompany) -> None:
    encrypted.start_worker("rpc", token=str(encrypted.client.create_token("worker")["token"]), http="https://127.0.0.1:0")
    address = str(encrypted.wait_ready("rpc")["http"])
    chief = load_or_create_identity(encrypted.home / "chief/identity/key")
    worker = load_or_create_identity(encrypted.home / "workers/rpc/identity/key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=peer_certificate(worker)[0].decode())

    def call(signer: Identity) -> tuple[int, bytes]:
        shown = {"Authorization": f"Bearer {make_pass(signer, worker.public, now=UnixTime(int(time.time())))}"}
        request = urllib.request.Request(f"{address}/activate/data-fragment", data=b"", method="POST", headers=shown)
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    assert json.loads(call(chief)[1]) == {"accepted": 0, "held": []}
    for stranger in (worker, Identity(b"e" * 32)):
        status, problem = call(stranger)
        assert (status, json.loads(problem)["code"]) == (401, "not-the-chief")
    assert not [f for f in encrypted.client.doctor() if f["id"] == "worker-address" and address in f["text"]]
    encrypted.stop("rpc")
    # one that others cannot reach is told of; its work is not affected, for that goes by the channel
    with socket.create_server(("127.0.0.1", 0)) as free:
        nowhere = f"https://127.0.0.1:{free.getsockname()[1]}"
    encrypted.start_worker("rpc", http="127.0.0.1:0", public=nowhere)
    encrypted.wait_ready("rpc")
    assert [f["verdict"] for f in encrypted.client.doctor() if f["id"] == "worker-address" and nowhere in f["text"]] == ["warn"]
    assert [w["state"] for w in encrypted.client.workers()["items"] if w["name"] == "rpc"] == ["idle"]
    encrypted.stop("rpc")


def test_doctor_and_explain_tell_that_a_worker_cannot_be_called_any_more(encrypted: RunningCompany, data: Path, tmp_path: Path) -> None:
    start_ours(encrypted, "r2", str(encrypted.client.create_token("worker")["token"]))
    address = str(encrypted.ready["r2"]["http"])
    encrypted.kill("r2")
    found = [f for f in encrypted.client.doctor() if f["id"] == "worker-address" and address in f["text"]]
    assert [f["verdict"] for f in found] == ["warn"]
    here = lambda: [w for w in encrypted.client.workers()["items"] if w["name"] == "r2" and w["state"] == "offline"]  # noqa: E731
    (worker,) = until(here, "it is offline")
    (reason,) = encrypted.client.explain(worker["id"])
    assert reason["code"] == "worker-unreachable" and address in reason["text"] and reason["actions"]
    job = encrypted.client.submit(write_package(tmp_path / "p", SQUARE), data, params={"n": 5})
    until(lambda: "worker-unreachable" in [r["code"] for r in encrypted.client.explain(job.id)], "the job says so, too")


def test_a_worker_on_another_machine_needs_the_token_alone(tmp_path: Path, data: Path) -> None:
    """The chief listens on every address, the worker in a network of its own; each finds out the address of the other's side."""
    root = tmp_path / "company"
    root.mkdir()
    cert, key = browser_certificate(["localhost"], now=UnixTime(int(time.time())))  # names are not what is compared
    (root / "cert.pem").write_bytes(cert + b"\n" + key)
    with network_without_the_chief() as (namespace, here), RunningCompany(root) as company:
        company.http = "0.0.0.0:0"
        company.start_chief("--tls-cert", str(root / "cert.pem"), "--allow-host", here)
        port = company.http.rpartition(":")[2]
        company.ready["chief"]["http"] = f"https://127.0.0.1:{port}"
        prefix = ("ip", "netns", "exec", namespace, *COMPANY)
        company.programs["far"] = prefix
        company.ready["chief"]["http"], local = f"https://{here}:{port}", company.ready["chief"]["http"]
        start_ours(company, "far", str(company.client.create_token("worker")["token"]), "--http", "0.0.0.0:0")
        assert str(company.ready["far"]["http"]).startswith(f"https://{here.rpartition('.')[0]}.2:")
        job = company.run(write_package(tmp_path / "p", SQUARE), data, params={"n": 3000})
        assert job.state == "done", job.view
        assert value_of(job, tmp_path / "out") == [i * i for i in range(3000)]
        company.ready["chief"]["http"] = local
        company.stop("far")
