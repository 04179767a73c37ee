"""Workers that come, go, fall silent and come back: what becomes of the slots they held."""

from __future__ import annotations

import numpy as np
import pytest

from company.chief import events as ev
from company.chief.long_leases import LONG_S
from company.chief.secondment.abroad import ISOLATED
from company.chief.slots import GRACE_S
from p2p.base.clock import Monotonic
from p2p.base.errors import Reason
from tests.support.chief_world import World
from tests.support.fake_workers import FakeJob


def world(*workers: tuple[str, int], **offer: object) -> World:
    made = World(np.random.default_rng(0))
    for name, slots in workers:
        made.add_worker(name, slots, **offer)
    return made


def finished(w: World, job: FakeJob) -> None:
    w.run(w.all_over)
    assert job.over is not None and job.over.phase == "done"
    assert (job.done == 1).all()


def reason(w: World, job: str = "j-1") -> Reason:
    found = w.state.jobs[job].reason
    assert found is not None
    return found


def test_what_a_lost_worker_held_runs_elsewhere_at_once() -> None:
    w = world(("w-a", 1), ("w-b", 1))
    job = w.submit("j-1", [2.0] * 2)
    w.run_for(0.5)
    lost = w.state.leases.of_worker("w-a")[0]
    w.kill(w.workers["w-b"], back_after_s=None)
    w.add_worker("w-c", 1)
    assert [x.first for x in w.state.leases.of_worker("w-c")] == [1 - lost.first]
    finished(w, job)


def test_a_worker_back_within_the_grace_keeps_its_lease_though_it_runs_elsewhere() -> None:
    w = world(("w-a", 1), ("w-b", 1))
    job = w.submit("j-1", [10.0])
    w.run_for(1.0)
    first = next(iter(w.state.leases))
    w.disconnect(w.workers[first.worker], for_s=3.0)
    assert len(w.state.leases) == 2
    w.run_for(4.0)
    assert w.state.leases.get(first.token) is not None
    finished(w, job)
    assert w.now < 11.0, "the first result won: nobody waited for the copy"
    assert not len(w.state.leases)


def test_past_the_grace_a_result_is_refused_and_its_worker_told_why() -> None:
    w = world(("w-a", 1), ("w-b", 1))
    w.submit("j-1", [100.0])
    w.run_for(1.0)
    lease = next(iter(w.state.leases))
    worker = w.workers[lease.worker]
    w.disconnect(worker, for_s=1e9)
    w.run_for(GRACE_S + 1)
    assert w.state.leases.get(lease.token) is None
    effects = w.post(ev.WorkerHere(spec=worker.spec, held=((lease.token, "j-1", 0, 1),)))
    assert next(e for e in effects if isinstance(e, ev.SendResumed)).drop == ((lease.token, "leased-again"),)
    late = ev.OutcomeArrived(
        worker=lease.worker, token=lease.token, job="j-1", first=0, count=1, last=True, ok=((0, 1),), raised=(), run_us=1
    )
    effects = w.post(late)
    assert [type(e) for e in effects] == [ev.Refuse, ev.SendStale]


def test_what_a_worker_held_alone_is_unlocked_when_its_grace_is_over() -> None:
    w = World(np.random.default_rng(1))
    worker = w.add_worker("w-a")
    w.submit("j-1", [100.0] * 3)
    w.run_for(5.0)
    w.disconnect(worker, for_s=60.0)
    w.run_for(25.0)
    assert len(w.state.leases) >= 1, "nobody else is here: it may still bring its result"
    w.run_for(10.0)
    assert not len(w.state.leases)
    w.run(w.all_over)


def test_a_result_of_another_workers_lease_is_refused() -> None:
    w = world(("w-a", 1), ("w-b", 1))
    w.submit("j-1", [5.0])
    w.run_for(1.0)
    lease = next(iter(w.state.leases))
    liar = "w-b" if lease.worker == "w-a" else "w-a"
    effects = w.post(
        ev.OutcomeArrived(worker=liar, token=lease.token, job="j-1", first=0, count=1, last=True, ok=((0, 1),), raised=(), run_us=1)
    )
    assert [type(e) for e in effects] == [ev.Refuse, ev.SendStale]
    assert w.state.jobs["j-1"].done.total == 0


