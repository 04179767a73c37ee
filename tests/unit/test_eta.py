"""Rules of progress and estimates: a range, none too early, never more than 100 %."""

import numpy as np
import pytest

from company.chief.eta import MIN_BATCHES, Estimator, Eta, Progress


def seen(seconds: list[float], count: int = 1) -> Estimator:
    estimator = Estimator()
    for x in seconds:
        estimator.observe(count, x * count * 1e6)
    return estimator


def guess(seconds: list[float], remaining: int | None, slots: int) -> Eta | None:
    return seen(seconds).estimate(remaining, slots, np.random.default_rng(1))


def test_there_is_no_estimate_before_enough_was_seen() -> None:
    assert guess([1.0] * (MIN_BATCHES - 1), 100, 2) is None
    assert guess([1.0] * MIN_BATCHES, 100, 2) is not None


def test_there_is_no_estimate_without_a_total_or_a_slot() -> None:
    assert guess([1.0] * 9, None, 2) is None
    assert guess([1.0] * 9, 10, 0) is None


def test_equal_durations_still_give_a_range_around_the_truth() -> None:
    eta = guess([1.0] * 20, 100, 4)
    assert eta is not None and eta.low_s == pytest.approx(25.0) and eta.high_s == pytest.approx(26.25)
    assert eta.basis == "from 20 fragments"


def test_uneven_durations_give_a_wide_range_that_holds_the_mean() -> None:
    draws = np.random.default_rng(4).exponential(1.0, 40).tolist()
    eta = guess(draws, 10_000, 2)
    assert eta is not None and eta.low_s < sum(draws) / 40 * 5_000 < eta.high_s
    assert eta.high_s > 1.1 * eta.low_s


def test_half_of_the_true_endings_lie_in_the_range() -> None:
    truth, hits = np.random.default_rng(8), 0
    for seed in range(300):
        before, rest = truth.exponential(1.0, 100), truth.exponential(1.0, 100)
        eta = seen(before.tolist()).estimate(100, 1, np.random.default_rng(seed))
        assert eta is not None
        hits += eta.low_s < rest.sum() < eta.high_s
    assert 0.25 < hits / 300 < 0.5, "the mean of what was seen is uncertain too, so somewhat under a half"


def test_the_end_is_not_before_the_longest_fragment() -> None:
    eta = guess([8.0] * 10, 3, 100)
    assert eta is not None and eta.low_s == pytest.approx(8.0)


def test_the_same_seed_gives_the_same_range() -> None:
    assert guess([1, 2, 3, 4, 5, 6], 50, 2) == guess([1, 2, 3, 4, 5, 6], 50, 2)


def test_batches_of_many_count_by_their_fragments() -> None:
    eta = seen([0.5] * 8, count=1000).estimate(4_000, 2, np.random.default_rng(1))
    assert eta is not None and eta.low_s == pytest.approx(1000.0) and eta.basis == "from 8000 fragments"


def test_the_queue_gets_a_mean_from_the_first_batch() -> None:
    assert seen([0.2], count=10).expected_s(30, 3) == pytest.approx(2.0)
    assert Estimator().expected_s(30) is None


def test_nonsense_is_ignored() -> None:
    assert guess([float("nan"), -1.0, float("inf"), 1.0, 1.0, 1.0, 1.0], 10, 1) is None
    assert seen([1.0], count=0).expected_s(1) is None


def test_progress_is_hundred_per_cent_only_at_the_end() -> None:
    assert Progress(999_999_999, 1_000_000_000, 0).percent == 99
    assert Progress(10**18 - 1, 10**18, 0).fraction != 1.0
    assert Progress(5, 5, 5).fraction == 1.0 and Progress(7, 5, 5).percent == 100
    assert Progress(0, 0, 0).fraction == 1.0


def test_an_unknown_total_is_said_in_words() -> None:
    open_ended = Progress(3, None, 10)
    assert (open_ended.fraction, open_ended.percent, open_ended.text) == (None, None, "3 of at least 10")
    assert Progress(3, 10, 10).text == "3 of 10"
