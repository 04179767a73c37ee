"""One thread that writes, many callers that share its commits (I/O).

While one transaction is being fsynced the next ones queue up and become a single transaction, so the price of durability is
paid per fsync and not per caller. Inside a shared transaction each caller has a savepoint: one that raises undoes only itself.
"""

from __future__ import annotations

import errno
import queue
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from p2p.base.errors import InvariantBroken, Unavailable
from p2p.base.record import record

Op = Callable[[Connection], object]  # what it returns is ignored
MAX_CALLERS_PER_COMMIT = 1024
_LEAST_FREE_BYTES = 1 << 20


@record
class Entry:
    """One caller's operations, all or nothing, and whom to tell."""

    ops: tuple[Op, ...]
    on_done: Callable[[BaseException | None], None]


class _WholeGroupLost(Exception):
    """SQLite has given up the transaction, not just a statement."""


class Writer:
    """Owns the only connection that writes. ``report`` is called from the writer's thread, once per commit."""

    def __init__(self, engine: Engine, path: Path, report: Callable[[list[tuple[Entry, BaseException | None]]], None]) -> None:
        self._path = path
        self._report = report
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._conn = engine.connect()
        raw = self._conn.connection.driver_connection
        if not isinstance(raw, sqlite3.Connection):
            raise InvariantBroken(f"expected a SQLite connection, got {type(raw).__name__}")
        self._raw = raw
        self.transactions = 0  # committed so far; for metrics and tests
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Queue one caller's operations; order is kept."""
        self._queue.put(entry)

    def close(self) -> None:
        """Write what is queued, then end. Blocks: call it in a thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._conn.close()

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            group = [entry]
            is_last = False
            while len(group) < MAX_CALLERS_PER_COMMIT:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    is_last = True
                    break
                group.append(following)
            self._report(list(zip(group, self._commit(group), strict=True)))
            if is_last:
                return

    def _commit(self, group: Sequence[Entry]) -> list[BaseException | None]:
        """Write one group; return each caller's error, None where its rows are now on disk."""
        try:
            self._raw.execute("BEGIN IMMEDIATE")
            if len(group) == 1:
                error = self._run_ops(group[0])
                self._raw.execute("COMMIT" if error is None else "ROLLBACK")
                errors = [error]
            else:
                errors = [self._in_savepoint(entry) for entry in group]
                self._raw.execute("COMMIT")
        except (sqlite3.Error, _WholeGroupLost) as error:
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK")
            lost = self._translated(error.__cause__ if isinstance(error, _WholeGroupLost) and error.__cause__ else error)
            return [lost] * len(group)
        self.transactions += 1
        return errors

    def _in_savepoint(self, entry: Entry) -> BaseException | None:
        self._raw.execute("SAVEPOINT caller")
        error = self._run_ops(entry)
        if error is not None:
            self._raw.execute("ROLLBACK TO caller")
        self._raw.execute("RELEASE caller")
        return error

    def _run_ops(self, entry: Entry) -> BaseException | None:
        try:
            for op in entry.ops:
                op(self._conn)
        except Exception as error:  # handed to the caller who gave the op, whatever it is
            if self._is_storage_fault(error) or not self._raw.in_transaction:
                raise _WholeGroupLost from error
            return error
        return None

    def _is_storage_fault(self, error: BaseException) -> bool:
        code = _sqlite_code(error)
        return code is not None and code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)

    def _translated(self, error: BaseException) -> BaseException:
        """A full disk, a failing disk and a busy file are not our bugs: back off and retry."""
        code = _sqlite_code(error)
        if code is None:
            return error
        primary = code & 0xFF
        if primary == sqlite3.SQLITE_FULL or (primary == sqlite3.SQLITE_IOERR and _free_bytes(self._path) < _LEAST_FREE_BYTES):
            return storage_full(self._path)
        if primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Unavailable("storage-failed", f"the database cannot be written: {error}", hint="look at the disk and the system's log")
        return error


def storage_full(path: Path) -> Unavailable:
    """The error for a disk without room at ``path``."""
    return Unavailable(
        "storage-full", f"no space left on the disk of {path}", hint="free space, or delete old jobs and datasets",
        path=str(path), free_bytes=_free_bytes(path),
    )  # fmt: skip


def is_disk_full(error: OSError) -> bool:
    """Whether a file operation failed for want of room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _sqlite_code(error: BaseException) -> int | None:
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    code = getattr(error, "sqlite_errorcode", None)
    return code if isinstance(code, int) else None


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return 0
