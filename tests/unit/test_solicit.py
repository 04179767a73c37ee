"""Ask all, let the idle answer, choose among the answers."""

from __future__ import annotations

import pytest

from p2p.base.clock import Monotonic
from p2p.dht import solicit as s


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def candidates(count: int) -> list[s.Candidate]:
    return [s.Candidate(key=key(n), slots=n) for n in range(1, count + 1)]


def round_of(count: int, most: int = 10) -> tuple[s.Solicitation, list[s.Candidate]]:
    asking = s.Solicitation(candidates(count), most=most, now=Monotonic(0), deadline_s=2.0)
    return asking, [e.candidate for e in asking.handle(s.Began(), Monotonic(0)) if isinstance(e, s.Ask)]


def answered(number: int, **facts: int) -> s.Answered:
    return s.Answered(s.Answer(key=key(number), idle_slots=facts.pop("idle_slots", 4), **facts))


def test_the_best_m_are_asked_and_no_more() -> None:
    _, asked = round_of(20, most=5)
    assert [c.slots for c in asked] == [20, 19, 18, 17, 16]
    trusted = s.Solicitation([*candidates(3), s.Candidate(key=key(9), slots=1, trust=0.9)], most=1, now=Monotonic(0), deadline_s=1)
    assert trusted.handle(s.Began(), Monotonic(0)) == (s.Ask(s.Candidate(key=key(9), slots=1, trust=0.9)),)


def test_it_ends_when_all_have_spoken_and_the_most_idle_power_comes_first() -> None:
    asking, _ = round_of(3)
    asking.handle(answered(1, idle_slots=2), Monotonic(0.1))
    asking.handle(answered(2, idle_slots=8), Monotonic(0.1))
    (over,) = asking.handle(s.Failed(key(3), "busy"), Monotonic(0.2))
    assert isinstance(over, s.Over)
    assert [r.answer.key for r in over.outcome.ranked] == [key(2), key(1)] and over.outcome.refused == ((key(3), "busy"),)
    assert dict(over.outcome.spreads)["idle_slots"] == s.Spread(2, 5.0, 3.0, 0)
    assert asking.next_deadline() is None and asking.handle(answered(3), Monotonic(0.3)) == ()


def test_it_ends_at_the_deadline_and_names_the_silent() -> None:
    asking, _ = round_of(4)
    asking.handle(answered(1), Monotonic(0.1))
    assert asking.handle(s.Tick(), Monotonic(1.99)) == ()
    (over,) = asking.handle(s.Tick(), Monotonic(2.0))
    assert isinstance(over, s.Over) and dict(over.outcome.refused) == {key(n): "no-answer" for n in (2, 3, 4)}


def test_once_most_have_answered_the_rest_get_as_long_again() -> None:
    asking, _ = round_of(5)
    for number in range(1, 5):
        asking.handle(answered(number), Monotonic(0.4))
    assert asking.next_deadline() == pytest.approx(0.8)


def test_a_stranger_and_a_second_answer_change_nothing() -> None:
    asking, _ = round_of(2)
    asking.handle(answered(77), Monotonic(0.1))
    asking.handle(answered(1, idle_slots=1), Monotonic(0.1))
    asking.handle(answered(1, idle_slots=9), Monotonic(0.1))
    asking.validate()
    (over,) = asking.handle(answered(2), Monotonic(0.2))
    assert isinstance(over, s.Over) and {r.answer.idle_slots for r in over.outcome.ranked} == {1, 4}


def test_one_who_claims_the_sky_is_set_aside_as_an_outlier() -> None:
    answers = [s.Answer(key=key(n), idle_slots=3 + n % 4) for n in range(1, 10)] + [s.Answer(key=key(99), idle_slots=100_000)]
    outcome = s.judge(answers, {}, {})
    assert outcome.ranked[-1].answer.key == key(99) and outcome.ranked[-1].outlier == "idle_slots"
    spread = dict(outcome.spreads)["idle_slots"]
    assert (spread.count, spread.dropped) == (9, 1) and spread.mean < 7


def test_the_busy_come_after_outliers_and_trust_breaks_even() -> None:
    answers = [s.Answer(key=key(n), idle_slots=4, round_trip_s=0.1) for n in (1, 2)] + [s.Answer(key=key(3), idle_slots=0)]
    outcome = s.judge(answers, {key(2): 0.8}, {})
    assert [r.answer.key for r in outcome.ranked] == [key(2), key(1), key(3)]


def test_few_values_and_equal_values_have_no_outliers() -> None:
    assert s.outliers({key(1): 1.0, key(2): 1e9}) == set()
    assert s.outliers({key(n): 5.0 for n in range(9)} | {key(10): 6.0}) == set()
