"""The others: each with as many processes as we have slots, started and warmed before anything is measured (I/O).

A peer that is not installed is named as missing, never an error.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol


class Peer(Protocol):
    """Something that maps a function over items in other processes."""

    name: str
    how: str  # the call, so that nobody has to guess how it was used
    per_task: bool  # whether every item is a task of its own, so that half a million of them would take minutes

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]: ...


class Processes:
    """multiprocessing.Pool."""

    name = "multiprocessing"
    how = "Pool.map, its own chunks"
    per_task = False

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list(self._pool.map(function, items))


class Joblib:
    """joblib with loky, its default."""

    name = "joblib"
    how = "Parallel(n_jobs=slots)(delayed(f)(x) for x in items), batch_size auto"
    per_task = False

    def __init__(self, slots: int) -> None:
        self._joblib = importlib.import_module("joblib")
        self._parallel = self._joblib.Parallel(n_jobs=slots)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        delayed = self._joblib.delayed(function)
        return list(self._parallel(delayed(item) for item in items))


class Dask:
    """Dask distributed on this machine."""

    name = "dask"
    how = "Client.gather(Client.map(f, items, batch_size=1000)), processes with one thread"
    per_task = True

    def __init__(self, client: Any) -> None:
        self._client = client

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list(self._client.gather(self._client.map(function, items, pure=False, batch_size=1000)))


class Ray:
    """Ray on this machine."""

    name = "ray"
    how = "ray.get([remote(f).remote(x) for x in items])"
    per_task = True

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        remote = self._ray.remote(function)
        return list(self._ray.get([remote.remote(item) for item in items]))


@contextlib.contextmanager
def _processes(slots: int) -> Iterator[Peer]:
    import multiprocessing

    # spawn: a fork of a process that drives a company would copy its sockets
    with multiprocessing.get_context("spawn").Pool(slots) as pool:
        yield Processes(pool)


@contextlib.contextmanager
def _joblib(slots: int) -> Iterator[Peer]:
    yield Joblib(slots)
    importlib.import_module("joblib.externals.loky").get_reusable_executor().shutdown(wait=True, kill_workers=True)


@contextlib.contextmanager
def _dask(slots: int) -> Iterator[Peer]:
    distributed = importlib.import_module("distributed")
    cluster = distributed.LocalCluster(n_workers=slots, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    with cluster, distributed.Client(cluster) as client:
        yield Dask(client)


@contextlib.contextmanager
def _ray(slots: int) -> Iterator[Peer]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = importlib.import_module("ray")
    ray.init(num_cpus=slots, include_dashboard=False, log_to_driver=False, logging_level=50)
    try:
        yield Ray(ray)
    finally:
        ray.shutdown()


_PEERS: dict[str, Callable[[int], contextlib.AbstractContextManager[Peer]]] = {
    "multiprocessing": _processes, "joblib": _joblib, "dask": _dask, "ray": _ray,
}  # fmt: skip


@contextlib.contextmanager
def open_peers(slots: int) -> Iterator[tuple[list[Peer], dict[str, str]]]:
    """The peers that there are, and why the others are not."""
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        found: list[Peer] = []
        for name, opener in _PEERS.items():
            try:
                found.append(stack.enter_context(opener(slots)))
            except Exception as error:  # noqa: BLE001 - a peer that cannot start here is said, and the others go on
                missing[name] = f"{type(error).__name__}: {error}"[:200]
        yield found, missing
