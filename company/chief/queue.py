"""In which order jobs get the next free slot (pure).

Between users first: who has used little lately gets more, in proportion, and nobody nothing; ten jobs of one user share what one would
have got. Inside a user: explicit priority, then the shortest expected remaining time with ageing, so that long jobs are not starved:
no job that arrives later overtakes one of the same priority that has waited three times its own length.

Source: users: HTCondor manual, "User priorities and negotiation" (usage with a half-life of one day, share inverse to it, floor 0.5);
Waldspurger, Weihl 1995 (stride scheduling) for turning shares into an order. Jobs: shortest remaining processing time, Schrage 1968, aged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from p2p.base.clock import Monotonic
from p2p.base.errors import UsageError
from p2p.base.record import record

HALF_LIFE_S = 86_400.0
LEAST_USAGE_SLOTS = 0.5  # users below half a slot on average are equals; HTCondor's floor
AGEING = 1 / 3  # expected seconds forgiven per second waited
LOWEST, HIGHEST = -20, 20  # HTCondor's job priorities: the higher goes first
_LN2 = 0.6931471805599453
_ORIGIN = Monotonic(0.0)


@record(kw_only=True)
class QueuedJob:
    """A job that wants a slot."""

    id: str
    owner: str
    priority: int
    submitted_at: Monotonic  # waiting since; a caller moves it forward by the time the job was paused
    expected_s: float | None  # remaining time it would take, seconds; None before the first probes: it counts as 0, so that they come soon
    wants_slot: bool = True  # whether it has work to hand out now; its user takes part in the sharing only then


def urgency(job: QueuedJob, now: Monotonic) -> float:
    """Expected remaining seconds − waited seconds / 3; the smallest goes first."""
    return (job.expected_s or 0.0) - max(0.0, now - job.submitted_at) * AGEING


def own_rank(job: QueuedJob, now: Monotonic) -> tuple[int, float, float, str]:
    """Sorts one user's jobs: priority, then urgency, then age."""
    return (-job.priority, urgency(job, now), job.submitted_at, job.id)


class FairShare:
    """What each user has used, and the order that follows from it.

    Each user has a virtual time that runs the slower the larger the user's share is; the user furthest behind goes first. A user who comes
    back from idleness starts at the virtual time of those who work, so that idleness saves up no claim to the whole company.
    """

    def __init__(self, usage: Mapping[str, float] | None = None, *, now: Monotonic = _ORIGIN) -> None:
        """``usage``: decayed slot-seconds per user, as `usage` gave them before a restart."""
        self._usage: dict[str, tuple[float, Monotonic]] = {user: (seconds, now) for user, seconds in (usage or {}).items()}
        self._height = {user: _height(seconds, now) for user, seconds in (usage or {}).items()}
        self._virtual: dict[str, float] = {}
        self._active: frozenset[str] = frozenset()
        self._floor = 0.0

    def charge(self, user: str, slot_seconds: float, now: Monotonic) -> None:
        """Book what a user's batch takes: the expectation when it is leased, the (also negative) difference when it ends."""
        self._virtual[user] = self._virtual.get(user, self._floor) + slot_seconds * max(LEAST_USAGE_SLOTS, self.usage_slots(user, now))
        seconds = max(0.0, self._decayed(user, now) + slot_seconds)
        self._usage[user] = (seconds, now)
        self._height[user] = _height(seconds, now)

    def usage_slots(self, user: str, now: Monotonic) -> float:
        """Slots used on average over about the last day: k slots used for ever give k."""
        return self._decayed(user, now) * _LN2 / HALF_LIFE_S

    def usage(self, now: Monotonic) -> dict[str, float]:
        """Decayed slot-seconds of every user, to be kept across a restart; those under a second are forgotten."""
        decayed = {user: self._decayed(user, now) for user in self._usage}
        return {user: seconds for user, seconds in sorted(decayed.items()) if seconds >= 1.0}

    def order(self, jobs: Sequence[QueuedJob], now: Monotonic) -> list[QueuedJob]:
        """Sort jobs: the first that wants a slot gets the next one. Ties break by age, then by id."""
        self.note_active({job.owner for job in jobs if job.wants_slot})
        return sorted(jobs, key=lambda j: (*self.rank(j.owner), *own_rank(j, now)))

    def rank(self, user: str) -> tuple[float, float, str]:
        """Sorts users: the smallest gets the next slot. Right among users given to `note_active` since."""
        return (self._virtual.get(user, self._floor), self._height.get(user, -math.inf), user)

    def note_active(self, users: Iterable[str]) -> None:
        """Say which users want slots now; whoever comes back from idleness starts level with those who work."""
        active = frozenset(users)
        if active == self._active and self._active:
            self._floor = max(self._floor, min(self._virtual[user] for user in active))
            return
        staying = [self._virtual[user] for user in active & self._active]
        if staying:
            self._floor = max(self._floor, min(staying))
        for user in active - self._active:
            self._virtual[user] = max(self._virtual.get(user, self._floor), self._floor)
        self._active = active

    def _decayed(self, user: str, now: Monotonic) -> float:
        seconds, since = self._usage.get(user, (0.0, now))
        return float(seconds * 0.5 ** (max(0.0, now - since) / HALF_LIFE_S))


def _height(seconds: float, since: Monotonic) -> float:
    """Grows with usage at any one moment, and needs no clock to compare: log2 of it, plus the half-lives that have passed."""
    return -math.inf if seconds <= 0 else math.log2(seconds) + since / HALF_LIFE_S


def parse_priority(value: int) -> int:
    """Return an explicit priority. Raises `UsageError` outside −20..20."""
    if not LOWEST <= value <= HIGHEST:
        raise UsageError("priority-out-of-range", f"priority must be {LOWEST}..{HIGHEST}, got {value}")
    return value
