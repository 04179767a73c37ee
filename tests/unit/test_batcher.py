"""Rules of batching: the numbers of the algorithms page, caps, probes, tail."""

import math

import numpy as np
import pytest

from company.chief import batcher
from company.chief.batcher import Adaptive, Batcher, OneByOne, RateModel, SqrtWindow, duration_us, new_batcher, window_maxima, within
from p2p.base.frames import Sizes

COUNT = 20_000


def cut_all(rule: Batcher, sizes: Sizes, *, slots: int = 4) -> list[int]:
    """Batches of a job whose sizes are all known."""
    lengths, at = [], 0
    while at < len(sizes):
        lengths.append(rule.next_batch(sizes[at:], None, len(sizes) - at, slots))
        at += lengths[-1]
    assert at == len(sizes) and min(lengths) >= 1
    return lengths


@pytest.mark.parametrize(("name", "expected"), [("uniform", 0.376), ("exponential", 0.174), ("lognormal", 0.131), ("constant", 1.0)])
def test_sqrt_window_gives_the_measured_number_of_batches(name: str, expected: float) -> None:
    rng = np.random.default_rng(7)
    draws = {
        "uniform": rng.random(COUNT) * 1000,
        "exponential": rng.exponential(1000, COUNT),
        "lognormal": rng.lognormal(0, 1, COUNT) * 1000,
        "constant": np.full(COUNT, 1000.0),
    }[name]
    lengths = cut_all(SqrtWindow(), draws.astype(np.uint32))
    ratio = len(lengths) / COUNT
    assert lengths[0] == 1, "the first fragment closes its own batch"
    assert ratio == pytest.approx(expected, rel=0.05)
    if name == "uniform":
        assert ratio == pytest.approx(1 / math.e, rel=0.05)


def test_sqrt_window_does_not_depend_on_how_sizes_arrive() -> None:
    sizes = np.random.default_rng(3).integers(0, 500, 3_000).astype(np.uint32)
    whole = cut_all(SqrtWindow(), sizes)
    rule, at, lengths = SqrtWindow(), 0, []
    for arrived in range(0, len(sizes) + 1, 37):
        while length := rule.next_batch(sizes[at:arrived], None, None, 4):
            at += length
            lengths.append(length)
    while at < len(sizes):
        lengths.append(rule.next_batch(sizes[at:], None, len(sizes) - at, 4))
        at += lengths[-1]
    assert lengths == whole


def test_sqrt_window_waits_while_the_open_batch_may_grow() -> None:
    rule = SqrtWindow()
    assert rule.next_batch(np.array([9, 3], dtype=np.uint32), None, None, 2) == 1
    assert rule.next_batch(np.array([3], dtype=np.uint32), None, None, 2) == 0
    assert rule.next_batch(np.array([3], dtype=np.uint32), None, 1, 2) == 1


def test_sqrt_window_never_passes_the_byte_cap_but_for_one_giant() -> None:
    assert cut_all(SqrtWindow(), np.array([1 << 30, 2 << 20, 1 << 20], dtype=np.uint32)) == [1, 2]
    assert cut_all(SqrtWindow(), np.array([1 << 30, 2 << 20, 3 << 20], dtype=np.uint32)) == [1, 1, 1]


def test_window_maxima_match_the_definition() -> None:
    sizes = np.random.default_rng(5).integers(0, 1000, 500).astype(np.int64)
    expected = [max(sizes[n - math.isqrt(n) : n], default=0) for n in range(500)]
    assert window_maxima(sizes, 0, 0).tolist() == expected
    assert window_maxima(sizes[400 - 20 :], 20, 400).tolist() == expected[400:]


def test_duration_follows_the_formula() -> None:
    assert duration_us(400, None, 2) == 200_000  # c/0.005 = 80 ms, so the 200 ms count
    assert duration_us(2_000, None, 2) == 400_000
    assert duration_us(400, 800_000, 2) == 100_000  # guided: remaining/(4·slots)
    assert duration_us(400, 1_000, 2) == 5_000  # never under what a batch costs the others
    assert duration_us(4_000, 1_000, 2) == 8_000  # nor under 2c


