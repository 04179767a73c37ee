"""What happens to a job from submission to its end: the chief's machine, event by event."""

from __future__ import annotations

import numpy as np
import pytest

from company.chief import events as ev
from p2p.base.errors import InvariantBroken, Reason
from tests.support.chief_world import World


def world(*workers: tuple[str, int]) -> World:
    made = World(np.random.default_rng(0))
    for name, slots in workers:
        made.add_worker(name, slots)
    return made


def test_a_job_without_fragments_is_merged_and_done() -> None:
    w = world(("w-a", 1))
    job = w.submit("j-1", [])
    w.run(w.all_over)
    assert job.over is not None and (job.over.phase, job.over.total, job.over.done) == ("done", 0, 0)
    assert job.merges == 1


def test_a_job_of_which_everything_fails_is_done_when_all_may_fail() -> None:
    w = world(("w-a", 2), ("w-b", 1))
    job = w.submit("j-1", [0.01] * 20, raises=dict.fromkeys(range(20), 99), max_fails="100%")
    w.run(w.all_over)
    assert job.over is not None and (job.over.phase, job.over.done, job.over.failed) == ("done", 0, 20)


def test_a_fragment_is_tried_three_times_and_then_fails_its_job() -> None:
    w = world(("w-a", 1), ("w-b", 1))
    job = w.submit("j-1", [0.01] * 5, crashes={3: 99})
    w.run(w.all_over)
    w.run_for(1.0)
    assert job.over is not None and job.over.phase == "failed"
    assert job.over.reason is not None and job.over.reason.code == "too-many-failed"
    assert job.tries[3] == (3, 0)
    assert job.over.reason.facts["fragment"] == 3 and job.over.reason.actions


def test_a_failed_fragment_runs_again_on_another_worker() -> None:
    w = world(("w-a", 1), ("w-b", 1))
    seen: list[tuple[str, int]] = []
    perform = w._perform

    def watch(effect: ev.Effect, cause: ev.Event) -> None:
        if isinstance(effect, ev.SendRun) and effect.first <= 7 < effect.first + effect.count:
            seen.append((effect.worker, effect.count))
        perform(effect, cause)

    w._perform = watch  # type: ignore[method-assign]
    w.submit("j-1", [0.01] * 30, crashes={7: 1})
    w.run(w.all_over)
    assert len({name for name, _ in seen[:2]}) == 2, seen
    assert seen[1][1] == 1, "what killed its child runs alone"


def test_an_allowed_share_of_failures_is_judged_once_the_total_is_known() -> None:
    w = world(("w-a", 1))
    job = w.submit("j-1", [0.001] * 8, raises={0: 9, 1: 9}, max_fails="20%", count_known=False, chunk_s=5.0)
    w.run(w.all_over)
    assert job.over is not None and job.over.phase == "failed"
    assert job.over.reason is not None and job.over.reason.code == "too-many-failed"


def test_a_split_that_differs_starts_over_once_and_then_fails() -> None:
    w = world(("w-a", 1))
    job = w.submit("j-1", [0.1] * 50)
    w.run(lambda: int(job.done.sum()) >= 10)
    w.differs("j-1")
    assert w.state.jobs["j-1"].settled == 0
    w.run(lambda: int(job.done.sum()) >= 10 and job.restarts == 1)
    w.differs("j-1")
    assert job.over is not None and job.over.reason is not None
    assert job.over.reason.code == "split-not-deterministic"


def test_a_job_that_started_over_finishes_with_results_of_the_new_split_only() -> None:
    w = world(("w-a", 2), ("w-b", 1))
    job = w.submit("j-1", [0.05] * 100)
    w.run(lambda: int(job.done.sum()) >= 20)
    away = w.workers["w-b"]
    w.disconnect(away, for_s=1.0)
    w.differs("j-1")
    w.run(w.all_over)
    assert job.over is not None and job.over.phase == "done"
    assert (job.done == 1).all()


def test_a_lease_of_before_the_start_over_is_refused_with_the_reason() -> None:
    w = world(("w-a", 1))
    w.submit("j-1", [1.0] * 10)
    w.run(lambda: len(w.state.leases) > 0)
    token = next(iter(w.state.leases)).token
    worker = w.workers["w-a"]
    w.disconnect(worker, for_s=1e9)
    w.differs("j-1")
    w.run_for(0.1)
    effects = w.post(ev.WorkerHere(spec=worker.spec, held=((token, "j-1", 0, 1),)))
    resumed = next(e for e in effects if isinstance(e, ev.SendResumed))
    assert resumed.drop == ((token, "job-started-over"),)


