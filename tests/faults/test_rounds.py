"""A few rounds of seeded faults; `make chaos` runs as many as one likes. The plans themselves are the same for the same seed."""

from __future__ import annotations

import pytest

from tests.faults.__main__ import run
from tests.faults.plan import KINDS, draw

SEEDS = [2, 11, 13]


def test_a_seed_always_draws_the_same_plan_and_the_seeds_draw_every_kind() -> None:
    assert draw(5) == draw(5) != draw(6)
    assert {fault.kind for seed in range(60) for fault in draw(seed).faults} == set(KINDS)


@pytest.mark.slow
def test_a_company_stands_rounds_of_faults() -> None:
    report = run(SEEDS, say=False, most=3)
    assert not report.violations, report.as_dict()
    assert report.rounds == len(SEEDS) and sum(report.faults.values()) >= 3
