"""Programs that know nothing of companies: `Executor.map`, an unmodified script, one package on two engines; in turns with others (I/O)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.company import BenchCompany
from benchmarks.peer_process import Peer, open_peers
from benchmarks.rows import Row
from benchmarks.throughput import BURN_S, Say, answers_of, check, of_ideal
from benchmarks.work import MIB, arrays, burn, calibrate, identity, is_same, negated
from company import Executor

TRACER = Path(__file__).parents[1] / "examples" / "raytracer"
_TRACE = """
import hashlib, json, sys
from multiprocessing import Pool
from tracer import process

if __name__ == "__main__":
    scene, height = json.load(sys.stdin), int(sys.argv[1])
    rows = [{"scene": scene, "width": 480, "height": height, "samples": 2, "top": y, "end": y + 1} for y in range(height)]
    with Pool(2) as pool:
        strips = pool.map(process, rows)
    print(hashlib.sha256(b"".join(strip["pixels"] for strip in strips)).hexdigest())
"""
_DASK = """
import sys, distributed
if __name__ == "__main__":
    with distributed.LocalCluster(n_workers=int(sys.argv[1]), threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


def call_rows(company: BenchCompany, slots: int, say: Say, *, quick: bool) -> tuple[list[Row], dict[str, str]]:
    """`Executor.map` beside joblib, Dask and Pool."""
    rounds, tiny, burns, large = (1, 4000, 40, 8) if quick else (3, 200_000, 1000, 200)
    own = "calls in an executor that is open and warm; sandboxed, encrypted and durable, theirs are not"
    rows = [
        Row(f"map of {tiny:,} tiny calls", own, "calls/s", "more", beside={"company": {"joblib": 0.5, "dask": 20.0}}),
        Row(f"map of {burns:,} calls of 10 ms", "begin of the first to end of the last", "of ideal", "more", goal=0.95),
        Row(f"map over {large} arrays of 1 MiB", f"in and out; {own}", "calls/s", "more", beside={"company": {"multiprocessing": 1.0}}),
    ]
    with open_peers(slots, ("multiprocessing", "joblib", "dask")) as (peers, missing), Executor(company.client, progress=False) as ex:
        data = arrays(large, MIB)
        for function, value in ((identity, 1), (burn, 1), (negated, data[0])):
            list(ex.map(function, [value] * 64))
        for _ in range(rounds):
            _tiny_round(ex, rows[0], peers, tiny)
            turns = calibrate(BURN_S)
            spans = list(ex.map(burn, [turns] * burns))
            rows[1].add("company", of_ideal((min(a for a, _ in spans), max(b for _, b in spans), sum(b - a for a, b in spans)), slots))
            for peer, _, span in answers_of(rows[1], [p for p in peers if p.name == "joblib"], "calibrated", n=burns, turns=turns):
                rows[1].add(peer.name, of_ideal(span, slots))
            began = time.perf_counter()
            found = list(ex.map(negated, data))
            rows[2].add("company", large / (time.perf_counter() - began))
            check(is_same(found, data), "company")
            for peer, seconds, count in answers_of(rows[2], [p for p in peers if p.name == "multiprocessing"], "arrays", n=large, size=MIB):
                check(count == large, peer.name)
                rows[2].add(peer.name, large / seconds)
            say(f"  {[row.samples for row in rows]}")
    return rows, missing


def _tiny_round(ex: Executor, row: Row, peers: list[Peer], tiny: int) -> None:
    began = time.perf_counter()
    found = list(ex.map(identity, range(tiny)))
    row.add("company", tiny / (time.perf_counter() - began))
    check(found == list(range(tiny)), "company")
    for peer, seconds, count in answers_of(row, peers, "tiny", n=tiny):
        check(count > 0, peer.name)
        row.add(peer.name, count / seconds)
        row.notes[peer.name] = f"{peer.how}, {count:,} items"


def script_row(company: BenchCompany, say: Say, *, quick: bool) -> Row:
    """A ray tracer that uses `multiprocessing.Pool(2)`, alone and by run-script."""
    rounds, height = (1, 8) if quick else (3, 200)
    counted = "the whole program, from its start to its end; company: run-script with two workers that run already"
    row = Row("an unmodified ray tracer", counted, "pictures/s", "more", beside={"company": {"its own Pool(2)": 0.9}})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(TRACER / "processor" / "main.py", folder / "tracer.py")
        script = folder / "trace.py"
        script.write_text(_TRACE)
        scene = (TRACER / "scene.json").read_text()

        def seconds(*command: str) -> tuple[float, str]:
            began = time.perf_counter()
            done = subprocess.run(
                [*command, str(script), str(height)], input=scene, env=company.environ, capture_output=True, text=True, check=True
            )
            return time.perf_counter() - began, done.stdout

        for _ in range(rounds):
            theirs, right = seconds(sys.executable)
            ours, found = seconds(sys.executable, "-m", "company", "run-script")
            check(found == right, "company")
            row.add("its own Pool(2)", 1 / theirs)
            row.add("company", 1 / ours)
            say(f"  {row.samples}")
    return row


def engine_rows(company: BenchCompany, slots: int, say: Say, *, quick: bool) -> tuple[list[Row], dict[str, str]]:
    """The same package by --engine company and --engine dask."""
    rounds = 1 if quick else 3
    shapes: list[tuple[str, str, int, dict[str, Any]]] = [
        ("tiny", "identity", 2000 if quick else 200_000, {}),
        ("10 ms", "burn", 20 if quick else 500, {"turns": calibrate(BURN_S)}),
        ("1 MiB", "echo", 4 if quick else 100, {"size": MIB}),
    ]
    counted = "the whole command `company run`, from its start to its end, on the same two slots"
    rows = [
        Row(f"{n:,} {what} by engine", counted, "fragments/s", "more", beside={"company": {"engine dask": 1.0}}) for what, _, n, _ in shapes
    ]
    try:
        with dask_running(slots) as address, tempfile.TemporaryDirectory() as name:
            engines = {"company": ("company",), "engine dask": ("dask", "--address", address)}
            for number in range(-1, rounds):  # the first warms both up
                for row, (_, package, n, params) in zip(rows, shapes, strict=True):
                    for contender, engine in engines.items():
                        took = _run_s(company, package, Path(name) / contender.replace(" ", "-"), engine, {"n": n} | params)
                        if number >= 0:
                            row.add(contender, n / took)
                say(f"  {[row.samples for row in rows]}")
    except ModuleNotFoundError as error:
        return rows, {"dask": str(error)}
    return rows, {}


def _run_s(company: BenchCompany, package: str, out: Path, engine: tuple[str, ...], params: dict[str, Any]) -> float:
    given = [part for key, value in params.items() for part in ("-p", f"{key}={value}")]
    command = [sys.executable, "-m", "company", "run", str(company.folder / package), str(company.folder / "data.txt"), "--json"]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, "--out", str(out), "--engine", *engine, *given], env=company.environ, capture_output=True, text=True, check=True
    )
    took = time.perf_counter() - began
    check(json.loads(done.stdout)["done"] == params["n"], engine[0])
    return took


@contextlib.contextmanager
def dask_running(slots: int) -> Iterator[str]:
    """A Dask cluster of processes, and its address. Raises `ModuleNotFoundError` where there is no Dask."""
    import importlib.util

    if importlib.util.find_spec("distributed") is None:
        raise ModuleNotFoundError("distributed is not installed")
    with tempfile.TemporaryDirectory() as name:
        script = Path(name) / "cluster.py"  # a file: its workers import it again
        script.write_text(_DASK)
        process = subprocess.Popen([sys.executable, str(script), str(slots)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ)
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.stdout.readline().decode().strip()
        finally:
            process.stdin.close()
            process.wait(60)
            process.stdout.close()
