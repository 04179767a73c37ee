"""`company run`: a package and data on this machine, from files to files (I/O)."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trio

from company.chief.merger import MergeResult
from company.chief.retries import MAX_TRIES, MaxFails
from company.client.download import unpack_untrusted
from company.cluster.engines import Cluster
from company.errors import JobFailed
from company.local_engine.engine import Ended, LocalEngine, Plan, Progress
from company.local_engine.results import Artifacts, LogFile
from company.one_fragment import environment_of
from company.package import check_package, check_params, read_package
from company.requirements import missing
from company.sandbox import Sandbox
from p2p.base.codec import encode_value
from p2p.base.errors import ParallelError, UsageError

MAX_SHOWN_FAILURES = 100


def run_local(
    package: Path | str, data: Path | str, *, params: Mapping[str, Any] | None = None, out: Path | str = "result", slots: int | None = None,
    progress: Callable[..., Any] | None = None, max_fails: str = "0", tries: int = MAX_TRIES, time_limit_s: float | None = None,
    memory_bytes: int | None = None, allow_none: bool = False, cluster: Cluster | None = None,
    on_begun: Callable[[], object] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run a package on data in this machine's sandbox and leave the result's files in ``out``. Call from the main thread.

    With ``cluster`` fragments run there, split and merge here. ``on_begun``: called once everything that was given is found to be in order.

    Returns facts: fragments, done, failed, failures, files, seconds, log, artifacts, isolation.
    Raises `JobFailed` with the failures in its facts, what the package check raises, `UsageError` where no sandbox works.
    """
    package, data, out = Path(package), Path(data), Path(out)
    read = read_package(package)
    info = check_package(read.files, default_name=package.name, warnings=read.warnings)
    given = dict(params or {})
    check_params(info, given)
    lacking = missing((), info.python)
    if lacking:
        raise UsageError(lacking[0].code, lacking[0].text)
    if not data.exists():
        raise UsageError("no-such-path", f"{data} is not there")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="company-run-") as name:
        folder = Path(os.path.realpath(name))
        for inside in ("data", "merge"):  # what children of another user see; the folder around them stays private
            (folder / inside).mkdir(mode=0o755)
        readable = readable_data(data, folder / "data")
        there = cluster.slots if cluster is not None else len(os.sched_getaffinity(0))
        plan = Plan(
            files=read.files, info=info, params=encode_value(given), data=readable, data_name=data.resolve().name, folder=folder,
            slots=slots or there, max_fails=MaxFails.parse(max_fails), tries=tries,
            time_limit_s=time_limit_s or info.time_limit_s, memory_bytes=memory_bytes or info.memory_bytes,
            site=environment_of(info.requirements, folder), cluster=cluster, allow_none=allow_none,
        )  # fmt: skip
        if on_begun is not None:
            on_begun()
        logs, artifacts = LogFile(beside(out, ".log")), Artifacts(beside(out, ".artifacts"))
        try:
            isolation, ended = _run(plan, logs, artifacts, progress, allow_none)
        finally:
            logs.close()
        facts: dict[str, Any] = {"fragments": ended.total, "done": ended.done, "failed": ended.failed}
        facts["files"] = [str(path) for path in hand_over(ended.result, out)] if ended.result is not None else []
    facts |= {"engine": cluster.name if cluster is not None else "local"}
    facts |= {"seconds": round(time.monotonic() - began, 3), "isolation": isolation}
    facts |= {"log": str(logs.path)} if logs.path is not None else {}
    facts |= {"artifacts": str(beside(out, ".artifacts"))} if artifacts.count else {}
    facts["failures"] = [asdict(f) for f in ended.failures[:MAX_SHOWN_FAILURES]]
    if ended.trouble is not None:
        raise JobFailed("job-failed", ended.trouble.text, cause=ended.trouble.cause, traceback=ended.trouble.traceback, **facts)
    return facts


