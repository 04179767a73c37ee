"""A newcomer that cannot dial the chief comes through another worker, which carries its stream unread (P3)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from company.tokens import encode_token, parse_token_untrusted
from tests.support.company_processes import COMPANY, MERGE_COUNT, RunningCompany, until, value_of, write_package

MARKER = b"nobody-on-the-way-may-read-this"
UNREACHABLE = "127.0.0.1:1"
SPLIT_MARKED = f"def split(data, n=20):\n    for i in range(n):\n        yield [i, {MARKER!r} * 100]\n"
PROCESS_MARKED = "def process(fragment):\n    return [fragment[0], fragment[1]]\n"


class Recorder:
    """A TCP relay that keeps what goes through it: everything that a worker which carries a stream can see of it."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.seen: list[bytearray] = []  # one per connection, both ways
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            seen = bytearray()
            self.seen.append(seen)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink, seen), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
        try:
            while data := source.recv(65536):
                seen += data
                sink.sendall(data)
        except OSError:
            pass
        for side in (source, sink):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[RunningCompany]:
    """A chief without any worker, on loopback only."""
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


def token_at(company: RunningCompany, *addresses: str) -> str:
    """A worker's token that says that the chief is at ``addresses``."""
    token = parse_token_untrusted(str(company.client.create_token("worker")["token"]))
    return encode_token(replace(token, addresses=addresses))


def start_worker(company: RunningCompany, name: str, token: str, *arguments: str, prefix: tuple[str, ...] = ()) -> int:
    """Start a worker; returns the port of its RPC, on which it relays."""
    command = [*prefix, *COMPANY, "worker", "join", "--slots", "1", "--name", name, "--json", "--token-file", "-", *arguments]
    with open(company.log_of(name), "ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=company.environ, start_new_session=True
        )
    company.processes[name] = process
    assert process.stdin is not None
    process.stdin.write(token.encode() + b"\n")
    process.stdin.close()
    return int(str(company.wait_ready(name)["rpc"]).rpartition(":")[2])


def only_works(company: RunningCompany, name: str) -> None:
    """Nobody but ``name`` takes work."""
    for worker in company.client.workers()["items"]:
        if worker["name"] != name:
            company.client.change_worker(worker["id"], "pause")


def test_a_worker_joins_and_works_through_another_which_reads_nothing(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    recorder = Recorder(str(alone.ready["chief"]["rpc"]))
    try:
        port = start_worker(alone, "near", token_at(alone, recorder.address))
        direct = len(recorder.seen)
        token = token_at(alone, UNREACHABLE)
        start_worker(alone, "far", token, "--via", f"127.0.0.1:{port}")
        only_works(alone, "far")
        job = alone.run(write_package(tmp_path / "p", PROCESS_MARKED, split=SPLIT_MARKED), data)
        assert job.state == "done", job.view
        assert value_of(job, tmp_path / "out")[19][0] == 19
        workers = {w["name"]: w for w in alone.client.workers()["items"]}
        assert workers["far"]["via"] == f"127.0.0.1:{port}"
        carried = recorder.seen[direct:]
        assert len(carried) >= 2, "the join and the worker's channel both went through the relay"
        assert sum(map(len, carried)) > 2 * 20 * 100 * len(MARKER), "the fragments and results went through the relay"
        secret = parse_token_untrusted(token).secret
        for seen in carried:
            assert MARKER not in seen
            assert secret not in seen
            assert seen[:3] == b"\x16\x03\x01", "a TLS handshake is the first thing that a relay sees"
    finally:
        recorder.close()


def test_a_relayed_worker_is_offline_while_its_relay_is_gone_and_goes_on_trying(alone: RunningCompany) -> None:
    port = start_worker(alone, "near", token_at(alone, str(alone.ready["chief"]["rpc"])))
    start_worker(alone, "far", token_at(alone, UNREACHABLE), "--via", f"127.0.0.1:{port}")
    alone.kill("near")
    until(lambda: {w["name"]: w["state"] for w in alone.client.workers()["items"]}["far"] == "offline", "its stream ended with the relay")
    assert alone.is_running("far")


def test_a_newcomer_in_another_network_joins_through_a_neighbour(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    with network_without_the_chief() as (namespace, neighbour):
        port = start_worker(alone, "near", str(alone.client.create_token("worker")["token"]))
        prefix = ("ip", "netns", "exec", namespace)
        host, _, chief_port = str(alone.ready["chief"]["rpc"]).rpartition(":")
        for address in (host, neighbour):
            probe = f"import socket; socket.create_connection(({address!r}, {chief_port}), 2)"
            done = subprocess.run([*prefix, COMPANY[0], "-c", probe], capture_output=True, check=False)
            assert done.returncode, f"the newcomer can dial the chief at {address}"
        start_worker(alone, "far", str(alone.client.create_token("worker")["token"]), "--via", f"{neighbour}:{port}", prefix=prefix)
        only_works(alone, "far")
        package = write_package(tmp_path / "p", "def process(fragment):\n    return fragment\n", merge=MERGE_COUNT)
        job = alone.run(package, data, params={"n": 5000})
        assert job.state == "done", job.view
        assert value_of(job, tmp_path / "out") == 5000
        alone.stop("far")


@contextmanager
def network_without_the_chief() -> Iterator[tuple[str, str]]:
    """A network namespace with one cable to this one; yields its name and our address on the cable."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    number = os.getpid() % 250
    name, ours, theirs = f"company-{os.getpid()}", f"cmpa{os.getpid()}"[:15], f"cmpb{os.getpid()}"[:15]
    here, there = f"10.213.{number}.1", f"10.213.{number}.2"
    commands = [
        f"ip netns add {name}", f"ip link add {ours} type veth peer name {theirs}", f"ip link set {theirs} netns {name}",
        f"ip addr add {here}/30 dev {ours}", f"ip link set {ours} up", f"ip netns exec {name} ip addr add {there}/30 dev {theirs}",
        f"ip netns exec {name} ip link set {theirs} up", f"ip netns exec {name} ip link set lo up",
    ]  # fmt: skip
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {command}: {done.stderr.strip()}")
        yield name, here
    finally:
        for command in (f"ip link del {ours}", f"ip netns del {name}"):
            subprocess.run(command.split(), capture_output=True, check=False)
