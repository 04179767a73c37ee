"""The chief's machine among lost, late, doubled and reordered messages, kills and restarts: after every event its invariants hold,
and at the end every fragment of every finished job was accepted exactly once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.chief_world import World
from tests.support.fake_workers import FakeJob, FakeWorker

SEEDS = range(60)
KEPT_SEEDS: tuple[int, ...] = ()  # seeds that failed once, kept for ever


def chaos(seed: int) -> World:
    """A company to which everything happens, then peace until all jobs are over."""
    rng = np.random.default_rng(seed)
    world = World(rng)
    world.duplicate_p = 0.05
    for number in range(int(rng.integers(1, 5))):
        world.add_worker(f"w-{number}", int(rng.integers(1, 4)), float(rng.choice([0.25, 1.0, 1.0, 2.0])))
    for number in range(int(rng.integers(1, 5))):
        submit(world, rng, f"j-{number}")
    for _ in range(int(rng.integers(5, 40))):
        world.run_for(float(rng.exponential(1.0)))
        disturb(world, rng)
    calm(world)
    world.run(world.all_over)
    return world


def submit(world: World, rng: np.random.Generator, name: str) -> FakeJob:
    count = int(rng.choice([0, 1, 3, 50, 400, 5000]))
    mean = float(rng.choice([0.0005, 0.01, 0.1])) if count < 5000 else 0.001
    few = sorted(rng.choice(count, size=min(count, 3), replace=False).tolist()) if count else []
    kind = int(rng.integers(5))
    return world.submit(
        name, rng.exponential(mean, count), owner=str(rng.choice(["ann", "bob"])), max_fails="100%",
        batching=str(rng.choice(["adaptive", "adaptive", "sqrt-window", "none"])) if count <= 400 else "adaptive",
        matching=str(rng.choice(["stable", "stable", "seed"])), failure=str(rng.choice(["log-z", "seed-z4"])),
        raises=dict.fromkeys(few, int(rng.integers(1, 5))) if kind == 1 else {}, crashes=dict.fromkeys(few, 2) if kind == 2 else {},
        killers=frozenset(few[:1]) if kind == 3 else frozenset(), count_known=bool(rng.random() < 0.5),
        costs=rng.uniform(0, 2, count).tolist() if rng.random() < 0.3 else None, chunk_s=float(rng.choice([0.0, 0.2])),
    )  # fmt: skip


def disturb(world: World, rng: np.random.Generator) -> None:
    """One thing goes wrong, or somebody wishes something."""
    workers = list(world.workers.values())
    worker: FakeWorker = workers[int(rng.integers(len(workers)))]
    job = str(rng.choice(list(world.jobs)))
    away = float(rng.choice([0.1, 3.0, 40.0]))
    deeds: list[Callable[[], object]] = [
        lambda: world.kill(worker, back_after_s=away),
        lambda: world.disconnect(worker, for_s=away, said_bye=bool(rng.random() < 0.2)),
        lambda: world.stop(worker, for_s=away),
        lambda: world.restart(down_s=away / 10, back_s=float(rng.choice([2.0, 20.0, 60.0]))),
        lambda: world.change(job, "pause"),
        lambda: world.change(job, "resume"),
        lambda: world.change(job, "cancel") if rng.random() < 0.3 else None,
        lambda: world.change(job, "edit", priority=int(rng.integers(-5, 6))),
        lambda: world.change_worker(worker, str(rng.choice(["pause", "resume", "quarantine", "release", "drain"]))),
        lambda: world.disk(full=bool(rng.random() < 0.5)),
        lambda: world.differs(job) if rng.random() < 0.3 and job in world.state.jobs else None,
        lambda: world.refuse(worker, for_s=away),
        lambda: world.block(worker, job),
    ]
    deeds[int(rng.integers(len(deeds)))]()


def calm(world: World) -> None:
    """No more faults: everybody may work again."""
    world.disk(full=False)
    for worker in world.workers.values():
        world.change_worker(worker, "release")
    for job in world.jobs:
        world.change(job, "resume")
    world.at(world.now + 60.0, lambda: [world.change(job, "resume") for job in world.jobs] and None)  # type: ignore[func-returns-value]


@pytest.mark.parametrize("seed", [*KEPT_SEEDS, *SEEDS])
def test_every_fragment_is_accepted_exactly_once_whatever_happens(seed: int) -> None:
    world = chaos(seed)
    world.run_for(120.0)  # what is still under way arrives, and finds nobody waiting for it
    assert not world.state.jobs
    assert not len(world.state.leases), "a slot is locked for a job that is over"
    assert not world.long, "a row of a lease that is over"
    for job in world.jobs.values():
        assert job.over is not None
        if job.over.phase == "done":
            settled = job.done.copy()
            settled[sorted(job.dead)] += 1
            assert (settled == 1).all(), f"seed {seed}: {job.id}"
            assert job.merges >= 1
        else:
            assert job.over.phase in ("cancelled", "failed")
            assert job.over.reason is not None
        assert not (job.killers and job.over.phase == "done") or job.killers <= job.dead, "a killer of workers has a result"
