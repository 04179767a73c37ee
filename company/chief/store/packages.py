"""Rows of `package` (I/O through the connection it is given)."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from company.chief.store import schema
from company.chief.store.rows import Rows
from p2p.base.record import record


@record(kw_only=True)
class PackageRow:
    """One package. ``manifest``: what `company.package` says of it, as JSON; ``processor``: digest of the archive workers get."""

    digest: bytes
    name: str
    version: str = ""
    size: int
    processor: bytes
    manifest: bytes
    signer: bytes
    signature: bytes
    signed_for: str = ""
    uploaded: float
    uploaded_by: str = ""


_rows = Rows(schema.package, PackageRow)
_t = schema.package.c


def save(conn: Connection, row: PackageRow) -> None:
    """Add or overwrite a package."""
    _rows.save(conn, [row])


def load_all(conn: Connection) -> tuple[PackageRow, ...]:
    """Every package, oldest first."""
    return _rows.load(conn, order_by=(_t.uploaded, _t.digest))


def load(conn: Connection, digest: bytes) -> PackageRow | None:
    """One package."""
    return _rows.one(conn, _t.digest == digest)


def references(conn: Connection, digest: bytes) -> int:
    """How many jobs use it; while there is one, `delete` is an integrity error."""
    return conn.execute(select(func.count()).select_from(schema.job).where(schema.job.c.package == digest)).scalar_one()


def delete(conn: Connection, digest: bytes) -> bool:
    """Forget a package that no job uses."""
    return _rows.delete(conn, _t.digest == digest) > 0
