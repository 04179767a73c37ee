"""Rows of `story`: how a job got where it is, event by event, the newest 10,000 of each (I/O through the connection it is given)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from company.chief.store import schema
from company.chief.store.rows import Rows
from p2p.base.record import record

MAX_EVENTS_PER_JOB = 10_000


@record
class StoryRow:
    """One event. ``seq``: given by the caller, growing; ``cause_seq``: the event that caused it; ``body``: msgpack map."""

    job: str
    seq: int
    at: float
    kind: str
    cause_seq: int | None
    body: bytes


_rows = Rows(schema.story, StoryRow)
_t = schema.story.c
_INSERT = (
    "INSERT INTO story (job, ordinal, seq, at, kind, cause_seq, body) "
    "SELECT id, (SELECT coalesce(max(ordinal), 0) + 1 FROM story WHERE job = id), {0}, {0}, {0}, {0}, {0} FROM job WHERE id = {0}"
)


def append(conn: Connection, rows: Sequence[StoryRow], *, keep: int = MAX_EVENTS_PER_JOB) -> None:
    """Add events, and drop the oldest of the same jobs beyond ``keep``. Events of a job that was removed meanwhile go with it."""
    if not rows:
        return
    insert = _INSERT.format("?" if conn.dialect.paramstyle == "qmark" else "%s")
    conn.exec_driver_sql(insert, [(r.seq, r.at, r.kind, r.cause_seq, r.body, r.job) for r in rows])
    for job in {row.job for row in rows}:
        newest = select(func.max(_t.ordinal)).where(_t.job == job).scalar_subquery()
        conn.execute(schema.story.delete().where(_t.job == job, _t.ordinal <= newest - keep))


def load(conn: Connection, job: str, *, limit: int = MAX_EVENTS_PER_JOB, after_seq: int = -1) -> tuple[StoryRow, ...]:
    """The newest ``limit`` events of a job with ``seq`` > ``after_seq``, oldest first."""
    return _rows.load(conn, _t.job == job, _t.seq > after_seq, order_by=(_t.ordinal.desc(),), limit=limit)[::-1]


def last_seq(conn: Connection) -> int:
    """The largest number given so far, 0 if none: where the next start goes on."""
    return int(conn.execute(select(func.max(_t.seq))).scalar() or 0)
