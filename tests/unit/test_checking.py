"""Checks of foreign results: the formulas against published and exact values, and the rules of the machine."""

from __future__ import annotations

from random import Random

import pytest

from p2p.reputation.checking import MOST_PASSED, Checker, Policy, decayed, statement
from p2p.reputation.credibility import (
    checks_needed,
    company_credibility,
    group_credibility,
    spot_check_bound,
    spot_check_error,
    votes_needed,
    voting_cost,
    voting_error,
)

A, B, C = b"a" * 32, b"b" * 32, b"c" * 32


def truth(fragment: int) -> bytes:
    return fragment.to_bytes(32, "big")


LIE = b"!" * 32


def test_votes_needed_are_the_published_ones() -> None:
    assert [votes_needed(0.35, epsilon) for epsilon in (0.05, 0.01, 0.001)] == [15, 29, 51]
    with pytest.raises(ValueError, match="do not bring"):
        votes_needed(0.5, 0.01)


@pytest.mark.parametrize(
    ("phi", "m", "error", "cost"), [(0.01, 2, 3.0e-4, 2.02), (0.05, 3, 1.2e-3, 3.16), (0.1, 5, 8.9e-4, 5.55), (0.35, 5, 0.17, 7.14)]
)
def test_voting_error_and_cost(phi: float, m: int, error: float, cost: float) -> None:
    assert voting_error(m, phi) == pytest.approx(error, rel=0.04)
    assert voting_cost(m, phi) == pytest.approx(cost, abs=0.006)


@pytest.mark.parametrize(
    ("f", "n", "worst", "bound"), [(0.2, 20, 4.1e-2, 4.6e-2), (0.2, 1000, 8.5e-4, 9.2e-4), (0.35, 100, 1.7e-2, 2.0e-2)]
)
def test_spot_checks_at_worst(f: float, n: int, worst: float, bound: float) -> None:
    found = max(spot_check_error(f, s / 5000, 0.1, n) for s in range(1, 5001))
    assert found == pytest.approx(worst, rel=0.03)
    assert spot_check_bound(f, 0.1, n) == pytest.approx(bound, rel=0.03)
    assert found < spot_check_bound(f, 0.1, n)


def test_credibility_of_companies_and_groups() -> None:
    assert company_credibility(0.2, 0) == 0.8
    assert company_credibility(0.2, 20) == pytest.approx(0.99)
    assert (checks_needed(0.2, 0.01), checks_needed(0.2, 0.001), checks_needed(0.05, 0.01)) == (20, 200, 5)
    one = group_credibility({"x": [0.8]})["x"]
    assert one == pytest.approx(0.8)  # alone, a group is as credible as its member
    two = group_credibility({"x": [0.8, 0.8], "y": [0.8]})
    assert two["x"] == pytest.approx(16 / 21)
    assert two["x"] > two["y"]


def ready(policy: Policy, fragments: int, known: int, seed: int = 1, **more: dict[bytes, float]) -> Checker:
    checker = Checker(policy, Random(seed), **more)
    checker.own_pair(truth(0), truth(0))
    checker.add(list(range(fragments)))
    for fragment in range(known):
        checker.own(fragment, truth(fragment))
    return checker


def test_nothing_goes_abroad_before_own_runs_agree() -> None:
    checker = Checker(Policy(), Random(1))
    checker.add([1, 2, 3])
    assert checker.may_go_abroad is None
    assert checker.give(A, 2).handles == ()
    assert not checker.own_pair(b"x", b"y")
    assert checker.give(A, 2).handles == ()
    assert checker.own_pair(b"x", b"y", is_same=True)  # the package says that these are one answer
    assert len(checker.give(A, 2).handles) == 2


def test_handles_say_nothing_and_no_company_gets_a_fragment_twice() -> None:
    checker = ready(Policy(spot=0.5), 60, 20)
    seen: list[int] = []
    handles: list[int] = []
    while (given := checker.give(A, 7)).handles:
        seen += given.fragments
        handles += given.handles
    assert len(seen) == len(set(seen))
    assert len(set(handles)) == len(handles)
    assert not set(handles) & set(range(60))
    assert set(range(20, 60)) <= set(seen)