def _run(plan: Plan, logs: LogFile, artifacts: Artifacts, progress: Callable[..., Any] | None, allow_none: bool) -> tuple[str, Ended]:
    with _interruptible() as interrupted:
        try:
            found = trio.run(_main, plan, logs, artifacts, progress, allow_none, interrupted)
        except* ParallelError as group:
            raise _first(group) from None
    if found is None:
        raise KeyboardInterrupt
    return found


async def _main(
    plan: Plan, logs: LogFile, artifacts: Artifacts, progress: Progress | None, allow_none: bool,
    interrupted: Callable[[trio.CancelScope], None],
) -> tuple[str, Ended] | None:  # fmt: skip
    """Nil when the user interrupted: everything is closed in order by then."""
    with trio.CancelScope() as scope:
        interrupted(scope)
        stage = [plan.folder / "merge", plan.data if plan.data.is_dir() else plan.data.parent]
        stage += [plan.site.parent] if plan.site is not None else []
        async with Sandbox.open(home=plan.folder, stage=stage, allow_none=allow_none) as sandbox:
            return sandbox.rung, await LocalEngine(plan, sandbox, logs=logs, artifacts=artifacts, progress=progress).run()
    return None


@contextmanager
def _interruptible() -> Iterator[Callable[[trio.CancelScope], None]]:
    """Ctrl-C and SIGTERM cancel the scope that is handed over; a second Ctrl-C changes nothing, since closing takes a moment only."""
    scopes: list[trio.CancelScope] = []
    token: list[trio.lowlevel.TrioToken] = []

    def hand_over_scope(scope: trio.CancelScope) -> None:
        scopes.append(scope)
        token.append(trio.lowlevel.current_trio_token())

    def on_signal(number: int, frame: object) -> None:
        if not scopes:
            raise KeyboardInterrupt
        token[0].run_sync_soon(scopes[0].cancel, idempotent=True)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield hand_over_scope
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first(group: BaseExceptionGroup[ParallelError]) -> ParallelError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ParallelError)
    return error


def readable_data(data: Path, folder: Path) -> Path:
    """The data where a sandboxed child can read it: itself, or a link or copy below ``folder`` where its user could not reach it."""
    real = Path(os.path.realpath(data))
    is_open = os.geteuid() != 0 or _is_open_to_all(real)
    if is_open and (real.is_dir() or os.geteuid() != 0 or real.parent.stat().st_mode & 0o001):
        return real
    copy = folder / real.name
    if real.is_dir():
        shutil.copytree(real, copy)
    elif not (is_open and _link(real, copy)):
        shutil.copyfile(real, copy)
    if not is_open:
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system
        return False
    return True


def _is_open_to_all(path: Path) -> bool:
    """Whether every user who is shown this file or tree could read all of it."""
    if not path.is_dir():
        return bool(path.stat().st_mode & 0o004)
    for parent, folders, files in os.walk(path):
        if os.lstat(parent).st_mode & 0o005 != 0o005:
            return False
        for name in (*folders, *files):
            if not os.lstat(os.path.join(parent, name)).st_mode & 0o004:
                return False
    return True


def hand_over(result: MergeResult, out: Path) -> list[Path]:
    """Put the final result into ``out`` as a download would: the single file, or the files of a bundle."""
    out.mkdir(parents=True, exist_ok=True)
    is_bundle = result.name == "result.zip" and any(p.is_file() for p in (result.path.parent.parent / "merge" / "output").rglob("*"))
    if is_bundle:
        return unpack_untrusted(result.path, out)
    target = out / result.name
    shutil.move(result.path, target)
    mask = os.umask(0)
    os.umask(mask)
    target.chmod(0o666 & ~mask)  # the sandbox leaves it to us alone
    return [target]


def beside(out: Path, suffix: str) -> Path:
    """A path next to the result, so that the result holds nothing but itself."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.with_name(out.name + suffix)
