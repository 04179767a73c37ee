"""The worker's machine: what is held, what runs, what is forgotten."""

from __future__ import annotations

import random

import pytest

from company import messages as m
from company.worker import events as ev
from company.worker.state import AWAY_GRACE_S, WorkerState
from p2p.base.clock import Monotonic
from p2p.base.errors import InvariantBroken

T0 = Monotonic(0.0)


class Driver:
    """Feeds a machine and checks its invariants after every event."""

    def __init__(self, slots: int = 1) -> None:
        self.machine = WorkerState(slots)

    def __call__(self, event: ev.Event, now: float = 0.0) -> tuple[ev.Effect, ...]:
        effects = self.machine.handle(event, Monotonic(now))
        self.machine.validate()
        return effects


def run(token: int, slot: int = 0, job: str = "j", first: int = 0, count: int = 10) -> ev.RunCame:
    return ev.RunCame(token, slot, job, first, count)


def ready(slots: int = 1) -> Driver:
    driver = Driver(slots)
    assert driver(ev.JobCame("j")) == (ev.PrepareJob("j"),)
    assert driver(ev.JobReady("j")) == ()
    return driver


def test_a_batch_waits_for_its_processor_and_is_dispatched_in_order() -> None:
    driver = Driver()
    driver(ev.JobCame("j"))
    assert driver(run(1)) == ()
    assert driver(run(2)) == ()
    assert driver(ev.JobReady("j")) == (ev.Dispatch(0, 1), ev.Dispatch(0, 2))


def test_a_job_is_prepared_once() -> None:
    driver = ready()
    assert driver(ev.JobCame("j")) == ()


def test_the_same_run_again_changes_nothing() -> None:
    driver = ready()
    assert driver(run(1)) == (ev.Dispatch(0, 1),)
    assert driver(run(1)) == ()


def test_a_batch_past_the_bound_of_a_slot_is_given_back() -> None:
    driver = ready(2)
    driver(run(1))
    driver(run(2))
    assert driver(run(3)) == (ev.ForgetLease(3), ev.Tell(m.Recalled(3, True)))
    assert driver(run(4, slot=1)) == (ev.Dispatch(1, 4),)
    assert driver(run(5, slot=9)) == (ev.ForgetLease(5), ev.Tell(m.Recalled(5, True)))


def test_a_finished_batch_frees_its_slot_before_it_is_acknowledged() -> None:
    driver = ready()
    driver(run(1))
    driver(run(2))
    driver(ev.BatchBegan(1))
    driver(ev.PartMade(1, 0, True))
    assert driver(run(3)) == (ev.Dispatch(0, 3),)


def test_a_lease_lives_until_its_last_part_is_acknowledged() -> None:
    driver = ready()
    driver(run(1))
    driver(ev.BatchBegan(1))
    driver(ev.PartMade(1, 0, False))
    assert driver(ev.Acked(((1, 0),))) == (ev.ForgetPart(1, 0),)
    assert driver.machine.held() == ((1, "j", 0, 10, "running"),)
    driver(ev.PartMade(1, 4, True))
    assert driver.machine.held() == ((1, "j", 0, 10, "done"),)
    assert driver(ev.Acked(((1, 4),))) == (ev.ForgetLease(1),)
    assert driver.machine.is_idle()


def test_an_acknowledgement_of_what_was_never_sent_changes_nothing() -> None:
    driver = ready()
    driver(run(1))
    assert driver(ev.Acked(((1, 7), (99, 0)))) == ()
    assert driver.machine.held() == ((1, "j", 0, 10, "queued"),)


def test_a_part_of_a_lease_that_is_gone_is_forgotten_at_once() -> None:
    driver = ready()
    assert driver(ev.PartMade(5, 0, True)) == (ev.ForgetPart(5, 0),)


def test_a_batch_that_has_begun_is_not_given_back() -> None:
    driver = ready()
    driver(run(1))
    driver(run(2))
    driver(ev.BatchBegan(1))
    assert driver(ev.RecallCame(1)) == (ev.Tell(m.Recalled(1, False)),)
    assert driver(ev.RecallCame(2)) == (ev.Withdraw(0, 2, "recalled"), ev.ForgetLease(2), ev.Tell(m.Recalled(2, True)))
    assert driver(ev.RecallCame(77)) == (ev.Tell(m.Recalled(77, False)),)