def test_results_written_late_of_before_a_start_over_do_not_count_for_the_new_run() -> None:
    w = world(("w-a", 1))
    w.submit("j-1", [0.05] * 40)
    w.run(lambda: "j-1" in w.state.jobs and w.state.jobs["j-1"].uncommitted > 0)
    run = w.state.jobs["j-1"]
    late = run.uncommitted
    w.differs("j-1")
    assert (run.uncommitted, run.stale_commits) == (0, late)
    effects = w.post(ev.Committed(job="j-1", ranges=((0, late),)))
    assert run.stale_commits == 0 and run.uncommitted == 0
    assert not any(isinstance(e, ev.FreeWindow) for e in effects), "the window holds the new split's fragments"


def test_paused_running_batches_finish_and_those_ahead_come_back() -> None:
    w = world(("w-a", 2))
    job = w.submit("j-1", [0.05] * 500)
    w.run(lambda: int(job.done.sum()) > 50)
    w.change("j-1", "pause")
    w.run_for(5.0)
    settled = int(job.done.sum())
    assert len(w.state.leases) == 0
    w.run_for(20.0)
    assert int(job.done.sum()) == settled
    run = w.state.jobs["j-1"]
    assert run.reason is not None and run.reason.code == "paused"
    w.change("j-1", "resume")
    w.run(w.all_over)
    assert job.over is not None and job.over.phase == "done"


def test_time_spent_paused_counts_as_no_waiting() -> None:
    w = world(("w-a", 1))
    w.submit("j-1", [1.0] * 50)
    before = w.state.jobs["j-1"].added_at
    w.change("j-1", "pause")
    w.run_for(100.0)
    w.change("j-1", "resume")
    assert w.state.jobs["j-1"].added_at - before == pytest.approx(100.0, abs=0.1)


def test_cancel_kills_every_batch_at_once() -> None:
    w = world(("w-a", 2), ("w-b", 1))
    w.submit("j-1", [10.0] * 50)
    w.run_for(1.0)
    held = {x.token for x in w.state.leases}
    effects = w.post(ev.JobChanged(job="j-1", action="cancel"))
    assert {e.token for e in effects if isinstance(e, ev.SendCancel)} == held
    assert not len(w.state.leases) and "j-1" not in w.state.jobs
    w.run_for(1.0)
    assert all(not worker.held for worker in w.workers.values())


def test_events_of_a_job_that_is_over_change_nothing() -> None:
    w = world(("w-a", 1))
    w.submit("j-1", [1.0] * 3)
    w.run_for(0.1)
    w.post(ev.JobChanged(job="j-1", action="cancel"))
    sizes = np.ones(1, dtype="<u4")
    late: list[ev.Event] = [
        ev.SplitProduced(job="j-1", first=0, sizes=sizes), ev.SplitEnded(job="j-1", total=3), ev.SplitDiffers(job="j-1"),
        ev.SplitCounted(job="j-1", total=3), ev.MergeEnded(job="j-1"), ev.Committed(job="j-1", ranges=((0, 1),)),
        ev.WorkerBlocked(worker="w-a", job="j-1", reason=Reason("x", "y")),
        ev.JobChanged(job="j-1", action="pause"),
    ]  # fmt: skip
    for event in late:
        assert w.post(event) == ()


def test_a_job_cannot_be_added_twice() -> None:
    w = world()
    job = w.submit("j-1", [1.0])
    with pytest.raises(InvariantBroken):
        w.post(ev.JobAdded(spec=job.spec))


def test_a_short_job_of_the_same_user_overtakes_a_long_one_that_runs() -> None:
    w = world(("w-a", 2))
    w.submit("j-long", [0.05] * 20_000)
    w.run_for(30.0)
    short = w.submit("j-short", [0.05] * 40)
    start = w.now
    w.run(lambda: short.over is not None)
    assert w.now - start < 5.0, "40 fragments of 50 ms on two slots take a second"


