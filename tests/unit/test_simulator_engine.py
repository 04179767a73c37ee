"""The event heap, the counters, the network and churn of the simulator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from p2p.base.clock import Monotonic
from p2p.base.errors import InvariantBroken, UsageError
from simulator.chance import exponential, normal, seed_word, uniform, unit, word, words
from simulator.churn import PRESETS, Sessions, from_trace
from simulator.engine import Engine, Host
from simulator.network import LinkFaults, Network, round_trips
from simulator.windows import run_windows


def test_events_at_one_time_run_in_the_order_in_which_they_were_planned() -> None:
    engine, seen = Engine(), []
    for name in "abc":
        engine.at(5.0, seen.append, name)
    engine.at(1.0, lambda _: engine.at(5.0, seen.append, "d"))
    engine.run()
    assert seen == ["a", "b", "c", "d"]
    assert engine.now == 5.0 and engine.pending == 0 and engine.events == 5


def test_a_handler_may_plan_none_one_or_many_and_a_float_plans_it_again() -> None:
    engine, times = Engine(), []

    def again(_: None) -> float | None:
        times.append(engine.now)
        engine.after(0.25, lambda _: times.append(-engine.now))
        return 1.0 if len([t for t in times if t >= 0]) < 3 else None

    engine.after(1.0, again)
    engine.run()
    assert times == [1.0, -1.25, 2.0, -2.25, 3.0, -3.25]


def test_what_lies_in_the_past_happens_now_and_time_never_goes_back() -> None:
    engine, seen = Engine(), []
    engine.at(2.0, lambda _: engine.at(1.0, lambda _: seen.append(engine.now)))
    engine.run()
    assert seen == [2.0]


def test_a_handler_that_raises_loses_its_own_event_and_no_other() -> None:
    engine, seen = Engine(), []
    engine.at(1.0, lambda _: 1 / 0)
    engine.at(2.0, seen.append, "later")
    with pytest.raises(ZeroDivisionError):
        engine.run()
    engine.run()
    assert seen == ["later"] and engine.events == 2


def test_run_stops_at_its_bounds_and_an_endless_wait_is_said() -> None:
    engine = Engine()
    engine.at(1.0, lambda _: 1.0)
    assert engine.run(until=10.5) == 10 and engine.now == 10.5
    assert engine.run(max_events=3) == 3
    with pytest.raises(InvariantBroken, match="nothing will ever happen"):
        Engine().run_while(lambda: True, max_events=10, why=lambda: "because")
    with pytest.raises(InvariantBroken, match="no end"):
        engine.run_while(lambda: True, max_events=30, why=lambda: "because")


@pytest.mark.parametrize("spread_s", [0.001, 1.0, 1000.0])
def test_thousands_of_events_come_in_the_order_of_time_and_planning(spread_s: float) -> None:
    """Whatever lies near, late or far: handlers plan some for now, some soon, some in a while; a plain sort says what is right."""
    engine, numbers = Engine(), iter(range(6000))
    planned: list[tuple[float, int]] = []
    seen: list[tuple[float, int]] = []
    key = seed_word(4, "order")

    def plan(number: int) -> None:
        delay = spread_s * round(unit(key, number, 0), 2) ** 3  # many ties, many short ones
        planned.append((engine.now + delay, number))
        (engine.after if number % 2 else lambda d, *rest: engine.at(engine.now + d, *rest))(delay, happen, number)

    def happen(number: int) -> None:
        seen.append((engine.now, number))
        for _ in range(2 if unit(key, number, 1) < 0.6 else 1):
            following = next(numbers, None)
            if following is not None:
                plan(following)

    for _ in range(500):
        plan(next(numbers))
    while engine.run(until=engine.now + spread_s / 7, max_events=97) or engine.pending:
        pass
    assert seen == sorted(planned) and len(seen) == 6000 == engine.events


@dataclass
class Alarm:
    """A machine that wants to be woken three times, a second apart."""

    due: float | None = 1.0
    checked: int = 0
    stuck: bool = False

    def handle(self, event: str, now: Monotonic) -> tuple[str, ...]:
        if event == "tick" and self.due is not None and now >= self.due and not self.stuck:
            self.due = self.due + 1 if self.due < 3 else None
        return (f"{event}@{now:g}",)

    def next_deadline(self) -> Monotonic | None:
        return None if self.due is None else Monotonic(self.due)

    def validate(self) -> None:
        self.checked += 1


def test_a_host_wakes_its_machine_at_every_deadline_and_validates() -> None:
    engine, machine, seen = Engine(), Alarm(), []
    host: Host[str, str] = Host(engine, machine, lambda effect, cause: seen.append(effect), lambda: "tick", validate_every=1)
    host.post("hello")
    engine.run()
    assert seen == ["hello@0", "tick@1", "tick@2", "tick@3"]
    assert machine.checked == 4


def test_a_deadline_that_does_not_move_is_a_bug() -> None:
    engine = Engine()
    host: Host[str, str] = Host(engine, Alarm(stuck=True), lambda effect, cause: None, lambda: "tick")
    host.post("hello")
    with pytest.raises(InvariantBroken, match="does not move"):
        engine.run()


def test_counters_depend_on_nothing_but_seed_node_and_event() -> None:
    key, nodes = seed_word(7, "x"), np.arange(1000)
    whole = uniform(key, nodes, 3)
    assert (whole[400:] == uniform(key, nodes[400:], 3)).all()
    assert [unit(key, n, 3) for n in range(50)] == whole[:50].tolist()
    assert word(key, 5, 9) == int(words(key, np.array([5]), 9)[0])
    assert not (whole == uniform(seed_word(7, "y"), nodes, 3)).any()
    assert not (whole == uniform(key, nodes, 4)).any()


def test_counters_are_uniform_normal_and_exponential() -> None:
    key, at = seed_word(1, "t"), np.arange(200_000)
    u = uniform(key, at, 1)
    counts = np.bincount((u * 100).astype(int), minlength=100)
    chi_squared = float((((counts - 2000) ** 2) / 2000).sum())
    assert 55 < chi_squared < 160  # 99 degrees of freedom
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 0.01
    assert abs(np.corrcoef(u, uniform(key, at, 2))[0, 1]) < 0.01
    z = normal(key, at)
    assert abs(float(z.mean())) < 0.01 and abs(float(z.std()) - 1) < 0.01
    assert abs(float(exponential(key, at).mean()) - 1) < 0.01


def test_round_trips_have_kings_median_and_mean() -> None:
    pairs = np.arange(200_000)
    trips = round_trips(3, pairs[:100_000], pairs[100_000:])
    assert abs(float(np.median(trips)) - 0.156) < 0.003
    assert abs(float(trips.mean()) - 0.178) < 0.003


def test_packets_are_lost_doubled_and_cut_off_as_asked() -> None:
    def arrivals(faults: LinkFaults, *, islands: dict[int, int] | None = None) -> tuple[list[int], Network]:
        engine = Engine()
        network = Network(engine, 1, faults)
        network.partition(islands or {})
        got: list[int] = []
        for number in range(2000):
            network.send(number % 7, 100 + number % 5, 50, got.append, number)
        engine.run()
        return got, network

    clean, network = arrivals(LinkFaults())
    assert sorted(clean) == list(range(2000)) and network.sent_bytes == 100_000
    assert clean == arrivals(LinkFaults())[0]
    lossy, network = arrivals(LinkFaults(loss=0.2))
    assert 1500 < len(lossy) < 1700 and network.lost == 2000 - len(lossy)
    assert 2150 < len(arrivals(LinkFaults(duplication=0.1))[0]) < 2250
    assert arrivals(LinkFaults(), islands=dict.fromkeys(range(7), 1))[0] == []
    assert arrivals(LinkFaults(reordering=0.3))[0] != clean


def test_a_node_behind_translation_is_reached_only_by_whom_it_asked() -> None:
    engine = Engine()
    network = Network(engine, 1, nat={2: "restricted"})
    got: list[str] = []
    network.send(1, 2, 50, got.append, "unasked")
    network.send(2, 1, 50, got.append, "question")
    network.send(1, 2, 50, got.append, "answer")
    engine.run()
    assert sorted(got) == ["answer", "question"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_draw_what_they_say(name: str) -> None:
    sessions = PRESETS[name]
    drawn = sessions.draw(1, np.arange(100_000), 0)
    for age in (60.0, 3600.0, 36_000.0):
        assert abs(float((drawn > age).mean()) - float(sessions.survival(np.array([age]))[0])) < 0.01
    shares = [sessions.stale_share(t) for t in (60.0, 600.0, 3600.0)]
    assert 0 <= shares[0] < shares[1] < shares[2] < 1


def test_exponential_sessions_leave_the_known_share_of_stale_contacts() -> None:
    # memoryless: P(gone at age a) = 1 - e^(-a), averaged over a in (0, 1)
    assert math.isclose(Sessions("exponential", 3600.0).stale_share(3600.0), 1 - (1 - math.exp(-1)), rel_tol=1e-4)


def test_a_trace_is_drawn_from_and_nonsense_is_refused() -> None:
    trace = from_trace([10.0, 20.0])
    assert set(trace.draw(1, np.arange(100), 0)) == {10.0, 20.0} and trace.mean_s == 15
    assert trace.survival(np.array([15.0]))[0] == 0.5
    with pytest.raises(UsageError):
        from_trace([1.0, -1.0])


def test_windows_handle_every_event_once_whatever_their_length() -> None:
    def count(window_s: float) -> tuple[int, list[int]]:
        next_at = uniform(seed_word(1, "w"), np.arange(500))
        seen = np.zeros(500, dtype=np.int64)

        def handle(nodes: np.ndarray, times: np.ndarray) -> np.ndarray:
            seen[nodes] += 1
            return np.asarray(times + 0.3)

        return run_windows(next_at, window_s, 5.0, handle), seen.tolist()

    assert count(0.01) == count(0.25) == count(5.0)
