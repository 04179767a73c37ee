"""Rules of `RangeSet`: merged, counted, exact at the edges."""

import time

import pytest

from company.chief.ranges import RangeSet
from p2p.base.errors import UsageError


def test_neighbours_are_merged_into_one_range() -> None:
    ranges = RangeSet([(0, 5), (10, 5)])
    assert ranges.add(5, 5)
    assert list(ranges) == [(0, 15)]
    assert ranges.total == 15


def test_add_says_whether_anything_was_new() -> None:
    ranges = RangeSet([(0, 10)])
    assert not ranges.add(2, 3)
    assert ranges.add(8, 3)
    assert not ranges.add(4, 0)
    assert ranges.total == 11


def test_discard_in_the_middle_leaves_two_ranges() -> None:
    ranges = RangeSet([(0, 10)])
    assert ranges.discard(3, 4)
    assert list(ranges) == [(0, 3), (7, 3)]
    assert not ranges.discard(3, 4)


def test_missing_and_intersection_share_a_range_between_them() -> None:
    ranges = RangeSet([(2, 2), (6, 2)])
    assert ranges.missing(0, 10) == [(0, 2), (4, 2), (8, 2)]
    assert ranges.intersection(3, 4) == [(3, 1), (6, 1)]
    assert ranges.covers(2, 2) and not ranges.covers(2, 3) and ranges.contains(7)


def test_first_gap_skips_what_is_there() -> None:
    ranges = RangeSet([(0, 3), (5, 2)])
    assert (ranges.first_gap(), ranges.first_gap(4), ranges.first_gap(5)) == (3, 4, 7)


def test_negative_range_is_refused_and_changes_nothing() -> None:
    ranges = RangeSet([(0, 3)])
    with pytest.raises(UsageError):
        ranges.add(-1, 2)
    with pytest.raises(UsageError):
        ranges.discard(0, -2)
    assert list(ranges) == [(0, 3)]


def test_a_hundred_thousand_ranges_stay_quick() -> None:
    ranges = RangeSet()
    started = time.perf_counter()
    for number in range(0, 200_000, 2):
        ranges.add(number, 1)
    for number in range(1, 2_000, 2):
        ranges.add(number, 1)
    assert ranges.range_count == 99_000
    assert time.perf_counter() - started < 5.0  # about 0.2 s; the bound only catches an accidental O(n) per step
    ranges.validate()
