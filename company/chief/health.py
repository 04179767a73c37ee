"""Tell a silent worker from a slow one (pure).

Silence is about a worker: no heartbeat, or its connection is lost. Its batches may be duplicated at once, but only silence past the
grace fences them. Slowness is about one lease: it runs much longer than predicted; the answer is a backup copy, never a fence.

Source: silence: Hayashibara, Défago, Yared, Katayama 2004, "The φ accrual failure detector", §IV. Slowness: the papers' z > 4
(P14), put on the logarithm because run times are skewed, and bounded below (algorithms page). Backup copies: Dean, Ghemawat 2004.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, Protocol

from p2p.base.clock import Monotonic
from p2p.base.record import record

PHI_THRESHOLD = 8.0  # one wrong verdict in 10^8 heartbeats, were they normal; Akka's and Cassandra's default
PHI_WINDOW = 100  # heartbeats remembered
MIN_SIGMA_SHARE = 0.5  # σ is at least half the expected interval: a scheduler's hiccup of three heartbeats is no silence
SILENCES_TO_KICK = 3
_NORMAL = NormalDist()


class PhiAccrual:
    """Suspicion of one heartbeat source, growing with the time since its last sign of life."""

    def __init__(self, *, expected_s: float, now: Monotonic) -> None:
        """``expected_s``: the agreed heartbeat interval, used until intervals were seen."""
        self._expected_s = expected_s
        self._intervals: deque[float] = deque(maxlen=PHI_WINDOW)
        self.last = now

    def on_heartbeat(self, now: Monotonic) -> None:
        """Note a sign of life. Several within half an interval count as one, or traffic would shrink the expectation."""
        interval = now - self.last
        if interval >= self._expected_s / 2:
            self._intervals.append(interval)
        self.last = now

    def restart(self, now: Monotonic) -> None:
        """Begin anew after an outage, which is no interval to learn from."""
        self.last = now

    @property
    def mean_s(self) -> float:
        """Mean interval; never under the agreed one, so that a burst makes nobody suspicious."""
        seen = sum(self._intervals) / len(self._intervals) if self._intervals else 0.0
        return max(seen, self._expected_s)

    @property
    def sigma_s(self) -> float:
        """Standard deviation of the intervals, bounded below."""
        n, floor = len(self._intervals), MIN_SIGMA_SHARE * self._expected_s
        if n < 2:
            return floor
        mean = sum(self._intervals) / n
        return max(floor, math.sqrt(sum((x - mean) ** 2 for x in self._intervals) / n))

    def phi(self, now: Monotonic) -> float:
        """φ = −log10 P(the next heartbeat comes later than this), with normal intervals; infinite where P underflows."""
        p_later = 0.5 * math.erfc((now - self.last - self.mean_s) / (self.sigma_s * math.sqrt(2)))
        return -math.log10(p_later) if p_later > 0 else math.inf

    def suspect_at(self, threshold: float = PHI_THRESHOLD) -> Monotonic:
        """When φ reaches ``threshold`` if nothing comes."""
        z = -_NORMAL.inv_cdf(10.0**-threshold)
        return Monotonic(self.last + self.mean_s + z * self.sigma_s)


@dataclass(frozen=True, slots=True)
class Alive:
    """Heartbeats come."""


@record
class Silent:
    """No sign of life; leases stand until ``lost_at``, batches may be duplicated."""

    since: Monotonic
    lost_at: Monotonic
    cause: Literal["no-heartbeat", "connection-lost"]


@record
class Lost:
    """Silent past the grace: its leases are fenced."""

    since: Monotonic  # when the silence began


@record
class Quarantined:
    """Back after too many silences in a row; gets no work until a probe succeeds."""

    since: Monotonic


HealthState = Alive | Silent | Lost | Quarantined
HealthEvent = Literal["went-silent", "lost", "came-back", "came-back-late", "quarantined"]


class WorkerHealth:
    """One worker's states: alive ⇄ silent → lost → alive; the third silence in a row leads to quarantine instead.

    In a row means: without an accepted result in between.
    """

    def __init__(self, *, heartbeat_s: float, grace_s: float, now: Monotonic) -> None:
        self._phi = PhiAccrual(expected_s=heartbeat_s, now=now)
        self._grace_s = grace_s
        self.silences = 0
        self.state: HealthState = Alive()

    def on_sign_of_life(self, now: Monotonic) -> HealthEvent | None:
        """A heartbeat, any message or a new connection. ``came-back``: within the grace; ``came-back-late``: its leases are gone."""
        match self.state:
            case Alive() | Quarantined():
                self._phi.on_heartbeat(now)
                return None
            case Silent() | Lost() as was:
                self._phi.restart(now)
                if self.silences >= SILENCES_TO_KICK:
                    self.state = Quarantined(now)
                    return "quarantined"
                self.state = Alive()
                return "came-back" if isinstance(was, Silent) and now < was.lost_at else "came-back-late"

    def on_connection_lost(self, now: Monotonic) -> HealthEvent | None:
        """A lost connection counts as silence at once (D2)."""
        return self._fall_silent(now, "connection-lost")

    def on_tick(self, now: Monotonic) -> HealthEvent | None:
        """Look at the clock; call at `next_deadline`. At most one event a call."""
        if isinstance(self.state, Silent):
            if now < self.state.lost_at:
                return None
            self.state = Lost(self.state.since)
            return "lost"
        return self._fall_silent(now, "no-heartbeat") if now >= self._phi.suspect_at() else None

    def on_result(self) -> None:
        """An accepted result ends a row of silences."""
        if isinstance(self.state, Alive):
            self.silences = 0

    def on_probe_passed(self, now: Monotonic) -> None:
        """Let a quarantined worker work again."""
        if isinstance(self.state, Quarantined):
            self._phi.restart(now)
            self.silences = 0
            self.state = Alive()

    def next_deadline(self) -> Monotonic | None:
        """When `on_tick` will have something to say, None for a lost worker."""
        match self.state:
            case Silent(lost_at=at):
                return at
            case Lost():
                return None
            case _:
                return self._phi.suspect_at()

    def phi(self, now: Monotonic) -> float:
        """Suspicion now, for the pages."""
        return self._phi.phi(now)

    def _fall_silent(self, now: Monotonic, cause: Literal["no-heartbeat", "connection-lost"]) -> HealthEvent | None:
        if isinstance(self.state, Silent | Lost):
            return None
        self.silences += 1
        self.state = Silent(now, Monotonic(now + self._grace_s), cause)
        return "went-silent"


class SlownessRule(Protocol):
    """Says how long a lease may run before it counts as slow."""

    fences: bool  # whether a slow lease is taken away (seed) or only copied elsewhere

    def observe(self, predicted_s: float | None, observed_s: float) -> None:
        """Learn a finished lease."""

    def slow_after_s(self, predicted_s: float | None, attempt: int) -> float | None:
        """Run time after which a lease is slow, None while that cannot be said."""


class Slowness:
    """The default: z on log(observed/predicted), for leases at least a second late; leads to a backup copy."""

    fences = False
    MIN_SAMPLES = 30
    MIN_SIGMA = 0.25
    MIN_LATE_S = 1.0
    Z = 4.0  # the papers' four standard deviations; doubled with every attempt, so that a long fragment is not chased round the company

    def __init__(self) -> None:
        self._logs: deque[float] = deque(maxlen=256)
        self._sum = self._squares = 0.0

    def observe(self, predicted_s: float | None, observed_s: float) -> None:
        """Learn a finished lease; one without a prediction teaches nothing."""
        if predicted_s is None or not (0 < predicted_s < math.inf and 0 <= observed_s < math.inf):
            return
        x = math.log(max(observed_s, 1e-6) / predicted_s)
        if len(self._logs) == self._logs.maxlen:
            self._sum -= self._logs[0]
            self._squares -= self._logs[0] ** 2
        self._logs.append(x)
        self._sum += x
        self._squares += x * x

    def slow_after_s(self, predicted_s: float | None, attempt: int) -> float | None:
        """max(p·e^(μ + z·σ), p·e^μ + 1 s) with z = 4·2^attempt, σ >= 0.25; None before 30 samples or without a prediction."""
        n = len(self._logs)
        if predicted_s is None or predicted_s <= 0 or n < self.MIN_SAMPLES:
            return None
        mean = self._sum / n
        sigma = max(self.MIN_SIGMA, math.sqrt(max(0.0, self._squares / n - mean * mean)))
        z = self.Z * 2.0 ** min(attempt, 30)
        usual = predicted_s * math.exp(min(mean, 300.0))
        return max(predicted_s * math.exp(min(mean + z * sigma, 300.0)), usual + self.MIN_LATE_S)


class SeedSlowness:
    """`--failure seed-z4`: the papers' rule as it stands: z > 4 against the company's response times; the worker has failed.

    Kicks healthy workers: with 8 samples 3-7 % of exponential, lognormal or Pareto run times.
    """

    fences = True
    MIN_SAMPLES = 8
    Z = 4.0

    def __init__(self) -> None:
        self._n = 0
        self._mean = self._m2 = 0.0

    def observe(self, predicted_s: float | None, observed_s: float) -> None:
        """Learn a response time (Welford 1962)."""
        if not 0 <= observed_s < math.inf:
            return
        self._n += 1
        step = observed_s - self._mean
        self._mean += step / self._n
        self._m2 += step * (observed_s - self._mean)

    def slow_after_s(self, predicted_s: float | None, attempt: int) -> float | None:
        """μ + 4σ of all response times so far (sample σ); None before 8."""
        if self._n < self.MIN_SAMPLES:
            return None
        return self._mean + self.Z * math.sqrt(self._m2 / (self._n - 1))


def new_slowness(kind: Literal["log-z", "seed-z4"]) -> SlownessRule:
    """The rule of a job's ``--failure`` option."""
    return SeedSlowness() if kind == "seed-z4" else Slowness()
