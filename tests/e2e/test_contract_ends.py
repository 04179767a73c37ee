"""How contracts between two real companies end: by an overrun, by a lie, and what a stranger's flood of offers does to a lender."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from p2p.net.identity_file import load_or_create_identity
from p2p.reputation.trust import recompute
from tests.support.companies import Companies
from tests.support.company_processes import RunningCompany, until, value_of, write_package
from tests.support.offer_flood import flood

pytestmark = pytest.mark.slow
SQUARE = "def process(fragment):\n    import time\n    time.sleep(0.002)\n    return fragment * fragment\n"
STUCK = "def process(fragment):\n    while fragment >= 5:\n        pass\n    return fragment\n"
FRAGMENTS = 200
OFFERS = 1000 if os.environ.get("FAULTS_FULL") else 330  # 300 are read at once, then 50 a second


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Companies]:
    """``lender``, whose one worker lies in every answer to a guest's job, and ``borrower``, without a worker."""
    root = tmp_path_factory.mktemp("ends")
    with Companies(root) as companies:
        (root / "lender").mkdir()
        lender = companies.of["lender"] = RunningCompany(root / "lender")
        lender.programs["lent0"] = (sys.executable, "-m", "tests.support.lying_worker", "1.0")
        companies.start("lender", workers=0)
        lender.start_workers("lent0")
        lender.client.network.lend(1, auto_accept="any")
        companies.start("borrower", "--bootstrap", companies.dht("lender"), workers=0)
        companies.sees("borrower", "lender", timeout_s=60)
        yield companies


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_text("none")
    return path


def company_of(both: Companies, name: str) -> str:
    return str(both.of[name].ready["chief"]["company"])


def sign(both: Companies, **terms: Any) -> str:
    """A contract about the lender's one slot, once that is free."""
    lending = both.client("lender").network.lending
    until(lambda: (now := lending())["slots"] > 0 and now["promised"] == 0, "the lender's slot is free", timeout_s=60)
    return str(both.client("borrower").contracts.request(company_of(both, "lender"), slots=1, time_frame_s=600, **terms)["id"])


def rated(both: Companies, id_: str) -> dict[str, Any]:
    """The contract, once both sides have both halves and say the same."""
    shown = [both.client(name).contracts for name in ("borrower", "lender")]
    until(lambda: all(c.show(id_)["state"] == "rated" for c in shown), "both halves are exchanged", timeout_s=60)
    ours, theirs = (c.show(id_) for c in shown)
    assert (ours["accepted"], ours["claimed"], ours["causes"]) == (theirs["accepted"], theirs["claimed"], theirs["causes"])
    return dict(ours)


def test_an_overrun_settles_with_the_last_counts(both: Companies, data: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", STUCK, manifest='time_limit = "1s"\n')
    job = both.client("borrower").submit(package, data, params={"n": 9}, where="any", yes_foreign=True, max_fails="100%")
    id_ = sign(both, check="none", fragment_s=1)
    ended = rated(both, id_)
    assert ended["causes"] == {"lender": "guests took more than was agreed"}, ended
    assert ended["claimed"]["fragments"] == ended["accepted"]["fragments"] == 5, "what was done before it counts, to the last one"
    seen = both.client("lender").contracts.explain(company_of(both, "borrower"))["inputs"]["receipts"]
    assert [r["counts_against_it"] for r in seen if r["contract"] == ended["contract"]] == ["OVERRUN"]
    job.cancel()


def test_a_lender_that_lies_is_caught_loses_its_name_once_and_the_result_is_exact(both: Companies, data: Path, tmp_path: Path) -> None:
    borrower, lender = both.client("borrower"), company_of(both, "lender")
    package = write_package(tmp_path / "p", SQUARE)
    borrower.upload_package(package)
    first = sign(both, package="p")
    until(lambda: borrower.contracts.show(first)["state"] == "active", "bound", timeout_s=30)
    borrower.contracts.act(first, "revoke", notice_s=0)
    assert rated(both, first)["causes"] == {"borrower": "the work was done"}
    before = borrower.contracts.explain(lender)["view"]

    job = borrower.submit(package, data, params={"n": FRAGMENTS}, where="any", yes_foreign=True)
    lie = sign(both, package="p")
    ended = rated(both, lie)
    assert ended["causes"] == {"borrower": "results were wrong"}, ended
    both.of["borrower"].start_workers("own")
    job.wait(60)
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [i * i for i in range(FRAGMENTS)]

    said = both.of["borrower"].command("--json", "reputation", "explain", lender)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    view, inputs = found["view"], found["inputs"]
    assert view["score"] < before["score"], "trust falls"
    assert (view["contracts"], view["completed"]) == (before["contracts"] + 1, before["completed"]), "once"
    assert view["bad"] == pytest.approx(before["bad"] + 1, abs=1e-3)
    assert [r["counts_against_it"] for r in inputs["receipts"] if r["contract"] == ended["contract"]] == ["BAD_RESULT"]
    assert recompute(inputs)["score"] == pytest.approx(view["score"]), "its inputs are all that the number is made of"
    text = both.of["borrower"].command("reputation", "explain", lender).stdout
    assert "counts against it: BAD_RESULT" in text and "formula" in text and f"score {view['score']:.3f}" in text, text
    both.of["borrower"].stop("own")


def test_a_flood_of_one_strangers_offers_costs_little_and_a_block_ends_it(both: Companies) -> None:
    lender = both.client("lender")
    lender.network.lend(1, auto_accept="never")  # offers wait for the owner
    chief = psutil.Process(both.of["lender"].processes["chief"].pid)
    before_s = sum(chief.cpu_times()[:2])
    key = load_or_create_identity(both.of["lender"].home / "chief" / "identity" / "key").public
    done = flood(both.of["lender"].rpc, key, OFFERS)
    cpu_s = sum(chief.cpu_times()[:2]) - before_s
    print(f"{OFFERS} offers: {cpu_s:.2f} s of the chief's CPU, {1000 * cpu_s / OFFERS:.2f} ms each, in {done.seconds:.1f} s")
    assert done.answers["taken"] <= 8 and done.answers.keys() <= {"taken", "inbox-full", "too-many-offers"}, done
    assert cpu_s < 0.010 * OFFERS, "ten milliseconds each would be a slow machine"
    waiting = [c for c in lender.contracts.list("inbox")["items"] if c["company"] == done.company]
    assert 0 < len(waiting) <= 8, "the inbox is bounded"
    badges = [r for r in lender.company()["needs_you"] if r["code"] == "offers-wait"]
    assert len(badges) == 1, "one badge, however many there are"
    lender.contracts.act(waiting[0]["id"], "block")
    assert not [c for c in lender.contracts.list("inbox")["items"] if c["company"] == done.company]
    again = flood(both.of["lender"].rpc, key, 3)
    assert again.answers.pop("answered", 0) <= 2 * 8, "those that waited were refused"
    assert again.answers == {"company-blocked": 3}, again
    lender.network.lend(1, auto_accept="any")
