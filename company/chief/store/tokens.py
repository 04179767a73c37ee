"""Rows of `token` and `principal`: who may do what (I/O through the connection it is given). Secrets are stored hashed only."""

from __future__ import annotations

from sqlalchemy import Connection

from company.chief.store import schema
from company.chief.store.rows import Rows
from p2p.base.record import record


@record(kw_only=True)
class TokenRow:
    """A join, access, login or session token. ``expires``, ``uses_left``: None is without bound; ``revoked``: when."""

    id: str
    kind: str
    secret_hash: bytes
    role: str
    label: str = ""
    principal: str | None = None
    created: float
    created_by: str = ""
    expires: float | None = None
    uses_left: int | None = None
    revoked: float | None = None
    last_used: float | None = None


@record(kw_only=True)
class PrincipalRow:
    """A person, program or company that acts here."""

    id: str
    kind: str
    role: str
    name: str
    pubkey: bytes | None = None
    created: float
    revoked: float | None = None


_tokens = Rows(schema.token, TokenRow)
_principals = Rows(schema.principal, PrincipalRow)
_t = schema.token.c


def save(conn: Connection, row: TokenRow) -> None:
    """Add or overwrite a token."""
    _tokens.save(conn, [row])


def load(conn: Connection, token_id: str) -> TokenRow | None:
    """One token."""
    return _tokens.one(conn, _t.id == token_id)


def load_all(conn: Connection) -> tuple[TokenRow, ...]:
    """Every token, oldest first."""
    return _tokens.load(conn, order_by=(_t.created, _t.id))


def use_one(conn: Connection, token_id: str, *, at: float) -> bool:
    """Take one of the uses left and note the time; False when there is none left, it is revoked, expired or unknown."""
    usable = ((_t.uses_left.is_(None)) | (_t.uses_left > 0)) & _t.revoked.is_(None) & ((_t.expires.is_(None)) | (_t.expires > at))
    change = schema.token.update().where(_t.id == token_id, usable).values(uses_left=_t.uses_left - 1, last_used=at)
    return conn.execute(change).rowcount == 1


def delete_expired(conn: Connection, *, before: float) -> int:
    """Forget login and session tokens that expired before ``before``; join and access tokens stay for the record."""
    return _tokens.delete(conn, _t.kind.in_(("login", "session")), _t.expires < before)


def save_principal(conn: Connection, row: PrincipalRow) -> None:
    """Add or overwrite a principal."""
    _principals.save(conn, [row])


def load_principals(conn: Connection) -> tuple[PrincipalRow, ...]:
    """Every principal, oldest first."""
    return _principals.load(conn, order_by=(schema.principal.c.created, schema.principal.c.id))
