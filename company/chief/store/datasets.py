"""Rows of `dataset` (I/O through the connection it is given). References are counted over the jobs, so they cannot drift."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from company.chief.store import schema
from company.chief.store.rows import Rows
from p2p.base.record import record


@record(kw_only=True)
class DatasetRow:
    """One dataset; a tree's digest is its manifest's."""

    digest: bytes
    kind: str
    name: str
    size: int
    files: int = 1
    manifest_digest: bytes | None = None
    private: bool = False
    uploaded: float
    uploaded_by: str = ""


_rows = Rows(schema.dataset, DatasetRow)
_t = schema.dataset.c


def save(conn: Connection, row: DatasetRow) -> None:
    """Add or overwrite a dataset."""
    _rows.save(conn, [row])


def load_all(conn: Connection) -> tuple[DatasetRow, ...]:
    """Every dataset, oldest first."""
    return _rows.load(conn, order_by=(_t.uploaded, _t.digest))


def load(conn: Connection, digest: bytes) -> DatasetRow | None:
    """One dataset."""
    return _rows.one(conn, _t.digest == digest)


def references(conn: Connection) -> dict[bytes, int]:
    """How many jobs use each dataset that is used; while there is one, `delete` is an integrity error."""
    query = select(schema.job.c.dataset, func.count()).group_by(schema.job.c.dataset)
    return {digest: int(n) for digest, n in conn.execute(query)}


def delete(conn: Connection, digest: bytes) -> bool:
    """Forget a dataset that no job uses."""
    return _rows.delete(conn, _t.digest == digest) > 0
