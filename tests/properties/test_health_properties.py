"""Deadlines and verdicts agree, whatever the order of signs of life, losses and ticks."""

import math

from hypothesis import given
from hypothesis import strategies as st

from company.chief.health import Alive, Lost, PhiAccrual, Silent, Slowness, WorkerHealth
from p2p.base.clock import Monotonic

STEPS = st.lists(st.tuples(st.sampled_from(["sign", "lost", "tick", "result", "probe"]), st.floats(0, 60)), max_size=60)


@given(STEPS, st.floats(0.1, 10), st.floats(0, 100))
def test_a_worker_is_only_lost_after_a_full_grace_of_silence(steps: list[tuple[str, float]], heartbeat_s: float, grace_s: float) -> None:
    health, now = WorkerHealth(heartbeat_s=heartbeat_s, grace_s=grace_s, now=Monotonic(0.0)), 0.0
    for name, wait in steps:
        now += wait
        before, deadline = health.state, health.next_deadline()
        match name:
            case "sign":
                event = health.on_sign_of_life(Monotonic(now))
                assert not isinstance(health.state, Silent | Lost)
            case "lost":
                event = health.on_connection_lost(Monotonic(now))
                assert not isinstance(health.state, Alive)
            case "tick":
                event = health.on_tick(Monotonic(now))
                assert (event is not None) == (deadline is not None and now >= deadline)
            case "result":
                event = None
                health.on_result()
            case _:
                event = None
                health.on_probe_passed(Monotonic(now))
        if event == "lost":
            assert isinstance(before, Silent) and now >= before.since + grace_s


@given(st.lists(st.floats(0.5, 5), max_size=150), st.floats(0, 50), st.floats(0, 50))
def test_suspicion_never_falls_while_nothing_comes(intervals: list[float], a: float, b: float) -> None:
    phi, now = PhiAccrual(expected_s=1.0, now=Monotonic(0.0)), 0.0
    for interval in intervals:
        now += interval
        phi.on_heartbeat(Monotonic(now))
    early, late = sorted((a, b))
    assert phi.phi(Monotonic(now + early)) <= phi.phi(Monotonic(now + late))


@given(st.lists(st.floats(1e-6, 1e6), min_size=30, max_size=400), st.floats(1e-6, 1e6), st.integers(0, 9))
def test_every_attempt_is_given_more_time_and_at_least_a_second(observed: list[float], predicted: float, attempt: int) -> None:
    rule = Slowness()
    for x in observed:
        rule.observe(1.0, x)
    first, second = rule.slow_after_s(predicted, attempt), rule.slow_after_s(predicted, attempt + 1)
    assert first is not None and second is not None
    assert 1.0 <= first <= second < math.inf
