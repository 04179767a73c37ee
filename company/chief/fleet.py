"""Workers as users see and handle them: part of the port `company.chief.facade.Chief` (I/O through the gate)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from company import views
from company.chief import events as ev
from company.chief.engine import Engine
from company.chief.facade import Invalid, Principal
from company.chief.gate import Gate, machine_of, spec_of
from company.chief.job_views import reason_view
from company.chief.rest_calls import MEND_ADDRESS
from company.chief.sessions import Sessions
from company.chief.store.workers import WorkerRow
from p2p.base.errors import Action, Reason

NOBODY_WORKS = (
    "no-workers",
    "own-worker-ended",
    "worker-away",
    "worker-offline",
)  # reasons that a worker whom the chief cannot call may be behind
MAX_TOLD = 5
STORED_STATE = {"pause": "paused", "resume": "active", "release": "active", "drain": "active", "quarantine": "quarantined"}


class Fleet:
    """Views and changes of workers."""

    def __init__(
        self, *, gate: Gate, engine: Engine, sessions: Sessions, on_change: Callable[[str, str], None],
        troubles: Callable[[], Mapping[str, str]],
    ) -> None:  # fmt: skip
        self._troubles = troubles  # why the chief cannot call workers, by their ids
        self._gate = gate
        self._engine = engine
        self._sessions = sessions
        self._on_change = on_change

    def list_workers(self) -> list[views.WorkerView]:
        return [self._view(row) for row in sorted(self._gate.workers.values(), key=lambda r: (r.name, r.id))]

    def worker(self, ref: str) -> views.WorkerView:
        return self._view(self._gate.find_worker(ref))

    async def change_worker(self, ref: str, action: str, *, by: Principal) -> views.WorkerView:
        row = self._gate.find_worker(ref)
        if action == "rm":
            view = self._view(row)
            self._engine.post(ev.WorkerChanged(worker=row.id, action="rm"))
            await self._gate.remove_worker(row.id)
            await self._sessions.expel(row.id)
            return view
        if action not in STORED_STATE:
            raise Invalid("action-unknown", f"There is no action {action!r} on a worker.")
        await self._gate.save_worker(replace(row, state=STORED_STATE[action]))
        self._engine.post(ev.WorkerChanged(worker=row.id, action=action))
        self._on_change("worker", row.id)
        return self.worker(row.id)

    def and_unreachable(self, reasons: list[views.ReasonView]) -> list[views.ReasonView]:
        """Why a job waits, and behind it which workers the chief cannot call, where that may be why nobody works."""
        if not any(reason.code in NOBODY_WORKS for reason in reasons):
            return reasons
        deaf = [w.reason for w in self.list_workers() if w.reason is not None and w.reason.code == "worker-unreachable"]
        return [*reasons, *deaf[:MAX_TOLD]]

    def own_worker(self, slots: int, ended: int | None) -> None:
        """The chief's own worker was started, or ended with this status."""
        self._engine.post(ev.OwnWorker(slots=slots, ended=ended))

    @property
    def has_own_worker(self) -> bool:
        """Whether the chief runs a worker of its own, which may still be starting."""
        return self._engine.state.own_worker is not None

    def counts(self) -> dict[str, int]:
        """Workers by state."""
        found: dict[str, int] = {}
        for view in self.list_workers():
            found[view.state] = found.get(view.state, 0) + 1
        return found

    def _view(self, row: WorkerRow) -> views.WorkerView:
        live = self._engine.state.slots.workers.get(row.id)
        machine = machine_of(row)
        leases = self._engine.state.leases.of_worker(row.id)
        busy = len({lease.slot for lease in leases})
        spec = spec_of(row.id, machine) if machine is not None else None
        state, reason = self._state(row, busy)
        session = self._sessions.open.get(row.id)
        broken = sorted({text for kind, text in session.slot_states.values() if kind == "broken"}) if session is not None else []
        if broken and reason is None:
            reason = Reason("slot-broken", broken[0], {"slots": len(broken)}, (Action("look at its isolation", "company doctor"),))
        return views.WorkerView(
            id=row.id, name=row.name, state=state, reason=reason_view(reason), slots=spec.slots if spec else 0, slots_busy=busy,  # type: ignore[arg-type]
            cores=spec.cores if spec else 0, memory_bytes=spec.memory_bytes if spec else 0, python=spec.python if spec else "",
            platform=spec.platform if spec else "", isolation=spec.isolation if spec else "", rate=live.rate if live else row.rate,
            last_seen=self._last_seen(row), joined=row.joined, address=row.address, via=row.via, transport=row.transport,
            version=spec.version if spec else "", jobs=sorted({lease.job for lease in leases}),
            clock_skew_s=session.clock_skew_s if session is not None else None,
            owner_load=session.use.load if session is not None and session.use is not None else None,
            on_mains=session.use.on_mains if session is not None and session.use is not None else None,
            requirements_allowed=machine.requirements_allowed if machine is not None else None,
        )  # fmt: skip

    def _last_seen(self, row: WorkerRow) -> float:
        live = self._engine.state.slots.workers.get(row.id)
        if live is None or not live.connected:
            return row.last_seen
        return time.time() - max(0.0, self._engine.now() - live.last_heard)

    def _state(self, row: WorkerRow, busy: int) -> tuple[str, Reason | None]:
        live = self._engine.state.slots.workers.get(row.id)
        if row.state == "quarantined" or (live is not None and live.quarantined):
            return "quarantined", Reason(
                "quarantined", "It gets no work until it is released.", {}, (Action("release", f"company worker release {row.id}"),)
            )
        trouble = self._troubles().get(row.id)
        deaf = (
            Reason("worker-unreachable", f"The chief cannot call {row.name} at {trouble}", {}, (Action(MEND_ADDRESS),)) if trouble else None
        )
        if live is None or not live.connected:
            since = {"last_seen": row.last_seen}
            return "offline", deaf or Reason(
                "offline",
                "No channel is open; it resumes by itself when it can.",
                since,
                (Action("start it there", "company worker join"),),
            )
        if live.paused:
            return "paused", Reason("paused", "Paused by an operator.", {}, (Action("resume", f"company worker resume {row.id}"),))
        if live.draining:
            return "draining", Reason("draining", "It finishes what it holds, then leaves.")
        if busy:
            return "busy", deaf
        return "idle", deaf or Reason("idle", "No fragment waits for it.")