def test_a_cancelled_batch_is_withdrawn_and_forgotten() -> None:
    driver = ready()
    driver(run(1))
    driver(ev.BatchBegan(1))
    assert driver(ev.LeaseGone(1, "job-cancelled")) == (ev.Withdraw(0, 1, "job-cancelled"), ev.ForgetLease(1))
    assert driver(ev.LeaseGone(1, "job-cancelled")) == ()


def test_the_end_of_a_job_withdraws_its_batches_and_closes_its_children() -> None:
    driver = ready()
    driver(ev.JobCame("k"))
    driver(run(1))
    driver(run(2, job="k"))
    assert driver(ev.JobEnded("j")) == (ev.Withdraw(0, 1, "job-over"), ev.ForgetLease(1), ev.CloseJob("j"))
    assert [x[0] for x in driver.machine.held()] == [2]


def test_a_refused_job_gives_its_batches_back_and_says_why_each_time() -> None:
    driver = Driver()
    driver(ev.JobCame("j"))
    driver(run(1))
    blocked = ev.Tell(m.JobBlocked("j", "bad-signature", "no"))
    assert driver(ev.JobRefused("j", "bad-signature", "no")) == (
        blocked, ev.ForgetLease(1), ev.Tell(m.Recalled(1, True)), ev.CloseJob("j"),
    )  # fmt: skip
    assert driver(run(2)) == (ev.ForgetLease(2), blocked, ev.Tell(m.Recalled(2, True)))
    assert blocked in driver(ev.LinkUp(()))
    assert driver(ev.JobCame("j")) == (ev.PrepareJob("j"),)  # the chief may have mended it


def test_a_run_of_an_unknown_job_is_given_back() -> None:
    effects = Driver()(run(1))
    assert effects[0] == ev.ForgetLease(1)
    assert effects[-1] == ev.Tell(m.Recalled(1, True))


def test_what_a_resume_does_not_keep_is_killed() -> None:
    driver = ready()
    driver(run(1))
    driver(run(2))
    driver(ev.BatchBegan(1))
    assert driver(ev.LinkUp((2,))) == (ev.Withdraw(0, 1, "not-resumed"), ev.ForgetLease(1))
    assert [x[0] for x in driver.machine.held()] == [2]


def test_a_paused_worker_takes_nothing_until_undrained() -> None:
    driver = ready(2)
    assert driver(ev.DrainCame(True)) == tuple(ev.Tell(m.SlotState(s, "paused", "drained by the chief")) for s in (0, 1))
    assert driver(ev.DrainCame(True)) == ()
    assert driver(run(1)) == (ev.ForgetLease(1), ev.Tell(m.Recalled(1, True)))
    assert driver(ev.UndrainCame()) == tuple(ev.Tell(m.SlotState(s, "idle", "")) for s in (0, 1))
    assert driver(run(2)) == (ev.Dispatch(0, 2),)


def test_a_drained_worker_leaves_when_the_last_result_is_acknowledged() -> None:
    driver = ready()
    driver(run(1))
    assert driver(ev.DrainCame(False)) == ()
    driver(ev.BatchBegan(1))
    assert driver(ev.PartMade(1, 0, True)) == ()
    assert driver(ev.Acked(((1, 0),))) == (ev.ForgetLease(1), ev.Leave("drained"))


def test_an_idle_worker_leaves_at_once_when_stopped() -> None:
    assert Driver()(ev.StopAsked(30.0)) == (ev.Leave("stopped"),)


def test_a_stopped_worker_gives_back_what_has_not_begun_and_kills_the_rest_after_the_grace() -> None:
    driver = ready()
    driver(run(1))
    driver(run(2))
    driver(ev.BatchBegan(1))
    assert driver(ev.StopAsked(30.0), now=100.0) == (ev.Withdraw(0, 2, "stopped"), ev.ForgetLease(2), ev.Tell(m.Recalled(2, True)))
    assert driver.machine.next_deadline() == 130.0
    assert driver(ev.Tick(), now=129.0) == ()
    assert driver(ev.Tick(), now=130.0) == (ev.Withdraw(0, 1, "stopped"), ev.ForgetLease(1), ev.Leave("stopped"))
    assert driver.machine.next_deadline() is None


def holding_a_result() -> Driver:
    driver = ready()
    driver(run(1))
    driver(ev.BatchBegan(1))
    driver(ev.PartMade(1, 0, True))
    return driver


def test_a_stopped_worker_waits_only_briefly_for_a_chief_that_is_away() -> None:
    driver = holding_a_result()
    driver(ev.LinkDown(), now=10.0)
    assert driver.machine.next_deadline() is None  # nobody asked it to stop: the chief may come back in a week
    driver(ev.StopAsked(30.0), now=100.0)
    assert driver.machine.next_deadline() == 100.0 + AWAY_GRACE_S
    assert driver(ev.Tick(), now=100.0 + AWAY_GRACE_S) == (ev.ForgetLease(1), ev.Leave("stopped"))


