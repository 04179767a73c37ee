"""Peers of the benchmarks answer, and one that does not is ended and named."""

from __future__ import annotations

import pytest

from benchmarks.peer_process import PeerLost, PeerProcess


def test_a_peer_answers_with_seconds_and_a_value_that_can_be_checked() -> None:
    process = PeerProcess("multiprocessing", 1)
    try:
        pool = process.modes()[0]
        seconds, count = pool.ask("tiny", n=50)
        assert (seconds > 0, count) == (True, 50)
        assert pool.ask("large", n=2, size=16)[1] == 2
        began, ended, own = pool.ask("calibrated", n=2, turns=10)[1]
        assert ended - began >= own / 2 >= 0
    finally:
        process.close()


def test_a_peer_that_is_too_slow_is_ended_and_stays_lost() -> None:
    process = PeerProcess("multiprocessing", 1)
    try:
        pool = process.modes()[0]
        question = {"mode": pool.name, "case": "calibrated", "arguments": {"n": 1, "turns": 10**12}}
        with pytest.raises(PeerLost, match=r"no answer within 0\.2 s"):
            process.ask(question, timeout_s=0.2)
        assert pool.lost
        with pytest.raises(PeerLost, match="no answer"):
            pool.ask("tiny", n=1)
    finally:
        process.close()
