"""``client.submit(..., engine="local" | "dask" | "ray")``: a package on this machine or on a cluster of the user's (I/O: a process).

The run is a process of its own beside the program (`company.local_engine`), so that the program stays free and nothing of Dask or Ray is
imported into it. It is waited for, asked and downloaded as a job is; it ends with the program, since no chief holds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from company.client.waited import Waited
from company.errors import TEMPORARY, USAGE, CompanyError, NotReadyError
from company.package import check_package, check_params, read_package
from p2p.base.errors import ParallelError, Unavailable, UsageError

ENGINES = ("local", "dask", "ray")
BEGIN_S = 180.0  # importing Ray and connecting takes long on a busy machine
STOP_S = 20.0
MAX_LOG_WORDS = 2000
_OPTIONS = {"slots": "slots", "max_fails": "max_fails", "retries": "tries", "time_limit_s": "time_limit_s", "memory_bytes": "memory_bytes"}
Progress = Callable[[str, int, int], None]


class EngineRun(Waited):
    """One run on another engine, asked as a `Job` is. ``facts``: those of `company run --json`, once it has ended."""

    def __init__(
        self, engine: str, request: Mapping[str, Any], folder: tempfile.TemporaryDirectory[str], progress: Progress | None
    ) -> None:
        name = Path(str(request["package"])).name
        counts = {"done": 0, "failed": 0, "total": None}
        super().__init__(
            {"id": f"run-{secrets.token_hex(4)}", "name": name, "engine": engine, "state": "starting", "fragments": counts, "reason": None}
        )
        self.facts: dict[str, Any] = {}
        self.folder = Path(os.path.realpath(folder.name))
        self._refused: dict[str, Any] | None = None
        self._is_cancelled = False
        self._progress = progress
        self._changed = threading.Condition()
        log = (self.folder / "engine.log").open("wb")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "company.local_engine"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._end = weakref.finalize(self, _end, self._process, folder)
        self._reader = threading.Thread(target=_read, args=(weakref.ref(self), self._process.stdout), name="company-engine", daemon=True)
        self._reader.start()
        with contextlib.suppress(BrokenPipeError):  # what became of it is said below
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def __repr__(self) -> str:
        done = self.view["fragments"]["done"]
        return f"<EngineRun {self.id} {self.view['name']} on {self.view['engine']} {self.state}, {done} fragments done>"

    def begun(self) -> EngineRun:
        """Wait until the engine has taken it. Raises what the engine refuses it with, `Unavailable` when it says nothing."""
        with self._changed:
            self._changed.wait_for(lambda: self.state != "starting", BEGIN_S)
        if self.state == "starting":
            self.close()
            raise Unavailable("engine-late", f"the engine has not begun within {BEGIN_S:g} s", hint="is the cluster idle and reachable?")
        if self._refused is not None:
            self.close()
            raise _refusal(self._refused)
        return self

    def status(self, *, wait_s: float = 0.0) -> dict[str, Any]:
        """The view of now; with ``wait_s`` the call returns when the run ended or that time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_over, wait_s)
            return self.view

    def failures(self, *, limit: int = 1000, offset: int = 0) -> dict[str, Any]:
        """The fragments that failed at least once: items, total, returned, truncated. Known when the run has ended."""
        found = list(self.facts.get("failures") or [])
        items = found[offset : offset + limit]
        return {"items": items, "total": len(found), "returned": len(items), "truncated": offset + len(items) < len(found)}

    def download(self, target: Path | str = ".") -> list[Path]:
        """Copy the result into the directory ``target`` and return the files. Raises `NotReadyError` where there is none."""
        if self.state != "done":
            raise NotReadyError("result-not-ready", f"{self.id} is {self.state}", hint="wait() for it")
        folder, made = Path(target), self.folder / "result"
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for path in sorted(Path(name) for name in self.facts["files"]):
            final = folder / path.relative_to(made)
            final.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, final)
            written.append(final)
        return written

    def logs(self, *, fragment: int | None = None) -> Iterator[dict[str, Any]]:
        """What its fragments printed, line by line, as far as it has come."""
        path = self.folder / "result.log"
        if not path.exists():
            return
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                number, _, text = line.partition("] ")
                index = int(number[1:]) if number.startswith("[") and number[1:].isdigit() else None
                if fragment is None or index == fragment:
                    yield {"fragment": index, "text": text if index is not None else line}

    def artifacts(self) -> list[Path]:
        """Files that fragments left with ``task.artifact``, as FRAGMENT/NAME below a folder of this run."""
        return sorted(p for p in (self.folder / "result.artifacts").rglob("*") if p.is_file())

    def cancel(self) -> EngineRun:
        """End what runs."""
        self._is_cancelled = True
        _stop(self._process)
        if threading.current_thread() is not self._reader:  # it may be the program's progress that cancels
            self._reader.join(STOP_S)
        return self

    def close(self) -> None:
        """End it if it runs, and forget its files."""
        self.cancel()
        self._end()

    def __enter__(self) -> EngineRun:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    # ---- what the process says --------------------------------------------------------------------------------------------
    def _hear(self, told: Mapping[str, Any]) -> None:
        with self._changed:
            what = told["say"]
            if what == "refused":
                self._refused = dict(told["error"])
                reason = {"code": self._refused["code"], "text": self._refused["text"]}
                self.view = self.view | {"state": "failed", "reason": reason}
            elif what == "progress":
                self.view = self.view | {"fragments": {key: told[key] for key in ("done", "failed", "total")}}
            else:
                self.view = self.view | {"state": "running" if what == "began" else told["state"], "reason": told.get("reason")}
            if what == "ended" and told["facts"]:
                self.facts = dict(told["facts"])
                counts = {key: self.facts[key] for key in ("done", "failed")}
                self.view = self.view | {"fragments": counts | {"total": self.facts["fragments"]}}
            self._changed.notify_all()
        if what == "progress" and self._progress is not None:
            try:
                self._progress("run", told["done"], told["total"] or 0)
            except Exception:  # noqa: BLE001 - the program's own; this thread must go on hearing
                self._progress = None
                traceback.print_exc()

    def _fell_silent(self) -> None:
        """It has closed its end: by now it has ended, or been ended."""
        self._process.wait()
        with self._changed:
            if not self.is_over:
                words = (self.folder / "engine.log").read_text("utf-8", "replace").strip()[-MAX_LOG_WORDS:]
                code = self._process.returncode
                text = f"the engine's process ended with {code} and no word of the run: {words or 'it printed nothing'}"
                reason = None if self._is_cancelled else {"code": "engine-died", "text": text}
                if self.state == "starting" and reason is not None:
                    self._refused = {**reason, "exit_code": 1}
                self.view = self.view | {"state": "cancelled" if self._is_cancelled else "failed", "reason": reason}
            self._changed.notify_all()


