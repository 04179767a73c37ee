"""Nodes of somebody's Dask or Ray cluster as workers of a company, and back (I/O).

Each node gets one pilot (`company.cluster.pilot`) with as many slots as it lends; the cluster's own scheduler sees that many of its
threads or CPUs taken, so it puts nothing else there. A pilot hears from the command that lent its node every few seconds, and takes
itself back when it does not: to take nodes back sooner is what a command can ask for, and nothing depends on its being heard.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from company.cluster.desk import Desk, Leave
from company.cluster.engines import DaskCluster, RayCluster
from company.cluster.pilot import LOST_S
from p2p.base.errors import Unavailable

KEEP_S = 5.0
ASK_S = 15.0  # for one answer of the cluster
LEFT_S = 60.0  # for a worker that stops: it drains for 30 s, its pilot ends it after 45
JOIN_S = 120.0
POLL_S = 0.2
MAX_KNOWN = 64  # pilots of this process, those that are over included
OVER = frozenset(("left", "failed", "lost"))
States = dict[str, dict[str, Any]]


class Pilot:
    """One pilot process, as the node's own process sees it."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "company.cluster.pilot"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self.state: dict[str, Any] = {"state": "starting"}
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)  # whoever asks is an event loop, and a pilot may be stopped
        self._write(json.dumps(request | {"name": f"{request['name']}-{platform.node()}"[:60]}).encode() + b"\n")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _write(self, data: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it is over, was asked to leave, or reads nothing: its state tells
            os.write(stdin.fileno(), data)

    def _read(self) -> None:
        """What the pilot says; it ends by itself when nobody is above it, and this thread with it."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.state = dict(json.loads(line))
        self._process.wait()
        if self.state["state"] not in OVER:
            self.state = {"state": "failed", "text": "the pilot was killed"}

    def keep(self) -> dict[str, Any]:
        """The command is still there."""
        self._write(b"\n")
        return self.state | {"host": platform.node()}

    def stop(self) -> dict[str, Any]:
        """Ask it to leave, once or again; returns at once."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        return self.state | {"host": platform.node()}

    def wait(self) -> dict[str, Any]:
        """Return when it is over."""
        self._reader.join()
        return self.state


@dataclass(slots=True)
class NodePilots:
    """The pilots of this process by run and node."""

    known: dict[tuple[str, str], Pilot] = field(default_factory=dict)
    taken_back: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=MAX_KNOWN))  # before they began
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, run_id: str, node: str, request: dict[str, Any]) -> Pilot | None:
        """The one of this run and node, started by whoever asks first; nil when the node was taken back."""
        with self.lock:
            pilot = self.known.get((run_id, node))
            if pilot is None and (run_id, node) not in self.taken_back:
                for key in [k for k, p in self.known.items() if p.state["state"] in OVER][: max(0, len(self.known) + 1 - MAX_KNOWN)]:
                    del self.known[key]
                pilot = self.known[run_id, node] = Pilot(request)
            return pilot

    def stop(self, run_id: str, node: str) -> dict[str, Any]:
        """Take a node back, whether its pilot has begun or still waits for a thread."""
        with self.lock:
            pilot = self.known.get((run_id, node))
            if pilot is None:
                if (run_id, node) not in self.taken_back:
                    self.taken_back.append((run_id, node))
                return {"state": "left", "host": platform.node()}
        return pilot.stop()


HERE = NodePilots()  # one per process of a Dask worker: its scheduler knows functions only


def hold(run_id: str, node: str, request: dict[str, Any]) -> dict[str, Any]:
    """A task of Dask: takes one thread of its worker; the first of a node starts the pilot, and each ends with it."""
    pilot = HERE.of(run_id, node, request)
    return pilot.wait() if pilot is not None else {"state": "left"}


