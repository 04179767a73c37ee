"""The workers of `tests.support.chief_world`: what they hold, run, lose and say (pure, virtual time)."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from company.chief import events as ev
from p2p.base.errors import Reason

FLUSH_S = 0.25
LATENCY_S = 0.0004


@dataclass
class FakeJob:
    """What a job is made of. ``durations``: seconds per fragment on a worker of speed 1."""

    id: str
    durations: np.ndarray
    spec: ev.JobSpec
    sizes: np.ndarray
    costs: list[float] | None = None
    raises: dict[int, int] = field(default_factory=dict)  # fragment -> how often it raises
    crashes: dict[int, int] = field(default_factory=dict)  # fragment -> how often it kills its child
    killers: frozenset[int] = frozenset()  # fragments that kill their worker, always
    count_known: bool = True
    chunk_s: float = 0.0  # time that split takes for a chunk
    split_version: int = 0
    # on the chief's disk
    done: np.ndarray = field(init=False)
    dead: set[int] = field(default_factory=set)
    tries: dict[int, tuple[int, int]] = field(default_factory=dict)
    restarts: int = 0
    paused: bool = False
    over: ev.JobOver | None = None
    merges: int = 0

    def __post_init__(self) -> None:
        self.done = np.zeros(len(self.durations), dtype=np.int64)


@dataclass
class Held:
    """A lease as a worker holds it."""

    token: int
    slot: int
    job: str
    first: int
    count: int
    version: int
    phase: str = "queued"
    unacked: dict[int, ev.OutcomeArrived | ev.FragmentDied] = field(default_factory=dict)


class FakeWorker:
    """A worker process: keeps what it holds when its line breaks, loses it when it is killed."""

    def __init__(self, name: str, slots: int, speed: float, **offer: Any) -> None:
        self.spec = ev.WorkerSpec(id=name, name=name, slots=slots, memory_bytes=8 << 30, **offer)
        self.speed = speed
        self.held: dict[int, Held] = {}
        self.queues: list[deque[int]] = [deque() for _ in range(slots)]
        self.session = 0  # 0: not connected
        self.life = 0
        self.is_alive = True
        self.is_stopped = False
        self.cut_until = 0.0  # no connection comes through before
        self.busy_s = 0.0
        self.rejects = False  # gives every batch back at once, as a worker that leaves does


class WorkerSide:
    """The half of a world that is workers and their lines."""

    now: float
    boot: int
    rng: np.random.Generator
    jobs: dict[str, FakeJob]
    workers: dict[str, FakeWorker]
    is_down: bool
    duplicate_p: float
    bounced: int
    at: Callable[[float, Callable[[], None]], None]
    post: Callable[[ev.Event], tuple[ev.Effect, ...]]
    _numbers: itertools.count[int]
    _channel_at: dict[tuple[str, str], float]

    # ---- workers -------------------------------------------------------------------------------------------------------
    def add_worker(self, name: str, slots: int = 1, speed: float = 1.0, **offer: Any) -> FakeWorker:
        worker = FakeWorker(name, slots, speed, **offer)
        self.workers[name] = worker
        self.connect(worker)
        return worker

    def connect(self, worker: FakeWorker) -> None:
        """Open a channel and say what is held."""
        if worker.session or not worker.is_alive or worker.is_stopped or self.is_down:
            return
        if self.now < worker.cut_until:
            self.at(worker.cut_until, lambda: self.connect(worker))
            return
        worker.session = next(self._numbers)
        held = tuple((h.token, h.job, h.first, h.count) for h in worker.held.values())
        self.post(ev.WorkerHere(spec=worker.spec, held=held))

    def disconnect(self, worker: FakeWorker, *, for_s: float, said_bye: bool = False) -> None:
        """The line breaks; the worker goes on and comes back."""
        if worker.session:
            worker.session = 0
            self.post(ev.WorkerGone(worker=worker.spec.id, said_bye=said_bye))
        self.at(self.now + for_s, lambda: self.connect(worker))

    def stop(self, worker: FakeWorker, *, for_s: float) -> None:
        """SIGSTOP: nothing runs and nothing is said; the chief sees silence."""
        if not worker.is_alive or worker.is_stopped:
            return
        worker.is_stopped = True
        if worker.session:
            worker.session = 0
            self.post(ev.WorkerGone(worker=worker.spec.id))

        def go_on() -> None:
            worker.is_stopped = False
            for queue in worker.queues:
                if queue and worker.held[queue[0]].phase == "running":
                    self._begin(worker, queue[0])
            self.connect(worker)

        self.at(self.now + for_s, go_on)

    def kill(self, worker: FakeWorker, *, back_after_s: float | None) -> None:
        """kill -9: all it held is lost."""
        if not worker.is_alive:
            return
        worker.life += 1
        worker.is_alive = False
        worker.held.clear()
        worker.queues = [deque() for _ in worker.queues]
        if worker.session:
            worker.session = 0
            self.post(ev.WorkerGone(worker=worker.spec.id))
        if back_after_s is not None:
            self.at(self.now + back_after_s, lambda: self._revive(worker))

    def _revive(self, worker: FakeWorker) -> None:
        worker.is_alive = True
        self.connect(worker)

    def change_worker(self, worker: FakeWorker, action: str) -> None:
        """What an operator says about a worker."""
        self.post(ev.WorkerChanged(worker=worker.spec.id, action=action))

    def refuse(self, worker: FakeWorker, *, for_s: float) -> None:
        """It gives every batch back unasked, for a while."""
        worker.rejects = True
        self.at(self.now + for_s, lambda: setattr(worker, "rejects", False))

    def block(self, worker: FakeWorker, job: str) -> None:
        """It cannot run this job, until it connects again."""
        if worker.session:
            reason = Reason("requirement-missing", "this machine lacks pandas")
            self.post(ev.WorkerBlocked(worker=worker.spec.id, job=job, reason=reason))
            self.disconnect_later(worker)

    def disconnect_later(self, worker: FakeWorker) -> None:
        self.at(self.now + 20.0, lambda: self.disconnect(worker, for_s=0.5))

    def _to_worker(self, name: str, deliver: Callable[[FakeWorker], None]) -> None:
        worker = self.workers[name]
        session = worker.session
        if session:
            self._ordered((name, "down"), lambda: deliver(worker) if worker.session == session and not worker.is_stopped else None)

    def _to_chief(self, worker: FakeWorker, event: ev.Event) -> None:
        session, boot = worker.session, self.boot
        if session:
            self._ordered((worker.spec.id, "up"), lambda: self._arrive(worker, session, boot, event))

    def _ordered(self, channel: tuple[str, str], what: Callable[[], None]) -> None:
        when = max(self._channel_at.get(channel, 0.0) + 1e-9, self.now + LATENCY_S * float(self.rng.uniform(0.5, 3.0)))
        self._channel_at[channel] = when
        self.at(when, what)

    def _arrive(self, worker: FakeWorker, session: int, boot: int, event: ev.Event) -> None:
        if worker.session != session or boot != self.boot:
            return
        self.post(event)
        if self.duplicate_p and self.rng.random() < self.duplicate_p and isinstance(event, ev.OutcomeArrived | ev.FragmentDied):
            self.post(event)

    def _ack(self, name: str, token: int, first: int) -> None:
        def acked(worker: FakeWorker) -> None:
            held = worker.held.get(token)
            if held is not None:
                held.unacked.pop(first, None)
                if held.phase == "done" and not held.unacked:
                    del worker.held[token]

        self._to_worker(name, acked)

    def _on_run(self, worker: FakeWorker, run: ev.SendRun) -> None:
        job = self.jobs[run.job]
        unfinished = [t for t in worker.queues[run.slot] if worker.held[t].phase != "done"]
        if len(unfinished) >= 2:
            self.bounced += 1  # after a restart the chief does not know which slot holds what; the worker gives it back
        if worker.rejects or len(unfinished) >= 2:
            self._to_chief(worker, ev.Recalled(worker=worker.spec.id, token=run.token, given_back=True))
            return
        worker.held[run.token] = Held(run.token, run.slot, run.job, run.first, run.count, job.split_version)
        worker.queues[run.slot].append(run.token)
        if worker.queues[run.slot][0] == run.token:
            self._begin(worker, run.token)

    def _begin(self, worker: FakeWorker, token: int) -> None:
        """Plan the parts of a batch; a death ends the plan."""
        held = worker.held[token]
        held.phase = "running"
        job = self.jobs[held.job]
        life, at, start = worker.life, self.now + 0.0005, held.first
        done_before = max((e.first + e.count for e in held.unacked.values() if isinstance(e, ev.OutcomeArrived)), default=held.first)
        start = max(start, done_before)
        ends = at + np.cumsum(job.durations[start : held.first + held.count]) / worker.speed
        part_first, flush_at = start, at + FLUSH_S
        for offset, end in enumerate(ends.tolist()):
            index = start + offset
            is_fatal = index in job.killers or job.crashes.get(index, 0) > 0
            is_last = index == held.first + held.count - 1
            if is_fatal:
                if index > part_first:
                    self._plan_part(worker, life, held, part_first, index - part_first, end, last=False)
                self.at(end, lambda index=index: self._fatal(worker, life, held, index))  # type: ignore[misc]
                return
            if is_last or end >= flush_at:
                self._plan_part(worker, life, held, part_first, index + 1 - part_first, end, last=is_last)
                part_first, flush_at = index + 1, end + FLUSH_S

    def _plan_part(self, worker: FakeWorker, life: int, held: Held, first: int, count: int, when: float, *, last: bool) -> None:
        self.at(when, lambda: self._part(worker, life, held, first, count, last=last))

    def _is_running(self, worker: FakeWorker, life: int, held: Held) -> bool:
        is_up = worker.life == life and worker.is_alive and not worker.is_stopped
        return is_up and worker.held.get(held.token) is held and held.phase == "running"

    def _part(self, worker: FakeWorker, life: int, held: Held, first: int, count: int, *, last: bool) -> None:
        if not self._is_running(worker, life, held):
            return
        job = self.jobs[held.job]
        span = range(first, first + count)
        raised = tuple(i for i in span if job.raises.get(i, 0) > 0) if job.raises else ()
        for i in raised:
            job.raises[i] -= 1
        ok = tuple(runs(np.setdiff1d(np.arange(first, first + count), np.array(raised, dtype=np.int64)))) if raised else ((first, count),)
        seconds = float(job.durations[first : first + count].sum()) / worker.speed
        worker.busy_s += seconds
        event = ev.OutcomeArrived(
            worker=worker.spec.id, token=held.token, job=held.job, first=first, count=count, last=last, ok=ok, raised=raised,
            run_us=round(seconds * 1e6),
        )  # fmt: skip
        held.unacked[first] = event
        self._to_chief(worker, event)
        if last:
            self._end(worker, held)

    def _fatal(self, worker: FakeWorker, life: int, held: Held, index: int) -> None:
        if not self._is_running(worker, life, held):
            return
        job = self.jobs[held.job]
        if index in job.killers:
            self.kill(worker, back_after_s=float(self.rng.uniform(0.5, 3.0)))
            return
        job.crashes[index] -= 1
        event = ev.FragmentDied(worker=worker.spec.id, token=held.token, job=held.job, index=index, cause="crashed")
        held.unacked[index] = event
        self._to_chief(worker, event)
        self._end(worker, held)

    def _end(self, worker: FakeWorker, held: Held) -> None:
        held.phase = "done"
        queue = worker.queues[held.slot]
        queue.remove(held.token)
        if queue and worker.held[queue[0]].phase == "queued":
            self._begin(worker, queue[0])

    def _drop(self, worker: FakeWorker, token: int) -> None:
        held = worker.held.pop(token, None)
        if held is None or held.phase == "done":
            return
        queue = worker.queues[held.slot]
        queue.remove(token)
        if queue and worker.held[queue[0]].phase == "queued":
            self._begin(worker, queue[0])

    def _on_recall(self, worker: FakeWorker, token: int) -> None:
        held = worker.held.get(token)
        is_free = held is not None and held.phase == "queued"
        if is_free:
            self._drop(worker, token)
        self._to_chief(worker, ev.Recalled(worker=worker.spec.id, token=token, given_back=is_free))

    def _on_resumed(self, worker: FakeWorker, effect: ev.SendResumed) -> None:
        for token, _ in effect.drop:
            self._drop(worker, token)
        keep = set(effect.keep)
        for token in [t for t in worker.held if t not in keep and t < (self.boot << 40)]:
            self._drop(worker, token)
        for token in effect.keep:
            held = worker.held.get(token)
            for event in list(held.unacked.values()) if held is not None else ():
                self._to_chief(worker, event)


def runs(indices: np.ndarray) -> list[tuple[int, int]]:
    """Maximal runs of consecutive numbers, as (first, count)."""
    if not len(indices):
        return []
    cuts = np.flatnonzero(np.diff(indices) != 1) + 1
    return [(int(part[0]), len(part)) for part in np.split(indices, cuts)]