def test_a_result_outside_its_lease_gives_the_lease_back() -> None:
    w = world(("w-a", 1))
    w.submit("j-1", [5.0] * 2)
    w.run_for(1.0)
    lease = next(iter(w.state.leases))
    effects = w.post(
        ev.OutcomeArrived(worker="w-a", token=lease.token, job="j-1", first=0, count=9, last=True, ok=((0, 9),), raised=(), run_us=1)
    )
    assert ev.Refuse(token=lease.token, worker="w-a") in effects
    assert w.state.jobs["j-1"].done.total == 0


def test_the_same_result_twice_counts_once() -> None:
    w = world(("w-a", 1))
    w.duplicate_p = 1.0
    finished(w, w.submit("j-1", [0.01] * 300))


def test_a_large_lost_batch_is_spread_over_all_slots() -> None:
    w = world(("w-a", 1))
    job = w.submit("j-1", [0.0001] * 4000)
    w.run(lambda: any(x.count > 500 for x in w.state.leases))
    for n in range(4):
        w.add_worker(f"w-b{n}", 1)
    w.kill(w.workers["w-a"], back_after_s=None)
    again = w.state.jobs["j-1"].again
    assert len(again) <= 1, "what was lost next to each other is one range"
    counts = [x.count for name in ("w-b0", "w-b1", "w-b2", "w-b3") for x in w.state.leases.of_worker(name)]
    assert len(counts) >= 4 and max(counts) < 1000
    finished(w, job)


def test_a_fragment_that_kills_its_workers_is_found_and_given_up() -> None:
    w = world(("w-a", 1), ("w-b", 1))
    job = w.submit("j-1", [0.005] * 300, killers=frozenset({217}), max_fails="1")
    w.run(w.all_over)
    w.run_for(1.0)
    assert job.over is not None and (job.over.phase, job.over.done, job.over.failed) == ("done", 299, 1)
    assert job.dead == {217}
    tries, losses = job.tries[217]
    assert tries == 0 and losses == 5


def test_losing_workers_uses_up_no_tries() -> None:
    w = world(("w-a", 1), ("w-b", 1))
    job = w.submit("j-1", [0.5] * 20)
    for _ in range(4):
        w.run_for(0.7)
        w.kill(w.workers["w-a"], back_after_s=0.1)
    finished(w, job)
    assert not any(tries for tries, _ in job.tries.values())


def test_after_a_restart_workers_hand_over_what_they_held() -> None:
    w = world(("w-a", 2), ("w-b", 1))
    job = w.submit("j-1", [0.5] * 40)
    w.run(lambda: int(job.done.sum()) >= 6)
    began = w.now
    w.restart(down_s=0.2)
    finished(w, job)
    assert w.now - began < 0.5 * 40 / 3 + 4.0
    assert sum(worker.busy_s for worker in w.workers.values()) <= 0.5 * 40 + 0.01, "nothing was computed twice"


@pytest.mark.parametrize("chunk_s", [0.0, 3.0])
def test_a_long_fragment_is_not_run_twice_because_the_chief_restarted(chunk_s: float) -> None:
    """Whether the workers come back before split has made the fragment again, or after."""
    w = world(("w-a", 1), ("w-b", 1))
    job = w.submit("j-1", [60.0, 60.0], chunk_s=chunk_s)
    w.run_for(5.0)
    w.restart(down_s=0.2)
    finished(w, job)
    assert sum(worker.busy_s for worker in w.workers.values()) <= 120.01


@pytest.mark.parametrize("chunk_s", [0.0, 3.0, 25.0])
def test_a_long_fragment_waits_for_its_worker_through_the_grace(chunk_s: float) -> None:
    """The worker comes back long after the others got their work: the row on disk keeps the range for it."""
    w = world(("w-a", 1))
    job = w.submit("j-1", [60.0], chunk_s=chunk_s)
    w.run_for(LONG_S + chunk_s + 1.0)
    assert [row.first for row in w.long.values()] == [0]
    w.add_worker("w-b", 1)
    w.workers["w-a"].cut_until = w.now + 20.0
    w.restart(down_s=0.2, back_s=0.02)
    w.run_for(8.0)
    assert "w-b" in w.state.slots.workers
    if not chunk_s:
        assert reason(w).code == "worker-away"
    finished(w, job)
    assert w.workers["w-b"].busy_s == 0.0, "it was run a second time"
    w.run_for(1.0)
    assert not w.long


