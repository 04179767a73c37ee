"""The whole way: a company without workers asks for a slot, another one signs by itself, the job is done there, the receipt verifies."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from company.errors import CompanyError
from tests.support.companies import Companies
from tests.support.company_processes import is_alive, until, value_of, write_package

FRAGMENTS = 400
SQUARE = "def process(fragment):\n    import time\n    time.sleep(0.002)\n    return fragment * fragment\n"


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def companies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Companies]:
    """``lender`` gives its one slot to anybody; ``borrower`` has no worker."""
    with Companies(tmp_path_factory.mktemp("two")) as both:
        both.start("lender")
        both.client("lender").network.lend(1, auto_accept="any")
        both.start("borrower", "--bootstrap", both.dht("lender"), workers=0)
        both.sees("borrower", "lender", timeout_s=30)
        yield both


def test_a_job_is_done_on_a_slot_that_was_asked_for_and_the_receipt_says_so(companies: Companies, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("none")
    package = write_package(tmp_path / "p", SQUARE)
    borrower, lender_id = companies.client("borrower"), str(companies.of["lender"].ready["chief"]["company"])
    job = borrower.submit(package, data, params={"n": FRAGMENTS}, where="any", yes_foreign=True)
    began = time.monotonic()
    id_ = str(borrower.contracts.request(lender_id, slots=1, time_frame_s=600)["id"])
    until(lambda: job.status()["fragments"]["done"] > 0, "a first result from abroad", timeout_s=30)
    print(f"first foreign result {time.monotonic() - began:.2f} s after the request")
    job.wait(90)
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [i * i for i in range(FRAGMENTS)]
    (did,) = job.status()["borrowed"]
    contract = borrower.contracts.show(id_)["contract"]
    assert (did["company"], did["contract"], did["results"], job.view["results_own"]) == (lender_id, contract, FRAGMENTS, 0)
    shown = companies.of["borrower"].command("job", "show", job.id).stdout
    assert f"{lender_id}: {FRAGMENTS} results (100 %)" in shown and f"contract {contract[:16]}" in shown, shown
    assert borrower.contracts.show(contract[:16])["id"] == id_, "and that is what the contract is found by"
    borrower.contracts.act(id_, "revoke")  # with its notice, so that all that was done is counted first

    def state(name: str) -> str:
        return str(companies.client(name).contracts.show(id_)["state"])

    until(lambda: state("borrower") == "rated" and state("lender") == "rated", "both halves are exchanged", timeout_s=40)
    assert borrower.contracts.show(contract[:16])["id"] == id_, "also when it is over"
    out = tmp_path / "x.contract"
    assert companies.of["borrower"].command("contract", "export", id_, "-o", str(out)).returncode == 0
    said = companies.of["borrower"].command("contract", "verify", str(out))
    assert said.returncode == 0 and "everything holds" in said.stdout
    assert f"{FRAGMENTS} fragments" in said.stdout, said.stdout + json.dumps(companies.client("lender").contracts.show(id_))


def test_a_chief_borrows_by_itself_as_its_owner_said_and_gives_back_when_the_job_is_done(companies: Companies, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("none")
    package = write_package(tmp_path / "p", SQUARE)
    borrower = companies.client("borrower")
    companies.sees("borrower", "lender", timeout_s=60)  # its slot is back from the contract before
    with pytest.raises(CompanyError, match="able to see"):  # nobody has confirmed who will see it
        borrower.submit(package, data, params={"n": 10}, where="any")
    before = {c["id"] for c in borrower.contracts.list()["items"]}

    def mine() -> list[dict[str, Any]]:
        return [c for c in borrower.contracts.list()["items"] if c["id"] not in before]

    job = borrower.submit(package, data, params={"n": FRAGMENTS}, where="any", yes_foreign=True)
    # first it asks: nothing is signed
    said = until(lambda: [r for r in borrower.company()["needs_you"] if r["code"] == "could-borrow"], "it says whom to ask", timeout_s=60)
    assert said[0]["facts"]["job"] == job.id and "company borrow request" in said[0]["actions"][0]["cli"] and not mine()
    assert borrower.contracts.borrow_policy(mode="automatically", contracts_per_day=1)["contracts_left"] == 1
    job.wait(90)
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [i * i for i in range(FRAGMENTS)]
    (contract,) = mine()
    until(lambda: mine()[0]["state"] == "rated", "it was ended when the job was done", timeout_s=60)
    assert borrower.contracts.show(contract["id"])["causes"]["borrower"] == "the work was done"
    assert borrower.contracts.borrow_policy()["contracts_left"] == 0


def test_lend_stop_now_ends_everything_within_five_seconds(companies: Companies, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("none")
    package = write_package(
        tmp_path / "p", "def process(fragment):\n    import time\n    time.sleep(3600 if fragment else 0)\n    return 1\n"
    )
    borrower, lender = companies.client("borrower"), companies.of["lender"]
    companies.sees("borrower", "lender", timeout_s=60)
    before = lender.children_of("chief")
    job = borrower.submit(package, data, params={"n": 2}, where="any", yes_foreign=True)
    id_ = str(borrower.contracts.request(str(lender.ready["chief"]["company"]), slots=1, time_frame_s=600, check="none")["id"])
    until(lambda: job.status()["fragments"]["done"] == 1 and job.view["fragments"]["leased"] == 1, "the slow one runs", timeout_s=60)
    guests = lender.children_of("chief") - before
    assert guests, "the guest runs in a process of its own"
    (seen,) = job.view["borrowed"]
    assert 0 < seen["lease_left_s"] <= 60 and 0 < seen["ends_in_s"] <= 600 and job.view["slots_own"] == 0
    shown = companies.of["borrower"].command("job", "show", job.id).stdout
    assert "own slots 0" in shown and "silence ends it in" in shown, shown
    began = time.monotonic()
    lender.client.network.stop_lending(now=True)
    took_s = time.monotonic() - began
    assert not any(is_alive(pid) for pid in guests), "nothing of it runs when the call returns"
    assert took_s < 5.0, f"it took {took_s:.1f} s"
    assert lender.client.network.lending()["promised"] == 0
    until(lambda: job.status()["fragments"]["leased"] == 0, "the borrower has taken it back", timeout_s=30)
    assert job.view["fragments"]["failed"] == 0, "it cost no try"
    until(lambda: borrower.contracts.show(id_)["state"] == "rated", "both halves are exchanged", timeout_s=60)
    shown = borrower.contracts.show(id_)
    assert shown["causes"] == {"lender": "the owner wanted the slots back"} and shown["accepted"] == shown["claimed"]
    assert shown["accepted"]["fragments"] == 1
    job.cancel()