def test_a_chief_that_is_lost_while_a_worker_stops_gets_the_same_time_and_all_of_it_when_it_comes_back() -> None:
    driver = holding_a_result()
    driver(ev.StopAsked(30.0), now=100.0)
    driver(ev.LinkDown(), now=110.0)
    driver(ev.LinkDown(), now=112.0)  # the first one counts
    assert driver.machine.next_deadline() == 110.0 + AWAY_GRACE_S
    driver(ev.LinkUp((1,)), now=114.0)
    assert driver.machine.next_deadline() == 130.0
    driver(ev.LinkDown(), now=128.0)
    assert driver.machine.next_deadline() == 130.0


def test_a_slot_state_is_told_once_and_again_on_a_new_channel() -> None:
    driver = Driver()
    broken = ev.Tell(m.SlotState(0, "broken", "no bwrap"))
    assert driver(ev.SlotChanged(0, "idle", "")) == ()
    assert driver(ev.SlotChanged(0, "broken", "no bwrap")) == (broken,)
    assert driver(ev.SlotChanged(0, "broken", "no bwrap")) == ()
    assert driver(ev.LinkUp(None)) == (broken,)


def test_validate_notices_a_batch_that_runs_undispatched() -> None:
    machine = WorkerState(1)
    machine.handle(ev.JobCame("j"), T0)
    machine.handle(run(1), T0)
    machine.handle(ev.BatchBegan(1), T0)
    with pytest.raises(InvariantBroken):
        machine.validate()


@pytest.mark.parametrize("seed", range(20))
def test_no_sequence_of_events_breaks_an_invariant_or_loses_a_lease(seed: int) -> None:
    rng = random.Random(seed)
    driver = Driver(2)
    forgotten: set[int] = set()
    taken: set[int] = set()
    for step in range(400):
        token = rng.randrange(1, 30)
        lease = driver.machine.lease(token)
        choices: list[ev.Event] = [
            ev.RunCame(1000 + step, rng.randrange(2), rng.choice("jk"), 0, 10),
            ev.JobCame(rng.choice("jk")), ev.JobReady(rng.choice("jk")), ev.JobRefused(rng.choice("jk"), "x", "y"),
            ev.RecallCame(token), ev.LeaseGone(token, "r"), ev.SlotChanged(rng.randrange(2), rng.choice(("idle", "broken")), ""),
            ev.Acked(tuple((t, f) for t, *_ in driver.machine.held()[:1] for f in (0, 3))),
        ]  # fmt: skip
        held = [driver.machine.lease(t) for t, *_ in driver.machine.held()]
        running = [x for x in held if x is not None and x.dispatched and x.phase != "done"]
        if running:
            one = rng.choice(running)
            choices += [ev.BatchBegan(one.token)] * 3
            if one.phase == "running":
                choices += [ev.PartMade(one.token, 0, False), ev.PartMade(one.token, 3, True)] * 2
        if rng.random() < 0.02:
            choices = [ev.JobEnded(rng.choice("jk")), ev.LinkUp(tuple(t for t, *_ in driver.machine.held() if rng.random() < 0.5))]
        del lease
        event = rng.choice(choices)
        for effect in driver(event):
            if isinstance(effect, ev.ForgetLease):
                forgotten.add(effect.token)
        taken |= {t for t, *_ in driver.machine.held()}
    held_now = {t for t, *_ in driver.machine.held()}
    assert taken - forgotten == held_now, f"seed {seed}"


def test_the_worker_and_the_chief_digest_the_same_input_alike() -> None:
    import numpy as np

    from company.chief.digests import range_digest
    from company.worker.batch import Batch

    sizes = np.array([3, 0, 2, 4], dtype="<u4")
    body = b"abcdefghi"
    blob = (1, 9_000_000, b"d" * 32)  # the second one is large: its bytes are elsewhere
    batch = Batch(token=1, slot=0, job="j", first=10, count=4, attempt=0, sizes=sizes, body=body, blobs=(blob,))
    assert batch.input_digest(10, 4) == range_digest(sizes, [body, blob[2]])
    assert batch.input_digest(12, 2) == range_digest(sizes[2:], [body[3:]])
    assert batch.input_digest(11, 1) == range_digest(sizes[1:2], [b"", blob[2]])
