"""What one worker holds, what runs where, what may be forgotten (pure).

Every decision of a worker is made here: messages of the chief and reports of the slots come in as events, and what must be
done about them goes out as effects. Bytes are not here: fragments lie with the slot, results in `company.worker.results`.
A lease lives from its Run until every part of its outcome is acknowledged, or until the chief says that it no longer counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, assert_never

from company import messages as m
from company.worker.events import (
    Acked,
    BatchBegan,
    CloseJob,
    Dispatch,
    DrainCame,
    Effect,
    Event,
    ForgetLease,
    ForgetPart,
    GiveBack,
    JobCame,
    JobEnded,
    JobReady,
    JobRefused,
    LeaseGone,
    Leave,
    LinkDown,
    LinkUp,
    PartMade,
    PrepareJob,
    RecallCame,
    RunCame,
    SlotChanged,
    StopAsked,
    Tell,
    Tick,
    UndrainCame,
    Withdraw,
)
from p2p.base.clock import Monotonic
from p2p.base.errors import InvariantBroken

QUEUE_LIMIT = 2  # one batch running and one ahead, per slot
MAX_HELD = 4096  # what a Resume may list
AWAY_GRACE_S = 5.0  # a stopping worker waits no longer for a chief that is away: a restart takes less, and its results can go nowhere else

Phase = Literal["queued", "running", "done"]
JobPhase = Literal["preparing", "ready", "refused"]


@dataclass(slots=True)
class Lease:
    """One held lease. ``unacked``: first indices of parts made and not acknowledged."""

    token: int
    slot: int
    job: str
    first: int
    count: int
    phase: Phase = "queued"
    dispatched: bool = False
    unacked: set[int] = field(default_factory=set)


class WorkerState:
    """The machine of one worker with ``slots`` slots."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._leases: dict[int, Lease] = {}  # in order of arrival
        self._jobs: dict[str, JobPhase] = {}
        self._refused: dict[str, m.JobBlocked] = {}
        self._slot_states: dict[int, tuple[str, str]] = {}
        self._paused = False
        self._leaving: str | None = None
        self._left = False
        self._asked_at: Monotonic | None = None  # when its owner wanted it to stop
        self._stop_at: Monotonic | None = None  # when the grace for that ends
        self._away_since: Monotonic | None = None

    # -- reading
    def lease(self, token: int) -> Lease | None:
        return self._leases.get(token)

    def held(self) -> tuple[m.Held, ...]:
        """What a Resume lists."""
        return tuple((x.token, x.job, x.first, x.count, x.phase) for x in self._leases.values())[:MAX_HELD]

    def is_job_known(self, job: str) -> bool:
        return job in self._jobs

    def is_idle(self) -> bool:
        return not self._leases

    def next_deadline(self) -> Monotonic | None:
        if self._stop_at is None or self._asked_at is None or self._away_since is None:
            return self._stop_at
        return min(self._stop_at, Monotonic(max(self._asked_at, self._away_since) + AWAY_GRACE_S))

    # -- events
    def handle(self, event: Event, now: Monotonic) -> tuple[Effect, ...]:
        """Apply one event; an event about an unknown token or job changes nothing."""
        effects = self._react(event, now)
        if self._leaving is not None and not self._leases and not self._left:
            self._left = True
            self._stop_at = None
            effects.append(Leave(self._leaving))
        return tuple(effects)

    def _react(self, event: Event, now: Monotonic) -> list[Effect]:
        match event:
            case RunCame():
                return self._on_run(event)
            case JobCame():
                return self._on_job(event)
            case JobReady():
                return self._on_ready(event)
            case JobRefused():
                return self._on_refused(event)
            case JobEnded():
                return self._on_job_ended(event)
            case BatchBegan():
                self._on_began(event)
                return []
            case PartMade():
                return self._on_part(event)
            case Acked():
                return self._on_acked(event)
            case LeaseGone():
                return self._drop(event.token, event.reason)
            case RecallCame():
                return self._on_recall(event)
            case GiveBack():
                known = event.token in self._leases
                return [*self._drop(event.token, "given-back"), Tell(m.Recalled(event.token, True))] if known else []
            case SlotChanged():
                return self._on_slot(event)
            case LinkUp():
                return self._on_link(event)
            case LinkDown():
                self._away_since = now if self._away_since is None else self._away_since
                return []
            case DrainCame():
                return self._on_drain(event)
            case UndrainCame():
                return self._on_undrain()
            case StopAsked():
                return self._on_stop(event, now)
            case Tick():
                return self._on_tick(now)
            case _:
                assert_never(event)

    def _on_run(self, event: RunCame) -> list[Effect]:
        if event.token in self._leases:
            return []  # the same Run again, after a reconnect
        lease = Lease(event.token, event.slot, event.job, event.first, event.count)
        phase = self._jobs.get(event.job)
        ahead = sum(1 for x in self._leases.values() if x.slot == event.slot and x.phase != "done")
        if phase is None or phase == "refused":
            unknown = m.JobBlocked(event.job, "job-unknown", "a batch came before its job was described")
            return [ForgetLease(event.token), Tell(self._refused.get(event.job, unknown)), Tell(m.Recalled(event.token, True))]
        if self._is_closed or event.slot >= self.slots or ahead >= QUEUE_LIMIT or len(self._leases) >= MAX_HELD:
            return [ForgetLease(event.token), Tell(m.Recalled(event.token, True))]
        self._leases[event.token] = lease
        return self._dispatch(event.job) if phase == "ready" else []

    def _on_job(self, event: JobCame) -> list[Effect]:
        if self._jobs.get(event.job) in ("preparing", "ready"):
            return []
        self._jobs[event.job] = "preparing"
        self._refused.pop(event.job, None)
        return [PrepareJob(event.job)]

    def _on_ready(self, event: JobReady) -> list[Effect]:
        if event.job not in self._jobs:
            return []
        self._jobs[event.job] = "ready"
        return self._dispatch(event.job)

    def _dispatch(self, job: str) -> list[Effect]:
        effects: list[Effect] = []
        for lease in self._leases.values():
            if lease.job == job and not lease.dispatched:
                lease.dispatched = True
                effects.append(Dispatch(lease.slot, lease.token))
        return effects

    def _on_refused(self, event: JobRefused) -> list[Effect]:
        if event.job not in self._jobs:
            return []
        self._jobs[event.job] = "refused"
        self._refused[event.job] = m.JobBlocked(event.job, event.code, event.text)
        effects: list[Effect] = [Tell(self._refused[event.job])]
        for token in [x.token for x in self._leases.values() if x.job == event.job and x.phase == "queued"]:
            effects += [*self._drop(token, "job-blocked"), Tell(m.Recalled(token, True))]
        return [*effects, CloseJob(event.job)]

    def _on_job_ended(self, event: JobEnded) -> list[Effect]:
        if self._jobs.pop(event.job, None) is None:
            return []
        self._refused.pop(event.job, None)
        effects: list[Effect] = []
        for token in [x.token for x in self._leases.values() if x.job == event.job]:
            effects += self._drop(token, "job-over")
        return [*effects, CloseJob(event.job)]

    def _on_began(self, event: BatchBegan) -> None:
        lease = self._leases.get(event.token)
        if lease is not None and lease.phase == "queued":
            lease.phase = "running"

    def _on_part(self, event: PartMade) -> list[Effect]:
        lease = self._leases.get(event.token)
        if lease is None:
            return [ForgetPart(event.token, event.first)]
        lease.unacked.add(event.first)
        if event.last:
            lease.phase = "done"
        return []

    def _on_acked(self, event: Acked) -> list[Effect]:
        effects: list[Effect] = []
        for token, first in event.parts:
            lease = self._leases.get(token)
            if lease is None or first not in lease.unacked:
                continue
            lease.unacked.discard(first)
            if lease.phase == "done" and not lease.unacked:
                del self._leases[token]
                effects.append(ForgetLease(token))
            else:
                effects.append(ForgetPart(token, first))
        return effects

    def _drop(self, token: int, reason: str) -> list[Effect]:
        lease = self._leases.pop(token, None)
        if lease is None:
            return []
        effects: list[Effect] = []
        if lease.dispatched and lease.phase != "done":
            effects.append(Withdraw(lease.slot, token, reason))
        return [*effects, ForgetLease(token)]

    def _on_recall(self, event: RecallCame) -> list[Effect]:
        lease = self._leases.get(event.token)
        if lease is None or lease.phase != "queued":
            return [Tell(m.Recalled(event.token, False))]
        return [*self._drop(event.token, "recalled"), Tell(m.Recalled(event.token, True))]

    def _on_slot(self, event: SlotChanged) -> list[Effect]:
        said = self._slot_states.get(event.slot, ("idle", ""))
        if said == (event.state, event.reason):
            return []
        self._slot_states[event.slot] = (event.state, event.reason)
        return [Tell(m.SlotState(event.slot, event.state, event.reason[:300]))]

    def _on_link(self, event: LinkUp) -> list[Effect]:
        effects: list[Effect] = []
        self._away_since = None
        if event.keep is not None:
            keep = set(event.keep)
            for token in [t for t in self._leases if t not in keep]:
                effects += self._drop(token, "not-resumed")
        # what the other side has missed: everything it does not know by itself
        for slot, (state, why) in sorted(self._slot_states.items()):
            if state != "idle":
                effects.append(Tell(m.SlotState(slot, state, why[:300])))
        effects += [Tell(blocked) for blocked in self._refused.values()]
        if self._paused:
            effects += self._say_paused("paused")
        return effects

    @property
    def _is_closed(self) -> bool:
        return self._paused or self._leaving is not None

    def _say_paused(self, state: str) -> list[Effect]:
        return [Tell(m.SlotState(slot, state, "drained by the chief" if state == "paused" else "")) for slot in range(self.slots)]

    def _on_drain(self, event: DrainCame) -> list[Effect]:
        if not event.pause:
            self._leaving = self._leaving or "drained"
            return []
        if self._paused:
            return []
        self._paused = True
        return self._say_paused("paused")

    def _on_undrain(self) -> list[Effect]:
        if not self._paused:
            return []
        self._paused = False
        return self._say_paused("idle")

    def _on_stop(self, event: StopAsked, now: Monotonic) -> list[Effect]:
        self._leaving = "stopped"
        self._asked_at, self._stop_at = now, Monotonic(now + event.grace_s)
        effects: list[Effect] = []
        for token in [x.token for x in self._leases.values() if x.phase == "queued"]:
            effects += [*self._drop(token, "stopped"), Tell(m.Recalled(token, True))]
        return effects

    def _on_tick(self, now: Monotonic) -> list[Effect]:
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return []
        self._stop_at = None
        effects: list[Effect] = []
        for token in list(self._leases):
            effects += self._drop(token, "stopped")
        return effects

    def validate(self) -> None:
        """Check every invariant. Raises `InvariantBroken`."""
        unfinished: dict[int, int] = {}
        for token, lease in self._leases.items():
            if token != lease.token or not 0 <= lease.slot < self.slots:
                raise InvariantBroken("lease filed wrongly", token=token, slot=lease.slot)
            if lease.phase != "queued" and not lease.dispatched:
                raise InvariantBroken("a batch ran that was never dispatched", token=token)
            if lease.phase == "done" and not lease.unacked:
                raise InvariantBroken("a finished lease with nothing left to acknowledge is still held", token=token)
            if lease.job not in self._jobs:
                raise InvariantBroken("lease of a job that is not known", token=token, job=lease.job)
            if lease.phase != "done":
                unfinished[lease.slot] = unfinished.get(lease.slot, 0) + 1
        if any(count > QUEUE_LIMIT for count in unfinished.values()):
            raise InvariantBroken("a slot holds more batches than it may", slots=unfinished)
        if self._left and self._leases:
            raise InvariantBroken("left while holding leases", count=len(self._leases))