def test_results_are_provisional_until_their_company_passed_enough_checks() -> None:
    checker = ready(Policy(spot=0.5), 300, 100, seed=3)
    accepted: set[int] = set()
    passed_at_first = None
    while (given := checker.give(A, 10)).handles:
        for handle, fragment in zip(given.handles, given.fragments, strict=True):
            outcome = checker.returned(A, handle, truth(fragment))
            checker.validate()
            accepted |= {f for f, _ in outcome.accepted}
            if accepted and passed_at_first is None:
                passed_at_first = checker.companies[A].passed
    assert passed_at_first == 20  # k = f / epsilon
    assert set(range(100, 300)) <= accepted


def test_companies_that_agree_are_believed_sooner_than_one_alone() -> None:
    checker = ready(Policy(spot=0.0), 1, 0)
    accepted = []
    for company in (A, B, C, b"d" * 32):
        given = checker.give(company, 1)
        if given.handles:
            accepted.append(len(checker.returned(company, given.handles[0], truth(0)).accepted))
    assert accepted == [0, 0, 0, 1]  # odds 4 each: 4⁴ / (1 + 4⁴) is the first over 0.99


@pytest.mark.parametrize("rate", [0.05, 0.2, 1.0])
def test_a_liar_is_caught_and_everything_of_it_computed_again(rate: float) -> None:
    checker = ready(Policy(spot=0.1), 2000, 300, seed=11)
    lies = Random(5)
    final = {n: truth(n) for n in range(300)}
    caught = 0
    for company, lie in ((A, rate), (B, 0.0)):
        while (given := checker.give(company, 20)).handles:
            for handle, fragment in zip(given.handles, given.fragments, strict=True):
                outcome = checker.returned(company, handle, LIE if lies.random() < lie else truth(fragment))
                final.update(outcome.accepted)
                for again in outcome.reopened:
                    final.pop(again, None)
                caught += outcome.caught == A
            checker.validate()
    assert caught == 1  # trust falls once
    assert checker.companies[A].is_caught
    assert LIE not in final.values()
    assert len(final) == 2000
    assert checker.passed()[A] == 0.0


def test_what_was_delivered_is_named_and_not_opened() -> None:
    checker = ready(Policy(spot=1.0), 40, 30, passed={A: 50.0})
    checker.policy = Policy(spot=0.0)
    given = checker.give(A, 10)
    for handle, fragment in zip(given.handles, given.fragments, strict=True):
        checker.returned(A, handle, truth(fragment))
    work = [f for f in given.fragments if f >= 30]  # a trusted company is checked still
    checker.delivered(work[:4])
    checker.policy = Policy(spot=1.0)
    check = next(given for _ in range(100) if (given := checker.give(A, 1)).handles)  # nothing is left but checks
    outcome = checker.returned(A, check.handles[0], LIE)
    assert outcome.caught == A
    assert set(outcome.wrong_after_delivery) == set(work[:4])
    assert set(outcome.reopened) == set(work[4:])


def test_what_others_have_answered_takes_the_place_of_a_lie() -> None:
    checker = ready(Policy(spot=0.0), 1, 0, passed={A: 50.0, B: 50.0})
    own = 99
    given = checker.give(A, 1)
    assert checker.returned(A, given.handles[0], LIE).accepted == ((0, LIE),)
    checker._answers[0][B] = truth(0)  # an answer that was on its way
    checker.companies[B] = type(checker.companies[A])(passed=50.0)
    checker.own(own, truth(own))
    checker.policy = Policy(spot=1.0)
    check = next(g for _ in range(100) if (g := checker.give(A, 1)).handles)
    outcome = checker.returned(A, check.handles[0], LIE)
    assert outcome.accepted == ((0, truth(0)),)
    assert outcome.reopened == ()
    checker.validate()


