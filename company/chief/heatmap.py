"""How far a job is, drawn as a row of cells (I/O: reads rows of a job that is over)."""

from __future__ import annotations

from sqlalchemy import Connection, select

from company.chief.engine import Engine
from company.chief.ranges import RangeSet
from company.chief.store import schema


def ranges_of(conn: Connection, job: str) -> tuple[RangeSet, RangeSet]:
    """The fragments of a job that is over: done, and failed for good."""
    done, dead = RangeSet(), RangeSet()
    of = schema.outcome.c
    for first, count in conn.execute(select(of.first, of.count).where(of.job == job).order_by(of.first)):
        done.add(first, count)
    for (fragment,) in conn.execute(select(schema.failure.c.fragment).where(schema.failure.c.job == job, schema.failure.c.final)):
        dead.add(fragment, 1)
    return done, dead


def cell_of(done: RangeSet, dead: RangeSet, engine: Engine, job_id: str, first: int, count: int) -> str:
    if dead.intersection(first, count):
        return "failed"
    if done.covers(first, count):
        return "done"
    if engine.state.leases.overlapping(job_id, first, count):
        return "leased"
    return "waiting"
