"""What a job leaves behind, read from disk: results, logs, artifacts, failures, the final result (I/O).

Part of the port `company.chief.facade.Chief`.
"""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import msgpack
import numpy as np
import trio
from sqlalchemy import Connection

from company import views
from company.chief.commit import Committer
from company.chief.desk import JobDesk
from company.chief.engine import Engine
from company.chief.facade import NotFound, StoredFile
from company.chief.job_views import not_ready
from company.chief.logs import STDERR, LogStore
from company.chief.merger import VALUE_FILE
from company.chief.runtime import segment_id
from company.chief.segments import Location, SegmentStore, header_of_untrusted
from company.chief.store import artifacts, failures, outcomes, stories
from company.chief.store.failures import FailureRow
from company.chief.store.outcomes import OutcomeRow
from company.chief.store.store import Store
from company.paths import ChiefHome

ROWS_AT_ONCE = 256


class JobFiles:
    """Reading, for one chief. Nothing here changes anything."""

    def __init__(self, *, home: ChiefHome, store: Store, engine: Engine, desk: JobDesk, committer: Committer) -> None:
        self._home = home
        self._store = store
        self._engine = engine
        self._desk = desk
        self._committer = committer

    # ---- failures and inputs ------------------------------------------------------------------------------------------------
    async def failures(self, ref: str, *, limit: int, offset: int) -> tuple[list[views.FailureView], int]:
        job = self._desk.find(ref)
        rows = await self._store.read(lambda conn: failures.load(conn, job, limit=limit, offset=offset))
        total = await self._store.read(lambda conn: failures.count(conn, job))
        kept = await self._store.read(lambda conn: failures.with_input(conn, job))
        return [_failure_view(row, row.fragment in kept) for row in rows], total

    async def fragment_input(self, ref: str, fragment: int) -> bytes:
        """The codec bytes of a fragment: from the window while it is there, else as kept when it failed."""
        job = self._desk.find(ref)
        runtime = self._engine.runtimes.get(job)
        if runtime is not None and runtime.window.has(fragment, 1):
            _, bodies, large = runtime.window.cut(fragment, 1)
            if fragment in large:
                return await trio.to_thread.run_sync(large[fragment].path.read_bytes)
            return b"".join(bodies)
        kept = await self._store.read(lambda conn: failures.load_input(conn, job, fragment))
        if kept is None:
            total = self._desk.job(job).fragments.total
            if total is not None and fragment >= total:
                raise NotFound("fragment-unknown", f"{job} has {total} fragments, 0 to {total - 1}; there is no fragment {fragment}.")
            raise NotFound(
                "input-not-kept", f"The input of fragment {fragment} is not kept; only those of failed fragments up to 1 MiB are.",
                hint=f"company job failures {job}",
            )  # fmt: skip
        return kept

    # ---- results ------------------------------------------------------------------------------------------------------------
    async def fragment_result(self, ref: str, fragment: int) -> bytes:
        job = self._desk.find(ref)
        async for index, data in iterate_results(self._store, self._home, job, start=fragment, limit=1):
            if index == fragment:
                return data
        raise NotFound("result-not-there", f"Fragment {fragment} has no result (yet).", hint=f"company explain {job}")

    async def final_result(self, ref: str) -> StoredFile:
        view = self._desk.job(ref)
        row = self._desk._row(view.id)
        if view.state != "done" or row.result_name is None or row.result_digest is None:
            raise not_ready(view)
        path = self._result_dir(view.id, row.merge_attempt) / row.result_name
        kind = mimetypes.guess_type(row.result_name)[0] or "application/octet-stream"
        return StoredFile(path, row.result_size or 0, row.result_digest.hex(), row.result_name, kind)

    async def value(self, ref: str) -> bytes:
        """The codec bytes of what merge returned. Raises `NotFound` when it returned None."""
        view = self._desk.job(ref)
        if view.state != "done":
            raise not_ready(view)
        path = self._result_dir(view.id, self._desk._row(view.id).merge_attempt) / VALUE_FILE
        if not path.is_file():
            raise NotFound("no-value", "merge returned nothing; download its files.")
        return await trio.to_thread.run_sync(path.read_bytes)

    def _result_dir(self, job: str, attempt: int) -> Path:
        return self._home.job(job).output / f"result-{attempt}"

    # ---- logs and artifacts -------------------------------------------------------------------------------------------------
    async def logs(self, ref: str, *, fragment: int | None, limit: int, after: int) -> AsyncIterator[views.LogLine]:
        """What happened (events) and what fragments printed, events first; ``after`` skips that many lines."""
        job = self._desk.find(ref)
        await self._committer.wait_idle()
        lines: list[views.LogLine] = []
        if fragment is None:
            for story in await self._store.read(lambda conn: stories.load(conn, job)):
                text = msgpack.unpackb(story.body).get("text", "")
                lines.append(views.LogLine(fragment=None, stream="event", text=f"{story.kind}: {text}", at=story.at))
        rows = {r.log_offset: r for r in await self._store.read(lambda conn: outcomes.with_logs(conn, job))}
        runtime = self._engine.runtimes.get(job)
        store = runtime.logs if runtime is not None else LogStore(self._home.job(job).logs)
        entries = await trio.to_thread.run_sync(lambda: store.tail(8 << 20)[0]) if rows else []
        for entry in entries:
            if fragment is not None and entry.fragment != fragment:
                continue
            row = rows.get(entry.at)
            lines.append(
                views.LogLine(
                    fragment=entry.fragment, stream="stderr" if entry.stream == STDERR else "stdout",
                    text=entry.data.decode("utf-8", "replace"), at=row.at if row else None, worker=row.worker if row else "",
                )
            )  # fmt: skip
        for failure in await self._store.read(lambda conn: failures.load(conn, job, limit=200)):
            if failure.log_tail and fragment in (None, failure.fragment):
                text = failure.log_tail.decode("utf-8", "replace")
                lines.append(views.LogLine(fragment=failure.fragment, stream="stderr", text=text, at=failure.at, worker=failure.worker))
        for line in lines[after : after + limit]:
            yield line

    async def artifacts(self, ref: str) -> list[views.ArtifactView]:
        job = self._desk.find(ref)
        rows = await self._store.read(lambda conn: artifacts.load(conn, job))
        return [views.ArtifactView(job=job, fragment=r.fragment, name=r.name, size=r.size, digest=r.digest.hex()) for r in rows]

    async def artifact(self, ref: str, fragment: int, name: str) -> StoredFile:
        job = self._desk.find(ref)
        row = await self._store.read(lambda conn: artifacts.load_one(conn, job, fragment, name))
        if row is None:
            raise NotFound("artifact-unknown", f"Fragment {fragment} left no artifact {name[:80]!r}.")
        path = self._home.job(job).artifacts / str(fragment) / row.name
        kind = mimetypes.guess_type(row.name)[0] or "application/octet-stream"
        return StoredFile(path, row.size, row.digest.hex(), row.name, kind)