def each(run_id: str, node: str, action: str) -> dict[str, Any]:
    """On a Dask worker, beside its tasks: ``keep`` or ``stop`` its pilot."""
    if action == "stop":
        return HERE.stop(run_id, node)
    pilot = HERE.known.get((run_id, node))
    return pilot.keep() if pilot is not None else {"state": "queued"}


class Lender(Protocol):
    """A cluster that lends its nodes. Each call of it may take for ever: `Desk` asks."""

    slots: int

    def begin(self) -> None:
        """Put a pilot on each node. Raises `Unavailable`."""

    def questions(self, action: str) -> dict[str, Callable[[], dict[str, Any]]]:
        """For each node what tells the state of its pilot; "keep" tells the node that somebody is there, "stop" asks it to leave."""


def shares(threads: list[int], slots: int | None) -> list[int]:
    """How many slots each node gives so that all together are ``slots``, nil for all. Raises `Unavailable`."""
    left = sum(threads) if slots is None else slots
    if left > sum(threads):
        text = f"{slots} slots were asked for; the cluster has {sum(threads)}"
        raise Unavailable("cluster-too-small", text, hint="ask for fewer, or enlarge the cluster")
    found = []
    for count in threads:
        found.append(min(count, left))
        left -= found[-1]
    return found


class DaskLender:
    """Workers of a Dask cluster."""

    def __init__(self, cluster: DaskCluster, run_id: str, slots: int | None, request: dict[str, Any]) -> None:
        self._client, self._run_id, self._request, self._wanted = cluster.client, run_id, request, slots
        self.slots = 0
        self._futures: dict[str, list[Any]] = {}

    def begin(self) -> None:
        threads = dict(self._client.nthreads())
        given = {node: count for node, count in zip(threads, shares(list(threads.values()), self._wanted), strict=True) if count}
        for number, (node, count) in enumerate(given.items()):
            asked = self._request | {"slots": count, "name": f"{self._request['name']}-{number}"}
            options = {"workers": [node], "pure": False, "allow_other_workers": False, "retries": 0}
            self._futures[node] = [self._client.submit(hold, self._run_id, node, asked, **options) for _ in range(count)]
        self.slots = sum(given.values())

    def questions(self, action: str) -> dict[str, Callable[[], dict[str, Any]]]:
        return {node: lambda node=node: self._of(node, action) for node in list(self._futures)}  # type: ignore[misc]

    def _of(self, node: str, action: str) -> dict[str, Any]:
        if node not in self._client.nthreads():
            return {"state": "lost", "host": node, "text": "it left the cluster"}
        found = self._client.run(each, self._run_id, node, action, workers=[node], on_error="return").get(node)
        if action == "stop":  # those that wait for a thread wait no more; one that runs ends with its pilot
            self._client.cancel(self._futures[node])
        return found if isinstance(found, dict) else {"state": "lost", "host": node, "text": str(found)[:300]}


class RayLender:
    """Nodes of a Ray cluster; each pilot is an actor that holds its CPUs, and ends with this program."""

    def __init__(self, cluster: RayCluster, run_id: str, slots: int | None, request: dict[str, Any]) -> None:
        self._ray, self._request, self._wanted = cluster.ray, request, slots
        self.slots = 0
        self._pilots: dict[str, Any] = {}
        self._queued: set[str] = set()

    def begin(self) -> None:
        near = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        nodes = [(str(n["NodeID"]), int(n["Resources"].get("CPU", 0))) for n in self._ray.nodes() if n["Alive"]]
        given = [(node, count) for (node, _), count in zip(nodes, shares([c for _, c in nodes], self._wanted), strict=True) if count]
        for number, (node, count) in enumerate(given):
            made = self._ray.remote(Pilot).options(num_cpus=count, scheduling_strategy=near(node, soft=False))
            self._pilots[node] = made.remote(self._request | {"slots": count, "name": f"{self._request['name']}-{number}"})
            self._queued.add(node)
        self.slots = sum(count for _, count in given)

    def questions(self, action: str) -> dict[str, Callable[[], dict[str, Any]]]:
        return {node: lambda node=node: self._of(node, action) for node in list(self._pilots)}  # type: ignore[misc]

    def _of(self, node: str, action: str) -> dict[str, Any]:
        pilot = self._pilots[node]
        if action == "stop" and node in self._queued:  # it waits for its CPUs: nothing has begun
            self._ray.kill(pilot)
            return {"state": "left", "host": node}
        try:
            state = dict(self._ray.get((pilot.stop if action == "stop" else pilot.keep).remote(), timeout=KEEP_S))
        except self._ray.exceptions.GetTimeoutError:
            return {"state": "queued" if node in self._queued else "silent", "host": node}
        except self._ray.exceptions.RayError as error:
            return {"state": "lost", "host": node, "text": str(error)[:300]}
        self._queued.discard(node)
        return state


