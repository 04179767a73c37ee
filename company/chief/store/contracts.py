"""Rows of contracts: journals, receipt halves, proofs of forks (I/O through the connection it is given).

A journal only grows: a record at an ordinal that is taken is an integrity error, never an overwriting, because what was signed from the
first one may have left already.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, or_, select

from company.chief.store import schema
from company.chief.store.rows import Rows
from p2p.base.ids import digest
from p2p.base.record import record


@record
class ContractRow:
    """One contract, by the other company's key and the offer's nonce."""

    peer: bytes
    nonce: bytes
    role: int
    is_over: bool
    offer_expires: int  # until then the nonce must be remembered


@record
class RecordRow:
    """One line of a contract's journal."""

    peer: bytes
    nonce: bytes
    ordinal: int
    record: bytes


@record
class HalfRow:
    """One receipt half, own or another company's, verbatim."""

    author: bytes
    chain_sequence: int
    contract: bytes
    body: bytes
    signature: bytes


@record
class ProofRow:
    """A verified proof of a fork."""

    digest: bytes
    author: bytes
    proof: bytes


_contracts = Rows(schema.contract, ContractRow)
_records = Rows(schema.contract_record, RecordRow)
_halves = Rows(schema.receipt_half, HalfRow)
_proofs = Rows(schema.fork_proof, ProofRow)
_r, _h = schema.contract_record.c, schema.receipt_half.c


def save(conn: Connection, row: ContractRow) -> None:
    """Add or overwrite one contract's row; its journal is not touched."""
    _contracts.save(conn, [row])


def load_open(conn: Connection) -> tuple[ContractRow, ...]:
    """Contracts that a restart has to take up again."""
    return _contracts.load(conn, schema.contract.c.is_over.is_(False), order_by=(schema.contract.c.peer, schema.contract.c.nonce))


def nonces_since(conn: Connection, unix: int) -> dict[bytes, int]:
    """Nonces of finished contracts whose offers are not too old yet, each with its end."""
    rows = _contracts.load(conn, schema.contract.c.is_over.is_(True), schema.contract.c.offer_expires > unix)
    return {row.nonce: row.offer_expires for row in rows}


def append(conn: Connection, rows: Sequence[RecordRow]) -> None:
    """Add records to journals. Raises an integrity error when one is there already."""
    _records.insert(conn, rows)


def journal(conn: Connection, peer: bytes, nonce: bytes) -> list[bytes]:
    """One contract's journal, in order."""
    return [row.record for row in _records.load(conn, _r.peer == peer, _r.nonce == nonce, order_by=(_r.ordinal,))]


def add_half(conn: Connection, row: HalfRow) -> None:
    """Add a half. A second one at its place of the chain, or about its contract, is an integrity error: it would be a fork."""
    _halves.insert(conn, [row])


def keep_half(conn: Connection, row: HalfRow) -> tuple[HalfRow, ...]:
    """Keep another company's half. Returns those that stand in its way with other bytes: then it is not kept, and they are a fork."""
    known = _halves.load(conn, _h.author == row.author, or_(_h.chain_sequence == row.chain_sequence, _h.contract == row.contract))
    if not known:
        _halves.insert(conn, [row])
    return tuple(x for x in known if x.body != row.body)


def all_halves(conn: Connection, me: bytes, limit: int) -> tuple[HalfRow, ...]:
    """One's own halves, all of them; then the latest of others' chains, at most so many, the oldest first."""
    own = _halves.load(conn, _h.author == me, order_by=(_h.chain_sequence,))
    others = _halves.load(conn, _h.author != me, order_by=(_h.chain_sequence.desc(), _h.author), limit=limit)
    return (*own, *reversed(others))


def halves_about(conn: Connection, contract: bytes) -> tuple[HalfRow, ...]:
    """Both halves of one contract, as far as they are here."""
    return _halves.load(conn, _h.contract == contract, order_by=(_h.author,))


def load_over(conn: Connection, limit: int) -> tuple[ContractRow, ...]:
    """Contracts that are over, those with the latest offers first."""
    return _contracts.load(conn, schema.contract.c.is_over.is_(True), order_by=(schema.contract.c.offer_expires.desc(),), limit=limit)


def proofs_against(conn: Connection, author: bytes) -> list[bytes]:
    """Proofs of forks of one company."""
    return [row.proof for row in _proofs.load(conn, schema.fork_proof.c.author == author, limit=100)]


def chain(conn: Connection, author: bytes, first: int = 1, limit: int = 1000) -> tuple[HalfRow, ...]:
    """Halves of one company from a place of its chain on."""
    return _halves.load(conn, _h.author == author, _h.chain_sequence >= first, order_by=(_h.chain_sequence,), limit=limit)


def add_proof(conn: Connection, author: bytes, proof: bytes) -> None:
    """Keep a proof; the same one again changes nothing."""
    _proofs.save(conn, [ProofRow(digest(proof), author, proof)])


def forked(conn: Connection) -> set[bytes]:
    """Companies with a proof against them."""
    return set(conn.execute(select(schema.fork_proof.c.author).distinct()).scalars())
