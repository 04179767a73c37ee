"""How fast the engines are, beside their bounds (I/O: reads the clock; one core)."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator

import numpy as np

from simulator.chance import exponential, seed_word
from simulator.dht_hops import hop_counts
from simulator.dht_search import Search, search
from simulator.dht_tables import Tables
from simulator.engine import Engine
from simulator.validate import Row
from simulator.windows import run_windows

PROCESSES = 1000
EVENTS = 400_000
MILLION = 1_000_000


def speeds(quick: bool) -> Iterator[Row]:
    """Rows of speed; CPU time of this process, so that neighbours disturb less."""
    source = "bound of this project; SimPy run beside it"
    began = time.process_time()
    tables = Tables(MILLION, 20, 1)
    build = time.process_time() - began
    yield Row("speed", "10⁶ nodes: build, s", "< 1", f"{build:.2f}", build < 1, source)
    rate = _rate(lambda: len(hop_counts(tables, alpha=4, beta=1, lookups=100_000, seed=1)[0]))
    yield Row("speed", "10⁶ nodes: look-ups/s, rounds", "≥ 10,000", f"{rate:,.0f}", rate >= 10_000, source)
    rate = _rate(lambda: len(search(tables, Search(alpha=4, resiliency=3, target="node"), lookups=20_000, seed=1).hops))
    yield Row("speed", "10⁶ nodes: look-ups/s, sliding window with latency", "≥ 10,000", f"{rate:,.0f}", rate >= 10_000, source)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield Row("speed", "memory of the whole process, MiB", "< 1,024", f"{peak:.0f}", peak < 1024, source)
    key = seed_word(1, "windows")
    next_at = exponential(key, np.arange(MILLION), 0)
    delays = exponential(key, np.arange(MILLION), 1) + 0.05
    rate = _rate(lambda: run_windows(next_at, 0.05, 10.0, lambda nodes, times: times + delays[nodes]))
    yield Row("speed", "10⁶ nodes: events/s in windows of 50 ms", "≥ 10,000,000", f"{rate:,.0f}", rate >= 1e7, source)
    pairs = sorted((_heap_against_simpy() for _ in range(5)), key=lambda pair: pair[0] / pair[1] if pair[1] else pair[0])
    ours, simpy = pairs[2]  # the median: the best ratio would be that of SimPy's unluckiest run
    if simpy:
        yield Row(
            "speed",
            f"event core against SimPy ({simpy:,.0f} time-outs/s), events/s",
            "≥ 2 ×",
            f"{ours / simpy:.2f} × ({ours:,.0f})",
            ours >= 2 * simpy,
            source,
        )


def _rate(work: Callable[[], int]) -> float:
    began = time.process_time()
    done = work()
    return done / (time.process_time() - began)


def _heap_against_simpy() -> tuple[float, float]:
    """Events per second of a thousand processes that wait again and again: ours, and SimPy's (0: not installed)."""
    waits = [0.5 + i / PROCESSES for i in range(PROCESSES)]

    def ours() -> int:
        engine = Engine()

        def again(wait: float) -> float:
            return wait

        for wait in waits:
            engine.after(wait, again, wait)
        return engine.run(max_events=EVENTS)

    def theirs() -> int:
        env = simpy.Environment()
        handled = 0

        def process(wait: float):  # type: ignore[no-untyped-def]
            nonlocal handled
            while True:
                yield env.timeout(wait)
                handled += 1

        for wait in waits:
            env.process(process(wait))
        env.run(until=EVENTS / sum(1 / w for w in waits))
        return handled

    try:
        import simpy
    except ImportError:
        return _rate(ours), 0.0
    return _rate(ours), _rate(theirs)
