"""Nodes of somebody's Dask or Ray cluster as workers of a company, and back (I/O).

Each node gets one pilot (`company.cluster.pilot`) with as many slots as it lends; the cluster's own scheduler sees that many of its
threads or CPUs taken, so it puts nothing else there. A node hears from the command that lent it every few seconds, and takes itself back
when it does not.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from company.cluster.engines import DaskCluster, RayCluster
from p2p.base.errors import Unavailable

KEEP_S = 5.0
LOST_S = 60.0  # without a word from the command
JOIN_S = 120.0
POLL_S = 0.2
MAX_KNOWN = 64  # pilots of this process, those that are over included
OVER = frozenset(("left", "failed", "lost"))


class Pilot:
    """One pilot process, as the node's own process sees it."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "company.cluster.pilot"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.state: dict[str, Any] = {"state": "starting"}
        self.kept_at = time.monotonic()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(request | {"name": f"{request['name']}-{platform.node()}"[:60]}) + "\n")
            self._process.stdin.flush()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

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
        self.kept_at = time.monotonic()
        return self.state | {"host": platform.node()}

    def stop(self) -> None:
        """Ask it to leave; returns at once."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def wait(self) -> dict[str, Any]:
        """Return when it is over; nobody who keeps it is the same as being asked to leave."""
        while self._reader.is_alive():
            self._reader.join(KEEP_S)
            if time.monotonic() - self.kept_at > LOST_S:
                self.stop()
        return self.state


@dataclass(slots=True)
class NodePilots:
    """The pilots of this process by run and node."""

    known: dict[tuple[str, str], Pilot] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, run_id: str, node: str, request: dict[str, Any]) -> Pilot:
        """The one of this run and node, started by whoever asks first."""
        with self.lock:
            pilot = self.known.get((run_id, node))
            if pilot is None:
                for key in [k for k, p in self.known.items() if p.state["state"] in OVER][: max(0, len(self.known) + 1 - MAX_KNOWN)]:
                    del self.known[key]
                pilot = self.known[run_id, node] = Pilot(request)
            return pilot


HERE = NodePilots()  # one per process of a Dask worker: its scheduler knows functions only


def hold(run_id: str, node: str, request: dict[str, Any]) -> dict[str, Any]:
    """A task of Dask: takes one thread of its worker; the first of a node starts the pilot, and each ends with it."""
    return HERE.of(run_id, node, request).wait()


def each(run_id: str, node: str, action: str) -> dict[str, Any]:
    """On a Dask worker, beside its tasks: ``keep`` or ``stop`` its pilot."""
    pilot = HERE.known.get((run_id, node))
    if pilot is None:
        return {"state": "queued"}
    if action == "stop":
        pilot.stop()
    return pilot.keep()


class Lender(Protocol):
    """A cluster that lends its nodes."""

    slots: int

    def keep(self) -> list[dict[str, Any]]:
        """The state of each pilot, by node; tells the nodes that somebody is there."""

    def take_back(self) -> None:
        """Ask all pilots to leave; returns at once."""


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
        self._client, self._run_id = cluster.client, run_id
        threads = dict(self._client.nthreads())
        given = {node: count for node, count in zip(threads, shares(list(threads.values()), slots), strict=True) if count}
        self.slots, self._nodes = sum(given.values()), list(given)
        self._futures = [
            self._client.submit(
                hold, run_id, node, request | {"slots": count, "name": f"{request['name']}-{number}"}, workers=[node], pure=False,
                allow_other_workers=False, retries=0,
            )
            for number, (node, count) in enumerate(given.items())
            for _ in range(count)
        ]  # fmt: skip

    def keep(self) -> list[dict[str, Any]]:
        return self._each("keep")

    def take_back(self) -> None:
        self._each("stop")
        self._client.cancel(
            [f for f in self._futures if f.status == "pending"]
        )  # those that wait for a thread; a running one ends with its pilot

    def _each(self, action: str) -> list[dict[str, Any]]:
        there = set(self._client.nthreads())
        found = []
        for node in self._nodes:
            state: Any = None
            if node in there:
                state = self._client.run(each, self._run_id, node, action, workers=[node], on_error="return").get(node)
            found.append(state if isinstance(state, dict) else {"state": "lost", "host": node, "text": str(state or "it left the cluster")})
        return found


class RayLender:
    """Nodes of a Ray cluster; each pilot is an actor that holds its CPUs, and ends with this program."""

    def __init__(self, cluster: RayCluster, run_id: str, slots: int | None, request: dict[str, Any]) -> None:
        self._ray = cluster.ray
        near = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        nodes = [(str(n["NodeID"]), int(n["Resources"].get("CPU", 0))) for n in self._ray.nodes() if n["Alive"]]
        given = [(node, count) for (node, _), count in zip(nodes, shares([c for _, c in nodes], slots), strict=True) if count]
        self.slots = sum(count for _, count in given)
        self._pilots = [
            self._ray.remote(Pilot)
            .options(num_cpus=count, scheduling_strategy=near(node, soft=False))
            .remote(request | {"slots": count, "name": f"{request['name']}-{number}"})
            for number, (node, count) in enumerate(given)
        ]

    def keep(self) -> list[dict[str, Any]]:
        return [self._ask(pilot) for pilot in self._pilots]

    def take_back(self) -> None:
        for pilot in self._pilots:
            pilot.stop.remote()

    def _ask(self, pilot: Any) -> dict[str, Any]:
        try:
            return dict(self._ray.get(pilot.keep.remote(), timeout=KEEP_S))
        except self._ray.exceptions.GetTimeoutError:
            return {"state": "queued"}
        except self._ray.exceptions.RayError as error:
            return {"state": "lost", "text": str(error)[:300]}


LENDERS: dict[str, Callable[..., Lender]] = {"dask": DaskLender, "ray": RayLender}


def wait_joined(lender: Lender, *, within_s: float = JOIN_S) -> list[dict[str, Any]]:
    """Return when every pilot has joined. Raises `Unavailable` with the last words of one that could not."""
    until = time.monotonic() + within_s
    while True:
        states = lender.keep()
        for state in states:
            if state["state"] in OVER:
                text = f"a node could not join: {str(state.get('text', '')).strip() or state['state']}"
                raise Unavailable("pilot-failed", text[:2000], hint="company token create --role worker --uses N, one use for each node")
        if all(state["state"] == "joined" for state in states):
            return states
        if time.monotonic() > until:
            raise Unavailable("pilots-late", f"not all nodes joined within {within_s:g} s: {[s['state'] for s in states]}")
        time.sleep(POLL_S)


def wait_left(lender: Lender, *, within_s: float = LOST_S) -> None:
    """Take the nodes back and wait until no pilot is left on them."""
    lender.take_back()
    until = time.monotonic() + within_s
    while any(state["state"] in ("starting", "joined") for state in lender.keep()) and time.monotonic() < until:
        time.sleep(POLL_S)
