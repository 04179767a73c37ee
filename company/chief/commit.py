"""Fragment path 7/9 - put results on disk, many at a time, and only then say so (I/O).

Rule 3: segment files are written and fsynced, then one transaction commits the rows of everything that came meanwhile, then
the workers are told and the machine learns of it. While the disk is full nothing is lost: the group waits and is tried again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio
import xxhash
from sqlalchemy import Connection

from company.chief.events import Range
from company.chief.segments import BlobRef, LogStore, RecordHeader, SegmentStore
from company.chief.store import outcomes
from company.chief.store.outcomes import OutcomeRow
from company.chief.store.store import Store
from p2p.base.errors import PeerError, Unavailable
from p2p.base.frames import Sizes
from p2p.base.record import record

RETRY_FULL_S = 2.0  # how often a full disk is tried again
MAX_WAITING_BYTES = 80 << 20  # of one worker: a frame may have 64 MiB, an honest one sends 16 MiB ahead of what is acknowledged
_log = logging.getLogger("company.chief.commit")


@record(kw_only=True)
class Piece:
    """One unbroken run of results, and where it goes."""

    job: str
    segments: SegmentStore
    logs: LogStore
    token: int
    worker: str
    attempt: int
    first: int
    count: int
    sizes: Sizes
    body: memoryview
    input_digest: bytes
    run_us: int
    cpu_us: int
    log: bytes | memoryview = b""
    blobs: tuple[BlobRef, ...] = ()  # results in spool files of this token; offsets count from ``first``


Op = Callable[[Connection], None]


@dataclass(slots=True)
class _Group:
    pieces: list[Piece] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    then: list[Callable[[], None]] = field(default_factory=list)


class Committer:
    """One task that owns all writing of results. Callers add; `on_committed` and ``then`` run in the trio thread, in order."""

    def __init__(self, store: Store, *, on_committed: Callable[[str, tuple[Range, ...]], None], on_full: Callable[[bool], None]) -> None:
        self._store = store
        self._on_committed = on_committed
        self._on_full = on_full
        self._group = _Group()
        self._waiting: dict[str, int] = {}  # bytes of results by worker, until they are on disk
        self._work = trio.Event()
        self._idle = trio.Event()
        self._idle.set()

    def add(self, *, pieces: Sequence[Piece] = (), ops: Sequence[Op] = (), then: Callable[[], None] | None = None) -> None:
        """Queue results and row changes for the next transaction; ``then`` is called when all of it is on disk."""
        self._group.pieces += pieces
        self._group.ops += ops
        for piece in pieces:
            self._count(piece.worker, len(piece.body))
        if then is not None:
            self._group.then.append(then)
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._work.set()

    def _count(self, worker: str, size: int) -> None:
        waiting = self._waiting.pop(worker, 0) + size
        if waiting:
            self._waiting[worker] = waiting

    def check_room(self, worker: str) -> None:
        """Raise `PeerError` when so much of this worker waits for the disk that it cannot have waited for acknowledgements."""
        if (waiting := self._waiting.get(worker, 0)) > MAX_WAITING_BYTES:
            raise PeerError("unacknowledged", f"{waiting} bytes of results wait for the disk; a worker waits for acknowledgements.")

    async def wait_idle(self) -> None:
        """Return when nothing is queued and nothing is being written."""
        await self._idle.wait()

    async def flushed(self) -> None:
        """Return when all that is queued now is on disk."""
        done = trio.Event()
        self.add(then=done.set)
        await done.wait()

    async def run(self) -> None:
        """Write groups until cancelled; what is being written then is finished."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            group, self._group = self._group, _Group()
            with trio.CancelScope(shield=True):
                rows = await self._until_written(group)
            self._report(group, rows)
            if self._work.is_set() or self._group.pieces or self._group.ops or self._group.then:
                self._work.set()
            else:
                self._idle.set()

    async def _until_written(self, group: _Group) -> list[OutcomeRow]:
        is_full = False
        rows: list[OutcomeRow] | None = None
        while True:
            try:
                if rows is None:
                    rows = await trio.to_thread.run_sync(_append, group.pieces) if group.pieces else []
                if rows:
                    await trio.to_thread.run_sync(_sync, group.pieces)
                await self._store.write(partial(_insert, rows), *group.ops)
                break
            except (OSError, Unavailable) as error:
                if isinstance(error, OSError) and error.errno not in (28, 122):  # ENOSPC, EDQUOT
                    raise
                if not is_full:
                    is_full = True
                    _log.error("results cannot be written, the disk is full: %s", error)
                    self._on_full(True)
                await trio.sleep(RETRY_FULL_S)
        if is_full:
            _log.warning("results can be written again")
            self._on_full(False)
        return rows

    def _report(self, group: _Group, rows: list[OutcomeRow]) -> None:
        for piece in group.pieces:
            self._count(piece.worker, -len(piece.body))
        by_job: dict[str, list[Range]] = {}
        for row in rows:
            by_job.setdefault(row.job, []).append((row.first, row.count))
        for job, ranges in by_job.items():
            self._on_committed(job, tuple(ranges))
        for then in group.then:
            then()


def _insert(rows: list[OutcomeRow], conn: Connection) -> None:
    outcomes.insert(conn, rows)


def _append(pieces: list[Piece]) -> list[OutcomeRow]:
    """Append every piece to its segment file; nothing is durable yet. Runs in a thread; may be repeated after a full disk."""
    rows: list[OutcomeRow] = []
    now = time.time()
    for piece in pieces:  # first, because only this touches the disk: what follows is never done twice
        for offset, _, _ in piece.blobs:
            piece.segments.adopt_blob(piece.token, piece.first + offset)
    for piece in pieces:
        digest = xxhash.xxh3_128_digest(piece.body)
        header = RecordHeader(piece.job, piece.first, piece.count, piece.attempt, piece.token, piece.input_digest, digest, piece.blobs)
        place = piece.segments.append(header, piece.sizes, piece.body)
        log_offset, log_len = piece.logs.append(piece.log) or (None, 0)
        rows.append(
            OutcomeRow(
                job=piece.job, first=piece.first, count=piece.count, attempt=piece.attempt, token=piece.token, worker=piece.worker,
                segment=place.segment, offset=place.offset, length=place.length, input_digest=piece.input_digest, digest=digest,
                run_us=piece.run_us, cpu_us=piece.cpu_us, at=now, log_offset=log_offset, log_len=log_len,
            )
        )  # fmt: skip
    return rows


def _sync(pieces: list[Piece]) -> None:
    """Make what was appended durable, each job's files once. Runs in a thread; may be repeated after a full disk."""
    for piece in {id(piece.segments): piece for piece in pieces}.values():
        if piece.logs.pending_bytes:
            piece.logs.sync()
        piece.segments.sync()
