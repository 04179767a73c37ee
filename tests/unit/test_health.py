"""Rules of failure detection: φ against its formula, grace, three silences, slow is not silent."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from company.chief.health import Alive, Lost, PhiAccrual, Quarantined, SeedSlowness, Silent, Slowness, WorkerHealth, new_slowness
from p2p.base.clock import Monotonic


def at(seconds: float) -> Monotonic:
    return Monotonic(seconds)


def worker(grace_s: float = 30.0) -> WorkerHealth:
    return WorkerHealth(heartbeat_s=1.0, grace_s=grace_s, now=at(0))


def test_phi_is_minus_log10_of_the_normal_tail() -> None:
    phi = PhiAccrual(expected_s=1.0, now=at(0))
    times = np.cumsum([1.0, 3.0, 1.0, 3.0, 2.0, 2.0]).tolist()
    for time in times:
        phi.on_heartbeat(at(time))
    sigma = math.sqrt(4 / 6)
    assert (phi.mean_s, phi.sigma_s) == (pytest.approx(2.0), pytest.approx(sigma))
    for late in (0.5, 2.0, 4.0, 6.0):
        expected = -math.log10(1 - NormalDist(2.0, sigma).cdf(late))
        assert phi.phi(at(times[-1] + late)) == pytest.approx(expected, rel=1e-6)


def test_phi_reaches_its_threshold_when_it_says() -> None:
    phi = PhiAccrual(expected_s=1.0, now=at(0))
    when = phi.suspect_at(8.0)
    assert phi.phi(when) == pytest.approx(8.0, rel=1e-6)
    assert when == pytest.approx(1 + 5.612 * 0.5, rel=1e-3)
    assert phi.phi(at(1e6)) == math.inf


def test_busy_traffic_does_not_make_the_detector_nervous() -> None:
    phi = PhiAccrual(expected_s=1.0, now=at(0))
    for step in range(1, 500):
        phi.on_heartbeat(at(step * 0.01))
    assert phi.suspect_at() - phi.last > 3.0


def test_silence_past_the_grace_is_loss_and_not_before() -> None:
    health = worker()
    silent_at = health.next_deadline()
    assert silent_at is not None and health.on_tick(at(silent_at - 0.01)) is None
    assert health.on_tick(silent_at) == "went-silent"
    assert health.state == Silent(silent_at, at(silent_at + 30), "no-heartbeat")
    assert health.on_tick(at(silent_at + 29.9)) is None
    assert health.next_deadline() == silent_at + 30
    assert health.on_tick(at(silent_at + 30)) == "lost"
    assert health.state == Lost(silent_at) and health.next_deadline() is None
    assert health.on_sign_of_life(at(100)) == "came-back-late"
    assert health.state == Alive()


def test_a_lost_connection_counts_at_once() -> None:
    health = worker()
    assert health.on_connection_lost(at(0.1)) == "went-silent"
    assert health.on_connection_lost(at(0.2)) is None
    assert health.on_sign_of_life(at(5)) == "came-back"
    assert health.next_deadline() is not None and health.next_deadline() > at(5.5)  # type: ignore[operator]


def test_after_the_grace_a_return_is_late_even_if_nobody_ticked() -> None:
    health = worker()
    health.on_connection_lost(at(1))
    assert health.on_sign_of_life(at(31)) == "came-back-late"


def test_three_silences_in_a_row_lead_to_quarantine_until_a_probe_passes() -> None:
    health = worker()
    events = []
    for time in (1, 2, 3):
        health.on_connection_lost(at(time))
        events.append(health.on_sign_of_life(at(time + 0.5)))
    assert events == ["came-back", "came-back", "quarantined"]
    health.on_result()
    assert health.state == Quarantined(at(3.5))
    health.on_probe_passed(at(4))
    assert health.state == Alive() and health.silences == 0


def test_a_result_ends_the_row() -> None:
    health = worker()
    for time in (1, 2, 3, 4):
        health.on_connection_lost(at(time))
        assert health.on_sign_of_life(at(time + 0.5)) == "came-back"
        health.on_result()


def trained(samples: int, ratio: float = 1.0) -> Slowness:
    rule = Slowness()
    for _ in range(samples):
        rule.observe(10.0, 10.0 * ratio)
    return rule


def test_nothing_is_slow_before_thirty_samples_or_without_a_prediction() -> None:
    assert trained(29).slow_after_s(10.0, 0) is None
    assert trained(30).slow_after_s(None, 0) is None
    assert trained(30).slow_after_s(10.0, 0) is not None


def test_slow_is_four_sigma_of_the_log_and_doubles_with_each_attempt() -> None:
    rule = trained(30)
    assert rule.slow_after_s(10.0, 0) == pytest.approx(10 * math.exp(4 * 0.25))
    assert rule.slow_after_s(10.0, 1) == pytest.approx(10 * math.exp(8 * 0.25))
    assert trained(30, ratio=2.0).slow_after_s(10.0, 0) == pytest.approx(20 * math.exp(1.0))
    assert rule.slow_after_s(10.0, 10_000) is not None, "no overflow"


def test_a_short_batch_must_be_a_second_late() -> None:
    assert trained(30).slow_after_s(0.01, 0) == pytest.approx(1.01)


def test_the_window_forgets() -> None:
    rule = trained(256, ratio=30.0)
    for _ in range(256):
        rule.observe(10.0, 20.0)
    assert rule.slow_after_s(10.0, 0) == pytest.approx(20 * math.exp(1.0))


def test_hostile_times_teach_nothing() -> None:
    rule, seed = trained(30), SeedSlowness()
    before = rule.slow_after_s(10.0, 0)
    for predicted, observed in [(0.0, 1.0), (-1.0, 1.0), (math.nan, 1.0), (1.0, math.nan), (1.0, math.inf), (math.inf, 1.0)]:
        rule.observe(predicted, observed)
        seed.observe(None, observed if not 0 <= observed < math.inf else math.nan)
    assert rule.slow_after_s(10.0, 0) == before and seed.slow_after_s(None, 0) is None


@pytest.mark.parametrize("name", ["exponential", "lognormal", "pareto", "normal"])
def test_seed_rule_kicks_healthy_workers_as_often_as_measured(name: str) -> None:
    rng, kicked, rounds = np.random.default_rng(11), 0, 4_000
    for _ in range(rounds):
        draws = {
            "exponential": rng.exponential(1.0, 9),
            "lognormal": rng.lognormal(0.0, 1.0, 9),
            "pareto": 1 + rng.pareto(2.5, 9),
            "normal": np.abs(rng.normal(10.0, 1.0, 9)),
        }[name].tolist()
        rule = SeedSlowness()
        for x in draws[:8]:
            rule.observe(None, x)
        limit = rule.slow_after_s(None, 0)
        assert limit is not None
        kicked += draws[8] > limit
    low, high = (0.0, 0.01) if name == "normal" else (0.02, 0.09)
    assert low < kicked / rounds < high


def test_the_options_name_their_rule() -> None:
    assert new_slowness("seed-z4").fences and not new_slowness("log-z").fences