def test_a_range_held_back_is_run_when_its_worker_returns_without_it_or_never() -> None:
    for is_back in (True, False):
        w = world(("w-a", 1))
        job = w.submit("j-1", [60.0])
        w.run_for(LONG_S + 1.0)
        assert len(w.long) == 1
        w.add_worker("w-b", 1)
        w.kill(w.workers["w-a"], back_after_s=None)
        w.workers["w-a"].is_alive = is_back
        began = w.now
        w.restart(down_s=0.2, back_s=0.02)
        w.run(lambda w=w: len(w.state.leases) > 0)  # type: ignore[misc]
        waited = w.now - began
        assert waited < 5.0 if is_back else GRACE_S <= waited < GRACE_S + 1.0
        finished(w, job)
        assert int(job.done.sum()) == 1


def test_what_a_user_used_before_a_restart_still_counts() -> None:
    orders = []
    for usage in ({}, {"ann": 1e6}):
        w = World(np.random.default_rng(1))
        w.state.remember_usage(usage, Monotonic(0.0))
        w.submit("j-1", [1.0] * 4, owner="ann")
        w.submit("j-2", [1.0] * 4, owner="bob")
        w.add_worker("w-a", 1)
        w.run(w.all_over)
        assert w.state.usage(Monotonic(w.now))["ann"] >= usage.get("ann", 0.0) * 0.99
        over = {e.job: n for n, e in enumerate(w.told) if e.kind == "done"}
        orders.append(sorted(over, key=over.__getitem__))
    assert orders == [["j-1", "j-2"], ["j-2", "j-1"]]


def test_a_worker_with_irregular_heartbeats_is_given_more_time_before_it_counts_as_silent() -> None:
    patience = []
    for beats in ([2.0] * 20, [1.0, 5.0] * 10):
        w = world(("w-a", 1))
        for wait in beats:
            w.run_for(wait)
            w.post(ev.Heartbeat(worker="w-a"))
        patience.append(w.state.slots.silent_at("w-a", Monotonic(w.now)) - w.now)
    assert 6.0 < patience[0] < 9.0
    assert patience[1] > 12.0
    assert w.state.slots.silent_at("nobody", Monotonic(w.now)) == w.now


def test_rows_are_written_for_lasting_leases_only_and_go_with_them() -> None:
    w = world(("w-a", 2))
    job = w.submit("j-1", [0.5] * 40)
    finished(w, job)
    assert not w.rows_written
    long = w.submit("j-2", [LONG_S + 1.0, 0.5])
    finished(w, long)
    w.run_for(1.0)
    assert len(w.rows_written) == 1 and not w.long


def test_after_a_restart_nothing_is_handed_out_until_known_workers_are_back() -> None:
    w = world(("w-a", 1), ("w-b", 1))
    w.submit("j-1", [60.0] * 3)
    w.run_for(5.0)
    w.workers["w-b"].is_alive = False
    w.restart(down_s=0.2)
    w.run(lambda: w.workers["w-a"].session > 0)
    assert reason(w).code in ("waiting-for-workers", "running")
    assert len(w.state.leases) <= 1
    w.run_for(6.0)
    assert len(w.state.leases) >= 1


def test_a_result_that_cannot_be_checked_as_a_whole_is_not_taken() -> None:
    w = world(("w-a", 1))
    w.submit("j-1", [0.01] * 400)
    w.run(lambda: any(x.count > 2 for x in w.state.leases))
    lease = next(x for x in w.state.leases if x.count > 2)
    before = w.state.jobs["j-1"].done.total
    effects = w.post(
        ev.OutcomeArrived(
            worker="w-a", token=lease.token, job="j-1", first=lease.first, count=2, last=True, ok=((lease.first, 1),),
            raised=(lease.first + 1,), run_us=1, is_whole_only=True,
        )
    )  # fmt: skip
    assert any(isinstance(e, ev.Refuse) for e in effects)
    assert w.state.jobs["j-1"].done.total == before


