"""Nodes of a cluster as workers: who gives how many slots, what is said of those that do not join, and every way in which they end."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from company.cluster.desk import Desk, Leave, in_time
from company.cluster.pilot import Watched
from company.cluster.pilots import HERE, each, hold, shares, take_back, wait_joined, wait_over
from p2p.base.errors import Unavailable

PILOT = [sys.executable, "-m", "company.cluster.pilot"]
JOINED = {"state": "joined", "worker": "w-1"}
LEFT = {"state": "left"}


class Lender:
    """Says what it is told to, round by round; a text is what asking raises, and nothing stands for no answer at all."""

    slots = 2

    def __init__(self, *rounds: list[Any]) -> None:
        self._rounds = list(rounds)
        self.actions: list[str] = []
        self.released = threading.Event()

    def begin(self) -> None:
        raise AssertionError("nobody asked for that")

    def questions(self, action: str) -> dict[str, Callable[[], dict[str, Any]]]:
        self.actions.append(action)
        now = self._rounds.pop(0) if len(self._rounds) > 1 else self._rounds[0]
        return {f"n{number}": lambda said=said: self._say(said) for number, said in enumerate(now)}  # type: ignore[misc]

    def _say(self, said: Any) -> dict[str, Any]:
        if said is None:
            self.released.wait()
        if isinstance(said, str):
            raise OSError(said)
        return dict(said or LEFT)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    with desk.hearing():
        yield desk


def test_nodes_give_all_they_have_in_their_order_until_there_is_enough() -> None:
    assert shares([4, 4, 2], None) == [4, 4, 2]
    assert shares([4, 4, 2], 5) == [4, 1, 0]
    with pytest.raises(Unavailable) as raised:
        shares([4, 4, 2], 11)
    assert raised.value.code == "cluster-too-small"


def test_all_nodes_are_waited_for_and_the_first_that_cannot_join_is_told(desk: Desk) -> None:
    found = wait_joined(desk, Lender([{"state": "queued"}, JOINED], ["no answer", JOINED], [JOINED, JOINED], [JOINED, JOINED]))
    assert list(found.values()) == [JOINED, JOINED]
    with pytest.raises(Unavailable, match="the token is used up") as raised:
        wait_joined(desk, Lender([JOINED, {"state": "failed", "text": "the token is used up\n"}]))
    assert raised.value.code == "pilot-failed"
    with pytest.raises(Unavailable, match=r"queued.*joined") as raised:
        wait_joined(desk, Lender([{"state": "queued"}, JOINED]), within_s=0.0)
    assert raised.value.code == "pilots-late"


def test_a_call_of_the_cluster_that_never_returns_stops_nothing(desk: Desk) -> None:
    lender = Lender([None, JOINED])
    try:
        assert desk.all(lender.questions("keep"), 0.05) == {"n1": JOINED}
        assert desk.all(lender.questions("keep"), 0.05) == {"n1": JOINED}
        assert sum(t.name == "company-ask-n0" for t in threading.enumerate()) == 1, "what is still asked is not asked again"
        with pytest.raises(Unavailable, match=r"within 0\.05 s: to begin") as raised:
            desk.ask("to begin", lender.released.wait, 0.05)
        assert raised.value.code == "cluster-silent"
        left = take_back(desk, lender, within_s=0.3)
        assert {node: state["state"] for node, state in left.items()} == {"n0": "silent", "n1": "joined"}
        assert not in_time(lender.released.wait, 0.05)
    finally:
        lender.released.set()
    assert in_time(lender.released.wait, 5.0)


def test_a_signal_is_heard_whatever_the_cluster_does(desk: Desk) -> None:
    busy, silent = Lender([JOINED], [None], [LEFT]), Lender([None, JOINED])
    try:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Leave):
            wait_over(desk, busy)
        with pytest.raises(Leave):
            desk.sleep(5.0)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        began = time.monotonic()
        assert set(take_back(desk, silent, within_s=20.0)) == {"n0", "n1"}
        assert time.monotonic() - began < 10, "the second signal ends the waiting"
    finally:
        busy.released.set()
        silent.released.set()


def test_nodes_are_asked_to_leave_until_all_have(desk: Desk) -> None:
    lender = Lender([JOINED, JOINED], ["the scheduler is busy", LEFT], [JOINED, LEFT], [LEFT, LEFT])
    assert take_back(desk, lender) == {}
    assert lender.actions == ["stop"] * 4
    assert list(wait_over(desk, Lender([JOINED, LEFT], [LEFT, LEFT], [LEFT, LEFT]), every_s=0.0).values()) == [LEFT, LEFT]


def test_a_node_that_is_taken_back_before_it_begins_does_not_begin() -> None:
    assert each("run-1", "node-1", "keep") == {"state": "queued"}
    assert each("run-1", "node-1", "stop")["state"] == "left"
    assert hold("run-1", "node-1", {"name": "none", "slots": 1}) == {"state": "left"}
    assert ("run-1", "node-1") not in HERE.known


def test_a_pilot_that_hears_nothing_takes_itself_back(capfd: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"], **pipes) as process:  # type: ignore[call-overload]
        try:
            os.write(write, b"\n")
            Watched(process, read, lost_s=0.2).run()
            assert process.returncode == -signal.SIGTERM
        finally:
            process.kill()
            os.close(read)
            os.close(write)
    assert json.loads(capfd.readouterr().out)["state"] == "left"


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