def test_after_it_was_caught_a_company_gets_and_changes_nothing() -> None:
    checker = ready(Policy(spot=1.0), 20, 10)
    given = checker.give(A, 3)
    assert checker.returned(A, given.handles[0], LIE).caught == A
    assert checker.returned(A, given.handles[1], truth(given.fragments[1])) == type(checker.returned(A, 1, LIE))()
    assert checker.give(A, 5).handles == ()


def test_an_answer_to_nothing_or_twice_changes_nothing() -> None:
    checker = ready(Policy(spot=0.0), 5, 0)
    given = checker.give(A, 1)
    checker.returned(A, given.handles[0], truth(given.fragments[0]))
    before = checker.provisional()
    checker.returned(A, given.handles[0], LIE)
    checker.returned(A, 12345, LIE)
    checker.returned(B, given.handles[0], LIE)
    assert checker.provisional() == before


def test_a_borrower_without_known_answers_is_told_that_checks_are_lacking() -> None:
    checker = ready(Policy(), 10, 0)
    assert checker.lacks_checks(A)
    checker.own(0, truth(0))
    assert not checker.lacks_checks(A)


def test_trust_is_capped_and_decays() -> None:
    policy = Policy()
    assert policy.check_rate(0) == policy.check_rate(20) == 0.1
    assert policy.check_rate(50) == pytest.approx(0.04)
    assert policy.check_rate(10_000) == 0.02
    assert decayed(1000.0, 0.0) == MOST_PASSED
    assert decayed(40.0, 30 * 86_400) == pytest.approx(20.0)


def test_bound_and_cost_stand_in_words_before_anybody_signs() -> None:
    spot = statement(Policy(), 1000)
    assert "20 passed" in spot.text
    assert spot.error_bound <= 0.01
    assert spot.extra_work == 0.1
    vote = statement(Policy(kind="vote", assumed_bad=0.2), 1000)
    assert vote.extra_work == pytest.approx(voting_cost(votes_needed(0.2, 0.01), 0.2) - 1)
    assert "nobody notices" in statement(Policy(kind="none"), 1).text


def test_the_error_that_remains_is_within_the_promised_bound() -> None:
    """Many small worlds in which a fifth of the companies cheat at the rate that is best for them."""
    wrong = accepted = 0
    rng = Random(77)
    for world in range(12):
        checker = ready(Policy(spot=0.1), 3000, 100, seed=world)
        final: dict[int, bytes] = {}
        for number in range(5):
            company = bytes([number]) * 32
            lie = 0.05 if number == 0 else 0.0
            for _ in range(5):
                given = checker.give(company, 100)
                for handle, fragment in zip(given.handles, given.fragments, strict=True):
                    outcome = checker.returned(company, handle, LIE if rng.random() < lie else truth(fragment))
                    final.update(outcome.accepted)
                    for again in outcome.reopened:
                        final.pop(again, None)
        accepted += len(final)
        wrong += sum(digest == LIE for digest in final.values())
    assert accepted > 10_000
    assert wrong / accepted <= 0.01


def test_an_own_answer_stays_whoever_is_caught_later() -> None:
    """Found by the simulator: a job never ended, because own answers were taken back with a company that had computed the same fragment."""
    checker = ready(Policy(spot=0.0), 20, 10)
    given = checker.give(A, 2)
    (answered, open_), (handle, _) = given.fragments, given.handles
    assert checker.returned(A, handle, truth(answered)).accepted == ()
    for fragment in (answered, open_):  # one that it has answered, one that it has in hand
        assert checker.own(fragment, truth(fragment)).accepted == ((fragment, truth(fragment)),)
    checker.policy = Policy(spot=1.0)
    check = checker.give(A, 1)
    outcome = checker.returned(A, check.handles[0], LIE)
    assert outcome.caught == A
    assert outcome.reopened == ()
    checker.validate()
    assert not {answered, open_} - set(checker._accepted)
