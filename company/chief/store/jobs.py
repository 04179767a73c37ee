"""Rows of `job` (I/O through the connection it is given)."""

from __future__ import annotations

from sqlalchemy import Connection, select

from company.chief.store import meta, schema
from company.chief.store.rows import Rows
from p2p.base.record import record


@record(kw_only=True)
class JobRow:
    """One job. ``params``: codec bytes; ``options``: the JobSubmit as JSON; ``reason``: a Reason as JSON."""

    id: str
    name: str
    package: bytes
    dataset: bytes
    owner: str
    params: bytes
    options: bytes
    priority: int = 0
    state: str = "queued"
    paused: bool = False
    reason: bytes | None = None
    created: float
    started: float | None = None
    first_result: float | None = None
    finished: float | None = None
    fragments_total: int | None = None
    split_digest: bytes | None = None
    split_runs: int = 0
    merge_attempt: int = 0
    cpu_us: int = 0
    result_name: str | None = None
    result_size: int | None = None
    result_digest: bytes | None = None


_rows = Rows(schema.job, JobRow)


def save(conn: Connection, row: JobRow) -> None:
    """Add the job, or overwrite it."""
    _rows.save(conn, [row])


def load(conn: Connection, job: str) -> JobRow | None:
    """One job."""
    return _rows.one(conn, schema.job.c.id == job)


def load_all(conn: Connection) -> tuple[JobRow, ...]:
    """Every job, oldest first."""
    return _rows.load(conn, order_by=(schema.job.c.created, schema.job.c.id))


def is_known(conn: Connection, job: str) -> bool:
    """Whether there is such a job; one that was removed is not."""
    return conn.execute(select(schema.job.c.id).where(schema.job.c.id == job)).first() is not None


def delete(conn: Connection, job: str) -> bool:
    """Forget a job and every row that belongs to it."""
    meta.drop(conn, meta.BELIEVED + job)
    meta.drop(conn, meta.WORKED + job)
    return _rows.delete(conn, schema.job.c.id == job) > 0
