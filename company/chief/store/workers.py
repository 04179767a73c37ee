"""Rows of `worker` (I/O through the connection it is given)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from company.chief.store import schema
from company.chief.store.rows import Rows
from p2p.base.record import record


@record(kw_only=True)
class WorkerRow:
    """One worker. ``machine``: msgpack of `company.messages.Machine.as_array()`; ``reason``: a Reason as JSON."""

    id: str
    pubkey: bytes
    name: str
    state: str
    reason: bytes | None = None
    machine: bytes
    rate: float | None = None
    rate_n: int = 0
    suspicions: int = 0
    transport: str = "rpc"
    address: str = ""
    via: str | None = None
    joined: float
    last_seen: float


_rows = Rows(schema.worker, WorkerRow)
_t = schema.worker.c


def save(conn: Connection, rows: Sequence[WorkerRow]) -> None:
    """Add or overwrite workers."""
    _rows.save(conn, rows)


def load_all(conn: Connection) -> tuple[WorkerRow, ...]:
    """Every worker, in the order they joined."""
    return _rows.load(conn, order_by=(_t.joined, _t.id))


def load_by_key(conn: Connection, pubkey: bytes) -> WorkerRow | None:
    """The worker with this public key."""
    return _rows.one(conn, _t.pubkey == pubkey)


def delete(conn: Connection, worker: str) -> bool:
    """Forget a worker."""
    return _rows.delete(conn, _t.id == worker) > 0
