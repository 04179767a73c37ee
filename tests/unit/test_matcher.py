"""Rules of matching: nearest z-scores, ties by id, rounds of the seed mode."""

import pytest

from company.chief.matcher import SeedRound, propose, stable_match, z_scores
from p2p.base.errors import UsageError


def test_fast_workers_get_large_batches() -> None:
    workers = [("slow", 1.0), ("fast", 9.0), ("middle", 5.0)]
    assert stable_match(workers, [(1, 900.0), (2, 100.0), (3, 500.0)]) == {"slow": 2, "fast": 1, "middle": 3}


def test_equal_values_have_z_zero_and_ties_break_by_id() -> None:
    assert z_scores([0.1, 0.1, 0.1]).tolist() == [0.0, 0.0, 0.0]
    assert stable_match([("b", 1.0), ("a", 1.0)], [(2, 7.0), (1, 7.0)]) == {"a": 1, "b": 2}
    assert z_scores([]).tolist() == []


def test_the_shorter_side_is_matched_completely() -> None:
    assert len(stable_match([("a", 1.0), ("b", 2.0), ("c", 3.0)], [(1, 5.0)])) == 1
    assert len(stable_match([("a", 1.0)], [(1, 5.0), (2, 6.0)])) == 1
    assert stable_match([], [(1, 5.0)]) == {}


def test_order_of_the_input_does_not_matter() -> None:
    workers = [("a", 3.0), ("b", 1.0), ("c", 1.0)]
    batches = [(1, 4.0), (2, 4.0), (3, 9.0)]
    assert stable_match(workers, batches) == stable_match(workers[::-1], batches[::-1])


def test_an_id_named_twice_is_refused() -> None:
    with pytest.raises(UsageError):
        propose([("a", 1.0), ("a", 2.0)], [(1, 1.0)])


def test_first_seed_round_waits_for_two_answers() -> None:
    rounds: SeedRound[str, int] = SeedRound()
    for slot in "abc":
        rounds.add_slot(slot)
    assert rounds.starting == {"a", "b", "c"}
    rounds.on_started("a")
    assert rounds.starting == {"b", "c"}
    assert rounds.on_answer("a") is None
    assert rounds.on_answer("b") == 2
    pairs = rounds.match({"a": 1.0, "b": 4.0}, [(1, 10.0), (2, 90.0)])
    assert pairs == {"a": 1, "b": 2}
    assert (rounds.pop("a"), rounds.pop("a")) == (1, None)


def test_a_single_slot_does_not_wait_for_another() -> None:
    rounds: SeedRound[str, int] = SeedRound()
    rounds.add_slot("a")
    assert rounds.on_answer("a") == 1


def test_a_busy_slots_match_waits_in_its_queue() -> None:
    rounds: SeedRound[str, int] = SeedRound()
    for slot in "ab":
        rounds.add_slot(slot)
    rounds.on_answer("a")
    assert rounds.on_answer("b") == 2
    rounds.match({"a": 1.0, "b": 1.0}, [(1, 5.0), (2, 5.0)])
    assert rounds.on_answer("b") is None, "its queue is not empty"
    assert rounds.pop("b") == 2
    assert rounds.on_answer("b") == 2
    rounds.match({"a": 1.0, "b": 1.0}, [(3, 5.0), (4, 5.0)])
    assert rounds.queued("a") == 2, "seed queues are unbounded"


def test_a_lost_slots_queue_goes_back_to_the_cache_and_rounds_empty_it() -> None:
    rounds: SeedRound[str, int] = SeedRound()
    for slot in "ab":
        rounds.add_slot(slot)
    rounds.on_answer("a")
    rounds.on_answer("b")
    rounds.match({}, [(1, 5.0), (2, 6.0), (3, 7.0)])
    assert rounds.cached == 1
    rounds.remove_slot("a")
    assert rounds.cached == 2 and rounds.on_answer("a") is None
    seen = []
    while rounds.cached or rounds.queued("b"):
        if (batch := rounds.pop("b")) is not None:
            seen.append(batch)
        if rounds.on_answer("b"):
            rounds.match({"b": 1.0}, [])
    assert sorted(seen) == [1, 2, 3][: len(seen)] and len(seen) == 3
