"""Trust from receipts: each attack of docs/threats.md with what bounds it, and numbers that can be computed again."""

from __future__ import annotations

import itertools
import random

import pytest

from p2p.base.clock import UnixTime
from p2p.base.keys import Identity
from p2p.contracts import messages as m
from p2p.contracts.signing import Signed, Signer
from p2p.contracts.terms import Cause, Role
from p2p.reputation.evidence import Evidence
from p2p.reputation.favours import LEAST_OFFERED, Favours, Supply, favour_value
from p2p.reputation.graph import NEWCOMER_FLOOR_CORE_MS, limit_of, newcomer_slots, order
from p2p.reputation.owed import Step, explained, recomputed, steps_of
from p2p.reputation.score import HALF_LIFE_S, Observation, beta_cdf, beta_quantile, score
from p2p.reputation.supply import MAX_PERIODS, Control
from p2p.reputation.trust import explain, opinion, ranking, recompute

NET = b"n" * 16
NOW = UnixTime(1_790_000_000)
ME, VIA, J, K = (Signer(Identity(bytes([n]) * 32), NET) for n in range(1, 5))
HOUR = 3_600_000
numbers = itertools.count(1)


def half(
    author: Signer, peer: Signer, role: Role, core_ms: int, *, contract: bytes | None = None, borrower_cause: Cause = Cause.NONE,
    lender_cause: Cause = Cause.NONE, ended: int = NOW, claimed_core_ms: int | None = None,
) -> Signed:  # fmt: skip
    facts = (core_ms // 1000, core_ms, 0)
    claimed = facts if claimed_core_ms is None else (claimed_core_ms // 1000, claimed_core_ms, 0)
    contract = contract or next(numbers).to_bytes(32, "big")
    causes = int(borrower_cause), int(lender_cause)
    return author.sign(
        m.Half(1, author.public, peer.public, contract, int(role), 1, m.ZERO, facts, claimed, 0, 0, *causes, 0, ended, m.ZERO)
    )  # fmt: skip


def worked(lender: Signer, borrower: Signer, core_ms: int, **more: object) -> Signed:
    """The borrower's half about work that the lender did for it."""
    return half(borrower, lender, Role.BORROWER, core_ms, **more)  # type: ignore[arg-type]


def evidence(*halves: Signed) -> Evidence:
    found = Evidence(ME.public)
    found.add_all(halves)
    return found


def test_sums_that_are_kept_are_those_of_all_receipts() -> None:
    found, sides = Evidence(ME.public), (ME, VIA, J, K)
    rng = random.Random(5)
    for number in range(300):
        one, other = rng.sample(sides, 2)
        role, contract = rng.choice((Role.BORROWER, Role.LENDER)), rng.randrange(150).to_bytes(32, "big")
        found.add(half(one, other, role, rng.randrange(1, 9) * 1000, contract=contract, ended=NOW - number))
        everything, keys = found.entries.values(), [s.public for s in sides]
        assert found.companies() == {k for e in everything for k in (e.borrower, e.lender)} - {ME.public}
        for by, for_ in itertools.permutations(keys, 2):
            signed = [e for e in everything if (e.lender, e.borrower) == (by, for_) and for_ in e.signers]
            assert found.computed(by, for_) == sum(e.accepted.core_ms for e in signed)
            assert (by in found.lenders_to(for_)) == bool(signed)
        for key in keys[1:]:
            mine = [e for e in everything if {e.borrower, e.lender} == {ME.public, key} and ME.public in e.signers]
            assert found.own(key) == sorted(mine, key=lambda e: (e.ended, e.contract))
    assert Evidence(ME.public, dict(found.entries)).companies() == found.companies()


def test_who_is_named_by_nothing_that_is_kept_is_forgotten() -> None:
    halves = [
        worked(J, VIA, HOUR),
        worked(K, VIA, HOUR),
        worked(J, K, HOUR),
        half(J, VIA, Role.LENDER, HOUR, contract=(777).to_bytes(32, "big")),
    ]
    found = evidence(*halves, half(VIA, J, Role.BORROWER, HOUR, contract=(777).to_bytes(32, "big")))
    assert found.companies() == {J.public, K.public, VIA.public}
    for gone, left in ((0, {J, K, VIA}), (1, {J, K, VIA}), (2, {J, VIA})):
        found.forget(halves[gone].message.contract)  # type: ignore[attr-defined]
        assert found.companies() == {s.public for s in left}
    found.forget((777).to_bytes(32, "big"))  # two halves of one receipt
    assert found.companies() == set() and not found._named


def test_quantiles_agree_with_closed_forms() -> None:
    for n in (1, 2, 5, 30):
        assert beta_quantile(n, 1, 0.05) == pytest.approx(0.05 ** (1 / n), abs=1e-9)
        assert beta_quantile(1, n, 0.05) == pytest.approx(1 - 0.95 ** (1 / n), abs=1e-9)
    assert beta_cdf(2, 2, 0.3) == pytest.approx(3 * 0.09 - 2 * 0.027, abs=1e-12)
    assert beta_cdf(50.5, 50.5, 0.5) == pytest.approx(0.5, abs=1e-9)


def test_nobody_known_scores_little_and_every_contract_moves_it_the_right_way() -> None:
    values = [score([Observation(True, 0.0)] * n).value for n in range(20)]
    assert values[0] == pytest.approx(0.05)
    assert values == sorted(values)
    assert score([Observation(True, 0.0)] * 5 + [Observation(False, 0.0)]).value < values[5]


def test_experience_fades_with_a_half_life_of_thirty_days() -> None:
    old = score([Observation(True, HALF_LIFE_S)] * 8)
    assert old.good == pytest.approx(4.0)
    assert old.completed == 8  # the count that stands beside it does not fade


def test_one_penalty_for_a_contract_however_often_it_is_told() -> None:
    bad = worked(J, ME, HOUR, contract=b"c" * 32, borrower_cause=Cause.BAD_RESULT)
    other = half(J, ME, Role.LENDER, HOUR, contract=b"c" * 32, borrower_cause=Cause.BAD_RESULT)
    once, often = evidence(bad), evidence(bad, bad, other, other, bad)
    assert opinion(often, J.public, NOW).score == opinion(once, J.public, NOW).score
    assert opinion(once, J.public, NOW).score.bad == 1.0


@pytest.mark.parametrize(
    ("cause", "counts"),
    [(Cause.PEER_SILENT, True), (Cause.OVERRUN, True), (Cause.BAD_RESULT, True), (Cause.REFUSED_WORK, True), (Cause.EQUIVOCATION, True)]
    + [
        (c, False)
        for c in (Cause.OWNER_RECLAIM, Cause.SHUTDOWN, Cause.NONE, Cause.SELF_AWAY, Cause.UNACKED, Cause.NEVER_STARTED, Cause.DONE)
    ],
)
def test_only_counting_causes_lower_trust(cause: Cause, counts: bool) -> None:
    found = opinion(evidence(worked(J, ME, HOUR, borrower_cause=cause)), J.public, NOW).score
    assert (found.bad == 1.0) is counts
    assert found.completed == (0 if counts else 1)


def test_slander_by_strangers_changes_nothing() -> None:
    base = evidence(worked(J, ME, HOUR))
    before = opinion(base, J.public, NOW)
    for n in range(10, 40):
        liar = Signer(Identity(bytes([n]) * 32), NET)
        base.add(worked(J, liar, HOUR, borrower_cause=Cause.BAD_RESULT))
    assert opinion(base, J.public, NOW) == before


def test_its_own_cause_against_me_is_not_my_experience() -> None:
    mine = evidence(worked(J, ME, HOUR, lender_cause=Cause.PEER_SILENT))
    assert opinion(mine, J.public, NOW).score.bad == 0.0


def test_a_lenders_word_alone_earns_nothing() -> None:
    boast = half(J, ME, Role.LENDER, 1000 * HOUR)
    assert limit_of(evidence(boast), J.public).credit == NEWCOMER_FLOOR_CORE_MS
    about_others = half(J, VIA, Role.LENDER, 1000 * HOUR)
    assert limit_of(evidence(worked(VIA, ME, HOUR), about_others), J.public).cut == 0


def test_contracts_that_only_the_other_side_signed_are_no_experience() -> None:
    boasts = [half(J, ME, Role.LENDER, HOUR) for _ in range(50)]
    assert opinion(evidence(*boasts), J.public, NOW).score.contracts == 0


def test_consumption_earns_nothing() -> None:
    eaten = half(ME, J, Role.LENDER, 50 * HOUR), worked(ME, J, 50 * HOUR)
    limit = limit_of(evidence(*eaten), J.public)
    assert limit.computed_for_me == 0
    assert limit.left == 0  # and what it had is counted against its credit


def test_sybils_gain_nothing_beyond_the_edge_they_hang_on() -> None:
    base = [worked(VIA, ME, 10 * HOUR), worked(J, VIA, 4 * HOUR)]
    assert limit_of(evidence(*base), J.public).cut == 4 * HOUR
    total = 0
    sybils = [Signer(Identity(bytes([n]) * 32), NET) for n in range(50, 80)]
    ring = [worked(a, b, 1000 * HOUR) for a, b in zip(sybils, [*sybils[1:], sybils[0]], strict=True)]
    ring += [worked(s, J, 1000 * HOUR) for s in sybils]  # J vouches for all of them
    found = evidence(*base, *ring)
    for sybil in sybils:
        total += limit_of(found, sybil.public).cut
    assert total == 0  # J did nothing for me itself, so its word carries nothing
    found.add(worked(J, ME, HOUR))
    assert max(limit_of(found, s.public).cut for s in sybils) == HOUR  # never more than J did for me


def test_a_fresh_identity_is_never_better_than_a_spent_one() -> None:
    favours = Favours()
    favours.received(J.public, 100.0)
    favours.given(J.public, 500.0)
    assert favours.balances.get(J.public, 0.0) == 0.0
    for first, second in ((J.public, K.public), (K.public, J.public)):  # who asked first, not whose key is less: keys can be tried out
        assert favours.share({first: 5, second: 5}, 10) == {first: 1, second: 0}


def test_collusion_is_bounded_by_what_one_of_them_did_for_me() -> None:
    found = evidence(worked(VIA, ME, 2 * HOUR), worked(J, VIA, 10_000 * HOUR))
    assert limit_of(found, J.public).cut == 2 * HOUR


def test_an_exit_scam_takes_at_most_the_credit() -> None:
    found = evidence(worked(J, ME, 10 * HOUR))
    limit = limit_of(found, J.public)
    assert limit.left == NEWCOMER_FLOOR_CORE_MS + 5 * HOUR
    found.add(worked(ME, J, 16 * HOUR))
    assert limit_of(found, J.public).left == 0


def test_a_fork_ends_all_credit_and_vouching() -> None:
    found = evidence(worked(J, ME, 10 * HOUR), worked(VIA, ME, 5 * HOUR), worked(J, VIA, 5 * HOUR), worked(K, J, 5 * HOUR))
    found.forked.add(J.public)
    assert limit_of(found, J.public).left == 0
    assert limit_of(found, K.public).cut == 0
    assert J.public not in order(found, dict.fromkeys(found.companies(), 0.5))
    assert ranking(found, NOW)[-1].company == J.public


def test_a_liar_earns_nothing_by_what_it_was_believed_until_it_was_caught_and_still_owes() -> None:
    honest = evidence(worked(J, ME, 4 * HOUR), worked(ME, J, 3 * HOUR))
    assert (limit_of(honest, J.public).credit, limit_of(honest, J.public).owed) == (NEWCOMER_FLOOR_CORE_MS + 2 * HOUR, 0)
    caught = evidence(worked(J, ME, 4 * HOUR, borrower_cause=Cause.BAD_RESULT), worked(ME, J, 3 * HOUR))
    assert (limit_of(caught, J.public).credit, limit_of(caught, J.public).owed) == (NEWCOMER_FLOOR_CORE_MS, 3 * HOUR)
    # nor does it vouch for anybody by it; and who calls my results wrong owes me what I computed all the same
    vouched = evidence(worked(VIA, ME, 4 * HOUR, borrower_cause=Cause.BAD_RESULT), worked(J, VIA, 4 * HOUR))
    assert limit_of(vouched, J.public).paths == ()
    accused = evidence(worked(ME, J, 3 * HOUR, borrower_cause=Cause.BAD_RESULT))
    assert limit_of(accused, J.public).owed == 3 * HOUR


def test_who_signs_for_less_than_it_had_owes_what_the_lender_knows_and_nobody_else_is_told_so() -> None:
    silent = half(ME, J, Role.LENDER, 0, contract=b"c" * 32, claimed_core_ms=2 * HOUR)
    found = evidence(silent)
    assert (limit_of(found, J.public).owed, limit_of(found, J.public).left) == (2 * HOUR, 0)
    told = explain(found, J.public, NOW)
    assert recompute(told)["left"] == told["limit"]["left"] == 0
    found.add(half(J, ME, Role.BORROWER, HOUR, contract=b"c" * 32, claimed_core_ms=0))  # it signs for half of it, and denies the claim
    assert limit_of(found, J.public).owed == 2 * HOUR
    boast = half(VIA, J, Role.LENDER, 0, claimed_core_ms=9 * HOUR)  # the word of others about what they gave is nothing to me
    assert limit_of(evidence(boast), J.public) == limit_of(evidence(), J.public)
    paid = evidence(silent, worked(J, ME, HOUR))
    assert limit_of(paid, J.public).owed == HOUR


def test_the_order_is_distance_then_score() -> None:
    found = evidence(worked(J, ME, HOUR), worked(VIA, ME, HOUR), worked(K, VIA, HOUR), worked(VIA, ME, HOUR))
    assert [o.company for o in ranking(found, NOW)] == [VIA.public, J.public, K.public]
    assert [o.hops for o in ranking(found, NOW)] == [1, 1, 2]


def test_explain_can_be_computed_again_from_its_receipts() -> None:
    found = evidence(
        worked(J, ME, 3 * HOUR, ended=NOW - 86_400 * 10), worked(J, ME, HOUR, borrower_cause=Cause.BAD_RESULT), worked(ME, J, 2 * HOUR),
        worked(VIA, ME, 7 * HOUR), worked(J, VIA, 4 * HOUR), worked(K, VIA, HOUR), half(J, K, Role.LENDER, 9 * HOUR),
    )  # fmt: skip
    for company in (VIA, J, K):
        told = explain(found, company.public, NOW)
        again = recompute(told)
        assert again["score"] == told["score"]
        assert {k: again[k] for k in ("cut", "credit", "left")} == {k: told["limit"][k] for k in ("cut", "credit", "left")}
        assert len(told["receipts"]) > 0
    assert told["contracts"] == 0
    changed = explain(found, J.public, NOW)
    changed["receipts"][0]["core_ms"] += 2 * HOUR
    assert recompute(changed)["credit"] != changed["limit"]["credit"]  # it does depend on them


def test_newcomers_share_a_tenth_and_somebody_can_always_begin() -> None:
    assert [newcomer_slots(n) for n in (0, 1, 9, 10, 40)] == [0, 1, 1, 1, 4]
    favours = Favours()
    favours.received(J.public, 10.0)
    strangers = {bytes([n]) * 32: 5 for n in range(100, 140)}
    shared = favours.share({J.public: 40, **strangers}, 40)
    assert shared[J.public] == 36
    assert sum(shared[s] for s in strangers) == 4
    held = dict.fromkeys(list(strangers)[:3], 1)  # what they have already is of the same tenth, or one after another gets everything
    assert sum(favours.share(strangers, 37, held).values()) == 1
    assert sum(favours.share(strangers, 36, {b"s" * 32: 4}).values()) == 0
    assert sum(favours.share(strangers, 36, {J.public: 4}).values()) == 3


def test_slots_go_in_proportion_to_favours() -> None:
    favours = Favours()
    favours.received(VIA.public, 300.0)
    favours.received(J.public, 100.0)
    assert favours.share({VIA.public: 99, J.public: 99}, 8) == {VIA.public: 6, J.public: 2}
    assert favours.share({VIA.public: 1, J.public: 99}, 8) == {VIA.public: 1, J.public: 7}


def test_slowness_does_not_pay() -> None:
    assert favour_value(10, 90_000, 1000.0) == favour_value(10, 5_000, 1000.0) == 10_000.0
    assert favour_value(10, 5_000, None) == 5_000.0


def test_what_is_not_returned_is_offered_less() -> None:
    supply = Supply()
    for _ in range(30):
        supply = supply.next(given=100.0, received=20.0)
    assert supply.offered == pytest.approx(LEAST_OFFERED)
    assert supply.next(given=100.0, received=0.0, has_asked=False).offered > supply.offered  # it wanted nothing
    for _ in range(30):
        supply = supply.next(given=100.0, received=100.0)
    assert supply.offered == 1.0


@pytest.mark.parametrize(("offered", "capacity", "slots"), [(1.0, 20, 20), (0.7999999999, 10, 8), (0.1, 20, 2), (0.1, 3, 1), (0.5, 0, 0)])
def test_a_share_of_the_capacity_is_whole_slots_and_one_at_least(offered: float, capacity: int, slots: int) -> None:
    assert Supply(offered=offered).slots(capacity) == slots


def test_on_one_slot_who_is_owed_comes_before_a_newcomer_and_on_two_both_have_one() -> None:
    favours = Favours({J.public: 1.0})
    assert favours.share({K.public: 9, J.public: 9}, 1) == {J.public: 1, K.public: 0}
    assert favours.share({K.public: 9, J.public: 9}, 2) == {J.public: 1, K.public: 1}
    assert favours.share({K.public: 9, VIA.public: 9}, 4) == {K.public: 1, VIA.public: 0}
    assert favours.share({K.public: 9, VIA.public: 9}, 4, is_taken_back=True) == {K.public: 2, VIA.public: 2}


def test_favours_follow_the_order_of_my_own_receipts_whatever_the_other_side_says_of_its_ends() -> None:
    found = evidence(
        half(ME, J, Role.LENDER, 2 * HOUR, ended=NOW + 99),  # lent while nothing was owed: it leaves no debt
        half(ME, J, Role.BORROWER, 3 * HOUR, ended=NOW - 99), half(ME, J, Role.BORROWER, HOUR, borrower_cause=Cause.BAD_RESULT),
        half(ME, J, Role.LENDER, 0, claimed_core_ms=HOUR), half(J, ME, Role.LENDER, 50 * HOUR),
    )  # fmt: skip
    steps = steps_of(found, J.public, [Step(b"r" * 32, True, 1, HOUR // 2, True)])
    assert [(s.is_given, s.value / HOUR, s.is_running) for s in steps] == [
        (True, 2, False), (False, 3, False), (False, 0, False), (True, 1, False), (True, 0.5, True),
    ]  # fmt: skip
    said = explained(J.public, steps)
    assert said["owed_core_ms"] == recomputed(said) == 1.5 * HOUR
    said["steps"][1]["core_ms"] += HOUR
    assert recomputed(said) == 2.5 * HOUR  # it does depend on them


def test_what_a_slow_lender_computed_is_worth_what_own_workers_would_have_taken() -> None:
    mine, lent = half(ME, J, Role.BORROWER, 10 * HOUR), half(ME, J, Role.LENDER, HOUR)  # one fragment a second
    yardsticks = {x.contract: 500.0 for of in (mine, lent) if isinstance(x := of.message, m.Half)}
    running = [Step(b"r" * 32, False, HOUR // 1000, HOUR, True)]
    steps = steps_of(evidence(mine, lent), J.public, running, yardsticks | {b"r" * 32: 250.0})
    assert [s.value / HOUR for s in steps] == [5, 1, 0.25], "what I computed myself counts as I measured it"
    said = explained(J.public, steps)
    assert said["owed_core_ms"] == recomputed(said) == 4.25 * HOUR
    said["steps"][0]["own_core_ms_per_fragment"] = None
    assert recomputed(said) == 9.25 * HOUR


def test_three_days_of_hours_are_kept_and_no_more() -> None:
    control = Control(ME.public)
    for hour in range(MAX_PERIODS + 50):
        control.asked(UnixTime(NOW + 3600 * hour))
    assert len(control.periods) == MAX_PERIODS and max(control.periods) == NOW // 3600 + MAX_PERIODS + 49


def test_what_is_offered_moves_with_each_settlement_and_says_why() -> None:
    control, at = Control(ME.public), 3600 * (NOW // 3600)
    assert (control.at(NOW).offered, control.why(NOW)) == (1.0, "")
    control.settled(half(ME, J, Role.LENDER, 2 * HOUR, ended=at))
    assert control.at(UnixTime(at)).offered == 1.0  # it has asked nobody
    assert control.asked(UnixTime(at + 5)) and not control.asked(UnixTime(at + 6))
    assert control.at(UnixTime(at)).offered == pytest.approx(0.9)
    assert "2.00 core-hours were given and 0.00 received" in control.why(UnixTime(at)) and "90%" in control.why(UnixTime(at))
    control.settled(half(ME, J, Role.LENDER, HOUR, ended=at + 9))  # one period is one step
    assert control.at(UnixTime(at + 10)).offered == pytest.approx(0.9)
    control.settled(half(ME, J, Role.BORROWER, 3 * HOUR, ended=at + 11))  # now they are returned
    assert control.at(UnixTime(at + 12)).offered == 1.0
    for hour in range(1, 4):
        control.asked(UnixTime(at + 3600 * hour))
        control.settled(half(ME, J, Role.LENDER, HOUR, ended=at + 3600 * hour))
    assert control.at(UnixTime(at + 3 * 3600)).offered == pytest.approx(0.7)
    assert control.at(UnixTime(at + 4 * 3600)).offered == pytest.approx(0.7)  # this hour is not over
    assert control.at(UnixTime(at + 6 * 3600)).offered == pytest.approx(0.9) and "3 hours ago" in control.why(UnixTime(at + 6 * 3600))
