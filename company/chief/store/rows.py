"""A table and the frozen dataclass of its rows, bound by equal names (I/O through the connection it is given).

Bulk writing goes past SQLAlchemy's statement machinery, and n rows are one statement, not n: the driver lets go of the GIL
once per statement step, and getting it back from a busy main thread costs up to 5 ms each time.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, func, select

MAX_ROWS_PER_STATEMENT = 128  # a power of two: statements of 1, 2, 4 … 128 rows are prepared once and kept


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


Row = TypeVar("Row", bound=_Dataclass)


class Rows(Generic[Row]):
    """Typed reading and writing of one table. ``kind`` may leave columns out for reading only what is cheap."""

    def __init__(self, table: Table, kind: type[Row]) -> None:
        self._table = table
        self._kind = kind
        self._names = names = [f.name for f in dataclasses.fields(kind)]
        self._columns = [table.c[name] for name in names]
        self._values = operator.attrgetter(*names)
        keys = [column.name for column in table.primary_key.columns]
        quoted = ", ".join(f'"{name}"' for name in names)
        self._head = f'INSERT INTO "{table.name}" ({quoted}) VALUES '  # only our own names, never a value
        others = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name not in keys)
        key = ", ".join(f'"{name}"' for name in keys)
        self._on_conflict = f" ON CONFLICT ({key}) DO UPDATE SET {others}"

    def insert(self, conn: Connection, rows: Sequence[Row]) -> None:
        """Add rows; one that exists is an integrity error."""
        self._write(conn, rows, "")

    def save(self, conn: Connection, rows: Sequence[Row]) -> None:
        """Add rows, or overwrite those with the same primary key."""
        self._write(conn, rows, self._on_conflict)

    def _write(self, conn: Connection, rows: Sequence[Row], tail: str) -> None:
        mark = "?" if conn.dialect.paramstyle == "qmark" else "%s"
        one = "(" + ", ".join([mark] * len(self._columns)) + ")"
        values = self._values
        at = 0
        while at < len(rows):
            size = min(MAX_ROWS_PER_STATEMENT, 1 << ((len(rows) - at).bit_length() - 1))
            flat: list[Any] = []
            for row in rows[at : at + size]:
                flat += values(row)
            conn.exec_driver_sql(self._head + ", ".join([one] * size) + tail, tuple(flat))
            at += size

    def load(
        self, conn: Connection, *where: ColumnElement[bool], order_by: Sequence[ColumnElement[Any]] = (),
        limit: int | None = None, offset: int = 0,
    ) -> tuple[Row, ...]:  # fmt: skip
        """The rows that meet ``where``."""
        query = select(*self._columns).where(*where).order_by(*order_by)
        if limit is not None:
            query = query.limit(limit).offset(offset)
        kind, names = self._kind, self._names
        return tuple(kind(**dict(zip(names, row, strict=True))) for row in conn.execute(query))

    def one(self, conn: Connection, *where: ColumnElement[bool]) -> Row | None:
        """The first row that meets ``where``, or None."""
        found = self.load(conn, *where, limit=1)
        return found[0] if found else None

    def count(self, conn: Connection, *where: ColumnElement[bool]) -> int:
        """How many rows meet ``where``."""
        return conn.execute(select(func.count()).select_from(self._table).where(*where)).scalar_one()

    def delete(self, conn: Connection, *where: ColumnElement[bool]) -> int:
        """Delete the rows that meet ``where``; return how many."""
        return conn.execute(self._table.delete().where(*where)).rowcount
