"""`RangeSet` behaves like a plain set of ints."""

from hypothesis import example, given
from hypothesis import strategies as st

from company.chief.ranges import RangeSet

OPERATION = st.tuples(st.sampled_from(["add", "discard"]), st.integers(0, 60), st.integers(0, 20))


@example([("add", 0, 2)], 1, 0)  # an empty question inside a range had an empty piece as its answer
@given(st.lists(OPERATION, max_size=40), st.integers(0, 70), st.integers(0, 30))
def test_ranges_agree_with_a_set(operations: list[tuple[str, int, int]], first: int, count: int) -> None:
    ranges = RangeSet()
    model: set[int] = set()
    for name, a, n in operations:
        numbers = set(range(a, a + n))
        if name == "add":
            assert ranges.add(a, n) == bool(numbers - model)
            model |= numbers
        else:
            assert ranges.discard(a, n) == bool(numbers & model)
            model -= numbers
        ranges.validate()
    assert ranges.total == len(model)
    assert {x for a, n in ranges for x in range(a, a + n)} == model
    asked = set(range(first, first + count))
    assert {x for a, n in ranges.intersection(first, count) for x in range(a, a + n)} == asked & model
    assert {x for a, n in ranges.missing(first, count) for x in range(a, a + n)} == asked - model
    assert all(n > 0 for _, n in ranges.intersection(first, count) + ranges.missing(first, count))
    assert ranges.covers(first, count) == (asked <= model)
    assert ranges.contains(first) == (first in model)
    assert ranges.first_gap(first) == next(x for x in range(first, 200) if x not in model)
    assert RangeSet((x, 1) for x in sorted(model, reverse=True)) == ranges
