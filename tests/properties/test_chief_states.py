"""The chief's whole machine, its queue and its batcher as state machines: Hypothesis looks for the shortest story that breaks a rule.

`test_chief_machine` plays long random stories; this one shrinks what it finds to a few steps. The invariants are kept in books of the
tests' own, besides those that the machine checks of itself after every event.
"""

from __future__ import annotations

import os
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from company.chief import batcher
from company.chief import events as ev
from company.chief.batcher import new_batcher
from company.chief.leases import DEPTH
from company.chief.queue import FairShare, QueuedJob
from p2p.base.clock import Monotonic
from tests.support.chief_world import World

BOUNDED = settings(
    max_examples=int(os.environ.get("STATE_EXAMPLES", "20")), stateful_step_count=30, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
SOON = st.sampled_from([0.05, 0.5, 3.0, 31.0])  # seconds; 31 is past the grace
GRACE_S = 30.0


class Watched(World):
    """A world that keeps a book of the numbers that its chief hands out."""

    def __init__(self) -> None:
        super().__init__(np.random.default_rng(3))
        self.granted: list[int] = []
        self.dropping: set[str] = set()  # jobs that start over, while their old results are still on disk
        self.duplicate_p = 0.5

    def _perform(self, effect: ev.Effect, cause: ev.Event) -> None:
        if isinstance(effect, ev.SendRun):
            assert not self.granted or effect.token > self.granted[-1], "a fencing token that is not the largest so far"
            self.granted.append(effect.token)
            job = self.jobs[effect.job]
            span = slice(effect.first, effect.first + effect.count)
            assert effect.count >= 1 and effect.first + effect.count <= len(job.durations)
            assert effect.job in self.dropping or not job.done[span].all(), "a batch is handed out of which every result is on disk"
        if isinstance(effect, ev.Accept):
            assert isinstance(cause, ev.OutcomeArrived) and cause.token == effect.token
            allowed = {i for a, n in cause.ok for i in range(a, a + n)}
            assert {i for a, n in effect.ranges for i in range(a, a + n)} <= allowed, "accepted what nobody brought"
        if isinstance(effect, ev.DropResults):
            self.dropping.add(effect.job)
        super()._perform(effect, cause)

    def _drop_results(self, name: str) -> None:
        super()._drop_results(name)
        self.dropping.discard(name)

    def restart(self, *, down_s: float = 0.5, back_s: float = 2.0) -> None:
        self.dropping.clear()
        super().restart(down_s=down_s, back_s=back_s)


class Company(RuleBasedStateMachine):
    """Workers come and go, jobs are submitted and changed, the chief dies; every rule may come at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.world = Watched()

    @initialize(slots=st.integers(1, 3))
    def first(self, slots: int) -> None:
        self.world.add_worker("w-0", slots, 1.0)

    @precondition(lambda self: len(self.world.workers) < 4)
    @rule(slots=st.integers(1, 3), speed=st.sampled_from([0.25, 1.0, 2.0]))
    def hire(self, slots: int, speed: float) -> None:
        self.world.add_worker(f"w-{len(self.world.workers)}", slots, speed)

    @precondition(lambda self: len(self.world.jobs) < 4 and not self.world.is_down)
    @rule(
        count=st.sampled_from([0, 1, 7, 120]), mean_s=st.sampled_from([0.001, 0.05, 1.5]), owner=st.sampled_from("ab"),
        batching=st.sampled_from(["adaptive", "sqrt-window", "none"]), matching=st.sampled_from(["stable", "seed"]),
        kind=st.sampled_from(["plain", "raises", "crashes", "kills"]), known=st.booleans(),
    )  # fmt: skip
    def submit(self, count: int, mean_s: float, owner: str, batching: str, matching: str, kind: str, known: bool) -> None:
        bad = [count // 2] if count else []
        self.world.submit(
            f"j-{len(self.world.jobs)}", np.full(count, mean_s), owner=owner, batching=batching, matching=matching, max_fails="100%",
            raises=dict.fromkeys(bad, 2) if kind == "raises" else {}, crashes=dict.fromkeys(bad, 1) if kind == "crashes" else {},
            killers=frozenset(bad) if kind == "kills" else frozenset(), count_known=known,
        )  # fmt: skip

    @rule(seconds=SOON)
    def wait(self, seconds: float) -> None:
        self.world.run_for(seconds)

    def _worker(self, data: st.DataObject) -> Any:
        return self.world.workers[data.draw(st.sampled_from(sorted(self.world.workers)))]

    @rule(data=st.data(), seconds=SOON)
    def kill(self, data: st.DataObject, seconds: float) -> None:
        self.world.kill(self._worker(data), back_after_s=seconds)

    @rule(data=st.data(), seconds=SOON, said_bye=st.booleans())
    def unplug(self, data: st.DataObject, seconds: float, said_bye: bool) -> None:
        self.world.disconnect(self._worker(data), for_s=seconds, said_bye=said_bye)

    @rule(data=st.data(), seconds=SOON)
    def stop(self, data: st.DataObject, seconds: float) -> None:
        self.world.stop(self._worker(data), for_s=seconds)

    @rule(down_s=st.sampled_from([0.1, 2.0]), back_s=st.sampled_from([0.5, 20.0]))
    def restart(self, down_s: float, back_s: float) -> None:
        self.world.restart(down_s=down_s, back_s=back_s)

    @rule(data=st.data(), action=st.sampled_from(["pause", "resume", "quarantine", "release", "drain"]))
    def tell_worker(self, data: st.DataObject, action: str) -> None:
        self.world.change_worker(self._worker(data), action)

    @precondition(lambda self: self.world.jobs)
    @rule(data=st.data(), action=st.sampled_from(["pause", "resume", "cancel", "differs"]))
    def tell_job(self, data: st.DataObject, action: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.jobs)))
        if action == "differs":
            if name in self.world.state.jobs and not self.world.is_down:
                self.world.differs(name)
        else:
            self.world.change(name, action)

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        self.world.disk(full=full)

    @rule(data=st.data(), seconds=SOON)
    def refuse(self, data: st.DataObject, seconds: float) -> None:
        self.world.refuse(self._worker(data), for_s=seconds)

    # ---- what holds at every moment ------------------------------------------------------------------------------------
    @invariant()
    def no_slot_is_locked_by_nobody(self) -> None:
        world = self.world
        if world.is_down:
            return
        for lease in world.state.leases:
            known = world.state.slots.workers[lease.worker]
            assert lease.job in world.state.jobs and world.jobs[lease.job].over is None
            assert known.connected or (known.grace_until is not None and known.grace_until <= world.now + GRACE_S)
        for worker in world.workers.values():
            for n in range(worker.spec.slots):
                depth = world.state.leases.depth((worker.spec.id, n))
                assert depth <= DEPTH + 1  # one more only where a returning worker holds one that is finished

    @invariant()
    def no_result_counts_twice(self) -> None:
        for job in self.world.jobs.values():
            assert (job.done <= 1).all()
            assert not job.dead & set(np.flatnonzero(job.done).tolist())

    def teardown(self) -> None:
        """Then peace: everything ends, every fragment once, and nothing stays locked."""
        world = self.world
        world.run_for(3.0)  # where it is down, it starts again
        world.disk(full=False)
        for worker in world.workers.values():
            world.change_worker(worker, "release")
        for _ in range(2):
            for name in world.jobs:
                world.change(name, "resume")
            world.run_for(61.0)
            for worker in world.workers.values():
                world.change_worker(worker, "release")
        world.run(world.all_over)
        world.run_for(120.0)
        assert not world.state.jobs and not len(world.state.leases) and not world.long
        for job in world.jobs.values():
            assert job.over is not None
            if job.over.phase == "done":
                settled = job.done.copy()
                settled[sorted(job.dead)] += 1
                assert (settled == 1).all(), "a fragment is lost, or merged twice"
                assert job.merges >= 1


TestCompany = Company.TestCase
TestCompany.settings = BOUNDED


class Queue(RuleBasedStateMachine):
    """Users who want slots, use them and go away: the order is whole at every moment, and nobody is pushed back without an end."""

    USERS = "abcd"

    def __init__(self) -> None:
        super().__init__()
        self.share = FairShare()
        self.now = 0.0
        self.wanting: dict[str, float] = {}  # user -> since
        self.passed_over: dict[str, float] = dict.fromkeys(self.USERS, 0.0)  # slot-seconds others got, weighted, since it was served
        self.used: dict[str, float] = dict.fromkeys(self.USERS, 0.0)

    def _jobs(self) -> list[QueuedJob]:
        return [
            QueuedJob(id=f"j-{user}", owner=user, priority=0, submitted_at=Monotonic(since), expected_s=10.0)
            for user, since in sorted(self.wanting.items())
        ]

    @rule(user=st.sampled_from(USERS))
    def want(self, user: str) -> None:
        self.wanting.setdefault(user, self.now)
        self.passed_over[user] = 0.0

    @rule(user=st.sampled_from(USERS))
    def leave(self, user: str) -> None:
        self.wanting.pop(user, None)
        self.share.order(self._jobs(), Monotonic(self.now))

    @rule(seconds=st.sampled_from([1.0, 60.0, 7200.0, 200_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.wanting)
    @rule(seconds=st.sampled_from([0.2, 5.0, 60.0]), turns=st.integers(1, 12))
    def serve(self, seconds: float, turns: int) -> None:
        for _ in range(turns):
            now = Monotonic(self.now)
            first = self.share.order(self._jobs(), now)[0].owner
            self.share.charge(first, seconds, now)
            self.used[first] += seconds
            self.passed_over[first] = 0.0
            for user in self.wanting:
                if user != first:
                    # what the other's turn moved its virtual time by, over what the same turn would have moved mine by
                    mine, other = (max(0.5, self.share.usage_slots(u, now)) for u in (user, first))
                    self.passed_over[user] += other / mine

    @rule(user=st.sampled_from(USERS))
    def charge_too_much_and_give_back(self, user: str) -> None:
        now = Monotonic(self.now)
        self.share.order(self._jobs(), now)
        before = self.share.usage_slots(user, now)
        self.share.charge(user, 30.0, now)
        self.share.charge(user, -30.0, now)
        assert abs(self.share.usage_slots(user, now) - before) < 1e-9

    @rule()
    def restart(self) -> None:
        """Usage is kept, virtual times are not."""
        self.share = FairShare(self.share.usage(Monotonic(self.now)), now=Monotonic(self.now))
        self.passed_over = dict.fromkeys(self.USERS, 0.0)

    @invariant()
    def the_order_is_whole(self) -> None:
        now = Monotonic(self.now)
        jobs = self._jobs()
        order = self.share.order(jobs, now)
        assert sorted(j.id for j in order) == sorted(j.id for j in jobs)
        assert self.share.order(list(reversed(jobs)), now) == order
        for user in self.USERS:
            assert 0.0 <= self.share.usage_slots(user, now) <= self.used[user] / 86_400.0 + 1e-9, "used more than it was given"

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        # 12 turns of 60 s may go to others while the slow decay of usage evens out; 300 times the smallest turn is one hour's worth
        assert all(self.passed_over[user] <= 1000.0 for user in self.wanting), self.passed_over


TestQueue = Queue.TestCase
TestQueue.settings = settings(BOUNDED, max_examples=40)


class Batches(RuleBasedStateMachine):
    """A batcher that is told true, false and absurd things in any order cuts its job completely, within its caps."""

    @initialize(
        kind=st.sampled_from(["adaptive", "sqrt-window", "none"]), seed=st.integers(0, 99), count=st.integers(1, 5000), costs=st.booleans()
    )
    def begin(self, kind: str, seed: int, count: int, costs: bool) -> None:
        rng = np.random.default_rng(seed)
        self.rule = new_batcher(kind)  # type: ignore[arg-type]
        self.sizes = rng.choice([0, 5, 1000, 1 << 22], size=count).astype("<u4")
        self.costs = rng.uniform(0, 3, count) if costs else None
        self.at = 0
        self.smallest_run_us = 0.0

    @rule(slots=st.integers(1, 64), speed_us=st.sampled_from([0.0, 1.0, 1e3, 1e7]), told=st.booleans(), times=st.integers(1, 5))
    def cut(self, slots: int, speed_us: float, told: bool, times: int) -> None:
        for _ in range(times):
            if self.at >= len(self.sizes):
                return
            costs = None if self.costs is None else self.costs[self.at :]
            length = self.rule.next_batch(self.sizes[self.at :], costs, len(self.sizes) - self.at, slots)
            taken = self.sizes[self.at : self.at + length]
            assert 1 <= length == len(taken) <= batcher.MAX_BATCH_COUNT
            assert length == 1 or int(taken.sum(dtype=np.uint64)) <= batcher.MAX_BATCH_BYTES
            if told:
                cost = None if self.costs is None else float(self.costs[self.at : self.at + length].sum())
                self.rule.observe(length, int(taken.sum(dtype=np.uint64)), cost, speed_us * length)
            self.at += length

    @rule(count=st.integers(-5, 1 << 40), size=st.integers(-5, 1 << 60), cost=st.one_of(st.none(), st.floats()), run_us=st.floats())
    def lie(self, count: int, size: int, cost: float | None, run_us: float) -> None:
        self.rule.observe(count, size, cost, run_us)
        overhead = getattr(self.rule, "observe_overhead", None)
        if overhead is not None:
            overhead(run_us)

    def teardown(self) -> None:
        while getattr(self, "at", 1 << 60) < len(getattr(self, "sizes", ())):
            self.cut(3, 10.0, True, 50)


TestBatches = Batches.TestCase
TestBatches.settings = settings(BOUNDED, max_examples=40)
