"""Journals of contracts on disk: what a kill leaves is what the machine folds; an old database learns the tables."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from company.chief.store import Store, contracts, opening, schema
from p2p.base.clock import Monotonic
from p2p.contracts.machine import ContractMachine
from tests.support.contract_world import NONCE, Party, World, terms


def described(conn: Connection) -> dict[str, list[tuple[object, ...]]]:
    """Columns and indexes of every table, as SQLite tells them."""
    names = [row[0] for row in conn.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {n: [*map(tuple, conn.exec_driver_sql(f'PRAGMA table_info("{n}")')), *sorted(
        tuple(row)[2:] for row in conn.exec_driver_sql(f'PRAGMA index_list("{n}")'))] for n in names}  # fmt: skip


def test_a_database_of_the_first_revision_becomes_the_same_as_a_fresh_one(tmp_path: Path) -> None:
    fresh = opening.make_engine(tmp_path / "fresh.sqlite", is_writer=True)
    old = opening.make_engine(tmp_path / "old.sqlite", is_writer=True)
    new_tables = ("fork_proof", "receipt_half", "contract_record", "contract")
    with fresh.connect() as conn:
        opening.bring_up_to_date(conn)
        wanted = described(conn)
    with old.connect() as conn:
        opening.bring_up_to_date(conn)
        for table in new_tables:
            conn.exec_driver_sql(f"DROP TABLE {table}")
        conn.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
        opening.bring_up_to_date(conn)
        assert conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == schema.REVISIONS[-1]
        assert described(conn) == wanted
    fresh.dispose()
    old.dispose()


async def test_a_contract_comes_back_from_the_database_as_it_was(tmp_path: Path) -> None:
    world = World(2, terms=terms(time_frame_s=12))
    world.start()
    world.run_until_over()
    party, peer = world.lender, world.borrower.signer.public
    rows = [contracts.RecordRow(peer, NONCE, n, record) for n, record in enumerate(party.journal, 1)]
    store = Store.open(tmp_path / "company.sqlite")
    await store.write(
        lambda conn: contracts.save(conn, contracts.ContractRow(peer, NONCE, 2, False, 99)),
        lambda conn: contracts.append(conn, rows),
        lambda conn: contracts.add_half(conn, half_row(party)),
    )
    with pytest.raises(IntegrityError):  # a journal is never written over
        await store.write(lambda conn: contracts.append(conn, rows[:1]))
    with pytest.raises(IntegrityError):  # nor is there a second half about one contract
        await store.write(lambda conn: contracts.add_half(conn, half_row(party, place=2)))
    await store.aclose()
    store = Store.open(tmp_path / "company.sqlite")
    (row,) = await store.read(contracts.load_open)
    journal = await store.read(lambda conn: contracts.journal(conn, row.peer, row.nonce))
    again = ContractMachine.restore(party.role, party.signer, row.peer, row.nonce, journal, Monotonic(0.0), world.wall(party))
    assert party.machine is not None
    assert (again.state, again.a.acked, again.a.contract) == (party.machine.state, party.machine.a.acked, party.machine.a.contract)
    assert [h.body for h in await store.read(lambda conn: contracts.chain(conn, party.signer.public))] == [party.chain.halves[0].body]
    others = [contracts.HalfRow(bytes([n]) * 32, place, bytes([n, place]) * 16, b"b", b"s") for n in (1, 2) for place in (1, 2, 3)]
    await store.write(*(partial(contracts.add_half, row=row) for row in others))
    kept = await store.read(lambda conn: contracts.all_halves(conn, party.signer.public, 3))
    assert kept[0].author == party.signer.public
    assert [h.chain_sequence for h in kept[1:]] == [2, 3, 3]  # the latest of others, in the order in which they are let go of
    await store.write(
        lambda conn: contracts.save(conn, contracts.ContractRow(peer, NONCE, 2, True, 99)),
        lambda conn: contracts.add_proof(conn, peer, b"proof"),
        lambda conn: contracts.add_proof(conn, peer, b"proof"),
    )
    assert await store.read(contracts.load_open) == ()
    assert await store.read(lambda conn: contracts.nonces_since(conn, 50)) == {NONCE: 99}
    assert await store.read(lambda conn: contracts.nonces_since(conn, 99)) == {}
    assert await store.read(contracts.forked) == {peer}
    await store.aclose()


def half_row(party: Party, place: int = 1) -> contracts.HalfRow:
    half = party.chain.halves[0]
    return contracts.HalfRow(party.signer.public, place, half.message.contract, half.body, half.signature)  # type: ignore[attr-defined]
