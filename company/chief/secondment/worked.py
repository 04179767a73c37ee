"""Contract path 5/8 - which companies worked for a job and under which contracts, for as long as the job is kept (I/O: the store).

A row of results names the guest that computed it; what is written here beside it names the guest's contract. Results that were taken back
have no rows: a company that was caught is still shown, with nothing.
"""

from __future__ import annotations

import msgpack
from sqlalchemy import Connection, func, select

from company.chief.secondment.foreign import Worked
from company.chief.secondment.naming import PREFIX, origin_of
from company.chief.store import jobs, meta, schema

MAX_NOTED = 1024  # guests of one job; what later ones did is shown without their contract


def note(conn: Connection, job: str, guest: str, contract: str) -> None:
    """This guest computes for the job under this contract."""
    known = guests_of(conn, job)
    if guest not in known and len(known) < MAX_NOTED and jobs.is_known(conn, job):
        meta.put(conn, meta.WORKED + job, msgpack.packb({**known, guest: contract}))


def guests_of(conn: Connection, job: str) -> dict[str, str]:
    """The contract of each guest, in order of coming."""
    found = meta.get(conn, meta.WORKED + job)
    return msgpack.unpackb(found) if found is not None else {}


def load(conn: Connection, job: str) -> tuple[Worked, ...]:
    """What other companies did of one job."""
    guests = guests_of(conn, job)
    return _sum(guests, _rows(conn, job)) if guests else ()


def load_every(conn: Connection) -> dict[str, tuple[Worked, ...]]:
    """The same of every job that had a guest."""
    table = schema.meta
    found = conn.execute(select(table.c.key, table.c.value).where(table.c.key.like(f"{meta.WORKED}%"))).all()
    names = {key[len(meta.WORKED) :]: msgpack.unpackb(value) for key, value in found}
    return {job: _sum(guests, _rows(conn, job)) for job, guests in names.items()}


def _rows(conn: Connection, job: str) -> dict[str, tuple[int, int]]:
    table = schema.outcome
    wanted = (
        select(table.c.worker, func.sum(table.c.count), func.sum(table.c.run_us))
        .where(table.c.job == job, table.c.worker.like(f"{PREFIX}%"))
        .group_by(table.c.worker)
    )
    return {worker: (int(results), int(run_us)) for worker, results, run_us in conn.execute(wanted)}


def _sum(guests: dict[str, str], rows: dict[str, tuple[int, int]]) -> tuple[Worked, ...]:
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for guest in dict.fromkeys([*guests, *rows]):
        key = origin_of(guest), guests.get(guest, "")
        had, did = sums.get(key, (0, 0)), rows.get(guest, (0, 0))
        sums[key] = had[0] + did[0], had[1] + did[1]
    return tuple(Worked(company, contract, results, run_us) for (company, contract), (results, run_us) in sums.items())
