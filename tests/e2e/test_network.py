"""Two companies on one machine find each other: by the DHT, and by a tracker where UDP is blocked."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.support.companies import Companies
from tests.support.company_processes import RunningCompany, until
from tests.support.many_chiefs import run


@pytest.mark.slow
def test_two_companies_see_each_others_offer_within_ten_seconds_of_start(tmp_path: Path) -> None:
    with Companies(tmp_path) as companies:
        companies.start("first")
        companies.lend("first")
        began = time.monotonic()
        companies.start("second", "--bootstrap", companies.dht("first"))
        ready = time.monotonic()  # how long a process takes to start is the machine's load, not the network's
        companies.lend("second")
        seen = companies.sees("first", "second", timeout_s=20)
        companies.sees("second", "first", timeout_s=20)
        seen_at = time.monotonic()
        print(f"both offers seen {seen_at - began:.1f} s after the second company's start, {seen_at - ready:.1f} s after it was ready")
        assert seen_at - ready < 10.0
        assert seen["name"] in ("", "second") and seen["idle_slots"] == 1
        # every call of the part, over the same two
        second = companies.client("second").network
        until(lambda: second.status()["state"] == "public", "a peer dialled back")
        ports = {p["port"]: p["verdict"] for p in second.status()["ports"]}
        assert ports == {"udp": "open", "rpc": "open", "http": "not-asked"}
        until(lambda: [c for c in second.list("companies")["items"] if c["name"] == "first"], "the other's name is known")
        assert second.ping("first")["answered"] and second.test_bootstrap()["items"][0]["answered"]
        assert not second.test_bootstrap("127.0.0.1:9")["items"][0]["answered"]
        said = companies.of["second"].command("borrow", "search", "--memory", "900TiB")
        assert "offers-too-small" in said.stdout
        # withdrawn, it is seen no more
        second.stop_lending()
        own = str(companies.of["second"].ready["chief"]["company"])
        first = companies.client("first").network
        until(lambda: own not in [o["company"] for o in first.search(slots=1)["offers"]], "the offer is gone", timeout_s=20)


@pytest.mark.slow
def test_a_company_whose_udp_is_blocked_finds_others_by_a_tracker(tmp_path: Path) -> None:
    with Companies(tmp_path) as companies:
        url = companies.start_tracker()
        companies.start("lender", "--tracker", url)
        companies.lend("lender")
        # a network of its own at the level of UDP: it knows no node, and is told of none
        companies.start("blocked", "--tracker", url, dht="127.0.0.2:0")
        companies.sees("blocked", "lender", timeout_s=45)


@pytest.mark.slow
def test_chiefs_that_restart_find_all_offers_again_without_a_bootstrap_address_and_lend_on(tmp_path: Path) -> None:
    report = run(tmp_path, 3, 1, print)  # `make chiefs` starts thirty
    assert report.holds and len(report.again_s) == 1


@pytest.mark.slow
def test_a_chief_that_cannot_open_its_place_in_the_network_says_why_and_ends(tmp_path: Path) -> None:
    company = RunningCompany(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = company.command("start", "--workers", "0", "--http", "127.0.0.1:0", "--rpc", "127.0.0.1:0", "--dht", address)
    assert ended.returncode == 75 and f"cannot listen on {address}/udp" in ended.stderr and "another port" in ended.stderr
    assert "Traceback" not in ended.stderr and not list((tmp_path / "home").rglob("address.json")), "nobody takes it for running"
