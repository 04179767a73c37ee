"""A company process that kills itself with SIGKILL at a named point of its way to the disk (I/O).

Run as ``python -m tests.faults.crashing start ...``.

The product has no hooks: this program wraps its functions before it starts the command line. It dies when the file named by
$FAULT_FILE holds "point n": the n-th time from then that the point is passed. Without that it is an ordinary process, and checks
the chief's machine after every event; what it finds is written to $FAULT_VIOLATIONS. What it acknowledges to workers goes to
$FAULT_ACKS before the acknowledgement leaves: who looks after a kill finds whether all of that is on disk (`unkept`).
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from company.chief import append_file, commit, merging, segments, state
from company.chief.desk import JobDesk
from company.chief.engine import Engine
from company.chief.sessions import Sessions
from company.chief.splitting import Splitting
from company.chief.store.writer import Writer

# The chief's way from a submitted job to its end. What each leaves on disk differs, which is why each has a test.
POINTS = {
    "job-before-row": "a job was submitted, its row is not written",
    "job-after-row": "its row is written, nobody was told",
    "split-before-window": "fragments came, nobody has them",
    "split-after-window": "fragments are in the window and were offered",
    "outcome-before-append": "a result came and is only in memory",
    "segment-half-written": "half of a record is in the file",
    "segment-before-fsync": "whole in the file, not durable",
    "segment-after-fsync": "durable, without its row",
    "blob-before-rename": "a large result is in its spool file",
    "blob-after-rename": "and under its name, without a record",
    "rows-before-begin": "the transaction has not begun",
    "rows-before-commit": "all statements ran, COMMIT did not",
    "rows-after-commit": "committed; the machine and the worker do not know",
    "ack-before-send": "the machine knows, the worker has no acknowledgement",
    "ack-after-send": "the worker has one",
    "merge-before-start": "all is there, merge has not begun",
    "merge-after-output": "merge has written, its result is not shaped",
    "merge-after-result": "the result's file is durable, no row names it",
    "job-before-last-row": "the job's last row is not written",
    "job-after-last-row": "it is",
}


class Fuse:
    """Counts passages of the point that the file names."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen = ""
        self._left = 0

    def passed(self, point: str) -> None:
        if self._path is None or not self._path.exists():
            return
        said = self._path.read_text()
        if said != self._seen:
            self._seen = said
            self._left = int(said.split()[1]) if said else 0
        if said.split()[:1] != [point]:
            return
        self._left -= 1
        if self._left <= 0:
            self._path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, name: str, *, before: Callable[..., Any] | None = None, after: Callable[..., Any] | None = None) -> None:
    """Wrap a plain function or method."""
    inner = getattr(owner, name)

    def outer(*args: Any, **options: Any) -> Any:
        if before is not None:
            before(*args)
        result = inner(*args, **options)
        if after is not None:
            after(*args)
        return result

    setattr(owner, name, outer)


def around_async(owner: Any, name: str, *, before: Callable[..., None], after: Callable[..., None]) -> None:
    """Wrap an async method."""
    inner = getattr(owner, name)

    async def outer(*args: Any, **options: Any) -> Any:
        before(*args)
        result = await inner(*args, **options)
        after(*args)
        return result

    setattr(owner, name, outer)


class Statements:
    """A connection that tells of its COMMITs."""

    def __init__(self, raw: Any, fuse: Fuse) -> None:
        self._raw = raw
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def execute(self, sql: str) -> Any:
        if sql == "COMMIT":
            self._fuse.passed("rows-before-commit")
        return self._raw.execute(sql)


def wrap_files(fuse: Fuse) -> None:
    """Segment files and large results."""
    write_all = append_file._write_all

    def in_halves(fd: int, buffers: Any, offset: int) -> None:
        if offset:  # not the head of a new file
            whole = b"".join(bytes(b) for b in buffers)
            half = len(whole) // 2
            write_all(fd, [whole[:half]], offset)
            fuse.passed("segment-half-written")
            write_all(fd, [whole[half:]], offset + half)
            fuse.passed("segment-before-fsync")
        else:
            write_all(fd, buffers, offset)

    append_file._write_all = in_halves
    around(commit, "_append", before=lambda pieces: fuse.passed("outcome-before-append"))
    around(commit, "_sync", after=lambda pieces: fuse.passed("segment-after-fsync"))
    around(
        segments.SegmentStore, "adopt_blob",
        before=lambda *_: fuse.passed("blob-before-rename"), after=lambda *_: fuse.passed("blob-after-rename"),
    )  # fmt: skip


