"""Rows of `upload`: how far each resumable upload has come (I/O through the connection it is given)."""

from __future__ import annotations

from sqlalchemy import Connection

from company.chief.store import schema
from company.chief.store.rows import Rows
from p2p.base.record import record


@record(kw_only=True)
class UploadRow:
    """One upload. ``offset``: bytes that are on disk and verified; ``meta``: the client's words, as JSON.

    ``made``: once it is taken in or refused, what came of it, as JSON; its bytes are then gone from ``uploads/``.
    """

    id: str
    principal: str
    meta: bytes
    length: int | None
    offset: int = 0
    created: float
    expires: float
    made: str | None = None


_rows = Rows(schema.upload, UploadRow)
_t = schema.upload.c


def save(conn: Connection, row: UploadRow) -> None:
    """Add or overwrite an upload."""
    _rows.save(conn, [row])


def load_all(conn: Connection) -> tuple[UploadRow, ...]:
    """Every upload, oldest first."""
    return _rows.load(conn, order_by=(_t.created, _t.id))


def delete(conn: Connection, upload_id: str) -> bool:
    """Forget an upload."""
    return _rows.delete(conn, _t.id == upload_id) > 0
