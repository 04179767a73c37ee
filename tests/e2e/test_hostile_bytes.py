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
from tests.e2e.test_rest_worker import start_ours
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
SLOW_HELLO = bytes.fromhex("16030101f0010001ec0303") + bytes(485)  # in order, and never whole in time
SLOW_GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-Slow: yes\r\n" * 40


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
        except OSError:  # not connected any more is no ConnectionError
            pass  # ended in the middle: what is to happen


DATAGRAMS = (
    b"", b"\0", RANDOM(1400), bytes(1400), RANDOM(65000), b"\1" + RANDOM(300), b"\0" + RANDOM(300), b"\2" + RANDOM(300),
    b"d1:ad2:id20:" + RANDOM(200),
)  # fmt: skip


def counted(company: RunningCompany, name: str, *labels: str) -> float:
    """The sum of a counter's lines that carry all of these labels."""
    text = company.client.transport.request("GET", "/metrics").body.decode()
    lines = [x for x in text.splitlines() if x.startswith(name) and all(label in x for label in labels)]
    return sum(float(x.rsplit(" ", 1)[1]) for x in lines)


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCompany]:
    """A company with every port there is: RPC, HTTP and UDP of the chief, a worker's relay, the HTTP of a worker that speaks REST."""
    with RunningCompany(tmp_path_factory.mktemp("exposed")) as running:
        running.start_chief("--dht", "127.0.0.1:0", "--allow-private")
        running.start_workers("w1", "w2")
        start_ours(running, "rest", str(running.client.create_token("worker")["token"]))
        yield running


# what must have been counted at a port, and told in the log of whoever listens there
REASONS = {
    "rpc": ("not-tls",),
    "http": ("malformed-request",),
    "udp": ("size", "unknown kind", "answer that nobody asked for", "malformed request"),
}


def test_what_is_thrown_at_any_port_ends_with_a_reason_and_disturbs_nobody(exposed: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "import time\ndef process(fragment):\n    time.sleep(0.02)\n    return fragment\n")
    exposed.run(package, numbers, params={"n": 10})
    listening = ports(exposed)
    assert {name.partition("-")[0] for name in listening} == {"chief", "w1", "w2", "rest"}, "a port of everybody's"
    before, known = memory(exposed), {key: counted(exposed, "company_connections_ended_total", f'port="{key}"') for key in ("rpc", "http")}
    job = exposed.client.submit(package, numbers, params={"n": 300}, batching="none")
    for address in listening.values():
        for data in BYTES.values():
            throw(address, data)
    host, _, port = str(exposed.ready["chief"]["dht"]).rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for round_ in range(1, 21):  # no faster than it is read: what the kernel throws away shows nothing
            for one in DATAGRAMS:
                sock.sendto(one, (host, int(port)))
            least = round_ * (len(DATAGRAMS) - 2)
            until(lambda least=least: counted(exposed, "company_datagrams_dropped_total") >= least, "datagrams counted")
    assert job.wait(60).state == "done", job.view
    assert value_of(job, tmp_path / "out") == list(range(300))
    assert not job.failures()["items"]
    grown = {name: now - before[name] for name, now in memory(exposed).items()}
    assert all(more < MEMORY_MORE_BYTES for more in grown.values()), grown
    assert all(w["state"] == "idle" for w in exposed.client.workers()["items"]), "nobody lost its connection"
    # the chief counts them by reason, and every process tells of them in its log
    for key in ("rpc", "http"):
        assert counted(exposed, "company_connections_ended_total", f'port="{key}"') - known[key] >= 3
        for reason in REASONS[key]:
            assert counted(exposed, "company_connections_ended_total", f'port="{key}"', f'reason="{reason}"') >= 1, (key, reason)
    for reason in REASONS["udp"]:
        assert counted(exposed, "company_datagrams_dropped_total", f'reason="{reason}"') >= 1, reason
    for name, words in (("chief", "rpc"), ("chief", "http"), ("w1", "rpc"), ("w2", "rpc"), ("rest", "http")):
        for reason in REASONS[words]:
            until(
                lambda name=name, words=words, reason=reason: told(exposed, name, f"{words}: the connection from 127.0.0.1", reason),
                f"{name}'s log: {reason}",
            )
    # one line a minute at most: the first one may have been written when only some of the datagrams were there
    until(lambda: told(exposed, "chief", "dropped", "malformed request"), "the chief's log on datagrams", timeout_s=150)
    assert "Traceback" not in exposed.log_of("chief").read_text()


def told(company: RunningCompany, name: str, *words: str) -> bool:
    """Whether one line of a log has all these words."""
    return any(all(word in line for word in words) for line in company.log_of(name).read_text().splitlines())


def test_hundreds_of_connections_that_say_almost_nothing_are_bounded_and_end(exposed: RunningCompany) -> None:
    """Slow loris: a byte now and then. Others are served meanwhile; each connection ends by the greeting's deadline."""
    listening = ports(exposed)
    before = memory(exposed)
    with ExitStack() as stack:
        slow = []
        for address in listening.values():
            for _ in range(60):
                sock = socket.create_connection(address, timeout=5)
                slow.append(stack.enter_context(sock))
                sock.setblocking(False)
        ended: set[int] = set()
        said = dict.fromkeys((sock.fileno() for sock in slow), 0)

        def are_ended() -> bool:
            for number, sock in enumerate(slow):
                if sock.fileno() in ended:
                    continue
                try:
                    script, at = SLOW_HELLO if number % 2 else SLOW_GET, said[sock.fileno()]
                    sock.send(script[at : at + 1])
                    said[sock.fileno()] += 1
                    if not sock.recv(4096):
                        ended.add(sock.fileno())
                except BlockingIOError:
                    continue
                except OSError:
                    ended.add(sock.fileno())
            assert exposed.client.company()["id"], "others are served meanwhile"
            time.sleep(0.25)  # what makes it slow; no condition waits for it
            return len(ended) == len(slow)

        until(are_ended, "every slow connection ended by the other side", timeout_s=75)
    grown = {name: now - before[name] for name, now in memory(exposed).items()}
    assert all(more < MEMORY_MORE_BYTES for more in grown.values()), grown
    for name, words in (("chief", "rpc"), ("chief", "http"), ("w1", "rpc"), ("rest", "http")):
        reason = {"rpc": "handshake-timeout", "http": "no-request"}[words]
        until(
            lambda name=name, words=words, reason=reason: told(exposed, name, f"{words}: the connection from 127.0.0.1", reason),
            f"{name}'s log: {reason}",
        )
    assert counted(exposed, "company_connections_ended_total", 'reason="handshake-timeout"') >= 10
    assert counted(exposed, "company_connections_ended_total", 'reason="no-request"') >= 10
    assert len([x for x in exposed.log_of("chief").read_text().splitlines() if "the connection from" in x]) < 400, "the log is bounded too"


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
