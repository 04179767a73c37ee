"""Rules of the queue: fair between users, short first inside one, nobody starved."""

import pytest

from company.chief.queue import HALF_LIFE_S, FairShare, QueuedJob, parse_priority
from p2p.base.clock import Monotonic
from p2p.base.errors import UsageError

NOW = Monotonic(1_000_000.0)


def job(name: str, owner: str = "ann", *, expected_s: float | None = 60.0, waited_s: float = 0.0, priority: int = 0) -> QueuedJob:
    return QueuedJob(id=name, owner=owner, priority=priority, submitted_at=Monotonic(NOW - waited_s), expected_s=expected_s)


def ids(jobs: list[QueuedJob]) -> list[str]:
    return [x.id for x in jobs]


def test_the_shortest_goes_first_and_ties_break_by_age_then_id() -> None:
    jobs = [job("c", expected_s=9.0), job("b", expected_s=1.0), job("a", expected_s=9.0), job("old", expected_s=10.0, waited_s=3.0)]
    assert ids(FairShare().order(jobs, NOW)) == ["b", "old", "a", "c"]


def test_a_job_that_waited_three_times_its_length_is_not_overtaken() -> None:
    old = job("old", expected_s=3600.0, waited_s=3 * 3600.0)
    assert ids(FairShare().order([job("tiny", expected_s=0.0), old], NOW)) == ["old", "tiny"]
    younger = job("old", expected_s=3600.0, waited_s=2.9 * 3600.0)
    assert ids(FairShare().order([job("tiny", expected_s=0.0), younger], NOW)) == ["tiny", "old"]


def test_a_job_without_an_estimate_gets_its_probes_soon() -> None:
    assert ids(FairShare().order([job("known", expected_s=5.0), job("new", expected_s=None)], NOW)) == ["new", "known"]


def test_priority_goes_before_length_but_only_inside_a_user() -> None:
    share = FairShare({"ann": 1e6}, now=NOW)
    jobs = [job("a0"), job("a20", expected_s=1e6, priority=20), job("b", "bob", priority=-20)]
    assert ids(share.order(jobs, NOW)) == ["b", "a20", "a0"]


def serve(share: FairShare, jobs: list[QueuedJob], turns: int, seconds: float = 1.0) -> dict[str, int]:
    """Give one slot to the first job, turn after turn."""
    served: dict[str, int] = {}
    for turn in range(turns):
        now = Monotonic(NOW + turn * seconds)
        first = share.order(jobs, now)[0]
        share.charge(first.owner, seconds, now)
        served[first.owner] = served.get(first.owner, 0) + 1
    return served


def test_splitting_one_job_in_ten_gains_nothing() -> None:
    served = serve(FairShare(), [job(f"a{i}") for i in range(10)] + [job("b", "bob")], 1000)
    assert abs(served["ann"] - served["bob"]) <= 2


def test_heavy_users_get_less_in_proportion_but_not_nothing() -> None:
    eight_slots = 8 * HALF_LIFE_S / 0.693147
    served = serve(FairShare({"ann": eight_slots}, now=NOW), [job("a"), job("b", "bob")], 1700)
    assert served["ann"] == pytest.approx(100, abs=5), "8 slots against half a slot: 1 of 17"


def test_usage_halves_in_a_day() -> None:
    share = FairShare({"ann": 1000.0}, now=NOW)
    assert share.usage(Monotonic(NOW + HALF_LIFE_S)) == {"ann": pytest.approx(500.0)}
    assert share.usage(Monotonic(NOW + 20 * HALF_LIFE_S)) == {}


def test_idleness_saves_up_no_claim() -> None:
    share = FairShare()
    serve(share, [job("a")], 1000)
    served = serve(share, [job("a"), job("b", "bob")], 100)
    assert served["ann"] >= 45


def test_a_user_without_work_to_hand_out_saves_up_no_claim_either() -> None:
    share = FairShare()
    idle = QueuedJob(id="b", owner="bob", priority=0, submitted_at=NOW, expected_s=1.0, wants_slot=False)
    for _ in range(1000):
        first = next(x for x in share.order([idle, job("a"), job("c", "cid")], NOW) if x.wants_slot)
        share.charge(first.owner, 1.0, NOW)
    back = serve(share, [job("b", "bob"), job("a"), job("c", "cid")], 300)
    assert 90 <= back["bob"] <= 110


def test_a_correction_takes_back_what_was_charged() -> None:
    share = FairShare()
    share.charge("ann", 100.0, NOW)
    share.charge("ann", -100.0, NOW)
    assert share.usage(NOW) == {} and share.usage_slots("nobody", NOW) == 0.0


def test_priority_is_bounded() -> None:
    assert parse_priority(-20) == -20
    with pytest.raises(UsageError):
        parse_priority(21)
