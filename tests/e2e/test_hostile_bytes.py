"""Garbage, truncated, oversized and endlessly slow bytes on every port of a running company, and requests nobody may make."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import psutil
import pytest

from company.tokens import encode_token, parse_token_untrusted
from tests.support.company_processes import RunningCompany, until, value_of, write_package

pytestmark = pytest.mark.slow
RANDOM = Random(4).randbytes
BYTES = {
    "nothing": b"",
    "random": RANDOM(1 << 16),
    "zeros": bytes(1 << 16),
    "half-a-client-hello": bytes.fromhex("16030100f0010000ec0303") + RANDOM(40),
    "tls-record-of-64-kib": b"\x16\x03\x01\xff\xff" + RANDOM(1 << 16),
    "a-frame-of-four-gib": struct.pack(">III", 1 << 31, 1 << 31, (1 << 32) - 1) + RANDOM(1000),
    "get-without-end": b"GET / HTTP/1.1\r\nHost: " + b"a" * (1 << 20),
    "headers-without-end": b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 50_000,
    "body-of-an-exabyte": b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000000000000\r\n\r\n{",
    "chunk-of-an-exabyte": b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\nx",
    "two-lengths": b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length-and-chunked": b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "http-9.9": b"GET / HTTP/9.9\r\n\r\n",
}
MEMORY_MORE_BYTES = 48 << 20


def ports(company: RunningCompany) -> dict[str, tuple[str, int]]:
    """Every TCP port that the company's processes listen on."""
    found = {}
    for name, process in company.processes.items():
        for number, one in enumerate(c for c in psutil.Process(process.pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN):
            found[f"{name}-{number}"] = (str(one.laddr.ip), int(one.laddr.port))
    return found


def memory(company: RunningCompany) -> dict[str, int]:
    return {name: psutil.Process(p.pid).memory_info().rss for name, p in company.processes.items()}


def throw(address: tuple[str, int], data: bytes) -> None:
    """Send it and go."""
    with socket.create_connection(address, timeout=10) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass
        except (ConnectionError, TimeoutError):
            pass  # ended in the middle: what is to happen


def test_nothing_that_is_thrown_at_any_port_disturbs_a_job_or_grows_the_memory(
    company: RunningCompany, numbers: Path, tmp_path: Path
) -> None:
    package = write_package(tmp_path / "p", "import time\ndef process(fragment):\n    time.sleep(0.02)\n    return fragment\n")
    company.run(package, numbers, params={"n": 10})
    listening = ports(company)
    assert len({name.partition("-")[0] for name in listening}) == 3, "the chief's ports and a worker's relay"
    before = memory(company)
    job = company.client.submit(package, numbers, params={"n": 150}, batching="none")
    for address in listening.values():
        for data in BYTES.values():
            throw(address, data)
    assert job.wait(60).state == "done", job.view
    assert value_of(job, tmp_path / "out") == list(range(150))
    assert not job.failures()["items"]
    grown = {name: now - before[name] for name, now in memory(company).items()}
    assert all(more < MEMORY_MORE_BYTES for more in grown.values()), grown
    assert all(w["state"] == "idle" for w in company.client.workers()["items"]), "nobody lost its connection"


def test_hundreds_of_connections_that_say_almost_nothing_are_bounded_and_end(company: RunningCompany) -> None:
    """Slow loris: a byte now and then. Others are served meanwhile; each connection ends by the greeting's deadline."""
    listening = ports(company)
    before = memory(company)
    with ExitStack() as stack:
        slow = []
        for address in listening.values():
            for _ in range(60):
                sock = socket.create_connection(address, timeout=5)
                slow.append(stack.enter_context(sock))
                sock.setblocking(False)
        ended: set[int] = set()

        def are_ended() -> bool:
            for sock in slow:
                if sock.fileno() in ended:
                    continue
                try:
                    sock.send(b"\x16" if len(ended) % 2 else b"G")
                    if not sock.recv(4096):
                        ended.add(sock.fileno())
                except BlockingIOError:
                    continue
                except OSError:
                    ended.add(sock.fileno())
            assert company.client.company()["id"], "others are served meanwhile"
            time.sleep(0.25)  # what makes it slow; no condition waits for it
            return len(ended) == len(slow)

        until(are_ended, "every slow connection ended by the other side", timeout_s=75)
    grown = {name: now - before[name] for name, now in memory(company).items()}
    assert all(more < MEMORY_MORE_BYTES for more in grown.values()), grown


# ---- requests that nobody may make --------------------------------------------------------------------------------------------
def ask(company: RunningCompany, method: str, path: str, **headers: str) -> tuple[int, str, dict[str, object]]:
    host, _, port = company.http.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request(
            method, path, body=b"{}" if method == "POST" else None, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, str(answer.headers["Content-Type"]), json.loads(answer.read() or b"{}")
    finally:
        connection.close()


@pytest.fixture(scope="module")
def token(company: RunningCompany) -> Iterator[str]:
    yield str(company.ready["chief"]["token"])


@pytest.mark.parametrize(
    ("status", "code", "headers"),
    [
        (401, "token-malformed", {"Authorization": "Bearer cmpa1.wrong-wrong-wrong"}),
        (401, "token-unknown", {"Authorization": "WRONG"}),
        (401, "token-missing", {}),
        (421, "host-not-allowed", {"Host": "evil.example"}),
        (403, "origin-not-allowed", {"Authorization": "TOKEN", "Origin": "https://evil.example"}),
        (403, "csrf-token-wrong", {"Cookie": "SESSION"}),
    ],
)
def test_what_is_refused_at_the_door_is_a_problem_and_is_logged(
    company: RunningCompany, token: str, status: int, code: str, headers: dict[str, str]
) -> None:
    unique = os.urandom(4).hex()
    sent = dict(headers)
    if sent.get("Authorization") == "TOKEN":
        sent["Authorization"] = f"Bearer {token}"
    if sent.get("Authorization") == "WRONG":
        wrong = dataclasses.replace(parse_token_untrusted(token), id="nobody", secret=bytes(16))
        sent["Authorization"] = f"Bearer {encode_token(wrong)}"
    if "Cookie" in sent:
        sent["Cookie"] = session_cookie(company, token)
    got, kind, body = ask(company, "POST", f"/api/v1/jobs?{unique}", Content_Type="application/json", **sent)
    assert got == status, body
    assert kind.startswith("application/problem+json")
    assert body["code"] == code
    assert body["status"] == status and body["detail"] and body["title"]
    lines = until(lambda: [x for x in company.tail_of("chief", 400).splitlines() if str(body["code"]) in x and str(status) in x], "a line")
    assert "127.0.0.1" in lines[-1] and "/api/v1/jobs" in lines[-1]
    assert token not in company.log_of("chief").read_text(), "no secret in the log"


def session_cookie(company: RunningCompany, token: str) -> str:
    """A browser's session, without its CSRF token."""
    host, _, port = company.http.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("POST", "/login", body=f"secret={token}", headers={"Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return str(answer.headers["Set-Cookie"]).partition(";")[0]
