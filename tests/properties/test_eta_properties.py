"""Ranges are ranges, fractions are fractions."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from company.chief.eta import Estimator, Progress

SEEN = st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 1e9)), min_size=5, max_size=200)


@given(SEEN, st.integers(0, 10**7), st.integers(1, 500), st.integers(0, 2**32))
def test_low_is_not_above_high_and_both_are_finite(seen: list[tuple[int, float]], remaining: int, slots: int, seed: int) -> None:
    estimator = Estimator()
    for count, run_us in seen:
        estimator.observe(count, run_us)
    eta = estimator.estimate(remaining, slots, np.random.default_rng(seed))
    assert eta is not None and 0 <= eta.low_s <= eta.high_s < math.inf
    assert eta.high_s > eta.low_s or eta.low_s < 1e-300


@given(st.integers(0, 10**12), st.one_of(st.none(), st.integers(0, 10**12)), st.integers(0, 10**12))
def test_progress_never_passes_hundred_per_cent(ended: int, total: int | None, at_least: int) -> None:
    progress = Progress(ended, total, at_least)
    if total is None:
        assert progress.fraction is None and "at least" in progress.text
    else:
        assert progress.fraction is not None and progress.percent is not None
        assert 0 <= progress.fraction <= 1 and 0 <= progress.percent <= 100
        assert (progress.percent == 100) == (ended >= total)