def test_probes_double_before_the_first_result() -> None:
    rule, sizes = Adaptive(), np.full(10_000, 8, dtype=np.uint32)
    assert [rule.next_batch(sizes, None, None, 2) for _ in range(6)] == [1, 1, 2, 2, 4, 4]


def test_batches_grow_by_at_most_the_growth_factor_and_then_run_200_ms() -> None:
    rule, sizes = Adaptive(), np.full(batcher.MAX_BATCH_COUNT, 8, dtype=np.uint32)
    lengths = []
    for _ in range(6):
        lengths.append(rule.next_batch(sizes, None, None, 2))
        rule.observe(lengths[-1], lengths[-1] * 8, None, lengths[-1] * 10.0)
    assert lengths == [1, 8, 64, 512, 4096, 20_000]  # 200 ms at 10 µs each


def test_a_fast_slot_gets_more_and_the_tail_gets_less() -> None:
    rule, sizes = Adaptive(), np.full(50_000, 8, dtype=np.uint32)
    rule.observe(20_000, 160_000, None, 200_000.0)
    assert rule.next_batch(sizes, None, None, 2) == 20_000
    assert rule.next_batch(sizes, None, None, 2, rate_scale=2.0) == 40_000
    assert rule.next_batch(sizes, None, 8_000, 2) == 1_000
    assert rule.next_batch(sizes[:50], None, 50, 2) == 50  # 2c is 1.4 ms, which is more than is left


def test_declared_costs_beat_counts() -> None:
    rule, sizes = Adaptive(), np.full(1_000, 8, dtype=np.uint32)
    rule.observe(1_000, 8_000, 1_000.0, 1_000_000.0)  # 1 ms per unit of cost
    costs = np.tile(np.array([150.0, 50.0]), 500)
    assert rule.next_batch(sizes, costs, None, 2) == 2


def test_sizes_predict_only_where_they_correlate() -> None:
    rng, by_size, by_count = np.random.default_rng(2), RateModel(), RateModel()
    for size in rng.integers(100, 10_000, 40).tolist():
        by_size.observe(10, 10 * size, None, 10 * size * 2.0)
        by_count.observe(10, 10 * size, None, 10 * float(rng.random()))
    assert by_size.correlation > 0.99 and by_size.us_per_byte == pytest.approx(2.0)
    assert by_size.predict_us(1, 5_000) == pytest.approx(10_000)
    assert by_count.us_per_byte is None
    assert by_count.predict_us(100, 5_000) == pytest.approx(50, rel=0.4)


def test_bytes_and_count_are_capped() -> None:
    rule = Adaptive()
    rule.observe(batcher.MAX_BATCH_COUNT, 1, None, 1.0)
    assert rule.next_batch(np.full(5_000, 4096, dtype=np.uint32), None, None, 2) == 1024
    assert rule.next_batch(np.zeros(300_000, dtype=np.uint32), None, None, 2) == batcher.MAX_BATCH_COUNT
    assert rule.next_batch(np.array([1 << 31, 1], dtype=np.uint32), None, None, 2) == 1


def test_nonsense_from_a_worker_is_ignored() -> None:
    model = RateModel()
    for count, size, run_us in [(0, 1, 1.0), (1, 1, -1.0), (1, 1, math.nan), (1, -1, 1.0), (1, 1, math.inf)]:
        model.observe(count, size, None, run_us)
    assert model.batches == 0 and model.predict_us(1, 1) is None
    model.observe(1, 1, math.nan, 5.0)
    assert model.us_per_cost is None and model.us_per_fragment == 5.0


def test_nothing_pending_is_no_batch() -> None:
    empty = np.empty(0, dtype=np.uint32)
    for kind in ("adaptive", "sqrt-window", "none"):
        assert new_batcher(kind).next_batch(empty, None, None, 2) == 0  # type: ignore[arg-type]


def test_none_sends_fragments_one_by_one() -> None:
    assert cut_all(OneByOne(), np.full(5, 8, dtype=np.uint32)) == [1] * 5


def test_within_counts_exactly() -> None:
    weights = np.ones(5_000)
    assert (within(weights, 3.0, 5_000), within(weights, 3_000.0, 5_000), within(weights, 9e9, 4_000)) == (3, 3_000, 4_000)
    assert within(weights, 0.5, 10) == 1, "a batch is never empty"
