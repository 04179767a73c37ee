"""The others: what each of them is called, how it is opened and what it is asked (I/O).

Every function here runs in the peer's own process (`benchmarks.peer_process`): Ray, Dask, loky and a company in one interpreter disturbed
each other until none of them went on. A peer that is not installed is named as missing, never an error.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.work import arrays, blocks, burn, echo, identity, is_same, negated

Map = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to use a peer. ``share``: what part of half a million tiny items it gets, so that a round takes seconds.

    ``cases``: what it makes sense for.
    """

    name: str
    how: str  # the call, so that nobody has to guess how it was used
    map: Map
    share: int = 1
    cases: tuple[str, ...] = ("tiny", "calibrated", "large", "arrays")


@contextlib.contextmanager
def _processes(slots: int) -> Iterator[list[Mode]]:
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(slots) as pool:
        yield [
            Mode("multiprocessing", "Pool.map, its own chunks", lambda f, items: list(pool.map(f, items))),
            Mode("Pool, chunks of 256", "Pool.map(chunksize=256)", lambda f, items: list(pool.map(f, items, 256)), 1, ("tiny",)),
        ]


@contextlib.contextmanager
def _joblib(slots: int) -> Iterator[list[Mode]]:
    joblib = importlib.import_module("joblib")
    parallel = joblib.Parallel(n_jobs=slots)

    def run(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        delayed = joblib.delayed(function)
        return list(parallel(delayed(item) for item in items))

    yield [Mode("joblib", "Parallel(n_jobs=slots)(delayed(f)(x) for x in items), batch_size auto, loky", run)]
    importlib.import_module("joblib.externals.loky").get_reusable_executor().shutdown(wait=True, kill_workers=True)


@contextlib.contextmanager
def _dask(slots: int) -> Iterator[list[Mode]]:
    distributed, bag = importlib.import_module("distributed"), importlib.import_module("dask.bag")
    cluster = distributed.LocalCluster(n_workers=slots, threads_per_worker=1, dashboard_address=None, silence_logs=50)

    def by_task(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list(client.gather(client.map(function, items, pure=False, batch_size=1000)))

    def by_bag(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list(bag.from_sequence(items, npartitions=slots * 4).map(function).compute(scheduler=client))

    with cluster, distributed.Client(cluster) as client:
        yield [
            Mode("dask bag", "bag.from_sequence(items, npartitions=4 × slots).map(f).compute()", by_bag, 5),
            Mode("dask", "Client.gather(Client.map(f, items, batch_size=1000)), processes with one thread", by_task, 250),
        ]


@contextlib.contextmanager
def _ray(slots: int) -> Iterator[list[Mode]]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray, pools = importlib.import_module("ray"), importlib.import_module("ray.util.multiprocessing")
    ray.init(num_cpus=slots, include_dashboard=False, log_to_driver=False, logging_level=50)

    def by_task(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        remote = ray.remote(function)
        return list(ray.get([remote.remote(item) for item in items]))

    # the pool's actors hold no core of Ray's count, or the plain tasks beside them would wait for ever
    pool = pools.Pool(slots, ray_remote_args={"num_cpus": 0})
    try:
        yield [
            Mode("ray pool", "ray.util.multiprocessing.Pool(slots).map, its own chunks", lambda f, items: list(pool.map(f, items))),
            Mode("ray", "ray.get([remote(f).remote(x) for x in items])", by_task, 250),
        ]
    finally:
        pool.terminate()
        ray.shutdown()


PEERS: dict[str, Callable[[int], contextlib.AbstractContextManager[list[Mode]]]] = {
    "multiprocessing": _processes, "joblib": _joblib, "dask": _dask, "ray": _ray,
}  # fmt: skip


# ---- what they are asked; each returns seconds and a value that the asker checks -----------------------------------------------
def tiny(mode: Mode, n: int) -> tuple[float, Any]:
    """Identity over small ints; the value: how many, or -1 when one was wrong."""
    items = range(max(1, n // mode.share))
    mode.map(identity, range(1000))
    began = time.perf_counter()
    found = mode.map(identity, items)
    took = time.perf_counter() - began
    return took, len(items) if found == list(items) else -1


def calibrated(mode: Mode, n: int, turns: int) -> tuple[float, Any]:
    """Fragments of known work; the value: [begin of the first, end of the last, sum of their own times]."""
    began = time.perf_counter()
    spans = mode.map(burn, [turns] * n)
    took = time.perf_counter() - began
    return took, [min(a for a, _ in spans), max(b for _, b in spans), sum(b - a for a, b in spans)]


def large(mode: Mode, n: int, size: int) -> tuple[float, Any]:
    """Blocks of bytes in and out; the value: how many, or -1 when one was wrong."""
    data = blocks(n, size)
    began = time.perf_counter()
    found = mode.map(echo, data)
    took = time.perf_counter() - began
    return took, n if found == data else -1


def of_arrays(mode: Mode, n: int, size: int) -> tuple[float, Any]:
    """Numpy arrays in and out; the value: how many, or -1 when one was wrong."""
    data = arrays(n, size)
    began = time.perf_counter()
    found = mode.map(negated, data)
    took = time.perf_counter() - began
    return took, n if is_same(found, data) else -1


CASES: dict[str, Callable[..., tuple[float, Any]]] = {"tiny": tiny, "calibrated": calibrated, "large": large, "arrays": of_arrays}
