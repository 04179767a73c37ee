"""A company in virtual time around the real `ChiefState`: fake workers, splits, a disk and a merge (pure, seeded by its caller).

Nothing sleeps: an event heap is the clock. The world keeps its own account of what was accepted, so that a test can say that every
fragment was accepted exactly once, whatever was lost, repeated or killed on the way.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from company.chief import events as ev
from company.chief.long_leases import LongLease
from company.chief.state import ChiefState
from p2p.base.clock import Monotonic
from tests.support.fake_workers import FakeJob, FakeWorker, WorkerSide, runs

COMMIT_S = 0.003
CHUNK = 4096


class World(WorkerSide):
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
        self.long: dict[int, LongLease] = {}  # rows on disk
        self.rows_written: list[int] = []
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
            case ev.KeepLeases():
                self._commit(lambda: self._keep_leases(effect))
            case ev.SaveJob() | ev.PrepareMerge() | ev.FreeWindow():
                pass

    def _keep_leases(self, effect: ev.KeepLeases) -> None:
        self.long.update((lease.token, lease) for lease in effect.long)
        self.rows_written += [lease.token for lease in effect.long]
        for token in effect.gone:
            self.long.pop(token, None)

    def is_copy(self, token: int) -> bool:
        return self.state._books.notes[token].is_copy

    def restart(self, *, down_s: float = 0.5, back_s: float = 2.0) -> None:
        """kill -9 of the chief: what was not on disk is gone; it starts again and the workers come back within ``back_s``."""
        self.boot += 1
        self._commits.clear()
        self._split_runs = {j: n + 1 for j, n in self._split_runs.items()}
        for worker in self.workers.values():
            worker.session = 0
        self.state = ChiefState(boot=self.boot)
        self.is_down = True
        self._is_full = False
        self.at(self.now + down_s, lambda boot=self.boot: self._start_again(boot, back_s))  # type: ignore[misc]

    def _start_again(self, boot: int, back_s: float) -> None:
        if boot != self.boot:
            return
        self.is_down = False
        self.state.hold_for({w.spec.id for w in self.workers.values()}, Monotonic(self.now))
        self.state.hold_back([self.long[token] for token in sorted(self.long)], Monotonic(self.now))
        for job in self.jobs.values():
            if job.over is None:
                self._add_to_machine(job)
        for worker in self.workers.values():
            if worker.is_alive and not worker.is_stopped:
                self.at(self.now + float(self.rng.uniform(0.01, back_s)), lambda w=worker: self.connect(w) if boot == self.boot else None)  # type: ignore[misc]

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
