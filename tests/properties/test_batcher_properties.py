"""Every batcher cuts every job completely, within its caps; the fast √n window equals the plain one."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from company.chief import batcher
from company.chief.batcher import Adaptive, SqrtWindow, new_batcher, within

SIZES = st.lists(st.one_of(st.integers(0, 50), st.integers(0, 2**32 - 1)), max_size=120)


def plain_sqrt_window(sizes: list[int]) -> list[int]:
    """The rule word by word, with the byte cap."""
    lengths, total, count = [], 0, 0
    for n, size in enumerate(sizes):
        if count and total + size > batcher.MAX_BATCH_BYTES:
            lengths.append(count)
            total = count = 0
        total, count = total + size, count + 1
        if total >= max(sizes[n - math.isqrt(n) : n], default=0):
            lengths.append(count)
            total = count = 0
    return lengths + [count] * (count > 0)


@given(SIZES)
def test_sqrt_window_equals_the_rule_word_by_word(sizes: list[int]) -> None:
    array, rule, at, lengths = np.array(sizes, dtype=np.uint32), SqrtWindow(), 0, []
    while at < len(array):
        lengths.append(rule.next_batch(array[at:], None, len(array) - at, 3))
        at += lengths[-1]
    assert lengths == plain_sqrt_window(sizes)


@given(SIZES, st.sampled_from(["adaptive", "sqrt-window", "none"]), st.integers(1, 50), st.floats(0, 1e9), st.booleans())
def test_a_known_job_is_cut_completely(sizes: list[int], kind: str, slots: int, run_us: float, costs: bool) -> None:
    array, rule, at = np.array(sizes, dtype=np.uint32), new_batcher(kind), 0  # type: ignore[arg-type]
    declared = array.astype(np.float64) if costs else None
    while at < len(array):
        pending = None if declared is None else declared[at:]
        length = rule.next_batch(array[at:], pending, len(array) - at, slots)
        taken = array[at : at + length]
        assert 1 <= length == len(taken) <= batcher.MAX_BATCH_COUNT
        assert length == 1 or int(taken.sum(dtype=np.uint64)) <= batcher.MAX_BATCH_BYTES
        rule.observe(length, int(taken.sum(dtype=np.uint64)), float(taken.sum()) if costs else None, run_us)
        at += length


@given(st.lists(st.integers(0, 100), min_size=1, max_size=3000), st.integers(0, 10_000), st.integers(1, 3000))
def test_within_is_the_longest_prefix(weights: list[int], limit: int, at_most: int) -> None:
    array = np.array(weights, dtype=np.uint32)
    k = within(array, limit, min(at_most, len(array)))
    assert 1 <= k <= min(at_most, len(array))
    assert k == 1 or sum(weights[:k]) <= limit
    assert k == min(at_most, len(array)) or sum(weights[: k + 1]) > limit


@given(st.lists(st.tuples(st.integers(-1, 1000), st.integers(-1, 2**40), st.floats(), st.floats()), max_size=20), st.integers(1, 100))
def test_hostile_observations_cannot_break_it(seen: list[tuple[int, int, float, float]], slots: int) -> None:
    rule, sizes = Adaptive(), np.full(100, 10, dtype=np.uint32)
    for count, size, cost, run in seen:
        rule.observe(count, size, cost, run)
        rule.observe_overhead(run)
    assert 1 <= rule.next_batch(sizes, sizes.astype(np.float64), 100, slots) <= 100
