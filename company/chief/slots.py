"""The workers that are here and what their slots hold (pure). A slot holds at most one running batch and one ahead."""

from __future__ import annotations

from dataclasses import dataclass

from company.chief.events import WorkerSpec
from p2p.base.clock import Monotonic

RATE_WEIGHT = 0.2  # of the newest observation, exponentially weighted


@dataclass(slots=True)
class WorkerRun:
    """One worker's live state. ``rate``: speed relative to the company's mean for the same work, 1.0 = average."""

    spec: WorkerSpec
    connected: bool = True
    paused: bool = False
    draining: bool = False
    quarantined: bool = False
    grace_until: Monotonic | None = None
    last_heard: Monotonic = Monotonic(0.0)
    strikes: int = 0
    rate: float | None = None

    @property
    def takes_work(self) -> bool:
        return self.connected and not (self.paused or self.draining or self.quarantined)

    def observe_rate(self, relative: float) -> None:
        """Fold in one observation of speed."""
        self.rate = relative if self.rate is None else (1 - RATE_WEIGHT) * self.rate + RATE_WEIGHT * relative


class Slots:
    """Every worker known to this run of the chief."""

    def __init__(self) -> None:
        self.workers: dict[str, WorkerRun] = {}

    def here(self, spec: WorkerSpec, now: Monotonic, *, paused: bool, quarantined: bool) -> WorkerRun:
        """A worker joined or came back; what was learnt about its speed stays."""
        known = self.workers.get(spec.id)
        if known is None:
            known = WorkerRun(spec)
            self.workers[spec.id] = known
        known.spec = spec
        known.connected = True
        known.draining = False
        known.paused = paused
        known.quarantined = quarantined
        known.grace_until = None
        known.last_heard = now
        return known

    def heard(self, worker: str, now: Monotonic) -> None:
        """Something came from this worker."""
        known = self.workers.get(worker)
        if known is not None:
            known.last_heard = now

    def forget(self, worker: str) -> None:
        """The worker is gone for good as far as this run is concerned."""
        self.workers.pop(worker, None)

    @property
    def total(self) -> int:
        """Slots that take work now."""
        return sum(w.spec.slots for w in self.workers.values() if w.takes_work)
