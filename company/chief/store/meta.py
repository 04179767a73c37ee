"""Rows of `meta`: a few values that there is one of (I/O through the connection it is given)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, select

from company.chief.store import schema
from p2p.base.errors import InvariantBroken

BOOT = "boot"
COMPANY = "company"  # the company id
COUNTER_BITS = 40  # of a fencing token: leases of one run of the chief
MAX_BOOT = (1 << (63 - COUNTER_BITS)) - 1  # a token stays a signed 64-bit integer
WORKED = "worked/"  # with a job's id: the guests that computed for it, and their contracts; goes with the job
BELIEVED = "believed/"  # with a job's id: the companies whose results count in it; goes with the job
RESTORE_SKIPS_BOOTS = 1024  # a backup's boot number is old; starts after it was made must not be counted again


def first_token(boot: int) -> int:
    """The first fencing token of a start: larger than every token of the starts before it."""
    if not 1 <= boot <= MAX_BOOT:
        raise InvariantBroken(f"boot number must be 1..{MAX_BOOT}, got {boot}")
    return boot << COUNTER_BITS | 1


def get(conn: Connection, key: str) -> bytes | None:
    """The value of ``key``, or None."""
    value: bytes | None = conn.execute(select(schema.meta.c.value).where(schema.meta.c.key == key)).scalar()
    return value


def put(conn: Connection, key: str, value: bytes) -> None:
    """Set ``key``."""
    conn.execute(schema.meta.delete().where(schema.meta.c.key == key))
    conn.execute(schema.meta.insert().values(key=key, value=value))


def drop(conn: Connection, key: str) -> None:
    """Forget ``key``."""
    conn.execute(schema.meta.delete().where(schema.meta.c.key == key))


def starting_with(conn: Connection, prefix: str) -> dict[str, bytes]:
    """Every row whose key begins so, by what follows."""
    table = schema.meta
    found = conn.execute(select(table.c.key, table.c.value).where(table.c.key.startswith(prefix, autoescape=True)))
    return {key[len(prefix) :]: value for key, value in found}


def drop_others(conn: Connection, prefixes: Sequence[str], kept: Collection[str]) -> None:
    """Forget what begins with one of these and goes on with nothing that is kept."""
    key = schema.meta.c.key
    gone = [
        name
        for prefix in prefixes
        for name in conn.execute(select(key).where(key.startswith(prefix, autoescape=True))).scalars()
        if name[len(prefix) :] not in kept
    ]
    for name in gone:
        drop(conn, name)


def count_boot(conn: Connection, steps: int = 1) -> int:
    """Add ``steps`` to the boot number and return it."""
    boot = int(get(conn, BOOT) or b"0") + steps
    put(conn, BOOT, str(boot).encode())
    return boot
