"""Opening the database: pragmas, a fresh schema, or a migration (I/O).

Alembic costs 326 ms to import, so it is imported only when the file's schema is an older one; a fresh file is made from the
metadata and stamped.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event
from sqlalchemy.pool import NullPool, QueuePool

from company.chief.store import schema
from p2p.base.errors import UsageError

MIGRATIONS = Path(__file__).parent / "migrations"
READERS = 4
_PRAGMAS = (
    "PRAGMA busy_timeout = 5000",
    "PRAGMA synchronous = FULL",  # rule 3: an acknowledged result survives a power cut; group commit pays for it
    "PRAGMA foreign_keys = ON",
    "PRAGMA journal_size_limit = 67108864",  # bytes; a burst's WAL shrinks again
    "PRAGMA temp_store = MEMORY",
)


def make_engine(path: Path, *, is_writer: bool) -> Engine:
    """An engine whose connections leave BEGIN and COMMIT to us. Readers are unable to write."""
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        isolation_level="AUTOCOMMIT",
        connect_args={"check_same_thread": False, "cached_statements": 512},
        **({"poolclass": NullPool} if is_writer else {"poolclass": QueuePool, "pool_size": READERS, "max_overflow": 0}),
    )

    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        connection.execute("PRAGMA journal_mode = WAL" if is_writer else "PRAGMA query_only = ON")

    event.listen(engine, "connect", on_connect)
    return engine


def bring_up_to_date(
    conn: Connection, *, metadata: MetaData = schema.metadata, revisions: Sequence[str] = schema.REVISIONS, folder: Path = MIGRATIONS,
) -> None:  # fmt: skip
    """Create or migrate the schema. Raises `UsageError` when the file was written by a newer program."""
    found = _revision(conn)
    if found == revisions[-1]:
        return
    if found is not None and found not in revisions:
        raise UsageError(
            "schema-newer", f"the database has schema {found}; this program knows {revisions[-1]} and older",
            hint="start the newer program, or restore a backup made by this one", found=found, known=revisions[-1],
        )  # fmt: skip
    conn.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        if found is None:
            metadata.create_all(conn)
            conn.exec_driver_sql("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
            conn.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{revisions[-1]}')")  # ours, not a stranger's text
        else:
            _upgrade(conn, folder)
    except BaseException:
        conn.exec_driver_sql("ROLLBACK")
        raise
    conn.exec_driver_sql("COMMIT")


def _revision(conn: Connection) -> str | None:
    """The schema revision of the file, or None for an empty one."""
    tables = {row[0] for row in conn.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise UsageError("not-our-database", "the database file has tables, but not ours", hint="give another --home")
    row = conn.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    if row is None:
        raise UsageError("not-our-database", "the database file says no schema revision", hint="restore a backup")
    revision: str = row[0]
    return revision


def _upgrade(conn: Connection, folder: Path) -> None:
    import alembic.command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    attributes: dict[str, Any] = config.attributes
    attributes["connection"] = conn
    alembic.command.upgrade(config, "head")
