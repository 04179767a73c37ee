"""Nodes of a cluster as workers: who gives how many slots, what is said of those that do not join, and a pilot's own end."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from typing import Any

import pytest

from company.cluster.pilots import shares, wait_joined
from p2p.base.errors import Unavailable

PILOT = [sys.executable, "-m", "company.cluster.pilot"]


class Lender:
    """Says what it is told to."""

    slots = 2

    def __init__(self, *rounds: list[dict[str, Any]]) -> None:
        self._rounds = list(rounds)

    def keep(self) -> list[dict[str, Any]]:
        return self._rounds.pop(0) if len(self._rounds) > 1 else self._rounds[0]

    def take_back(self) -> None:
        raise AssertionError("nobody asked for that")


def test_nodes_give_all_they_have_in_their_order_until_there_is_enough() -> None:
    assert shares([4, 4, 2], None) == [4, 4, 2]
    assert shares([4, 4, 2], 5) == [4, 1, 0]
    with pytest.raises(Unavailable) as raised:
        shares([4, 4, 2], 11)
    assert raised.value.code == "cluster-too-small"


def test_all_nodes_are_waited_for_and_the_first_that_cannot_join_is_told() -> None:
    joined = {"state": "joined", "worker": "w-1"}
    assert wait_joined(Lender([{"state": "queued"}, joined], [{"state": "starting"}, joined], [joined, joined])) == [joined, joined]
    with pytest.raises(Unavailable, match="the token is used up") as raised:
        wait_joined(Lender([joined, {"state": "failed", "text": "the token is used up\n"}]))
    assert raised.value.code == "pilot-failed"
    with pytest.raises(Unavailable, match=r"queued.*joined") as raised:
        wait_joined(Lender([{"state": "queued"}, joined]), within_s=0.0)
    assert raised.value.code == "pilots-late"


@pytest.mark.parametrize("said", [b"", b"[1]\n", b"no line's end"])
def test_a_pilot_that_is_told_nothing_ends(said: bytes) -> None:
    done = subprocess.run(PILOT, input=said, capture_output=True, timeout=60, check=False)
    assert (json.loads(done.stdout)["state"], done.returncode) == ("failed", 1)


def test_a_pilot_says_why_its_worker_did_not_join() -> None:
    asked = {"name": "lent", "slots": 1, "options": [], "token": "no token at all"}
    with subprocess.Popen(PILOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        process.stdin.flush()  # and stays open: the worker ends before the pilot is told to
        assert process.stdout is not None and select.select([process.stdout], [], [], 60)[0]
        told = json.loads(process.stdout.readline())
        assert process.wait(60) == 0
    assert told["state"] == "failed" and "token" in told["text"], told
