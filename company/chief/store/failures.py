"""Rows of `failure`: fragments that failed at least once, the only per-fragment rows (I/O through the connection it is given)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from company.chief.store import schema
from company.chief.store.rows import Rows
from p2p.base.errors import InvariantBroken
from p2p.base.record import record


@record(kw_only=True)
class FailureRow:
    """How one fragment failed last. ``log_tail``: as printed. The input is read by `load_input` alone."""

    job: str
    fragment: int
    tries: int
    infra_tries: int = 0
    final: bool = False
    cause: str
    exc_type: str = ""
    message: str = ""
    traceback: str = ""
    signal: int = 0
    exit_code: int = 0
    log_tail: bytes = b""
    preview: str = ""
    worker: str = ""
    at: float
    input_file: str | None = None  # below jobs/<id>/fragments, for inputs larger than MAX_INPUT_BYTES


_rows = Rows(schema.failure, FailureRow)
_t = schema.failure.c


def save(conn: Connection, rows: Sequence[FailureRow]) -> None:
    """Add or overwrite rows; an input kept before stays."""
    _rows.save(conn, rows)


def save_input(conn: Connection, job: str, fragment: int, value: bytes) -> None:
    """Keep the input of a failed fragment (codec bytes), so that it can be run again."""
    if len(value) > schema.MAX_INPUT_BYTES:
        raise InvariantBroken(f"an input kept in a row may have {schema.MAX_INPUT_BYTES} bytes, got {len(value)}")
    conn.execute(schema.failure.update().where(_t.job == job, _t.fragment == fragment).values(input=value))


def load_input(conn: Connection, job: str, fragment: int) -> bytes | None:
    """The kept input, or None."""
    value: bytes | None = conn.execute(select(_t.input).where(_t.job == job, _t.fragment == fragment)).scalar()
    return value


def load(conn: Connection, job: str, *, limit: int | None = None, offset: int = 0) -> tuple[FailureRow, ...]:
    """The failures of a job in fragment order."""
    return _rows.load(conn, _t.job == job, order_by=(_t.fragment,), limit=limit, offset=offset)


def final_from(conn: Connection, job: str, skip: int) -> tuple[FailureRow, ...]:
    """The fragments of a job that failed for good, in the order of failing, without the first ``skip``."""
    return _rows.load(conn, _t.job == job, _t.final, order_by=(_t.at, _t.fragment), offset=skip, limit=1000)


def load_one(conn: Connection, job: str, fragment: int) -> FailureRow | None:
    """The failure of one fragment."""
    return _rows.one(conn, _t.job == job, _t.fragment == fragment)


def count(conn: Connection, job: str) -> int:
    """How many fragments of a job failed at least once."""
    return _rows.count(conn, _t.job == job)


def with_input(conn: Connection, job: str) -> frozenset[int]:
    """The failed fragments of a job whose input was kept."""
    query = select(_t.fragment).where(_t.job == job, _t.input.is_not(None) | _t.input_file.is_not(None))
    return frozenset(int(row[0]) for row in conn.execute(query))


def delete(conn: Connection, job: str, fragments: Sequence[int] | None = None) -> int:
    """Forget failures of a job, all or some (they are tried again, or have succeeded); return how many."""
    if fragments is None:
        return _rows.delete(conn, _t.job == job)
    return sum(_rows.delete(conn, _t.job == job, _t.fragment.in_(fragments[at : at + 500])) for at in range(0, len(fragments), 500))