def test_users_share_the_slots_evenly_however_many_jobs_they_have() -> None:
    w = world(("w-a", 4))
    for n in range(6):
        w.submit(f"j-ann-{n}", [0.02] * 20_000, owner="ann")
    bob = w.submit("j-bob", [0.02] * 20_000, owner="bob")
    w.run_for(60.0)
    ann_done = sum(int(j.done.sum()) for j in w.jobs.values() if j.spec.owner == "ann")
    assert int(bob.done.sum()) / ann_done == pytest.approx(1.0, abs=0.15)


def test_one_user_does_not_take_all_free_slots_in_one_sweep() -> None:
    w = World(np.random.default_rng(0))
    w.submit("j-ann", [5.0] * 100, owner="ann")
    w.submit("j-bob", [5.0] * 100, owner="bob")
    w.run_for(0.5)
    w.add_worker("w-a", 8)
    running = [x.job for x in w.state.leases]
    assert running.count("j-ann") == running.count("j-bob") == 4


def test_the_higher_priority_goes_first_within_a_user() -> None:
    w = world(("w-a", 1))
    low = w.submit("j-low", [0.1] * 100)
    w.run_for(1.0)
    high = w.submit("j-high", [0.1] * 100, priority=5)
    w.run(lambda: high.over is not None)
    assert int(low.done.sum()) < 30


def test_a_user_with_many_jobs_leaves_room_for_another_to_begin() -> None:
    w = world(("w-a", 1))
    for n in range(100):
        w.submit(f"j-{n:03}", [1.0] * 5, owner="ann", chunk_s=1000.0)
    late = w.submit("j-late", [0.01] * 5, owner="bob")
    assert w.state.jobs["j-late"].phase != "queued"
    waiting = w.state.jobs["j-099"]
    assert waiting.phase == "queued" and waiting.reason is not None and waiting.reason.code == "waiting-for-turn"
    w.run(lambda: late.over is not None)


def test_while_the_disk_is_full_nothing_is_handed_out() -> None:
    w = world(("w-a", 1))
    job = w.submit("j-1", [0.1] * 200)
    w.run_for(2.0)
    w.disk(full=True)
    w.run_for(3.0)
    assert not len(w.state.leases)
    run = w.state.jobs["j-1"]
    assert run.reason is not None and run.reason.code == "storage-full"
    w.disk(full=False)
    w.run(w.all_over)
    assert job.over is not None and job.over.phase == "done"


def test_editing_what_may_fail_is_judged_at_once() -> None:
    w = world(("w-a", 1))
    job = w.submit("j-1", [0.05] * 400, raises={0: 9, 1: 9}, max_fails="5")
    w.run(lambda: "j-1" in w.state.jobs and w.state.jobs["j-1"].dead.total == 2)
    w.change("j-1", "edit", max_fails="1")
    assert job.over is not None and job.over.phase == "failed"


def test_a_job_that_only_own_workers_can_compute_is_given_up_when_none_comes_and_says_so_before() -> None:
    """It used to wait for ever: its own runs differ, so no other company may have it, and the borrower has no worker."""
    w = world()
    job = w.submit("j-1", [0.01] * 5)
    w.run_for(1.0)
    w.post(ev.AbroadJudged(job="j-1", may=False, why="two own runs of fragment 0 gave different results"))
    reason = w.state.jobs["j-1"].reason
    assert reason is not None and reason.code == "abroad-differs" and "10 minutes" in reason.text, reason
    w.run_for(590.0)
    assert job.over is None
    w.run_for(20.0)
    assert job.over is not None and job.over.phase == "failed" and job.over.reason is not None
    assert (job.over.reason.code, job.over.reason.facts["waited_s"]) == ("abroad-differs", 600.0)
    assert "two own runs of fragment 0" in job.over.reason.text


def test_an_own_worker_that_comes_in_time_computes_what_stays_at_home() -> None:
    w = world()
    job = w.submit("j-1", [0.01] * 5)
    w.run_for(1.0)
    w.post(ev.AbroadJudged(job="j-1", may=False, why="they differ"))
    w.run_for(590.0)
    w.add_worker("w-a", 1)
    w.run(w.all_over)
    assert job.over is not None and job.over.phase == "done"
    assert w.state.next_deadline() is None, "nothing is waited for any more"
