"""Rows of `artifact` (I/O through the connection it is given)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from company.chief.store import schema
from company.chief.store.rows import Rows
from p2p.base.record import record


@record
class ArtifactRow:
    """One file that a fragment left."""

    job: str
    fragment: int
    name: str
    size: int
    digest: bytes


_rows = Rows(schema.artifact, ArtifactRow)
_t = schema.artifact.c


def save(conn: Connection, rows: Sequence[ArtifactRow]) -> None:
    """Add or overwrite: a fragment that ran again left the file again."""
    _rows.save(conn, rows)


def load(conn: Connection, job: str, *, limit: int | None = None, offset: int = 0) -> tuple[ArtifactRow, ...]:
    """The artifacts of a job, by fragment and name."""
    return _rows.load(conn, _t.job == job, order_by=(_t.fragment, _t.name), limit=limit, offset=offset)


def load_one(conn: Connection, job: str, fragment: int, name: str) -> ArtifactRow | None:
    """One artifact."""
    return _rows.one(conn, _t.job == job, _t.fragment == fragment, _t.name == name)


def delete(conn: Connection, job: str) -> int:
    """Forget all artifacts of a job; return how many."""
    return _rows.delete(conn, _t.job == job)
