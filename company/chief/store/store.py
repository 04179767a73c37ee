"""The port to the database: writes that share commits, reads in threads (I/O).

`company.chief` hands over functions of a connection (made of the row functions beside this file) and learns when they are on
disk. Keep it this narrow: PostgreSQL is to fit behind the same methods.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

import trio
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from company.chief.store import meta
from company.chief.store.opening import READERS, bring_up_to_date, make_engine
from company.chief.store.writer import Entry, Op, Writer
from p2p.base.errors import UsageError

T = TypeVar("T")


class Store:
    """One open database. Used from one trio run; `aclose` it."""

    def __init__(self, path: Path, writing: Engine, reading: Engine) -> None:
        self.path = path
        self._writing = writing
        self._reading = reading
        self._writer = Writer(writing, path, self._report_from_thread)
        self._token: trio.lowlevel.TrioToken | None = None
        self._limiter = trio.CapacityLimiter(READERS)
        self._unheard: BaseException | None = None
        self._is_closed = False
        self._writer.start()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open, create or migrate the database. Raises `UsageError` for a schema newer than this program."""
        path.parent.mkdir(parents=True, exist_ok=True)
        writing = make_engine(path, is_writer=True)
        try:
            with writing.connect() as conn:
                bring_up_to_date(conn)
        except DBAPIError as error:
            writing.dispose()
            raise UsageError(
                "database-unreadable", f"{path} cannot be opened: {error.orig}", hint="company admin restore, or another --home"
            ) from error
        path.chmod(0o600)
        return cls(path, writing, make_engine(path, is_writer=False))

    @property
    def transactions(self) -> int:
        """How many transactions were committed since it was opened."""
        return self._writer.transactions

    async def write(self, *ops: Op) -> None:
        """Run ``ops`` in one transaction, shared with whoever writes at the same time; return when it is on disk.

        An op that raises undoes this call only, and its error is raised here. Cancelling stops the waiting, not the writing.
        Raises: `Unavailable` ("storage-full", "storage-failed"), with nothing written.
        """
        done = trio.Event()
        failed: list[BaseException] = []

        def on_done(error: BaseException | None) -> None:
            if error is not None:
                failed.append(error)
            done.set()

        self._put(ops, on_done)
        await done.wait()
        if failed:
            raise failed[0]

    def write_soon(
        self, *ops: Op, on_committed: Callable[[], None] | None = None, on_failed: Callable[[BaseException], None] | None = None,
    ) -> None:  # fmt: skip
        """The same without waiting: one of the callbacks runs in the trio thread afterwards, in the order of the calls.

        An error with no ``on_failed`` to hear it is raised by every later call: what follows may rely on what was lost.
        """

        def on_done(error: BaseException | None) -> None:
            if error is None:
                if on_committed is not None:
                    on_committed()
            elif on_failed is not None:
                on_failed(error)
            else:
                self._unheard = error

        self._put(ops, on_done)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run ``fn`` on a reader's connection in a thread; all it reads belongs to one moment."""
        self._check_open()

        def snapshot() -> T:
            with self._reading.connect() as conn:
                conn.exec_driver_sql("BEGIN")
                try:
                    return fn(conn)
                finally:
                    conn.exec_driver_sql("COMMIT")

        return await trio.to_thread.run_sync(snapshot, limiter=self._limiter)

    async def next_boot(self) -> int:
        """Count this start of the chief, durably, and return its number, >= 1 (the upper part of every fencing token)."""
        boots: list[int] = []
        await self.write(lambda conn: boots.append(meta.count_boot(conn)))
        return boots[0]

    async def aclose(self) -> None:
        """Write what is queued and close. Callbacks of those writes still run. Doing it twice is harmless."""
        if self._is_closed:
            return
        self._is_closed = True
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._writer.close)
            self._reading.dispose()
            self._writing.dispose()
            await trio.lowlevel.checkpoint()  # lets the last report run

    def _put(self, ops: tuple[Op, ...], on_done: Callable[[BaseException | None], None]) -> None:
        self._check_open()
        if self._unheard is not None:
            raise self._unheard
        if self._token is None:
            self._token = trio.lowlevel.current_trio_token()
        self._writer.put(Entry(ops, on_done))

    def _check_open(self) -> None:
        if self._is_closed:
            raise UsageError("store-closed", f"the store {self.path} is closed")

    def _report_from_thread(self, outcomes: list[tuple[Entry, BaseException | None]]) -> None:
        if self._token is None:
            return
        try:
            self._token.run_sync_soon(_report, outcomes)
        except trio.RunFinishedError:
            pass  # written all the same; nobody is left to be told


def _report(outcomes: list[tuple[Entry, BaseException | None]]) -> None:
    for entry, error in outcomes:
        entry.on_done(error)
