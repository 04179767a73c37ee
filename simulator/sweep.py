"""Many runs over a grid of parameters, on this machine's cores, a company or a Dask cluster, that can be stopped and taken up again (I/O).

Each finished point is one line of ``points.ndjson``; a point that is there is not run again. The order of the lines depends on who was
first, the results do not; summary.json and report.html are made from the lines in the order of the grid.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Final

from p2p.base.errors import UsageError
from simulator.parameters import Value, grid, parse_all
from simulator.report import flat, page, shown
from simulator.runs import at_path, folder_of, run_point, write_whole
from simulator.scenario import Plot, Progress, Scenario, digest
from simulator.student import t95

Task = tuple[str, dict[str, Value], int]
MOST_S: Final = 12 * 3600.0  # of one point, on a company
Mapped = Callable[[Sequence[Task]], Iterator[dict[str, Any]]]


def tasks_of(
    scenario: Scenario, base: Mapping[str, str], spreads: Sequence[tuple[str, Sequence[str]]], repeat: int, seed: int
) -> list[Task]:
    """Every point with every seed. Raises `UsageError` naming all that is wrong with any."""
    points, wrong = [], []
    for chosen in grid(spreads):
        try:
            points.append(parse_all(scenario.parameters, {**base, **chosen}))
        except UsageError as error:
            wrong += [line for line in error.text.splitlines() if line not in wrong]
    if wrong:
        raise UsageError("simulation-parameters", "\n".join(wrong), errors=wrong)
    return [(scenario.name, dict(values), seed + number) for values in points for number in range(repeat)]


@contextmanager
def mapper(jobs: str) -> Iterator[Mapped]:
    """Who runs the points: ``auto`` or a number = processes here; ``dask:ADDRESS``; ``company`` = the company of this user's settings."""
    if jobs.startswith("dask:"):
        yield from _dask(jobs.removeprefix("dask:"))
        return
    if jobs == "company":
        yield from _company()
        return
    count = (len(os.sched_getaffinity(0)) if jobs == "auto" else int(jobs)) if jobs == "auto" or jobs.isdigit() else 0
    if count < 1:
        raise UsageError("simulation-parameters", f"--jobs is auto, a number, company or dask:ADDRESS, got {jobs!r}")
    if count == 1:
        yield lambda tasks: map(run_point, tasks)
        return
    with ExitStack() as ended:  # entered before Ctrl-C is heeded again, so that the pool is ended by it too
        with deaf_children():
            pool = ended.enter_context(multiprocessing.get_context("spawn").Pool(count))
        yield lambda tasks: pool.imap_unordered(run_point, tasks)


@contextmanager
def deaf_children() -> Iterator[None]:
    """Ctrl-C goes to every process of a terminal's group, but only the sweep itself is to heed it: who is started in here never does.

    Blocked, not ignored: what comes meanwhile is heeded at the end of the block.
    """
    resource_tracker.ensure_running()  # which lets SIGINT through when it has started: not in the block then
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _dask(address: str) -> Iterator[Mapped]:
    try:
        import distributed
    except ImportError:
        raise UsageError("simulation-no-dask", "Dask is not installed here", hint="pip install 'company-compute[dask]'") from None
    connect: Any = distributed.Client  # untyped
    as_completed: Any = distributed.as_completed
    try:
        client = connect(address)
    except (OSError, ValueError) as error:
        raise UsageError("simulation-no-dask", f"no Dask scheduler answers at {address}: {error}") from None
    with client:
        yield lambda tasks: (future.result() for future in as_completed(client.map(run_point, list(tasks), pure=False)))


def _company() -> Iterator[Mapped]:
    from company.client.executor import Executor
    from simulator.carried import carried_point

    with Executor(name="sweep", time_limit_s=MOST_S) as pool:
        yield lambda tasks: iter(pool.map(carried_point(), tasks, ordered=False))


