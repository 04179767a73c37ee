"""The local engine's queue: every fragment in one place, failures alone, neighbours kept."""

from __future__ import annotations

import random

import numpy as np
import pytest

from company.local_engine.queue import LocalQueue
from p2p.base.errors import InvariantBroken


def sizes(*values: int) -> np.ndarray:
    return np.array(values, dtype="<u4")


def filled(n: int, slots: int = 1) -> LocalQueue:
    queue = LocalQueue(slots)
    queue.add(sizes(*[3] * n), None)
    queue.end(n)
    return queue


def test_a_run_is_settled_once_split_has_ended_and_all_is_done() -> None:
    queue = LocalQueue(1)
    assert not queue.is_settled
    queue.add(sizes(1), None)
    out = queue.take()
    assert out is not None
    assert queue.take() is None
    queue.on_done(out.token, 0, 1)
    queue.on_part(out.token, 0, 1, last=True, run_us=10)
    assert not queue.is_settled, "split may go on"
    queue.end(1)
    assert queue.is_settled
    queue.validate()


def test_an_empty_split_is_settled_at_once() -> None:
    queue = LocalQueue(2)
    queue.end(0)
    assert queue.is_settled
    assert queue.take() is None


def test_a_fragment_that_fails_is_tried_alone_three_times() -> None:
    queue = filled(1)
    for attempt in (1, 2, 3):
        out = queue.take()
        assert out is not None
        assert (out.first, out.count, out.attempt) == (0, 1, attempt)
        verdict = queue.on_failure(0, "raised")
        queue.on_part(out.token, 0, 1, last=True, run_us=10)
        queue.validate()
        assert verdict.final == (attempt == 3)
    assert queue.is_settled
    assert list(queue.dead) == [(0, 1)]


def test_a_death_blames_one_and_gives_back_its_unanswered_neighbours() -> None:
    queue = LocalQueue(1)
    queue.add(sizes(*[2] * 1000), None)
    queue.end(1000)
    while True:  # probes grow until a batch has room for the case
        out = queue.take()
        assert out is not None
        if out.count >= 8:
            break
        queue.on_done(out.token, out.first, out.count)
        queue.on_part(out.token, out.first, out.count, last=True, run_us=10)
    first = out.first
    queue.on_done(out.token, first, 2)
    queue.on_part(out.token, first, 2, last=False, run_us=10)
    queue.on_death(out.token, first + 5, "crashed")
    queue.validate()
    again = [queue.take() for _ in range(3)]
    assert [(b.first - first, b.count) for b in again if b] == [(2, 3), (6, out.count - 6), (5, 1)]
    assert queue.out(out.token) is None


def test_what_a_slot_never_began_is_given_back_once() -> None:
    queue = filled(1)
    out = queue.take()
    assert out is not None
    queue.give_back(out.token)
    queue.give_back(out.token)
    queue.validate()
    again = queue.take()
    assert again is not None
    assert (again.first, again.count, again.attempt) == (0, 1, 1)
    assert again.token != out.token


def test_a_split_that_counts_otherwise_than_it_yields_is_a_bug() -> None:
    queue = LocalQueue(1)
    queue.add(sizes(1, 1), None)
    with pytest.raises(InvariantBroken):
        queue.end(3)


@pytest.mark.parametrize("seed", range(20))
def test_no_fragment_is_lost_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    queue = LocalQueue(3)
    total, made, held = rng.randrange(1, 400), 0, []
    bad = set(rng.sample(range(total), rng.randrange(0, min(5, total) + 1)))
    for _ in range(100_000):
        if queue.is_settled:
            break
        if made < total and rng.random() < 0.3:
            number = min(total - made, rng.randrange(1, 60))
            queue.add(sizes(*[rng.randrange(0, 50) for _ in range(number)]), [1.0] * number if rng.random() < 0.5 else None)
            made += number
            if made == total:
                queue.end(total)
        if len(held) < 6 and (out := queue.take()) is not None:
            held.append(out)
        if held and rng.random() < 0.7:
            out = held.pop(rng.randrange(len(held)))
            guilty = sorted(bad & set(range(out.at, out.end)))
            if rng.random() < 0.1:
                queue.give_back(out.token)
            elif guilty and rng.random() < 0.5:
                queue.on_death(out.token, guilty[0], "crashed")
            else:
                at = out.at
                for index in [*guilty, out.end]:
                    if index > at:
                        queue.on_done(out.token, at, index - at)
                    if index < out.end:
                        queue.on_failure(index, "raised")
                    at = index + 1
                queue.on_part(out.token, out.at, out.end - out.at, last=True, run_us=rng.randrange(1, 10_000))
        queue.validate()
    assert queue.is_settled, f"seed {seed}"
    assert sorted(i for a, n in queue.dead for i in range(a, a + n)) == sorted(bad)
    assert queue.done.total == total - len(bad)
