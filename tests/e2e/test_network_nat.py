"""Two companies, each behind a NAT of its own, reach each other through a public chief that cannot read them (network namespaces)."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.company_processes import COMPANY, until

TAG = f"nat{os.getpid() % 100000}"
NET, NAT_A, NAT_B, A, B = (f"{TAG}{part}" for part in ("net", "na", "nb", "a", "b"))


def why_not() -> str:
    """What this machine lacks."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    if not shutil.which("ip") or not shutil.which("iptables"):
        return "needs ip and iptables"
    tried = subprocess.run(["ip", "netns", "add", f"{TAG}try"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", f"{TAG}try"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "may not make network namespaces"


def run(line: str) -> None:
    subprocess.run(line.split(), check=True, capture_output=True)


def inside(space: str, line: str) -> None:
    run(f"ip netns exec {space} {line}")


def join(space: str, own: str, other: str, theirs: str, link: str) -> None:
    """A cable between two namespaces."""
    run(f"ip link add {link}l netns {space} type veth peer name {link}r netns {other}")
    for where, end, address in ((space, f"{link}l", own), (other, f"{link}r", theirs)):
        inside(where, f"ip addr add {address} dev {end}")
        inside(where, f"ip link set {end} up")


@pytest.fixture
def two_nats() -> Iterator[None]:
    if missing := why_not():
        pytest.skip(missing)
    with ExitStack() as stack:
        for space in (NET, NAT_A, NAT_B, A, B):
            run(f"ip netns add {space}")
            stack.callback(subprocess.run, ["ip", "netns", "del", space], check=False)
            inside(space, "ip link set lo up")
        for number, nat, host in ((1, NAT_A, A), (2, NAT_B, B)):
            join(NET, f"198.18.{number}.1/24", nat, f"198.18.{number}.2/24", f"w{number}")
            join(nat, f"10.{number}.0.1/24", host, f"10.{number}.0.2/24", f"l{number}")
            inside(host, f"ip route add default via 10.{number}.0.1")
            inside(nat, f"ip route add default via 198.18.{number}.1")
            inside(nat, "sysctl -qw net.ipv4.ip_forward=1")
            inside(nat, f"iptables -t nat -A POSTROUTING -o w{number}r -j MASQUERADE")
        inside(NET, "ip route add default via 198.18.1.2")  # a chief asks its routes which address others see
        inside(NET, "sysctl -qw net.ipv4.ip_forward=1")
        yield


class Chief:
    """One chief in a namespace."""

    def __init__(self, space: str, home: Path, *options: str) -> None:
        self.space, self.home = space, home
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("COMPANY_")} | {"COMPANY_HOME": str(home)}
        self.log = (home.parent / f"{home.name}.log").open("wb")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", space, *COMPANY, "start", "--name", home.name, "--json", "--allow-private", *options],
            stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL, env=self.environ,
        )  # fmt: skip
        assert self.process.stdout is not None and select.select([self.process.stdout], [], [], 60)[0]
        self.said = json.loads(self.process.stdout.readline())

    def ask(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            ["ip", "netns", "exec", self.space, *COMPANY, *words, "--json"], env=self.environ, capture_output=True, timeout=60, check=False
        )
        return dict(json.loads(done.stdout or b"{}"))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()


@pytest.mark.slow
def test_both_behind_nat_they_meet_at_a_relay(two_nats: None, tmp_path: Path) -> None:
    with ExitStack() as stack:

        def start(space: str, name: str, *options: str) -> Chief:
            chief = Chief(space, tmp_path / name, *options)
            stack.callback(chief.stop)
            return chief

        public = start(NET, "public", "--workers", "0")
        lender = start(A, "lender", "--workers", "1", "--bootstrap", "198.18.1.1:8468")
        borrower = start(B, "borrower", "--workers", "0", "--bootstrap", "198.18.2.1:8468")
        until(lambda: lender.ask("network", "status")["relay"]["used"], "the lender keeps a relay", timeout_s=60)
        status = lender.ask("network", "status")
        assert status["state"] == "outbound-only"
        assert {p["port"]: p["verdict"] for p in status["ports"]} == {"udp": "closed", "rpc": "closed", "http": "not-asked"}
        lender.ask("lend", "--max-workers", "1")

        def answer() -> dict[str, Any] | None:
            offers = borrower.ask("borrow", "search").get("offers", [])
            return next((o for o in offers if o["company"] == lender.said["company"] and o["answer"] == "idle"), None)

        assert until(answer, "the borrower hears that the lender is idle", timeout_s=60)["idle_slots"] == 1
        seen = public.ask("network", "status")
        assert seen["state"] != "offline"  # nobody can witness for it, and yet others answer
        relay = seen["relay"]
        assert relay["kept_for"] >= 1 and relay["carried_bytes"] > 0
