"""Three companies and one slot: two ask for it at once, and the one that computed for the lender has it, whoever came first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from p2p.reputation.owed import recomputed
from tests.support.companies import Companies
from tests.support.company_processes import until, value_of, write_package

SQUARE = "def process(fragment):\n    import time\n    time.sleep(0.002)\n    return fragment * fragment\n"


@pytest.mark.slow
def test_of_two_that_ask_at_once_the_one_that_is_owed_favours_has_the_slot(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("none")
    package = write_package(tmp_path / "p", SQUARE)
    with Companies(tmp_path) as companies:
        companies.start("owed")
        companies.client("owed").network.lend(1, auto_accept="any")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: companies.start(name, "--bootstrap", companies.dht("owed"), workers=0), ("lender", "newcomer")))
        companies.sees("lender", "owed", timeout_s=60)
        ids = {name: str(running.ready["chief"]["company"]) for name, running in companies.of.items()}
        lender = companies.client("lender")

        def state(name: str, contract: str) -> str:
            return str(companies.client(name).contracts.show(contract)["state"])

        # the lender is computed for
        job = lender.submit(package, data, params={"n": 200}, where="any", yes_foreign=True)
        borrowed = str(lender.contracts.request(ids["owed"], slots=1, time_frame_s=600, check="none")["id"])
        job.wait(90)
        assert value_of(job, tmp_path / "out") == [i * i for i in range(200)]
        lender.contracts.act(borrowed, "revoke")
        until(lambda: state("lender", borrowed) == "rated", "it has its receipt", timeout_s=60)
        told = lender.contracts.explain(ids["owed"])["inputs"]["favours"]
        assert told["owed_core_ms"] > 0 and recomputed(told) == told["owed_core_ms"], told
        assert "favours owed to it" in companies.of["lender"].command("reputation", "explain", ids["owed"]).stdout

        # it lends its one slot, for which two ask
        companies.of["lender"].start_workers("w1")
        lender.network.lend(1, auto_accept="any")
        until(lambda: lender.network.lending()["slots"] == 1, "it has a slot to lend", timeout_s=60)
        companies.client("newcomer").upload_package(package)
        companies.client("owed").upload_package(package)

        def request(name: str) -> str:
            return str(companies.client(name).contracts.request(ids["lender"], slots=1, time_frame_s=600)["id"])

        names = ("newcomer", "owed")
        with ThreadPoolExecutor(2) as pool:
            asked = dict(zip(names, pool.map(request, names), strict=True))
        until(lambda: state("owed", asked["owed"]) == "active", "who is owed has the slot", timeout_s=60)
        until(lambda: state("newcomer", asked["newcomer"]) not in ("offered", "accepted", "active"), "the other has not", timeout_s=60)
        until(lambda: state("lender", asked["owed"]) == "active" and lender.network.lending()["promised"] == 1, "it alone", timeout_s=60)
        # who is owed nothing takes nothing back
        again = request("newcomer")
        until(lambda: state("newcomer", again) == "rejected", "every slot is promised", timeout_s=60)
        assert companies.client("newcomer").contracts.show(again)["reason"]["code"] == "no-free-slots"
        assert state("owed", asked["owed"]) == "active"
        # a slot that nobody wants is anybody's, until somebody who is owed asks
        companies.client("owed").contracts.act(asked["owed"], "revoke", notice_s=0)
        until(lambda: lender.network.lending()["promised"] == 0, "the slot is back", timeout_s=60)
        first = request("newcomer")
        until(lambda: state("newcomer", first) == "active", "nobody else asks", timeout_s=60)
        second = request("owed")
        until(lambda: state("owed", second) == "active", "the slot went back for it", timeout_s=60)
        assert companies.client("newcomer").contracts.show(first)["causes"] == {"lender": "the owner wanted the slots back"}
