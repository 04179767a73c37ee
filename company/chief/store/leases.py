"""Rows of `lease`: only leases older than 5 s, so that a restart holds their ranges back (I/O through the connection it is given)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from company.chief.long_leases import LongLease
from company.chief.store import schema
from company.chief.store.rows import Rows
from p2p.base.record import record


@record(kw_only=True)
class LeaseRow(LongLease):
    """A range that a worker has been running for a while; ``at``: Unix time of the row."""

    at: float


_rows = Rows(schema.lease, LeaseRow)
_t = schema.lease.c


def save(conn: Connection, rows: Sequence[LeaseRow]) -> None:
    """Add or overwrite rows."""
    _rows.save(conn, rows)


def load_all(conn: Connection) -> tuple[LeaseRow, ...]:
    """Every long lease, oldest token first."""
    return _rows.load(conn, order_by=(_t.token,))


def delete(conn: Connection, tokens: Sequence[int]) -> int:
    """Forget leases that have ended; tokens without a row do no harm."""
    return sum(_rows.delete(conn, _t.token.in_(tokens[at : at + 500])) for at in range(0, len(tokens), 500))