def test_what_a_worker_kept_through_a_broken_line_is_not_run_again() -> None:
    w = world(("w-a", 1))
    job = w.submit("j-1", [3.0] * 2)
    w.run_for(1.0)
    w.disconnect(w.workers["w-a"], for_s=1.0)
    assert w.state.jobs["j-1"].again.count == 1
    w.run(lambda: w.workers["w-a"].session > 0)
    assert w.state.jobs["j-1"].again.count == 0
    finished(w, job)
    assert w.workers["w-a"].busy_s <= 6.01


def test_the_first_result_ends_the_other_lease_at_once() -> None:
    w = world(("w-a", 1), ("w-b", 1))
    w.submit("j-1", [10.0, 10.0, 100.0])
    w.run_for(1.0)
    first = w.state.leases.of_worker("w-a")[0]
    w.kill(w.workers["w-b"], back_after_s=None)
    w.add_worker("w-c", 1)
    w.disconnect(w.workers["w-a"], for_s=0.5)
    w.add_worker("w-d", 1)
    w.run(lambda: w.state.jobs["j-1"].done.contains(first.first))
    assert all(x.first != first.first for x in w.state.leases), "nobody runs on what is done"


def test_three_silences_in_a_row_put_a_worker_on_probation_until_it_has_finished_one_fragment() -> None:
    w = world(("w-a", 2))
    job = w.submit("j-1", [5.0] * 4)
    for _ in range(3):
        w.run_for(0.3)
        w.kill(w.workers["w-a"], back_after_s=0.1)
    w.run_for(0.2)
    assert w.state.slots.workers["w-a"].is_on_probation
    assert not len(w.state.leases)
    assert reason(w).code == "worker-on-probation"
    w.run_for(6.0)
    assert [x.count for x in w.state.leases] == [1]
    finished(w, job)
    assert not w.state.slots.workers["w-a"].is_on_probation


def test_a_worker_that_gives_work_back_unasked_is_not_asked_again_at_once() -> None:
    w = world(("w-a", 1))
    w.workers["w-a"].rejects = True
    w.submit("j-1", [1.0])
    before = w.steps
    w.run_for(60.0)
    assert w.steps - before < 100
    assert reason(w).code in ("worker-resting", "running")
    w.workers["w-a"].rejects = False
    w.run(w.all_over)


def test_a_paused_worker_finishes_what_runs_and_gives_back_what_waits() -> None:
    w = world(("w-a", 1))
    w.submit("j-1", [0.05] * 500)
    w.run(lambda: len(w.state.leases) == 2)
    effects = w.post(ev.WorkerChanged(worker="w-a", action="pause"))
    assert any(isinstance(e, ev.SendRecall) for e in effects)
    w.run_for(3.0)
    assert not len(w.state.leases)
    assert reason(w).code == "worker-paused" and reason(w).actions


def test_a_job_whose_slots_are_lent_says_so_and_how_they_come_back() -> None:
    w = world(("w-a", 2))
    w.post(ev.WorkerLent(worker="w-a", slots=2))
    w.submit("j-1", [1.0] * 4)
    w.run_for(0.1)
    assert reason(w).code == "slots-lent" and reason(w).facts["slots"] == 2
    assert reason(w).actions[0].cli == "company lend stop --now"
    w.post(ev.WorkerLent(worker="w-a", slots=1))
    w.run_for(0.1)
    assert reason(w).code == "running"


def test_a_job_waits_with_the_reason_when_no_worker_can_take_it() -> None:
    w = world()
    w.submit("j-1", [1.0], memory_bytes=16 << 30, python=">=3.12")
    w.run_for(0.1)
    assert reason(w).code == "no-workers"
    w.add_worker("w-a", 1, python="3.12.1")
    assert reason(w).code == "not-enough-memory"
    assert reason(w).facts["needed_bytes"] == 16 << 30
    w.change("j-1", "edit", memory_bytes=1 << 30)
    assert reason(w).code == "running"