async def iterate_results(
    store: Store, home: ChiefHome, job: str, *, start: int, limit: int, is_shown: Callable[[OutcomeRow], bool] = lambda row: True
) -> AsyncIterator[tuple[int, bytes]]:
    """(fragment, codec bytes) of results on disk in fragment order, from ``start`` on, at most ``limit``; what may be shown of them."""
    dirs = home.job(job)
    segments = SegmentStore(dirs.results, segment_id(job))  # a reader of its own: never writes
    given = 0
    try:
        while given < limit:
            at = start
            rows = await store.read(partial(_rows_from, job, at))
            if not rows:
                return
            for row in rows:
                if not is_shown(row):
                    start = row.first + row.count
                    continue
                for index, data in await trio.to_thread.run_sync(_results_of, segments, row, start, limit - given):
                    yield index, data
                    given += 1
                start = row.first + row.count
                if given >= limit:
                    return
    finally:
        segments.close()


def _rows_from(job: str, start: int, conn: Connection) -> tuple[OutcomeRow, ...]:
    return outcomes.load(conn, job, start=start, limit=ROWS_AT_ONCE)


def _results_of(segments: SegmentStore, row: OutcomeRow, start: int, limit: int) -> list[tuple[int, bytes]]:
    frame = segments.read(Location(row.segment, row.offset, row.length))
    large = {offset: (size, digest) for offset, size, digest in header_of_untrusted(frame).blobs}
    ends = np.cumsum(frame.sizes, dtype=np.int64)
    out: list[tuple[int, bytes]] = []
    for k in range(max(0, start - row.first), row.count):
        if len(out) >= limit:
            break
        if k in large:
            out.append((row.first + k, bytes(segments.read_blob(row.first + k, *large[k]))))
        else:
            out.append((row.first + k, bytes(frame.body[int(ends[k - 1]) if k else 0 : int(ends[k])])))
    return out


def _failure_view(row: FailureRow, reproducible: bool) -> views.FailureView:
    return views.FailureView(
        job=row.job, fragment=row.fragment, tries=row.tries, infra_tries=row.infra_tries, final=row.final, cause=row.cause,
        exc_type=row.exc_type, message=row.message, traceback=row.traceback, signal=row.signal, exit_code=row.exit_code,
        log_tail=row.log_tail.decode("utf-8", "replace"), preview=row.preview, worker=row.worker, at=row.at, reproducible=reproducible,
    )  # fmt: skip
