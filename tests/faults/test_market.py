"""A small `python -m tests.faults.market`, run by `make chaos`: it takes half a minute of two cores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.market import Market


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("FAULTS_FULL"), reason="half a minute of two cores: with FAULTS_FULL=1, as `make chaos` does")
def test_three_companies_stand_kills_while_they_lend_and_borrow(tmp_path: Path) -> None:
    market = Market(tmp_path, companies=3, workers=1, seed=1)
    with market.all:
        market.open()
        for action, name in (("submit", "c00"), ("borrow", "c00"), ("kill-chief", "c01"), ("kill-worker", "c02"), ("borrow", "c00")):
            market.do(action, name)
        found = market.finish()
    assert not found.faults, found.faults
    assert sum(found.contracts.values()) > 0, "nothing was lent"
