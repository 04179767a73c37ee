"""Rows of `outcome`: which fragments are done, and where their results lie (I/O through the connection it is given).

One row is one unbroken run of successful fragments. It is written after the segment record it names was fsynced, and before
anybody is told.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, func, or_, select

from company.chief.store import schema
from company.chief.store.rows import Rows
from p2p.base.record import record


@record
class OutcomeRow:
    """Fragments ``first`` to ``first + count - 1`` of a job. ``segment``, ``offset``, ``length``: the record; log_*: the log block."""

    job: str
    first: int
    count: int
    attempt: int
    token: int
    worker: str
    segment: int
    offset: int
    length: int
    input_digest: bytes
    digest: bytes
    run_us: int
    cpu_us: int
    at: float
    log_offset: int | None = None
    log_len: int = 0


_rows = Rows(schema.outcome, OutcomeRow)
_t = schema.outcome.c


def insert(conn: Connection, rows: Sequence[OutcomeRow]) -> None:
    """Add rows; a run that begins where another did is an integrity error."""
    _rows.insert(conn, rows)


def load(conn: Connection, job: str, *, start: int = 0, limit: int | None = None) -> tuple[OutcomeRow, ...]:
    """The rows of a job whose last fragment is >= ``start``, in fragment order."""
    return _rows.load(conn, _t.job == job, _t.first + _t.count > start, order_by=(_t.first,), limit=limit)


def after(conn: Connection, job: str, place: tuple[int, int], *, limit: int) -> tuple[OutcomeRow, ...]:
    """The rows of a job whose record lies behind ``place`` (segment, offset): segments only grow, so this is the order of committing."""
    behind = or_(_t.segment > place[0], and_(_t.segment == place[0], _t.offset > place[1]))
    return _rows.load(conn, _t.job == job, behind, order_by=(_t.segment, _t.offset), limit=limit)


def holding(conn: Connection, job: str, fragment: int) -> OutcomeRow | None:
    """The row that holds the result of ``fragment``, or None."""
    found = _rows.load(conn, _t.job == job, _t.first <= fragment, order_by=(_t.first.desc(),), limit=1)
    return found[0] if found and fragment < found[0].first + found[0].count else None


def with_logs(conn: Connection, job: str) -> tuple[OutcomeRow, ...]:
    """The rows of a job that have a log block, in the order of the log."""
    return _rows.load(conn, _t.job == job, _t.log_len > 0, order_by=(_t.log_offset,))


def committed_ends(conn: Connection, job: str) -> dict[int, int]:
    """Segment number to the end of its last committed record: what `SegmentStore.recover` keeps."""
    query = select(_t.segment, func.max(_t.offset + _t.length)).where(_t.job == job).group_by(_t.segment)
    return {int(segment): int(end) for segment, end in conn.execute(query)}


def log_end(conn: Connection, job: str) -> int:
    """The end of the last committed log block, 0 if there is none."""
    query = select(func.max(_t.log_offset + _t.log_len)).where(_t.job == job, _t.log_len > 0)
    return int(conn.execute(query).scalar() or 0)


def delete(conn: Connection, job: str) -> int:
    """Drop all results of a job (its split did not repeat itself); return how many rows."""
    return _rows.delete(conn, _t.job == job)


def forget(conn: Connection, job: str, firsts: Sequence[int]) -> None:
    """Delete the rows that begin with these fragments."""
    for at in range(0, len(firsts), 500):
        conn.execute(schema.outcome.delete().where(schema.outcome.c.job == job, schema.outcome.c.first.in_(firsts[at : at + 500])))