LENDERS: dict[str, Callable[..., Lender]] = {"dask": DaskLender, "ray": RayLender}


def ask_all(desk: Desk, lender: Lender, action: str, within_s: float = ASK_S, *, until_signals: int = 1) -> States:
    """The state of each pilot by its node; of one that does not answer that it is silent. Raises `Leave`."""
    questions = lender.questions(action)
    found = desk.all(questions, within_s, until_signals=until_signals)
    states: States = {}
    for node in questions:
        answer = found.get(node, {"state": "silent", "host": node, "text": f"no answer within {within_s:g} s"})
        states[node] = {"state": "silent", "host": node, "text": str(answer)[:300]} if isinstance(answer, BaseException) else answer
    return states


def wait_joined(desk: Desk, lender: Lender, *, within_s: float = JOIN_S) -> States:
    """Return when every pilot has joined. Raises `Unavailable` with the last words of one that could not, and `Leave`."""
    until = time.monotonic() + within_s
    while True:
        states = ask_all(desk, lender, "keep")
        for state in states.values():
            if state["state"] in OVER:
                text = f"a node could not join: {str(state.get('text', '')).strip() or state['state']}"
                raise Unavailable("pilot-failed", text[:2000], hint="company token create --role worker --uses N, one use for each node")
        if all(state["state"] == "joined" for state in states.values()):
            return states
        if time.monotonic() > until:
            found = [s["state"] for s in states.values()]
            raise Unavailable("pilots-late", f"not all nodes joined within {within_s:g} s: {found}")
        desk.sleep(POLL_S)


def wait_over(desk: Desk, lender: Lender, *, every_s: float = KEEP_S) -> States:
    """Keep the nodes until none of them works for the company any more; their last states. Raises `Leave`.

    A node that is silent for so long that it has taken itself back by now is lost.
    """
    heard_at = dict.fromkeys(lender.questions("keep"), time.monotonic())
    while True:
        states = ask_all(desk, lender, "keep")
        now = time.monotonic()
        for node, state in states.items():
            if state["state"] != "silent":
                heard_at[node] = now
            elif now - heard_at[node] > LOST_S:
                state["state"] = "lost"
        if all(state["state"] in OVER for state in states.values()):
            return states
        desk.sleep(every_s)


def take_back(desk: Desk, lender: Lender, *, within_s: float = LEFT_S) -> States:
    """Ask all pilots to leave, again and again; returns those that have not when time is over, or at a second signal."""
    signals = max(2, desk.signals + 1)
    until = time.monotonic() + within_s
    states: States = {node: {"state": "silent", "host": node} for node in lender.questions("stop")}
    with contextlib.suppress(Leave):
        while (left_s := until - time.monotonic()) > 0:
            states = ask_all(desk, lender, "stop", min(ASK_S, left_s), until_signals=signals)
            if all(state["state"] in (*OVER, "queued") for state in states.values()):
                break
            desk.sleep(POLL_S, until_signals=signals)
    return {node: state for node, state in states.items() if state["state"] not in (*OVER, "queued")}