def sweep(
    scenario: Scenario,
    base: Mapping[str, str],
    spreads: Sequence[tuple[str, Sequence[str]]],
    *,
    repeat: int,
    seed: int,
    jobs: str,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Run what is missing, then write the summary. On Ctrl-C the folder keeps what is done."""
    tasks = tasks_of(scenario, base, spreads, repeat, seed)
    named: dict[str, Value] = {f"sweep.{name}": ",".join(values) for name, values in spreads}
    with folder_of(out, scenario.name, {**base, **named, "repeat": repeat}, seed):
        done = finished(out / "points.ndjson")
        missing = [task for task in tasks if key_of(task) not in done]
        progress(1 - len(missing) / len(tasks))
        if missing:
            with mapper(jobs) as run_all, (out / "points.ndjson").open("a", encoding="utf-8") as file:
                for result in run_all(missing):
                    task = (result["scenario"], result["parameters"], result["seed"])
                    line = json.dumps(result, sort_keys=True)
                    done[key_of(task)] = json.loads(line)  # as it will be read: a sweep that was stopped comes to the same bytes
                    file.write(line + "\n")
                    file.flush()
                    progress(len(done) / len(tasks))
        whole = combined(scenario, [done[key_of(task)] for task in tasks], [name for name, _ in spreads])
        write_whole(out / "summary.json", json.dumps(whole, indent=1) + "\n")
        write_whole(out / "report.html", _report(scenario, whole))
    return whole


def key_of(task: Task) -> str:
    """What makes a point this point."""
    return json.dumps([task[0], task[1], task[2]], sort_keys=True)


def finished(path: Path) -> dict[str, dict[str, Any]]:
    """Points of an earlier run; a last line that was cut short is forgotten, and cut off the file."""
    if not path.exists():
        return {}
    done, good = {}, 0
    raw = path.read_bytes()
    for line in raw.splitlines(keepends=True):
        try:
            result = json.loads(line)
            done[key_of((result["scenario"], result["parameters"], result["seed"]))] = result
        except (ValueError, KeyError, TypeError):
            break
        if not line.endswith(b"\n"):
            break
        good += len(line)
    if good < len(raw):
        with path.open("r+b") as file:
            file.truncate(good)
        return finished(path)
    return done


def combined(scenario: Scenario, results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """One row per point: mean and standard error of every number over the seeds."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        rows.setdefault(json.dumps(result["parameters"], sort_keys=True), []).append(result)
    points = []
    for same in rows.values():
        flats = [dict(flat(r["metrics"])) for r in same]
        metrics = {}
        for name in flats[0]:
            numbers = [f[name] for f in flats if isinstance(f.get(name), int | float)]
            if numbers:
                error = statistics.stdev(numbers) / len(numbers) ** 0.5 if len(numbers) > 1 else 0.0
                metrics[name] = {"mean": float(f"{statistics.fmean(numbers):.9g}"), "error": float(f"{error:.9g}")}
        points.append({"parameters": {n: same[0]["parameters"][n] for n in names}, "runs": len(same), "metrics": metrics})
    whole = {"scenario": scenario.name, "sweep": list(names), "points": points}
    return {**whole, "digest": digest(whole)}


def table_of(scenario: Scenario, whole: Mapping[str, Any]) -> list[list[str]]:
    """Rows for people: the parameters that vary, then what of the headline any point has; 95 % where points have several runs."""
    headline = _measured(scenario, whole)
    head = [*whole["sweep"], *headline]
    rows = []
    for point in whole["points"]:
        cells = [shown(point["parameters"][name]) for name in whole["sweep"]]
        for name in headline:
            found = point["metrics"].get(name)
            spread = "" if found is None or point["runs"] < 2 else f" ±{t95(point['runs'] - 1) * found['error']:.2g}"
            cells.append("-" if found is None else f"{shown(found['mean'])}{spread}")
        rows.append(cells)
    return [head, *rows]


def _measured(scenario: Scenario, whole: Mapping[str, Any]) -> list[str]:
    return [name for name in scenario.headline if any(name in point["metrics"] for point in whole["points"])]


def _report(scenario: Scenario, whole: Mapping[str, Any]) -> str:
    plots = []
    first = whole["sweep"][0] if whole["sweep"] else None
    xs = [point["parameters"][first] for point in whole["points"]] if first else []
    if len(set(xs)) > 1 and all(isinstance(x, int | float) for x in xs):
        others = whole["sweep"][1:]
        for metric in _measured(scenario, whole):
            axis = sorted(set(xs))
            curves: dict[str, list[float | None]] = {}
            for point in whole["points"]:
                name = ", ".join(f"{n}={shown(point['parameters'][n])}" for n in others) or metric
                curve = curves.setdefault(name, [None] * len(axis))
                curve[axis.index(point["parameters"][first])] = (point["metrics"].get(metric) or {}).get("mean")
            plots.append(Plot(metric, str(first), metric, axis, curves))
    return page(f"sweep of {scenario.name}", scenario.text, {"points": table_of(scenario, whole)}, plots)


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[list[str]]:
    """What differs between two results, parameters first."""
    rows = [["", "A", "B", "change"]]
    for part in ("parameters", "metrics"):
        left, right = dict(flat(a.get(part, {}))), dict(flat(b.get(part, {})))
        for name in dict.fromkeys([*left, *right]):
            x, y = left.get(name), right.get(name)
            if x == y:
                continue
            change = f"{(y - x) / abs(x):+.2%}" if isinstance(x, int | float) and isinstance(y, int | float) and x else ""
            rows.append([f"{part[:-1]} {name}", shown(x), shown(y), change])
    return rows


__all__ = ["at_path", "compare", "sweep", "table_of"]