def submit_to_engine(
    engine: str, package: Path | str, data: Path | str, *, address: str | None, params: Mapping[str, Any] | None, progress: Progress | None,
    options: Mapping[str, Any],
) -> EngineRun:  # fmt: skip
    """Start a run. Raises what the package check raises, `UsageError` for what this engine does not take, `Unavailable`."""
    if engine not in ENGINES:
        raise UsageError("engine-unknown", f"there is no engine {engine!r}", hint=f"there are {', '.join(('company', *ENGINES))}")
    if (engine == "local") != (address is None):
        needs = "takes no address" if engine == "local" else "needs the address of its cluster"
        raise UsageError("engine-address", f"engine {engine!r} {needs}", hint="address='tcp://HOST:8786' for dask, 'HOST:6379' for ray")
    unknown = sorted(k for k, v in options.items() if v is not None and k not in _OPTIONS)
    if unknown:
        hint = f"it takes {', '.join(_OPTIONS)}; the rest is of jobs of a chief"
        raise UsageError("engine-option", f"engine {engine!r} does not take {unknown[0]}", hint=hint)
    for path in (Path(package), Path(data)):
        if not path.exists():
            raise UsageError("no-such-path", f"{path} is not there", hint="an engine takes what lies on this machine")
    read = read_package(Path(package))  # faults are raised here, with all their lines, and not by the process
    check_params(check_package(read.files, default_name=Path(package).name, warnings=read.warnings), dict(params or {}))
    folder = tempfile.TemporaryDirectory(prefix="company-engine-", ignore_cleanup_errors=True)
    request: dict[str, Any] = {"engine": engine, "address": address, "package": str(Path(package).resolve()), "params": dict(params or {})}
    request |= {"data": str(Path(data).resolve()), "out": os.path.join(os.path.realpath(folder.name), "result")}
    request |= {_OPTIONS[key]: value for key, value in options.items() if key in _OPTIONS and value is not None}
    return EngineRun(engine, request, folder, progress).begun()


def _refusal(told: Mapping[str, Any]) -> Exception:
    kinds: dict[int, type[ParallelError]] = {USAGE: UsageError, TEMPORARY: Unavailable}
    kind = kinds.get(int(told["exit_code"]), CompanyError)
    return kind(str(told["code"]), str(told["text"]), hint=str(told.get("hint") or ""))


def _read(run: weakref.ref[EngineRun], stream: IO[bytes]) -> None:
    """In a thread that does not keep the run alive: one that nobody holds is ended."""
    for line in stream:
        found = run()
        if found is None:
            return
        found._hear(json.loads(line))
        del found
    found = run()
    if found is not None:
        found._fell_silent()


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()  # what it waits for
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end(process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    _stop(process)
    assert process.stdout is not None
    with contextlib.suppress(OSError, ValueError):
        process.stdout.close()
    folder.cleanup()
