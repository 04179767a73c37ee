"""A company in virtual time around the real `ChiefState`: fake workers, splits, a disk and a merge (pure, seeded by its caller).

Nothing sleeps: an event heap is the clock. The world keeps its own account of what was accepted, so that a test can say that every
fragment was accepted exactly once, whatever was lost, repeated or killed on the way.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from company.chief import events as ev
from company.chief.state import ChiefState
from p2p.base.clock import Monotonic
from p2p.base.errors import Reason

FLUSH_S = 0.25
LATENCY_S = 0.0004
COMMIT_S = 0.003
CHUNK = 4096


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
        self.busy_s = 0.0
        self.rejects = False  # gives every batch back at once, as a worker that leaves does


class World:
    """One chief and its company."""

    def __init__(self, rng: np.random.Generator, *, check: bool = True) -> None:
        self.rng = rng
        self.check = check
        self.now = 0.0
        self.boot = 1
        self.state = ChiefState(boot=1)
        self.jobs: dict[str, FakeJob] = {}
        self.workers: dict[str, FakeWorker] = {}
        self.steps = 0
        self.log: list[tuple[float, object]] = []
        self.duplicate_p = 0.0
        self.copies = 0
        self.bounced = 0
        self.told: list[ev.Tell] = []
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        self._channel_at: dict[tuple[str, str], float] = {}
        self._commits: deque[Callable[[], None]] = deque()
        self._is_full = False
        self.is_down = False
        self._tick_at: float | None = None
        self._split_runs: dict[str, int] = {}

    # ---- time ----------------------------------------------------------------------------------------------------------
    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(when, self.now), next(self._numbers), what))

    def step(self) -> bool:
        """Let the next thing happen; False when nothing ever will."""
        if not self._heap:
            return False
        self.now, _, what = heapq.heappop(self._heap)
        self.steps += 1
        what()
        return True

    def run(self, until: Callable[[], bool], *, max_steps: int = 500_000, max_s: float = 1e6) -> None:
        """Go on until the condition holds; fails when it never will."""
        start = self.steps
        while not until():
            assert self.steps - start < max_steps, f"no end after {max_steps} steps at {self.now:.1f} s: {self.why()}"
            assert self.now <= max_s, f"not yet at {self.now:.1f} s: {self.why()}"
            assert self.step(), f"nothing will ever happen any more at {self.now:.1f} s: {self.why()}"

    def run_for(self, seconds: float) -> None:
        """Go on for some virtual time."""
        until = self.now + seconds
        while self._heap and self._heap[0][0] <= until:
            self.step()
        self.now = until

    def why(self) -> list[str]:
        return [f"{j.id} {j.phase}: {j.reason.code if j.reason else None}" for j in self.state.jobs.values()]

    def all_over(self) -> bool:
        return all(job.over is not None for job in self.jobs.values())

    # ---- the chief -----------------------------------------------------------------------------------------------------
    def post(self, event: ev.Event) -> tuple[ev.Effect, ...]:
        """Hand an event to the machine and do what it says."""
        if self.is_down:
            return ()
        effects = self.state.handle(event, Monotonic(self.now))
        if self.check:
            self.state.validate()
            for job in self.state.jobs.values():
                assert job.reason is not None and job.reason.text and job.reason.actions, f"{job.id} {job.phase} has no reason"
        for effect in effects:
            self._perform(effect, event)
        if isinstance(event, ev.FragmentDied) and not any(isinstance(e, ev.KeepFailure) for e in effects):
            self._ack(event.worker, event.token, event.index)
        self._plan_tick()
        return effects

    def _plan_tick(self) -> None:
        due = self.state.next_deadline()
        if due is not None and (self._tick_at is None or due < self._tick_at):
            self._tick_at = due
            self.at(due, lambda boot=self.boot: self._tick(boot))  # type: ignore[misc]

    def _tick(self, boot: int) -> None:
        self._tick_at = None
        if boot != self.boot:
            self._plan_tick()
            return
        due = self.state.next_deadline()
        if due is not None and due <= self.now:
            self.post(ev.Tick())
            after = self.state.next_deadline()
            assert after is None or after > self.now, "a deadline that does not move"
        else:
            self._plan_tick()

    def _perform(self, effect: ev.Effect, cause: ev.Event) -> None:
        match effect:
            case ev.SendRun():
                self._to_worker(effect.worker, lambda w: self._on_run(w, effect))
                self.copies += cause is not None and self.state.leases.get(effect.token) is not None and self.is_copy(effect.token)
            case ev.SendCancel() | ev.SendStale():
                self._to_worker(effect.worker, lambda w: self._drop(w, effect.token))
            case ev.SendRecall():
                self._to_worker(effect.worker, lambda w: self._on_recall(w, effect.token))
            case ev.SendResumed():
                self._to_worker(effect.worker, lambda w: self._on_resumed(w, effect))
            case ev.SendDrain():
                pass
            case ev.Accept():
                assert isinstance(cause, ev.OutcomeArrived)
                self._commit(lambda: self._on_disk(effect, cause))
            case ev.Refuse():
                assert isinstance(cause, ev.OutcomeArrived)
                self._ack(cause.worker, cause.token, cause.first)
            case ev.KeepFailure():
                self._commit(lambda: self._keep_failure(effect))
                if isinstance(cause, ev.FragmentDied):
                    self._ack(cause.worker, cause.token, cause.index)
            case ev.StartSplit():
                self._start_split(effect.job)
            case ev.StopSplit():
                self._split_runs[effect.job] = self._split_runs.get(effect.job, 0) + 1
            case ev.DropResults():
                self._commit(lambda: self._drop_results(effect.job))
            case ev.StartMerge():
                self._merge(effect.job)
            case ev.JobOver():
                self.jobs[effect.job].over = effect
                for worker in self.workers.values():
                    for token in [t for t, h in worker.held.items() if h.job == effect.job]:
                        self._to_worker(worker.spec.id, lambda w, token=token: self._drop(w, token))  # type: ignore[misc]
            case ev.Tell():
                self.told.append(effect)
            case ev.SaveJob() | ev.PrepareMerge() | ev.FreeWindow():
                pass

    def is_copy(self, token: int) -> bool:
        return self.state._books.notes[token].is_copy

    def restart(self, *, down_s: float = 0.5) -> None:
        """kill -9 of the chief: what was not on disk is gone; it starts again and the workers come back."""
        self.boot += 1
        self._commits.clear()
        self._split_runs = {j: n + 1 for j, n in self._split_runs.items()}
        for worker in self.workers.values():
            worker.session = 0
        self.state = ChiefState(boot=self.boot)
        self.is_down = True
        self._is_full = False
        self.at(self.now + down_s, lambda boot=self.boot: self._start_again(boot))  # type: ignore[misc]

    def _start_again(self, boot: int) -> None:
        if boot != self.boot:
            return
        self.is_down = False
        self.state.hold_for({w.spec.id for w in self.workers.values()}, Monotonic(self.now))
        for job in self.jobs.values():
            if job.over is None:
                self._add_to_machine(job)
        for worker in self.workers.values():
            if worker.is_alive and not worker.is_stopped:
                self.at(self.now + float(self.rng.uniform(0.01, 2.0)), lambda w=worker: self.connect(w) if boot == self.boot else None)  # type: ignore[misc]

    def _add_to_machine(self, job: FakeJob) -> None:
        done = np.flatnonzero(job.done)
        self.post(
            ev.JobAdded(
                spec=job.spec, done=tuple(runs(done)), dead=tuple(sorted(job.dead)),
                tries=tuple((i, a, b) for i, (a, b) in sorted(job.tries.items())), paused=job.paused, restarts=job.restarts,
            )
        )  # fmt: skip

    # ---- the disk ------------------------------------------------------------------------------------------------------
    def disk(self, *, full: bool) -> None:
        if self.is_down:
            return
        self._is_full = full
        self.post(ev.DiskState(full=full))
        if not full:
            self.at(self.now + COMMIT_S, lambda boot=self.boot: self._flush(boot))  # type: ignore[misc]

    def _commit(self, what: Callable[[], None]) -> None:
        self._commits.append(what)
        self.at(self.now + COMMIT_S, lambda boot=self.boot: self._flush(boot))  # type: ignore[misc]

    def _flush(self, boot: int) -> None:
        while self._commits and boot == self.boot and not self._is_full:
            self._commits.popleft()()

    def _on_disk(self, effect: ev.Accept, cause: ev.OutcomeArrived) -> None:
        job = self.jobs[effect.job]
        for first, count in effect.ranges:
            job.done[first : first + count] += 1
        self._ack(cause.worker, cause.token, cause.first)
        self.post(ev.Committed(job=effect.job, ranges=effect.ranges))

    def _keep_failure(self, effect: ev.KeepFailure) -> None:
        job = self.jobs[effect.job]
        job.tries[effect.index] = (effect.tries, effect.infra_tries)
        if effect.final:
            job.dead.add(effect.index)

    def _drop_results(self, name: str) -> None:
        job = self.jobs[name]
        job.done[:] = 0
        job.dead.clear()
        job.tries.clear()
        job.restarts += 1

    # ---- jobs ----------------------------------------------------------------------------------------------------------
    def submit(self, name: str, durations: np.ndarray | list[float], *, sizes: np.ndarray | None = None, **more: Any) -> FakeJob:
        """Add a job; keyword arguments are those of `FakeJob` and of `JobSpec`."""
        parts = {k: more.pop(k) for k in list(more) if k in FakeJob.__dataclass_fields__}
        spec = ev.JobSpec(id=name, owner=more.pop("owner", "ann"), package=b"p", processor=b"q", dataset=b"d", name=name, **more)
        array = np.asarray(durations, dtype=np.float64)
        job = FakeJob(name, array, spec, sizes if sizes is not None else np.full(len(array), 100, dtype="<u4"), **parts)
        self.jobs[name] = job
        self._add_to_machine(job)
        return job

    def change(self, name: str, action: str, **args: Any) -> None:
        """A user's wish."""
        if name in self.state.jobs and not self.is_down:
            self.jobs[name].paused = action == "pause" or (self.jobs[name].paused and action != "resume")
            self.post(ev.JobChanged(job=name, action=action, args=args))

    def _start_split(self, name: str) -> None:
        run = self._split_runs[name] = self._split_runs.get(name, 0) + 1
        job = self.jobs[name]
        if job.count_known:
            self._from_split(name, run, 0.001, ev.SplitCounted(job=name, total=len(job.durations)))
        self._split_chunk(name, run, 0)

    def _from_split(self, name: str, run: int, delay: float, event: ev.Event) -> None:
        boot = self.boot
        self.at(self.now + delay, lambda: self.post(event) and None if (boot, run) == (self.boot, self._split_runs.get(name)) else None)

    def _split_chunk(self, name: str, run: int, first: int) -> None:
        job, boot = self.jobs[name], self.boot

        def made() -> None:
            if (boot, run) != (self.boot, self._split_runs.get(name)):
                return
            count = min(CHUNK, len(job.durations) - first)
            if count <= 0:
                self.post(ev.SplitEnded(job=name, total=len(job.durations)))
                return
            costs = None if job.costs is None else job.costs[first : first + count]
            self.post(ev.SplitProduced(job=name, first=first, sizes=job.sizes[first : first + count], costs=costs))
            self._split_chunk(name, run, first + count)

        self.at(self.now + 0.002 + job.chunk_s, made)

    def differs(self, name: str) -> None:
        """Split turned out to yield other fragments: the content changes."""
        self.jobs[name].split_version += 1
        self.post(ev.SplitDiffers(job=name))

    def _merge(self, name: str) -> None:
        job, boot = self.jobs[name], self.boot
        job.merges += 1
        settled = job.done.copy()
        for first, count in self.state.jobs[name].dead:  # their rows are on their way to the disk, before the row of the job's end
            settled[first : first + count] += 1
        assert (settled == 1).all(), f"{name} is merged with fragments not settled exactly once: {np.flatnonzero(settled != 1)[:5]}"
        self.at(self.now + 0.01, lambda: self.post(ev.MergeEnded(job=name)) and None if boot == self.boot else None)

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
        return worker.life == life and worker.is_alive and not worker.is_stopped and worker.held.get(held.token) is held and held.phase == "running"

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
