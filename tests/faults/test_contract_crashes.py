"""Two points of `python -m tests.faults.contract_crashes`, which does them all; some more of them with $FAULTS_FULL."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.faults.contract_crashes import Pair, line

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("pair"), fragments=40) as made:
        made.open()
        yield made


# the offer, of which nobody has heard, and which has come in; the acceptance, of which the borrower has not heard; the commitment
POINTS = [
    ("lender", 2, "written"), ("borrower", 3, "said"), ("borrower", 1, "written"), ("lender", 1, "written"), ("borrower", 3, "written"),
    ("lender", 1, "unwritten"), ("lender", 5, "said"), ("borrower", 2, "unwritten"),
]  # fmt: skip


@pytest.mark.parametrize(("side", "record", "moment"), POINTS if os.environ.get("FAULTS_FULL") else POINTS[:2])
def test_a_side_killed_at_a_record_of_its_journal_comes_to_the_same_books(pair: Pair, side: str, record: int, moment: str) -> None:
    found = pair.point(side, record, moment)
    print(line(found))
    assert found.is_killed, "it never got that far"
    assert not found.faults, found.faults
    assert found.states[-1] == "rated"