def wrap_rows(fuse: Fuse) -> None:
    """Transactions, and what follows them."""
    began = Writer.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        began(self, *args, **options)
        self._raw = Statements(self._raw, fuse)

    Writer.__init__ = init  # type: ignore[method-assign]
    around(Writer, "_commit", before=lambda *_: fuse.passed("rows-before-begin"), after=lambda *_: fuse.passed("rows-after-commit"))
    around(Sessions, "send_ack", before=lambda *_: fuse.passed("ack-before-send"), after=lambda *_: fuse.passed("ack-after-send"))


def wrap_job(fuse: Fuse) -> None:
    """Submission, split, merge, end."""
    around_async(
        JobDesk, "submit", before=lambda *_: fuse.passed("job-before-row"), after=lambda *_: fuse.passed("job-after-row")
    )  # fmt: skip
    around_async(
        Splitting, "_take", before=lambda *_: fuse.passed("split-before-window"), after=lambda *_: fuse.passed("split-after-window")
    )  # fmt: skip
    around(merging.Merging, "start", before=lambda *_: fuse.passed("merge-before-start"))
    from company.chief import merger

    around(
        merger, "shape_result", before=lambda *_: fuse.passed("merge-after-output"), after=lambda *_: fuse.passed("merge-after-result")
    )  # fmt: skip
    over = Engine._job_over

    def job_over(self: Any, effect: Any) -> None:
        fuse.passed("job-before-last-row")
        self._committer.add(then=lambda: None)
        over(self, effect)
        self._committer.add(then=lambda: fuse.passed("job-after-last-row"))

    Engine._job_over = job_over  # type: ignore[method-assign]


def watch_machine(path: Path) -> None:
    """Check the chief's machine after every event and keep what is wrong."""
    handle = state.ChiefState.handle

    def checked(self: Any, event: Any, now: Any) -> Any:
        effects = handle(self, event, now)
        try:
            self.validate()
        except Exception:  # noqa: BLE001 whatever it is, it is a violation
            with path.open("a") as file:
                file.write(f"after {type(event).__name__}: {traceback.format_exc()}\n")
        return effects

    state.ChiefState.handle = checked  # type: ignore[method-assign]


def watch_acks(path: Path) -> None:
    """Write down what is acknowledged: of each message, the fragments whose outcomes the machine took, before the worker is told."""
    taken: dict[tuple[int, int], list[tuple[str, int, int]]] = {}
    under_way: list[tuple[int, int]] = []

    def note_pieces(_engine: Any, effect: Any, *_: Any) -> None:
        taken.setdefault(under_way[-1], []).extend((effect.job, first, count) for first, count in effect.ranges)

    def note_failure(_engine: Any, effect: Any, *_: Any) -> None:
        if under_way:
            taken.setdefault(under_way[-1], []).append((effect.job, effect.index, 1))

    def note_ack(_sessions: Any, _worker: str, token: int, first: int) -> None:
        ranges = taken.pop((token, first), [])
        if ranges:
            with path.open("a") as file:
                file.write(json.dumps(ranges) + "\n")

    for name, index_of in (("post_outcome", lambda m: m.first), ("post_died", lambda m: m.index)):
        around(
            Engine, name,
            before=lambda _engine, _worker, message, *_, index_of=index_of: under_way.append((message.token, index_of(message))),
            after=lambda *_: under_way.clear(),
        )  # fmt: skip
    around(Engine, "_pieces", before=note_pieces)
    around(Engine, "_failure_ops", before=note_failure)
    around(Sessions, "send_ack", before=note_ack)


def unkept(acks: Path, database: Path) -> list[str]:
    """What a dead chief had acknowledged and has not on disk. Ask before it starts again: that may repair what a worker still held."""
    if not acks.exists():
        return []
    rows: dict[str, list[tuple[int, int]]] = {}
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        for job, first, count in connection.execute('SELECT job, "first", "count" FROM outcome'):
            rows.setdefault(job, []).append((first, first + count))
        for job, fragment in connection.execute("SELECT job, fragment FROM failure"):
            rows.setdefault(job, []).append((fragment, fragment + 1))
    finally:
        connection.close()
    found = []
    for line in acks.read_text().splitlines():
        for job, first, count in json.loads(line):
            lost = [i for i in range(first, first + count) if not any(a <= i < b for a, b in rows.get(job, []))]
            if lost:
                found.append(f"fragments {lost[:5]} of {job} were acknowledged and are not on disk")
    return found


def main() -> None:
    fuse_file = os.environ.get("FAULT_FILE")
    fuse = Fuse(Path(fuse_file) if fuse_file else None)
    wrap_files(fuse)
    wrap_rows(fuse)
    wrap_job(fuse)
    if said := os.environ.get("FAULT_VIOLATIONS"):
        watch_machine(Path(said))
    if said := os.environ.get("FAULT_ACKS"):
        watch_acks(Path(said))
    from company.cli import main as command_line

    sys.argv[0] = "company"
    command_line()


if __name__ == "__main__":
    main()
