"""Two real companies: workers are lent, come with tickets, compute, are checked, and are called back."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from company.package import check_package, read_package
from tests.support.company_processes import RunningCompany, until, value_of, write_package
from tests.support.two_companies import TwoCompanies

pytestmark = pytest.mark.slow
SQUARE = "def process(fragment):\n    import time\n    time.sleep(0.002)\n    return fragment * fragment\n"


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers"
    path.write_text("none")
    return path


@pytest.fixture
def both(tmp_path: Path) -> Iterator[TwoCompanies]:
    with TwoCompanies(tmp_path) as companies:
        yield companies


def processor_of(package: Path) -> str:
    return check_package(read_package(package).files, default_name="p").processor_digest.hex()


def facts_of(both: TwoCompanies, company: RunningCompany, fragments: int = 300) -> list[int] | None:
    """Fragments, core-ms and bytes as this side counts them, once it has counted so many fragments."""
    rows = both.told(company, "state")
    return rows[-1]["facts"] if rows and rows[-1]["facts"][0] >= fragments else None


def test_a_job_without_an_own_slot_is_done_by_a_borrowed_one_and_both_sides_count_the_same(
    both: TwoCompanies, numbers: Path, tmp_path: Path
) -> None:
    package = write_package(tmp_path / "p", SQUARE)
    stays = both.borrower.client.submit(package, numbers, params={"n": 3})
    job = both.borrower.client.submit(package, numbers, params={"n": 300}, where="any")
    contract = both.sign(processor_of(package))
    began = time.monotonic()
    job.wait(60)
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [i * i for i in range(300)]
    assert time.monotonic() - began < 40
    claimed, accepted = (until(lambda c=c: facts_of(both, c), "all is counted") for c in (both.lender, both.borrower))
    assert claimed == accepted
    assert both.told(both.borrower, "state")[-1]["checks_passed"] >= 20
    assert stays.explain()[0]["code"] == "where-own"  # --where own is the default

    both.turn(contract, "revoking")
    both.wait_told(both.lender, "drained", timeout_s=5)
    both.wait_told(both.borrower, "drained", timeout_s=5)
    own = write_package(tmp_path / "own", "def process(fragment):\n    return fragment\n")
    assert both.lender.run(own, numbers).state == "done", "the lent slot is back"
    assert not list((both.lender.home / "workers" / "lent0" / "scratch").glob("guest-*")), "nothing of the guest is left"


@pytest.mark.parametrize("share", [0.2])
def test_a_lender_that_answers_wrongly_is_caught_and_the_result_is_exact(numbers: Path, tmp_path: Path, share: float) -> None:
    liar = (sys.executable, "-m", "tests.support.lying_worker", str(share))
    with TwoCompanies(tmp_path, own_slots=1, lender_program=liar) as both:
        package = write_package(tmp_path / "p", SQUARE)
        job = both.borrower.client.submit(package, numbers, params={"n": 2000}, where="any")
        both.sign(processor_of(package))
        job.wait(90)
        assert job.state == "done", job.view
        assert value_of(job, tmp_path / "out") == [i * i for i in range(2000)]
        broken = both.told(both.borrower, "breach")
        assert [row["cause"] for row in broken] == ["BAD_RESULT"], "caught, and once"
