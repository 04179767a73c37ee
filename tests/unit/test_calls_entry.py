"""What runs calls in the sandbox: one that takes long leaves the others of its portion to another portion."""

from __future__ import annotations

import pickle
import time
from typing import Any

import pytest

from company.client import calls_entry as entry
from company.client.chunks import opened
from company.errors import IntegrityError
from p2p.base.codec import encode_value
from tests.support import call_samples as samples


def run(kind: int, fn: Any, calls: list[Any]) -> list[Any]:
    return entry.process([b"k" + repr(fn).encode()[:20], pickle.dumps(fn), kind, pickle.dumps(calls)])


def test_calls_that_take_long_are_left_and_at_least_one_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0]
    monkeypatch.setattr(time, "monotonic_ns", lambda: clock[0])

    def slow(x: int) -> int:
        clock[0] += x
        return x

    entry._functions[b"slow"] = slow
    for per_call, done in ((entry.SLICE_NS * 2, 1), (entry.SLICE_NS // 4, 4), (1, 100)):
        answer = entry.process([b"slow", b"", entry.ONE | entry.SLICED, pickle.dumps([per_call] * 100)])
        assert pickle.loads(answer[2]) == [per_call] * done
    answer = entry.process([b"slow", b"", entry.ONE, pickle.dumps([entry.SLICE_NS] * 100)])
    assert len(pickle.loads(answer[2])) == 100, "nobody asked for slices"


def test_short_calls_are_looked_at_by_the_hundreds(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [0]

    def tick() -> int:
        looks[0] += 1
        return looks[0]

    monkeypatch.setattr(time, "monotonic_ns", tick)
    assert len(pickle.loads(run(entry.ONE | entry.SLICED, abs, list(range(20_000)))[2])) == 20_000
    assert looks[0] < 120


def test_a_failure_does_not_end_a_slice() -> None:
    _, failed, payload, _ = run(entry.STAR | entry.SLICED, samples.divide, [(4, 2), (1, 0), (9, 3)])
    values = pickle.loads(payload)
    assert (failed, values[0], values[2], values[1][1]) == ([1], 2, 3, "ZeroDivisionError")


def test_only_who_asked_for_slices_gets_fewer_results() -> None:
    body = encode_value([5, [], pickle.dumps([1, 2]), ""])
    assert opened(body, 3, is_sliced=True).values == [1, 2]
    for calls, is_sliced in ((3, False), (1, True)):
        with pytest.raises(IntegrityError):
            opened(body, calls, is_sliced=is_sliced)
    with pytest.raises(IntegrityError):
        opened(encode_value([5, [], pickle.dumps([]), ""]), 3, is_sliced=True)
