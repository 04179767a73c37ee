"""Dask and Ray as far as a run needs them: how many slots there are, run this there, tell me when it is done (I/O).

Both come from the user's environment (extras ``dask`` and ``ray``); what they pickle are our own functions and bytes, between processes of
the user's own cluster.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from company import __version__
from company.cluster import task
from company.cluster.desk import in_time
from company.cluster.task import close_run, run_batch, versions
from p2p.base.errors import Unavailable, UsageError

CONNECT_TIMEOUT_S = 10.0
DIAL_TIMEOUT_S = 3.0
END_TIMEOUT_S = 10.0
Done = Callable[[bytes | Exception], None]


class Cluster(Protocol):
    """Somebody's cluster. ``slots``: how many batches it runs at a time."""

    name: str
    slots: int

    def begin(self, run_id: str, spec: bytes) -> None:
        """Make the job known to the nodes."""

    def submit(self, batch: bytes, done: Done) -> None:
        """Run a batch somewhere; ``done`` is called from any thread, once."""

    def end(self) -> None:
        """The run is over: its slots end."""


class DaskCluster:
    """A Dask cluster by the address of its scheduler."""

    name = "dask"

    def __init__(self, client: Any) -> None:
        self.client = client
        self.slots = sum(client.nthreads().values())
        self._run_id, self._spec = "", None
        _check(list(client.run(versions).values()))

    def begin(self, run_id: str, spec: bytes) -> None:
        self._run_id = run_id
        self._spec = self.client.scatter(spec, broadcast=True, hash=False)

    def submit(self, batch: bytes, done: Done) -> None:
        future = self.client.submit(run_batch, self._run_id, self._spec, batch, pure=False)
        future.add_done_callback(lambda made: done(_result_of(made.result)))

    def end(self) -> None:
        self._spec = None
        self.client.run(close_run, self._run_id)


class RayCluster:
    """A Ray cluster by its address, or the one on this machine."""

    name = "ray"

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.slots = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._run_id, self._spec = "", None
        self._run = ray.remote(max_retries=0)(run_batch)
        _check([ray.get(ray.remote(versions).remote(), timeout=CONNECT_TIMEOUT_S)])

    def begin(self, run_id: str, spec: bytes) -> None:
        self._run_id = run_id
        self._spec = self.ray.put(spec)

    def submit(self, batch: bytes, done: Done) -> None:
        reference = self._run.remote(self._run_id, self._spec, batch)
        reference.future().add_done_callback(lambda made: done(_result_of(made.result)))

    def end(self) -> None:
        """Ray cannot address each of its processes: slots end by themselves when they get nothing for a while."""
        self._spec = None


def _result_of(result: Callable[[], Any]) -> bytes | Exception:
    try:
        return bytes(result())
    except Exception as error:  # noqa: BLE001 - whatever the cluster raises is the fate of this batch, and is told
        return error


def _check(found: list[tuple[str, str]]) -> None:
    here = versions()
    for there in found:
        if there != here:
            raise UsageError(
                "cluster-differs", f"a node has Python {there[0]} and company-compute {there[1]}, here are {here[0]} and {here[1]}",
                hint=f"install company-compute {__version__} for Python {here[0]} on every node",
            )  # fmt: skip


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Cluster]:
    distributed = _import("distributed", "dask")
    _dial(address, "Dask scheduler")
    try:
        client = distributed.Client(address.removeprefix("dask://"), timeout=CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise Unavailable("cluster-unreachable", f"no Dask scheduler answers at {address}: {error}") from None
    try:
        yield _opened(lambda: DaskCluster(client))
    finally:
        in_time(client.close, END_TIMEOUT_S)


@contextlib.contextmanager
def _ray(address: str) -> Iterator[Cluster]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = _import("ray", "ray")
    was_there = ray.is_initialized()
    if not was_there:
        _dial(address, "Ray cluster")
        try:
            ray.init(address=address.removeprefix("ray-cluster://"), log_to_driver=False, logging_level=40)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise Unavailable("cluster-unreachable", f"no Ray cluster answers at {address}: {error}") from None
    try:
        yield _opened(lambda: RayCluster(ray))
    finally:
        if not was_there:
            in_time(ray.shutdown, END_TIMEOUT_S)


def _dial(address: str, what: str) -> None:
    """Whether anybody listens there: Dask asks for ten seconds at a closed port, Ray for longer. Raises `Unavailable`, `UsageError`."""
    scheme, _, place = address.rpartition("://")
    host, colon, port = place.rstrip("/").rpartition(":")
    if scheme not in ("", "tcp", "tls", "dask", "ray-cluster") or not colon:
        return  # a way of the cluster's own, such as ucx:// or auto
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError("engine-address", f"{address!r} has no port", hint="tcp://HOST:8786 for dask, HOST:6379 for ray")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=DIAL_TIMEOUT_S).close()
    except OSError as error:
        words = f"within {DIAL_TIMEOUT_S:g} s" if isinstance(error, TimeoutError) else str(error)
        raise Unavailable("cluster-unreachable", f"no {what} answers at {address}: {words}") from None


def _opened(make: Callable[[], Cluster]) -> Cluster:
    try:
        return make()
    except ModuleNotFoundError as error:
        hint = f"install company-compute {__version__} on every node"
        raise UsageError("cluster-lacks-company", f"a node of the cluster has no {error.name}", hint=hint) from None


def _import(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        hint = f"pip install 'company-compute[{extra}]'"
        raise UsageError("engine-not-installed", f"{module} is not installed here", hint=hint) from None


ENGINES: dict[str, Callable[[str], contextlib.AbstractContextManager[Cluster]]] = {"dask": _dask, "ray": _ray}


@contextlib.contextmanager
def open_cluster(engine: str, address: str) -> Iterator[Cluster]:
    """The cluster at an address. Raises `UsageError`, `Unavailable`."""
    with ENGINES[engine](address) as cluster:
        yield cluster


__all__ = ["ENGINES", "Cluster", "open_cluster", "task"]
