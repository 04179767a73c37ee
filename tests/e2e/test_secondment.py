"""Two real companies: workers are lent, come with tickets, compute, are checked, and are called back."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from company.client import Job
from company.errors import CompanyError
from company.package import check_package, read_package
from tests.support.company_processes import RunningCompany, is_alive, until, value_of, write_package
from tests.support.two_companies import TwoCompanies

pytestmark = pytest.mark.slow
SLOW = "def process(fragment):\n    import time\n    time.sleep(3600 if fragment == 'slow' else 0)\n    return 1\n"
SQUARE = "def process(fragment):\n    import time\n    time.sleep(0.002)\n    return fragment * fragment\n"


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers"
    path.write_text("none")
    return path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoCompanies]:
    """Two companies for all tests here; each test signs a contract of its own and ends it."""
    with TwoCompanies(tmp_path_factory.mktemp("two")) as companies:
        yield companies


def processor_of(package: Path) -> str:
    return check_package(read_package(package).files, default_name="p").processor_digest.hex()


def end(both: TwoCompanies, contract: str) -> None:
    """Revoke it on both sides, and wait until nothing of it runs."""
    both.turn(contract, "revoking")
    for company in (both.lender, both.borrower):
        until(lambda c=company: [r for r in both.told(c, "drained") if r["contract"] == contract], "it is drained", timeout_s=10)


def done_of(job: Job, least: int) -> int:
    """How many fragments are done, once that many are; else 0."""
    done = int(job.status()["fragments"]["done"])
    return done if done >= least else 0


def facts_of(both: TwoCompanies, company: RunningCompany, fragments: int = 300) -> list[int] | None:
    """Fragments, core-ms and bytes as this side counts them, once it has counted so many fragments."""
    rows = both.told(company, "state")
    return rows[-1]["facts"] if rows and rows[-1]["facts"][0] >= fragments else None


def test_a_job_without_an_own_slot_is_done_by_a_borrowed_one_and_both_sides_count_the_same(
    both: TwoCompanies, numbers: Path, tmp_path: Path
) -> None:
    package = write_package(tmp_path / "p", SQUARE)
    stays = both.borrower.client.submit(package, numbers, params={"n": 3})
    job = both.borrower.client.submit(package, numbers, params={"n": 300}, where="any", yes_foreign=True)
    contract = both.sign(processor_of(package), contract="plain", state="accepted")
    both.turn(contract, "active")  # only now work flows
    began = time.monotonic()
    job.wait(60)
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [i * i for i in range(300)]
    assert time.monotonic() - began < 40
    claimed, accepted = (until(lambda c=c: facts_of(both, c), "all is counted") for c in (both.lender, both.borrower))
    assert claimed == accepted
    assert both.told(both.borrower, "state")[-1]["checks_passed"] >= 20
    assert stays.explain()[0]["code"] == "where-own"  # --where own is the default
    stays.cancel()

    until(
        lambda: [w["owner_load"] for w in both.lender.client.workers()["items"]] != [None],
        "the lent worker says how its owner uses its machine",
    )
    assert [w["owner_load"] for w in both.borrower.client.workers()["items"] if w["state"] != "offline"] in ([], [None]), (
        "and not to the borrower"
    )
    end(both, contract)
    own = write_package(tmp_path / "own", "def process(fragment):\n    return fragment\n")
    assert both.lender.run(own, numbers).state == "done", "the lent slot is back"
    assert not list((both.lender.home / "workers" / "lent0" / "scratch").glob("guest-*")), "nothing of the guest is left"


def test_a_private_dataset_stays_whatever_the_job_says_and_nothing_goes_abroad_unconfirmed(both: TwoCompanies, tmp_path: Path) -> None:
    """With a guest there that could run it."""
    data = tmp_path / "secret"
    data.write_text("none, and nobody else's")
    package, client = write_package(tmp_path / "p", SQUARE), both.borrower.client
    with pytest.raises(CompanyError) as refused:
        client.submit(package, data, params={"n": 5}, where="any")
    assert refused.value.code == "foreign-unconfirmed"
    assert both.borrower.command("data", "upload", str(data), "--private").returncode == 0
    job = client.submit(package, data, params={"n": 5}, where="any", yes_foreign=True)
    contract = both.sign(processor_of(package), contract="private")
    until(lambda: [r for r in job.explain() if r["code"] == "dataset-private"], "it says why it waits", timeout_s=20)
    assert job.status()["fragments"]["done"] == 0
    # what may go abroad is not marked after the fact
    assert client.mark_dataset("secret", private=False)["private"] is False
    free = client.submit(package, data, params={"n": 20}, where="any", yes_foreign=True)
    free.pause()
    with pytest.raises(CompanyError) as late:
        client.mark_dataset("secret", private=True)
    assert late.value.code == "dataset-goes-abroad" and free.id in str(late.value)
    free.resume()
    free.wait(60)
    assert free.state == "done" and job.status()["fragments"]["done"] == 0, "a job keeps the mark that it began with"
    job.cancel()
    assert client.mark_dataset("secret", private=True)["private"] is True
    end(both, contract)


@pytest.mark.parametrize("share", [0.05, 0.2, 1.0] if os.environ.get("FAULTS_FULL") else [0.2])
def test_a_lender_that_answers_wrongly_is_caught_and_the_result_is_exact(numbers: Path, tmp_path: Path, share: float) -> None:
    liar = (sys.executable, "-m", "tests.support.lying_worker", str(share))
    with TwoCompanies(tmp_path, own_slots=1, lender_program=liar) as both:
        package = write_package(tmp_path / "p", SQUARE)
        job = both.borrower.client.submit(package, numbers, params={"n": 1200}, where="any", yes_foreign=True)
        both.sign(processor_of(package))
        job.wait(90)
        assert job.state == "done", job.view
        assert value_of(job, tmp_path / "out") == [i * i for i in range(1200)]
        broken = both.told(both.borrower, "breach")
        assert [row["cause"] for row in broken] == ["BAD_RESULT"], "caught, and once"


def test_slots_that_are_taken_back_cost_no_try_and_what_they_ran_ends_at_once(both: TwoCompanies, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p", SLOW, split="def split(data):\n    yield from ['quick', 'slow']\n",
    )  # fmt: skip
    job = both.borrower.client.submit(package, numbers, where="any", yes_foreign=True)
    contract = both.sign(processor_of(package), contract="taken back", check="none")
    until(lambda: job.status()["fragments"]["done"] == 1 and job.view["fragments"]["leased"] == 1, "the slow one runs abroad")
    (lent,) = job.view["borrowed"]
    assert (lent["slots"], lent["contract"], job.view["slots_own"]) == (1, contract, 0)
    began = time.monotonic()
    children = both.lender.children_of("lent0")
    both.turn(contract, "revoking", at="lender")  # the borrower is not asked
    until(lambda: [r for r in both.told(both.lender, "drained") if r["contract"] == contract], "it is drained", timeout_s=10)
    assert time.monotonic() - began < 5
    assert not any(is_alive(pid) for pid in children - both.lender.children_of("lent0")), "nothing of the guest runs on"
    both.turn(contract, "revoking")
    until(lambda: job.status()["fragments"]["leased"] == 0, "the borrower has taken it back")
    assert job.status()["fragments"]["failed"] == 0
    assert both.borrower.client.transport.json("GET", f"/api/v1/jobs/{job.id}/failures")["items"] == []
    job.cancel()


def test_a_guest_that_passes_the_contracts_limits_breaks_it(both: TwoCompanies, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "def process(fragment):\n    while True:\n        pass\n", manifest='time_limit = "1s"\n')
    job = both.borrower.client.submit(package, numbers, params={"n": 4}, where="any", yes_foreign=True, max_fails="100%")
    contract = both.sign(processor_of(package), contract="limits", check="none", fragment_s=1)
    broken = both.wait_told(both.lender, "breach", timeout_s=30)
    assert broken["cause"] == "OVERRUN"
    assert "time-limit" in broken["text"]
    end(both, contract)
    own = write_package(tmp_path / "own", "def process(fragment):\n    return fragment\n")
    assert both.lender.run(own, numbers).state == "done", "the lender's machine goes on"
    job.cancel()


def test_whoever_is_killed_the_result_is_exact(both: TwoCompanies, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p", "def process(fragment):\n    import time\n    time.sleep(0.01)\n    return fragment * fragment\n"
    )
    job = both.borrower.client.submit(package, numbers, params={"n": 300}, where="any", yes_foreign=True)
    contract = both.sign(processor_of(package), contract="kills")
    done = 0
    for victim in ("worker", "lender", "borrower"):
        done = until(partial(done_of, job, done + 20), "it goes on", timeout_s=60)
        if victim == "worker":
            both.lender.kill("lent0")
            both.lender.start_worker("lent0")
        elif victim == "lender":
            both.lender.kill("chief")
            both.lender.start_chief()
        else:
            both.borrower.kill("chief")
            both.borrower.start_chief()
            job, done = both.borrower.client.job(job.id), 0
    job.wait(90)
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [i * i for i in range(300)]
    end(both, contract)
