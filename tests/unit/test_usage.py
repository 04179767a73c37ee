"""Users' usage survives restarts, decayed by the time that has passed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from company.chief.queue import HALF_LIFE_S
from company.chief.store import meta
from company.chief.store.store import Store
from company.chief.usage import MAX_USERS, USAGE, UsageKeeper, load_usage, save_usage


async def test_usage_is_read_as_it_was_written_but_for_its_decay(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    try:
        assert await store.read(lambda conn: load_usage(conn, 1000.0)) == {}
        await store.write(lambda conn: save_usage(conn, {"ann": 400.0, "bob": 8.0}, 1000.0))
        assert await store.read(lambda conn: load_usage(conn, 1000.0)) == {"ann": 400.0, "bob": 8.0}
        later = await store.read(lambda conn: load_usage(conn, 1000.0 + HALF_LIFE_S))
        assert later == {"ann": pytest.approx(200.0), "bob": pytest.approx(4.0)}
        assert await store.read(lambda conn: load_usage(conn, 0.0)) == {"ann": 400.0, "bob": 8.0}, "a clock that went back adds nothing"
        await store.write(lambda conn: save_usage(conn, {f"u{n}": float(n) for n in range(MAX_USERS + 5)}, 1.0))
        kept = await store.read(lambda conn: load_usage(conn, 1.0))
        assert len(kept) == MAX_USERS
        assert "u4" not in kept, "the heaviest are kept"
        await store.write(lambda conn: meta.put(conn, USAGE, b"[1, 2"))
        assert await store.read(lambda conn: load_usage(conn, 1.0)) == {}
    finally:
        await store.aclose()


def test_the_row_is_written_when_somebody_has_used_more_and_not_for_decay() -> None:
    usage, written = {"ann": 5.0}, list[Callable[[Connection], None]]()
    keeper = UsageKeeper(lambda: dict(usage), written.append)
    keeper.save()
    assert len(written) == 1
    usage["ann"] = 4.0
    keeper.save()
    assert len(written) == 1
    usage["bob"] = 1.0
    keeper.save()
    assert len(written) == 2
