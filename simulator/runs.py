"""Run a scenario, show how far it is, and leave a folder that says everything (I/O: clock, terminal, files)."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from p2p.base.errors import UsageError
from simulator import parameters
from simulator.parameters import Value
from simulator.registry import scenario_called
from simulator.report import flat, page
from simulator.scenario import Outcome, Progress, Scenario, digest, summary


class Bar:
    """A progress bar with the time that is left; silent where nobody looks."""

    def __init__(self, title: str, *, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._title, self._began, self._shown = title, time.monotonic(), 0.0
        self._is_on = not quiet and self._stream.isatty()

    def __call__(self, share: float) -> None:
        """Note the share that is done."""
        now = time.monotonic()
        if not self._is_on or (now - self._shown < 0.1 and share < 1):
            return
        self._shown = now
        filled = int(30 * min(1.0, max(0.0, share)))
        left = (now - self._began) / share * (1 - share) if share > 0.02 else None
        eta = "" if left is None else f"  {left:.0f} s left" if share < 1 else f"  {now - self._began:.1f} s"
        self._stream.write(f"\r{self._title} [{'#' * filled}{'.' * (30 - filled)}] {share:4.0%}{eta}      ")
        self._stream.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._is_on:
            self._stream.write("\n")
            self._stream.flush()


def run_once(scenario: Scenario, values: Mapping[str, Value], seed: int, progress: Progress) -> tuple[dict[str, Any], Outcome]:
    """The object of ``--json`` and the plots."""
    began = time.perf_counter()
    outcome = scenario.run(values, seed, progress)
    result = summary(scenario, values, seed, outcome)
    result["wall_s"] = round(time.perf_counter() - began, 3)
    return result, outcome


def run_point(task: tuple[str, dict[str, Value], int]) -> dict[str, Any]:
    """One point of a sweep; a plain function of plain values, so that it can run anywhere."""
    name, values, seed = task
    return run_once(scenario_called(name), values, seed, lambda _: None)[0]


def environment() -> dict[str, str]:
    """What a result depends on besides its parameters."""
    import numpy

    from company import __version__

    return {"version": __version__, "numpy": numpy.__version__, "python": sys.version.split()[0]}


@contextmanager
def folder_of(out: Path, name: str, values: Mapping[str, Value], seed: int) -> Iterator[Path]:
    """The output folder, with the file that runs the same again; says so when it is left half way."""
    lock = out / "scenario.lock.toml"
    text = parameters.write_toml(name, seed, values, environment())
    if lock.exists() and _without_notes(lock.read_text("utf-8")) != _without_notes(text):
        raise UsageError("simulation-folder-in-use", f"{out} holds another run; choose another folder, or remove it", folder=str(out))
    out.mkdir(parents=True, exist_ok=True)
    write_whole(lock, text)
    yield out


def _without_notes(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once: whoever reads it sees the old or the new one."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text, "utf-8")
    os.replace(part, path)


def write_run(out: Path, scenario: Scenario, result: Mapping[str, Any], outcome: Outcome, *, with_events: bool) -> None:
    """summary.json, report.html and, where wanted, events.ndjson.gz."""
    write_whole(out / "summary.json", json.dumps({**result, "digest": digest(result)}, indent=1) + "\n")
    tables = {
        "measured": [("metric", "value"), *flat(result["metrics"])],
        "parameters": [("parameter", "value"), *result["parameters"].items(), ("seed", result["seed"]), *environment().items()],
    }
    write_whole(out / "report.html", page(f"{scenario.name}, seed {result['seed']}", scenario.text, tables, outcome.plots))
    if with_events:
        with gzip.GzipFile(out / "events.ndjson.gz", "wb", mtime=0) as file:
            for event in outcome.events:
                file.write(json.dumps(event, sort_keys=True).encode() + b"\n")


def at_path(metrics: Mapping[str, Any], path: str) -> Any:
    """``hops.mean`` of nested metrics; None where there is none."""
    value: Any = metrics
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
