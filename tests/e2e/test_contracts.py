"""Two companies as processes: an offer is signed by both, survives a kill, is ended, and its receipt verifies offline."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from company.errors import CompanyError
from tests.support.companies import Companies
from tests.support.company_processes import MERGE_LIST, SPLIT_RANGE, until


def package(root: Path) -> Path:
    """One whose processor guests could run."""
    folder = root / "package"
    (folder / "processor").mkdir(parents=True)
    (folder / "split.py").write_text(SPLIT_RANGE)
    (folder / "merge.py").write_text(MERGE_LIST)
    (folder / "processor" / "main.py").write_text("def process(fragment):\n    return fragment\n")
    return folder


@pytest.mark.slow
def test_from_a_request_to_a_receipt_through_a_kill_of_each_side(tmp_path: Path) -> None:
    with Companies(tmp_path) as companies:
        companies.start("lender")
        companies.client("lender").network.lend(1, auto_accept="any")
        companies.start("borrower", "--bootstrap", companies.dht("lender"), workers=0)
        companies.sees("borrower", "lender", timeout_s=30)
        borrower, lender_id = companies.client("borrower"), str(companies.of["lender"].ready["chief"]["company"])
        borrower.upload_package(package(tmp_path))
        began = time.monotonic()
        id_ = str(borrower.contracts.request(lender_id, slots=1, time_frame_s=600)["id"])

        def state(name: str) -> str:
            return str(companies.client(name).contracts.show(id_)["state"])

        until(lambda: state("borrower") == "active" and state("lender") == "active", "both are bound", timeout_s=20)
        print(f"both bound {time.monotonic() - began:.3f} s after the request")
        second = borrower.contracts.request(lender_id, slots=1)
        until(lambda: borrower.contracts.show(second["id"])["state"] == "rejected", "the only slot is promised already", timeout_s=20)
        assert borrower.contracts.show(second["id"])["reason"]["code"] == "no-free-slots"
        for name in ("lender", "borrower"):
            running = companies.of[name]
            running.kill("chief")
            running._client = None
            companies.start(name, *(("--bootstrap", companies.dht("lender")) if name == "borrower" else ()), dht=companies.dht(name),
                            workers=1 if name == "lender" else 0)  # fmt: skip
            until(lambda name=name: state(name) == "active", f"{name} has folded its journal", timeout_s=20)
        borrower = companies.client("borrower")
        assert borrower.contracts.act(id_, "revoke", notice_s=0)["state"] != "active"
        until(lambda: state("borrower") == "rated" and state("lender") == "rated", "both halves are exchanged", timeout_s=40)
        out = tmp_path / "x.contract"
        assert companies.of["borrower"].command("contract", "export", id_, "-o", str(out)).returncode == 0
        said = companies.of["borrower"].command("contract", "verify", str(out))
        assert said.returncode == 0 and "both halves" in said.stdout and "everything holds" in said.stdout
        shown = companies.of["lender"].command("reputation", "show")
        assert "1/1" in shown.stdout
        asked = companies.client("lender").contracts.explain(str(companies.of["borrower"].ready["chief"]["company"]), ask=True)
        assert asked["view"]["chain"].startswith("1 halves, whole") and asked["inputs"]["formula"]
        # its worker may take longer to come back after the kill than everything since; an offer for no slot is refused for good
        until(lambda: companies.client("lender").network.lending()["slots"] > 0, "the lender has its slot again", timeout_s=60)
        # a chief that is stopped says so: the other side need not wait for the lease, and stops as fast itself
        third = str(borrower.contracts.request(lender_id, slots=1, time_frame_s=600)["id"])
        until(lambda: borrower.contracts.show(third)["state"] == "active", "bound again", timeout_s=20)
        saved = tmp_path / "saved.tar"
        assert companies.of["borrower"].command("admin", "backup", str(saved)).returncode == 0
        companies.of["lender"].stop("chief")
        until(lambda: borrower.contracts.show(third)["state"] != "active", "the borrower was told", timeout_s=5)
        assert borrower.contracts.show(third)["causes"] == {"lender": "the company was shut down"}
        began = time.monotonic()
        companies.of["borrower"].stop("chief")
        assert time.monotonic() - began < 15.0
        # a backup of a running contract goes on with everything else, and signs nothing more: not one number twice
        into = {"COMPANY_HOME": str(tmp_path / "restored" / "home")}
        refused = companies.of["borrower"].command("admin", "restore", str(saved), environ=into)
        assert refused.returncode != 0 and "contracts-in-backup" in refused.stderr
        done = companies.of["borrower"].command("admin", "restore", str(saved), "--end-contracts", environ=into)
        assert done.returncode == 0, done.stderr
        companies.start("restored", workers=0)
        restored = companies.client("restored")
        found = {c["id"]: c for c in restored.contracts.list()["items"]}
        assert {id_, second["id"]} <= set(found) and restored.contracts.list("active")["items"] == []
        with pytest.raises(CompanyError, match="signs no more"):
            restored.contracts.request(lender_id, package=found[id_]["text"][0][1], slots=1)
