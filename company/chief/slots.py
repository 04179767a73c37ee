"""The workers that are here, and which of their slots may be given something now (pure).

A slot holds at most one running batch and one ahead. Which slots are empty (`idle`) and which run and could hold one more
(`ahead`) is kept up to date slot by slot, so that nothing looks at a thousand slots because one of them answered.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from company.chief.events import WorkerSpec
from company.chief.health import Alive, Quarantined, WorkerHealth
from company.chief.leases import LeaseTable, SlotKey
from p2p.base.clock import Monotonic
from p2p.base.errors import InvariantBroken

RATE_WEIGHT = 0.2  # of the newest observation, exponentially weighted
HEARTBEAT_S = 2.0
GRACE_S = 30.0  # a worker that comes back within this keeps its leases
PROBE_AFTER_S = 5.0  # a worker that fell silent three times in a row gets one fragment, this long after it came back
REST_S, MAX_REST_S = 1.0, 32.0  # a slot that gives batches back unasked rests this long, twice as long each time
MAX_KNOWN = 4096  # workers remembered after they left, for their speed and their silences
NEVER = Monotonic(float("-inf"))


@dataclass(slots=True)
class WorkerRun:
    """One worker's live state. ``rate``: speed relative to the company's mean for the same work, 1.0 = average."""

    spec: WorkerSpec
    health: WorkerHealth
    connected: bool = True
    paused: bool = False
    draining: bool = False
    quarantined: bool = False  # by a person; `is_on_probation` is what silence leads to
    grace_until: Monotonic | None = None
    last_heard: Monotonic = NEVER
    rate: float | None = None
    lent: int = 0  # of its slots, the last ones: they work for another company
    rests: dict[int, int] = field(default_factory=dict)  # slot -> batches given back unasked in a row

    @property
    def own_slots(self) -> int:
        """Slots that are not lent."""
        return max(0, self.spec.slots - self.lent)

    @property
    def is_on_probation(self) -> bool:
        """Whether it must finish one fragment before it gets more."""
        return isinstance(self.health.state, Quarantined)

    @property
    def takes_work(self) -> bool:
        return self.connected and not (self.paused or self.draining or self.quarantined)

    @property
    def speed(self) -> float:
        """The rate, 1.0 before it is known."""
        return self.rate or 1.0

    def observe_rate(self, relative: float) -> None:
        """Fold in one observation of speed."""
        relative = min(1000.0, max(0.001, relative))
        self.rate = relative if self.rate is None else (1 - RATE_WEIGHT) * self.rate + RATE_WEIGHT * relative


class Slots:
    """Every worker known to this run of the chief, and the vacancies among their slots."""

    def __init__(self, leases: LeaseTable) -> None:
        self._leases = leases
        self.workers: dict[str, WorkerRun] = {}
        self.away: set[str] = set()  # not connected, within their grace
        self.idle: set[SlotKey] = set()
        self.ahead: set[SlotKey] = set()
        self.changed: set[SlotKey] = set()  # vacancies since the last look of the assigner
        self.total = 0  # slots that take work now
        self._resting: dict[SlotKey, Monotonic] = {}
        self._gone: dict[str, None] = {}  # lost for good, oldest first

    # ---- workers -------------------------------------------------------------------------------------------------------
    def here(self, spec: WorkerSpec, now: Monotonic, *, paused: bool, quarantined: bool) -> WorkerRun:
        """A worker joined or came back; what was learnt about its speed stays."""
        known = self.workers.get(spec.id)
        if known is None:
            known = WorkerRun(spec, WorkerHealth(heartbeat_s=HEARTBEAT_S, grace_s=GRACE_S, now=now))
            self.workers[spec.id] = known
        else:
            self._close(known)
        known.spec = spec
        known.connected = True
        known.draining = False
        known.paused, known.quarantined = paused, quarantined
        known.grace_until = None
        known.last_heard = now
        known.rests.clear()
        self.away.discard(spec.id)
        self._gone.pop(spec.id, None)
        if known.health.on_sign_of_life(now) == "quarantined":
            self._resting[(spec.id, 0)] = Monotonic(now + PROBE_AFTER_S)
        self.refresh(known, now)
        return known

    def left(self, worker: WorkerRun, now: Monotonic, *, said_bye: bool) -> None:
        """Its channel closed."""
        self._close(worker)
        worker.connected = False
        if said_bye:
            self._forget_later(worker.spec.id)
            return
        worker.health.on_connection_lost(now)
        worker.grace_until = Monotonic(now + GRACE_S)
        self.away.add(worker.spec.id)

    def lost(self, worker: WorkerRun, now: Monotonic) -> None:
        """It stayed away past the grace."""
        worker.health.on_tick(now)
        worker.grace_until = None
        self.away.discard(worker.spec.id)
        self._forget_later(worker.spec.id)

    def heard(self, worker: str, now: Monotonic) -> None:
        """Something came from this worker."""
        known = self.workers.get(worker)
        if known is not None and known.connected:
            known.last_heard = now
            known.health.on_sign_of_life(now)

    def silent_at(self, worker: str, now: Monotonic) -> Monotonic:
        """When it counts as silent, if nothing is heard of it until then."""
        known = self.workers.get(worker)
        at = known.health.next_deadline() if known is not None and known.connected else None
        return now if at is None else at

    def proved(self, worker: WorkerRun, slot: SlotKey, now: Monotonic) -> None:
        """A result of this worker was accepted."""
        if worker.is_on_probation:
            worker.health.on_probe_passed(now)
            self.refresh(worker, now)
        worker.health.on_result()
        worker.rests.pop(slot[1], None)

    def release(self, worker: WorkerRun, now: Monotonic) -> None:
        """A person lets it work again."""
        worker.paused = worker.quarantined = worker.draining = False
        worker.health.on_probe_passed(now)
        self.refresh(worker, now)

    def _forget_later(self, worker: str) -> None:
        self._gone[worker] = None
        while len(self._gone) > MAX_KNOWN:
            oldest = next(iter(self._gone))
            del self._gone[oldest], self.workers[oldest]

    # ---- vacancies -----------------------------------------------------------------------------------------------------
    def refresh(self, worker: WorkerRun, now: Monotonic) -> None:
        """Look at all slots of a worker again: it may or may not take work now."""
        self._close(worker)
        if worker.takes_work:
            self.total += worker.own_slots
            for n in range(worker.own_slots):
                self.mark((worker.spec.id, n), now)

    def mark(self, slot: SlotKey, now: Monotonic) -> None:
        """Look at one slot again: it got a lease or lost one."""
        worker = self.workers.get(slot[0])
        if slot[1] and worker is not None and worker.is_on_probation:
            slot = (slot[0], 0)  # the only one that may have something, and only while the others are empty
        self.idle.discard(slot)
        self.ahead.discard(slot)
        self.changed.discard(slot)
        if worker is None or not worker.takes_work or slot[1] >= worker.own_slots:
            return
        rest = self._resting.get(slot)
        if rest is not None:
            if now < rest:
                return
            del self._resting[slot]
        depth = self._leases.depth(slot)
        if worker.is_on_probation and self._leases.of_worker(slot[0]):
            return
        if depth == 0:
            self.idle.add(slot)
        elif depth == 1 and not worker.is_on_probation:
            self.ahead.add(slot)
        else:
            return
        self.changed.add(slot)

    def rest(self, slot: SlotKey, now: Monotonic) -> None:
        """This slot gave a batch back that nobody had asked for: do not offer it the same at once."""
        worker = self.workers[slot[0]]
        times = worker.rests.get(slot[1], 0)
        worker.rests[slot[1]] = min(times + 1, 16)
        self._resting[slot] = Monotonic(now + min(MAX_REST_S, REST_S * 2.0**times))
        self.mark(slot, now)

    def is_resting(self, worker: str) -> bool:
        """Whether a slot of this worker rests."""
        return any(slot[0] == worker for slot in self._resting)

    def wake(self, now: Monotonic) -> None:
        """Offer slots again whose rest is over."""
        for slot in [s for s, until in self._resting.items() if until <= now]:
            self.mark(slot, now)
            self._resting.pop(slot, None)

    def next_deadline(self) -> Monotonic | None:
        """When a grace or a rest is over."""
        times = [t for w in self.away if (t := self.workers[w].grace_until) is not None]
        return min([*times, *self._resting.values()], default=None)

    def _close(self, worker: WorkerRun) -> None:
        """Take a worker's slots out of the vacancies."""
        mine = [(worker.spec.id, n) for n in range(worker.spec.slots)]
        for group in (self.idle, self.ahead, self.changed):
            group.difference_update(mine)
        self.total = sum(w.own_slots for w in self.workers.values() if w is not worker and w.takes_work)

    def validate(self) -> None:
        """Raises `InvariantBroken` when a vacancy is filed that is none, or one is missing."""
        idle: set[SlotKey] = set()
        ahead: set[SlotKey] = set()
        for worker in self.workers.values():
            for n in range(worker.own_slots if worker.takes_work else 0):
                slot = (worker.spec.id, n)
                depth = self._leases.depth(slot)
                if slot in self._resting or depth > 1:
                    continue
                if worker.is_on_probation and (n or self._leases.of_worker(worker.spec.id)):
                    continue
                (ahead if depth else idle).add(slot)
        if idle != self.idle or ahead != self.ahead:
            raise InvariantBroken("free slots are filed wrongly", idle=sorted(idle ^ self.idle), ahead=sorted(ahead ^ self.ahead))
        if self.total != sum(w.own_slots for w in self.workers.values() if w.takes_work):
            raise InvariantBroken("slots are counted wrongly", total=self.total)
        for name in self.away:
            if self.workers[name].connected:
                raise InvariantBroken(f"{name} is connected and away")
        if not all(isinstance(w.health.state, Alive | Quarantined) for w in self.workers.values() if w.connected):
            raise InvariantBroken("a connected worker counts as silent")
