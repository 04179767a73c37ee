"""Jobs that are over, with what their rows add up to (I/O through the connection it is given)."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from company.chief.secondment.foreign import Worked
from company.chief.secondment.worked import load_every
from company.chief.store import jobs, schema
from company.chief.store.jobs import JobRow

OVER = frozenset({"done", "failed", "cancelled"})


@dataclass(slots=True)
class Ended:
    """A job that is over. ``worked``: what other companies' workers did of it."""

    row: JobRow
    done: int
    failed: int
    worked: tuple[Worked, ...] = ()


def load_jobs(conn: Connection) -> tuple[list[Ended], list[JobRow]]:
    """Every job, in order of ending or coming: those that are over, and the others."""
    done = select(schema.outcome.c.job, func.sum(schema.outcome.c.count)).group_by(schema.outcome.c.job)
    dead = select(schema.failure.c.job, func.count()).where(schema.failure.c.final).group_by(schema.failure.c.job)
    finished = {job: int(count) for job, count in conn.execute(done)}
    failed = {job: int(count) for job, count in conn.execute(dead)}
    worked = load_every(conn)
    rows = sorted(jobs.load_all(conn), key=lambda row: row.finished or row.created)
    ended = [Ended(row, finished.get(row.id, 0), failed.get(row.id, 0), worked.get(row.id, ())) for row in rows if row.state in OVER]
    return ended, [row for row in rows if row.state not in OVER]
