"""One company in virtual time: the shipped `ChiefState`, and workers that run for as long as their fragments say (pure).

Workers do what `company.worker` does as far as the chief can tell: one batch runs per slot, one may wait behind it, results stream out
every 250 ms and at the batch's end, an unbegun batch is given back when asked, a batch is dropped when it is cancelled.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from company.chief import events as ev
from company.chief.state import ChiefState
from p2p.base.errors import InvariantBroken
from simulator.chance import Floats, seed_word, unit
from simulator.engine import Engine, Host

FLUSH_S: Final = 0.25  # results stream out this often
LATENCY_S: Final = 0.0004  # one way, in one building; measured 0.2-0.6 ms with both ends awake
WAKE_S: Final = 0.0005  # a sandboxed child begins a batch
COMMIT_S: Final = 0.003  # a group commit
CHUNK: Final = 4096  # fragments that split hands over at once
JOB: Final = "j"


class NeverSlow:
    """No backup copies: the rule that a lease is never late."""

    fences = False

    def observe(self, predicted_s: float | None, observed_s: float) -> None:
        """Learn nothing."""

    def slow_after_s(self, predicted_s: float | None, attempt: int) -> float | None:
        """Never."""
        return None


@dataclass(slots=True)
class _Held:
    token: int
    slot: int
    first: int
    count: int
    sent: int = 0  # fragments whose results are out
    is_running: bool = False


@dataclass(slots=True)
class SimWorker:
    """A machine. ``slow_from_s``: from then on it is ``slow_by`` times slower, which nobody tells the chief."""

    spec: ev.WorkerSpec
    speed: float
    slow_from_s: float = float("inf")
    slow_by: float = 1.0
    queues: list[deque[int]] = field(default_factory=list)
    held: dict[int, _Held] = field(default_factory=dict)
    life: int = 0
    is_here: bool = True
    busy_s: float = 0.0


class CompanyWorld:
    """One chief, its workers and one job."""

    def __init__(
        self, *, durations: Floats, speeds: Floats, slots: int, spec: ev.JobSpec, seed: int, backups: bool, validate_every: int = 0
    ) -> None:
        self.engine = Engine()
        self.chief = ChiefState(boot=1)
        self.host: Host[ev.Event, ev.Effect] = Host(self.engine, self.chief, self._perform, ev.Tick, validate_every=validate_every)
        self.durations = durations
        self.sizes = np.maximum(1, np.rint(durations / max(float(durations.mean()), 1e-12) * 1000)).astype("<u4")
        self.spec, self.backups = spec, backups
        self.key = seed_word(seed, "line")
        self.done = np.zeros(len(durations), dtype=np.int64)
        self.over: ev.JobOver | None = None
        self.ended_at = 0.0
        self.batches = self.copies = self.kicks = self.messages = 0
        self.kicked: list[tuple[float, str]] = []
        self.copied: list[tuple[float, str]] = []
        self.assigned: list[tuple[int, int]] = []  # worker number, bytes of a batch
        self.workers = [
            SimWorker(
                ev.WorkerSpec(id=f"w{i:05d}", name=f"w{i:05d}", slots=slots, memory_bytes=8 << 30),
                float(speed),
                queues=[deque() for _ in range(slots)],
            )
            for i, speed in enumerate(speeds)
        ]
        self._number = {w.spec.id: i for i, w in enumerate(self.workers)}
        self._line: dict[tuple[str, bool], float] = {}

    def run(self, *, max_events: int = 50_000_000) -> None:
        """Run the job to its end. Raises `InvariantBroken` when it has none, or when a fragment was not accepted exactly once."""
        for worker in self.workers:
            self.host.post(ev.WorkerHere(spec=worker.spec))
        self.host.post(ev.JobAdded(spec=self.spec))
        if not self.backups:
            self.chief.jobs[JOB].slowness = NeverSlow()
        self.engine.run_while(lambda: self.over is None, max_events=max_events, why=self._why)
        if self.over is None or self.over.phase != "done" or not bool((self.done == 1).all()):
            raise InvariantBroken(f"the job ended as {self.over and self.over.phase} with fragments not accepted exactly once")

    def _why(self) -> str:
        return "; ".join(f"{j.phase}: {j.reason.code if j.reason else None}" for j in self.chief.jobs.values())

    def crash(self, number: int, *, back_after_s: float) -> None:
        """Kill -9 of one worker: what it held is lost; it comes back."""
        worker = self.workers[number]
        if not worker.is_here or self.over is not None:
            return
        worker.life += 1
        worker.is_here = False
        worker.held.clear()
        worker.queues = [deque() for _ in worker.queues]
        self.host.post(ev.WorkerGone(worker=worker.spec.id))

        def back(_: None) -> None:
            worker.is_here = True
            self.host.post(ev.WorkerHere(spec=worker.spec))

        self.engine.after(back_after_s, back)

    # ---- what the chief wants done -----------------------------------------------------------------------------------
    def _perform(self, effect: ev.Effect, cause: ev.Event) -> None:
        match effect:
            case ev.SendRun():
                self._note_run(effect)
                self._to_worker(effect.worker, lambda w: self._on_run(w, effect))
            case ev.SendCancel() | ev.SendStale():
                self._to_worker(effect.worker, lambda w: self._drop(w, effect.token))
            case ev.SendRecall():
                self._to_worker(effect.worker, lambda w: self._on_recall(w, effect.token))
            case ev.Accept():
                self.engine.after(COMMIT_S, self._on_disk, effect.ranges)
            case ev.StartSplit():
                self.engine.after(0.001, lambda _: self.host.post(ev.SplitCounted(job=JOB, total=len(self.durations))) and None)
                self._split(0)
            case ev.StartMerge():
                self.engine.after(0.01, lambda _: self.host.post(ev.MergeEnded(job=JOB)) and None)
            case ev.JobOver():
                self.over, self.ended_at = effect, self.engine.now
            case ev.Tell(kind="worker-kicked"):
                self.kicks += 1
                self.kicked.append((self.engine.now, effect.text.partition(" ")[0]))
            case ev.Tell(kind="copied"):
                self.copies += 1
                self.copied.append((self.engine.now, effect.text.partition(" late on ")[2].partition(";")[0]))
            case _:
                pass

    def _note_run(self, run: ev.SendRun) -> None:
        self.batches += 1
        self.assigned.append((self._number[run.worker], int(self.sizes[run.first : run.first + run.count].sum())))

    def _on_disk(self, ranges: tuple[ev.Range, ...]) -> None:
        for first, count in ranges:
            self.done[first : first + count] += 1
        self.host.post(ev.Committed(job=JOB, ranges=ranges))

    def _split(self, first: int) -> None:
        def made(_: None) -> None:
            sizes = self.sizes[first : first + CHUNK]
            if not len(sizes):
                self.host.post(ev.SplitEnded(job=JOB, total=len(self.sizes)))
                return
            self.host.post(ev.SplitProduced(job=JOB, first=first, sizes=sizes))
            self._split(first + len(sizes))

        self.engine.after(0.002, made)

    # ---- lines -------------------------------------------------------------------------------------------------------
    def _delay_until(self, line: tuple[str, bool]) -> float:
        """When the next message of a line arrives: they keep their order."""
        self.messages += 1
        when = max(self.engine.now + LATENCY_S * (0.5 + unit(self.key, self.messages)), self._line.get(line, 0.0) + 1e-9)
        self._line[line] = when
        return when

    def _to_worker(self, name: str, deliver: object) -> None:
        worker = self.workers[self._number[name]]
        life = worker.life

        def arrive(_: None) -> None:
            if worker.is_here and worker.life == life:
                deliver(worker)  # type: ignore[operator]

        self.engine.at(self._delay_until((name, True)), arrive)

    def _to_chief(self, worker: SimWorker, event: ev.Event) -> None:
        life = worker.life

        def arrive(_: None) -> None:
            if worker.is_here and worker.life == life:
                self.host.post(event)

        self.engine.at(self._delay_until((worker.spec.id, False)), arrive)

    # ---- workers -----------------------------------------------------------------------------------------------------
    def _on_run(self, worker: SimWorker, run: ev.SendRun) -> None:
        worker.held[run.token] = _Held(run.token, run.slot, run.first, run.count)
        worker.queues[run.slot].append(run.token)
        if worker.queues[run.slot][0] == run.token:
            self._begin(worker, run.token)

    def _begin(self, worker: SimWorker, token: int) -> None:
        held = worker.held[token]
        held.is_running = True
        begun = self.engine.now
        speed = worker.speed / (worker.slow_by if begun >= worker.slow_from_s else 1.0)
        ends = begun + WAKE_S + np.cumsum(self.durations[held.first : held.first + held.count]) / speed
        self._next_part(worker, worker.life, held, ends, begun)

    def _next_part(self, worker: SimWorker, life: int, held: _Held, ends: Floats, since: float) -> None:
        """Plan the next time that results go out: the first fragment that ends after 250 ms, or the batch's last."""
        stop = min(held.count, max(held.sent, int(np.searchsorted(ends, since + FLUSH_S, side="left"))) + 1)
        when = float(ends[stop - 1])

        def part(_: None) -> None:
            if worker.life != life or worker.held.get(held.token) is not held:
                return
            first, count, last = held.first + held.sent, stop - held.sent, stop == held.count
            began = since if held.sent == 0 else float(ends[held.sent - 1])
            held.sent = stop
            worker.busy_s += when - began
            self._to_chief(
                worker,
                ev.OutcomeArrived(
                    worker=worker.spec.id,
                    token=held.token,
                    job=JOB,
                    first=first,
                    count=count,
                    last=last,
                    ok=((first, count),),
                    raised=(),
                    run_us=round(max(0.0, when - began - (WAKE_S if stop == count else 0.0)) * 1e6),
                ),
            )
            if last:
                self._drop(worker, held.token)
            else:
                self._next_part(worker, life, held, ends, when)

        self.engine.at(when, part)

    def _drop(self, worker: SimWorker, token: int) -> None:
        held = worker.held.pop(token, None)
        if held is None:
            return
        queue = worker.queues[held.slot]
        queue.remove(token)
        if queue and not worker.held[queue[0]].is_running:
            self._begin(worker, queue[0])

    def _on_recall(self, worker: SimWorker, token: int) -> None:
        held = worker.held.get(token)
        is_free = held is not None and not held.is_running
        if is_free:
            self._drop(worker, token)
        self._to_chief(worker, ev.Recalled(worker=worker.spec.id, token=token, given_back=is_free))
