"""A job is never starved: not by other users, not by a stream of shorter jobs of its own user."""

from hypothesis import given
from hypothesis import strategies as st

from company.chief.queue import FairShare, QueuedJob, urgency
from p2p.base.clock import Monotonic


def job(name: str, owner: str, submitted: float, expected: float | None) -> QueuedJob:
    return QueuedJob(id=name, owner=owner, priority=0, submitted_at=Monotonic(submitted), expected_s=expected)


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 5e6), min_size=2), st.floats(0.1, 600))
def test_every_user_is_served_within_a_bound(usage: dict[str, float], turn_s: float) -> None:
    share = FairShare(usage, now=Monotonic(0.0))
    jobs = [job(f"j{user}", user, 0.0, 1e9) for user in usage]
    weights = {user: 1 / max(0.5, share.usage_slots(user, Monotonic(0.0))) for user in usage}
    bound = 2 * sum(weights.values()) / min(weights.values()) + 2 * len(usage)
    last = dict.fromkeys(usage, 0)
    for turn in range(1, int(bound) * 2):
        now = Monotonic(turn * turn_s)
        first = share.order(jobs, now)[0]
        share.charge(first.owner, turn_s, now)
        last[first.owner] = turn
        assert all(turn - seen <= bound for seen in last.values())


@given(st.floats(1, 1e5), st.floats(0, 1e6), st.floats(0, 1e6), st.one_of(st.none(), st.floats(0, 1e6)))
def test_who_waited_three_times_its_length_is_not_overtaken_by_later_ones(
    length: float, extra: float, later: float, other: float | None
) -> None:
    old = job("z", "u", 0.0, length)
    arrives = 3 * length * (1 + 1e-9) + extra  # the factor keeps rounding out of the comparison
    young = job("a", "u", arrives, other)
    now = Monotonic(arrives + later)
    assert FairShare().order([young, old], now)[0] is old or urgency(old, now) - urgency(young, now) < 1e-6 * now


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 100), st.one_of(st.none(), st.floats(0, 100))), max_size=12), st.randoms())
def test_order_keeps_every_job_and_does_not_depend_on_input_order(rows: list[tuple[str, float, float | None]], random: object) -> None:
    jobs = [job(f"j{i}", owner, at, expected) for i, (owner, at, expected) in enumerate(rows)]
    shuffled = list(jobs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = FairShare().order(jobs, Monotonic(200.0)), FairShare().order(shuffled, Monotonic(200.0))
    assert first == second and len(first) == len(jobs)
