"""Contract path 5/8 - which companies are believed in which job, and how many checks they passed, across restarts (I/O: the store).

After a restart, results of a company that is not yet believed are computed again: the inputs to check them against are gone.
"""

from __future__ import annotations

import msgpack
from sqlalchemy import Connection

from company.chief.events import Range
from company.chief.secondment.naming import PREFIX, origin_of
from company.chief.store import jobs, meta, schema
from company.chief.store.outcomes import OutcomeRow
from company.chief.store.store import Store
from p2p.reputation.checking import decayed


def mark(conn: Connection, job: str, origin: str) -> None:
    """From now on this company is believed in this job; nothing is written of one that was removed meanwhile."""
    known = believed_in(conn, job)
    if origin not in known and jobs.is_known(conn, job):
        meta.put(conn, meta.BELIEVED + job, msgpack.packb(sorted({*known, origin})))


def unmark(conn: Connection, job: str, origins: set[str]) -> None:
    """These companies are not believed any more; everything of theirs in this job goes, and of those not yet believed."""
    known = believed_in(conn, job) - origins
    if jobs.is_known(conn, job):
        meta.put(conn, meta.BELIEVED + job, msgpack.packb(sorted(known)))
    table = schema.outcome
    kept = [~table.c.worker.like(f"{PREFIX}{origin[3:]}-%") for origin in sorted(known)]
    conn.execute(table.delete().where(table.c.job == job, table.c.worker.like(f"{PREFIX}%"), *kept))


def believed_in(conn: Connection, job: str) -> set[str]:
    """Companies believed in this job."""
    found = meta.get(conn, meta.BELIEVED + job)
    return set(msgpack.unpackb(found)) if found is not None else set()


async def load_believed(
    store: Store, job: str, rows: tuple[OutcomeRow, ...]
) -> tuple[tuple[OutcomeRow, ...], tuple[tuple[str, int, int], ...]]:
    """At start: what of a job's results counts, and who computed what of it; the rest is deleted."""
    if not any(row.worker.startswith(PREFIX) for row in rows):
        return rows, ()
    await store.write(lambda conn: unmark(conn, job, set()))
    known = await store.read(lambda conn: believed_in(conn, job))
    kept = tuple(row for row in rows if (origin := origin_of(row.worker)) == "" or origin in known)
    return kept, tuple((origin, row.first, row.count) for row in kept if (origin := origin_of(row.worker)))


def save_passed(conn: Connection, origin: str, passed: float, at: float) -> None:
    """What the next job may know of a company."""
    meta.put(conn, f"passed/{origin}", msgpack.packb([passed, at]))


def load_passed(conn: Connection, origin: str, now: float) -> float:
    """Checks that a company passed before, decayed."""
    found = meta.get(conn, f"passed/{origin}")
    if found is None:
        return 0.0
    passed, at = msgpack.unpackb(found)
    return decayed(float(passed), now - float(at))


def is_shown(row: OutcomeRow, hidden: list[Range]) -> bool:
    """Whether readers may see a row: nothing of it is provisional."""
    return not any(first < row.first + row.count and row.first < first + count for first, count in hidden)
