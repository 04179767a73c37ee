"""The whole way: a company without workers asks for a slot, another one signs by itself, the job is done there, the receipt verifies."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.support.companies import Companies
from tests.support.company_processes import until, value_of, write_package

FRAGMENTS = 400
SQUARE = "def process(fragment):\n    import time\n    time.sleep(0.002)\n    return fragment * fragment\n"


@pytest.mark.slow
def test_a_job_is_done_on_a_slot_that_was_asked_for_and_the_receipt_says_so(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("none")
    package = write_package(tmp_path / "p", SQUARE)
    with Companies(tmp_path) as companies:
        companies.start("lender")
        companies.client("lender").network.lend(1, auto_accept="any")
        companies.start("borrower", "--bootstrap", companies.dht("lender"), workers=0)
        companies.sees("borrower", "lender", timeout_s=30)
        borrower, lender_id = companies.client("borrower"), str(companies.of["lender"].ready["chief"]["company"])
        job = borrower.submit(package, data, params={"n": FRAGMENTS}, where="any")
        began = time.monotonic()
        id_ = str(borrower.contracts.request(lender_id, slots=1, time_frame_s=600)["id"])
        until(lambda: job.status()["fragments"]["done"] > 0, "a first result from abroad", timeout_s=30)
        print(f"first foreign result {time.monotonic() - began:.2f} s after the request")
        job.wait(90)
        assert job.state == "done", job.view
        assert value_of(job, tmp_path / "out") == [i * i for i in range(FRAGMENTS)]
        borrower.contracts.act(id_, "revoke")  # with its notice, so that all that was done is counted first

        def state(name: str) -> str:
            return str(companies.client(name).contracts.show(id_)["state"])

        until(lambda: state("borrower") == "rated" and state("lender") == "rated", "both halves are exchanged", timeout_s=40)
        out = tmp_path / "x.contract"
        assert companies.of["borrower"].command("contract", "export", id_, "-o", str(out)).returncode == 0
        said = companies.of["borrower"].command("contract", "verify", str(out))
        assert said.returncode == 0 and "everything holds" in said.stdout
        assert f"{FRAGMENTS} fragments" in said.stdout, said.stdout + json.dumps(companies.client("lender").contracts.show(id_))