def test_where_the_chiefs_own_worker_is_starting_nobody_is_told_to_add_one() -> None:
    w = world()
    w.post(ev.OwnWorker(slots=2))
    w.submit("j-1", [1.0])
    w.run_for(0.1)
    assert reason(w).code == "own-worker-starting" and reason(w).facts == {"workers": 0, "slots": 2}
    assert not any("token create" in (a.cli or "") for a in reason(w).actions)
    w.post(ev.OwnWorker(slots=2, ended=78))
    assert reason(w).code == "own-worker-ended" and "78" in reason(w).text
    w.post(ev.OwnWorker(slots=2))
    assert reason(w).code == "own-worker-starting"
    w.add_worker("w-a", 1)
    assert reason(w).code == "running"


def test_a_python_that_does_not_fit_is_a_reason() -> None:
    w = world(("w-a", 1), python="3.11.2")
    w.submit("j-1", [1.0], python=">=3.12")
    w.run_for(0.1)
    assert reason(w).code == "python-mismatch"
    assert "3.11.2" in reason(w).text


def test_a_missing_requirement_makes_the_job_wait_and_says_what_the_owner_can_allow() -> None:
    w = world(("w-a", 1), requirements_allowed=False)
    w.submit("j-1", [10.0], requirements=("pandas",))
    w.run_for(0.1)
    w.post(ev.WorkerBlocked(worker="w-a", job="j-1", reason=Reason("requirements-not-allowed", "this machine lacks pandas")))
    assert not len(w.state.leases)
    found = reason(w)
    assert found.code == "requirements-not-allowed" and "pandas" in found.text
    assert any("--allow-requirements" in (a.cli or "") for a in found.actions)
    w.disconnect(w.workers["w-a"], for_s=1.0)
    w.run_for(2.0)
    assert len(w.state.leases) == 1, "a worker that comes back may have been mended"


def test_a_quarantined_worker_loses_its_leases_and_gets_none() -> None:
    w = world(("w-a", 1), ("w-b", 1))
    w.submit("j-1", [5.0] * 4)
    w.run_for(1.0)
    effects = w.post(ev.WorkerChanged(worker="w-a", action="quarantine"))
    assert any(isinstance(e, ev.SendCancel) and e.worker == "w-a" for e in effects)
    assert not w.state.leases.of_worker("w-a")
    w.run_for(1.0)
    assert not w.state.leases.of_worker("w-a")


def test_a_worker_that_says_goodbye_gives_its_batches_back_at_once() -> None:
    w = world(("w-a", 1))
    w.submit("j-1", [5.0] * 4)
    w.run_for(1.0)
    w.disconnect(w.workers["w-a"], for_s=1e9, said_bye=True)
    assert not len(w.state.leases)
    assert reason(w).code == "no-workers"


def test_an_unhinged_claim_of_a_returning_worker_is_refused() -> None:
    w = world(("w-a", 1))
    w.submit("j-1", [5.0] * 4)
    w.run_for(1.0)
    spec = w.workers["w-a"].spec
    w.disconnect(w.workers["w-a"], for_s=1e9)
    claims = ((1, "j-1", 0, 1 << 40), (2**60, "j-1", 0, 1), (3, "j-9", 0, 1), (4, "j-1", 2, 90))
    effects = w.post(ev.WorkerHere(spec=spec, held=claims))
    resumed = next(e for e in effects if isinstance(e, ev.SendResumed))
    assert resumed.keep == ()
    assert dict(resumed.drop) == {1: "range-differs", 2**60: "unknown-token", 3: "job-over", 4: "range-differs"}


def test_own_run_times_are_kept_apart_from_a_guests() -> None:
    """Favours are owed for what own workers would have taken."""
    w = world(("w-a", 1))
    guest = ev.Guest(origin="co-b", contract="00", processor=b"q", fragment_s=3600, is_checked=False)
    w.add_worker("w-b", 1, 0.25, isolation=ISOLATED, guest=guest)
    job = w.submit("j-1", [0.1] * 100, where="any", time_limit_s=60.0)
    w.run(lambda: w.state.jobs["j-1"].settled == 100)
    (count, run_us), all_us = w.state.jobs["j-1"].own, w.state.jobs["j-1"].run_us
    assert 50 < count < 100 and run_us / count == pytest.approx(100_000)
    assert (all_us - run_us) / (100 - count) == pytest.approx(400_000)
    finished(w, job)
