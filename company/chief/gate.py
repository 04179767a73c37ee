"""Who may do what: join tokens, access tokens, one-time logins, sessions, known workers (I/O through the store).

Secrets leave this file once, when they are made; rows hold hashes. Every refusal has a code of its own.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgpack

from company import messages as m
from company import views
from company.chief import events as ev
from company.chief.facade import Invalid, NotFound, Principal, Refused
from company.chief.store import tokens as token_rows
from company.chief.store import workers as worker_rows
from company.chief.store.store import Store
from company.chief.store.tokens import TokenRow
from company.chief.store.workers import WorkerRow
from company.chief.tokens import TokenRefused, check, hash_secret, make_token
from company.tokens import JoinToken, parse_token_untrusted
from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage, ParallelError, PeerError
from p2p.base.keys import Identity, company_id_text

LOGIN_TTL_S = 600.0
SESSION_TTL_S = 12 * 3600.0
SESSION_PREFIX = "cmpx1."
BEARER_PREFIX = "cmpb1."  # what a worker shows that speaks REST
LOCAL_OWNER, LOCAL_WORKER = "local-owner", "local-worker"
MAX_TOKENS = 100_000
MAX_WORKERS = 10_000
HEARTBEAT_MS = 2000
_WORKER_NAME = re.compile(r"[^a-z0-9\-]+")


class Gate:
    """Tokens and workers of one chief. ``addresses``: where other machines reach the RPC port, as put into tokens."""

    def __init__(self, store: Store, identity: Identity, addresses: Callable[[], Sequence[str]]) -> None:
        self._store = store
        self._identity = identity
        self._addresses = addresses
        self.workers: dict[str, WorkerRow] = {}
        self._by_key: dict[bytes, str] = {}
        self._tokens: dict[str, TokenRow] = {}

    async def load(self) -> None:
        """Read the rows at start-up; forget logins and sessions that ended."""
        now = time.time()
        await self._store.write(lambda conn: token_rows.delete_expired(conn, before=now) and None)
        for worker in await self._store.read(worker_rows.load_all):
            self._remember(worker)
        self._tokens = {row.id: row for row in await self._store.read(token_rows.load_all)}

    def _remember(self, row: WorkerRow) -> None:
        self.workers[row.id] = row
        self._by_key[row.pubkey] = row.id

    # ---- tokens -----------------------------------------------------------------------------------------------------------
    async def create_token(self, request: views.TokenRequest, by: Principal) -> tuple[str, views.TokenView]:
        """Make a token; the text is shown once."""
        if len(self._tokens) >= MAX_TOKENS:
            raise Refused("too-many-tokens", f"There are {MAX_TOKENS} tokens already; revoke some.")
        token_id = secrets.token_hex(6)
        return await self._make(request, token_id=token_id, by=by.name, ttl_s=request.ttl_s, uses=request.uses)

    async def local_token(self, role: views.Role, *, uses: int = 1) -> str:
        """A token for this machine's own processes, replaced at every start."""
        token_id = LOCAL_WORKER if role == "worker" else LOCAL_OWNER
        request = views.TokenRequest(role=role, label="owner" if role == "owner" else "local")
        text, _ = await self._make(request, token_id=token_id, by="the chief", ttl_s=None, uses=uses)
        return text

    async def _make(
        self, request: views.TokenRequest, *, token_id: str, by: str, ttl_s: float | None, uses: int
    ) -> tuple[str, views.TokenView]:
        new = make_token(
            role=request.role, addresses=tuple(self._addresses())[:8], chief_key=self._identity.public, now=UnixTime(int(time.time())),
            ttl_s=ttl_s, uses=uses, token_id=token_id, secret=secrets.token_bytes(16),
        )  # fmt: skip
        row = TokenRow(
            id=new.id, kind=new.kind, secret_hash=new.secret_hash, role=new.role, label=request.label[:100], created=float(new.created),
            created_by=by, expires=None if new.expires is None else float(new.expires), uses_left=new.uses_left,
        )  # fmt: skip
        await self._save(row)
        return new.text, _token_view(row)

    async def _save(self, row: TokenRow) -> None:
        await self._store.write(lambda conn: token_rows.save(conn, row))
        self._tokens[row.id] = row

    async def list_tokens(self) -> list[views.TokenView]:
        shown = [r for r in self._tokens.values() if r.kind in ("join", "access") and r.id not in (LOCAL_OWNER, LOCAL_WORKER)]
        return [_token_view(row) for row in sorted(shown, key=lambda r: -r.created)]

    async def revoke_token(self, token_id: str) -> None:
        row = self._tokens.get(token_id)
        if row is None:
            raise NotFound("token-unknown", f"There is no token {token_id[:40]!r}.", hint="company token list")
        await self._save(replace(row, revoked=time.time()))

    async def authenticate(self, token: str) -> Principal:
        """Who holds this bearer token. Raises `Refused` with a code for each fault."""
        if token.startswith(SESSION_PREFIX):
            return self._check_pair(token.removeprefix(SESSION_PREFIX), "session")
        if token.startswith(BEARER_PREFIX):
            return self._check_pair(token.removeprefix(BEARER_PREFIX), "access")
        row = self._check_token(self._parse_untrusted(token))
        if row.kind == "join":
            raise Refused(
                "token-for-joining", "This token lets a worker join; its calls then carry the one that the join is answered with."
            )
        return Principal(row.id, row.role, row.label or f"{row.role}-{row.id}")  # type: ignore[arg-type]

    def _parse_untrusted(self, text: str) -> JoinToken:
        try:
            parsed = parse_token_untrusted(text)
        except ParallelError as error:
            raise Refused("token-malformed", error.text, hint="company token create") from None
        if parsed.chief_key != self._identity.public:
            raise Refused("wrong-chief", "This token is for another chief.", expected=company_id_text(parsed.chief_key))
        return parsed

    def _check_token(self, token: JoinToken) -> TokenRow:
        row = self._tokens.get(token.id)
        try:
            check(row, token.secret, time.time())
        except TokenRefused as error:
            raise Refused(error.code, error.text, hint=error.hint, **error.facts) from None
        assert row is not None
        return row

    def _check_pair(self, text: str, kind: str) -> Principal:
        token_id, _, secret = text.partition(".")
        row = self._tokens.get(token_id)
        try:
            check(row if row is not None and row.kind == kind else None, secret.encode()[:200], time.time())
        except TokenRefused as error:
            raise Refused(
                error.code, error.text.replace("token", kind), hint="company open" if kind != "access" else "", **error.facts
            ) from None
        assert row is not None
        return Principal(row.principal or row.id, row.role, row.label or row.role)  # type: ignore[arg-type]

    async def create_login(self, by: Principal) -> str:
        """A secret that opens one session within ten minutes."""
        return await self._pair("login", by, LOGIN_TTL_S, uses=1)

    async def use_login(self, secret: str) -> tuple[str, Principal]:
        """Trade a login secret for a session token."""
        principal = self._check_pair(secret, "login")
        row = self._tokens[secret.partition(".")[0]]
        await self._save(replace(row, uses_left=0, last_used=time.time()))
        return SESSION_PREFIX + await self._pair("session", principal, SESSION_TTL_S, uses=None), principal

    async def end_session(self, session: str) -> None:
        """Make a session token worthless, wherever copies of it are; an access token in its place stays valid."""
        if session.startswith(SESSION_PREFIX):
            text = session.removeprefix(SESSION_PREFIX)
            self._check_pair(text, "session")
            await self.revoke_token(text.partition(".")[0])

    async def _pair(self, kind: str, by: Principal, ttl_s: float, *, uses: int | None) -> str:
        token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(24)
        now = time.time()
        row = TokenRow(
            id=token_id, kind=kind, secret_hash=hash_secret(secret.encode()), role=by.role, label=by.name, principal=None, created=now,
            created_by=by.name, expires=now + ttl_s, uses_left=uses,
        )  # fmt: skip
        for old in [r.id for r in self._tokens.values() if r.kind in ("login", "session") and (r.expires or 0) < now]:
            del self._tokens[old]
        await self._save(row)
        return f"{token_id}.{secret}"

    # ---- workers ----------------------------------------------------------------------------------------------------------
    async def join(self, message: m.Join, machine: m.Machine, key: bytes, address: str) -> m.Joined:
        """Admit a worker by its token; a known key gets its old id back without using the token up."""
        row = self._tokens.get(message.token_id)
        try:
            check(row, message.secret, time.time())
        except TokenRefused as error:
            if not (error.code == "token-used-up" and key in self._by_key):
                raise
        assert row is not None
        if row.role != "worker":
            raise PeerError(
                "token-wrong-role", f"This is a token for a {row.role}, not for a worker.", hint="company token create --role worker"
            )
        worker = await self.admit(machine, key, address, via=message.via, transport="rpc", token=row.id)
        return m.Joined(worker, company_id_text(self._identity.public), HEARTBEAT_MS, int(time.time()))

    def check_worker_token(self, token_text: str) -> TokenRow:
        """The row of a token that lets a worker join now. Raises `Refused` with a code for each fault."""
        row = self._check_token(self._parse_untrusted(token_text))
        if row.role != "worker":
            text = f"This is a token for a {row.role}, not for a worker."
            raise Refused("token-wrong-role", text, hint="company token create --role worker")
        return row

    async def join_by_rest(self, token_text: str, machine: m.Machine, address: str) -> tuple[str, str]:
        """Admit a worker that has no channel by its token; returns (worker id, bearer). Raises `Refused` with a code for each fault.

        No key is proved over REST, so none is taken down: a claimed one could be another worker's. The bearer is what proves who it is.
        """
        row = self.check_worker_token(token_text)
        try:
            worker = await self.admit(machine, secrets.token_bytes(32), address, via=None, transport="rest", token=row.id)
        except PeerError as error:
            raise Refused(error.code, error.text, hint=error.hint, **error.facts) from None
        token_id, secret, now = secrets.token_hex(8), secrets.token_urlsafe(24), time.time()
        bearer = TokenRow(
            id=token_id, kind="access", secret_hash=hash_secret(secret.encode()), role="worker", label=worker, principal=worker,
            created=now, created_by="the chief",
        )  # fmt: skip
        await self._save(bearer)
        return worker, f"{BEARER_PREFIX}{token_id}.{secret}"

    async def admit(self, machine: m.Machine, key: bytes, address: str, *, via: str | None, transport: str, token: str) -> str:
        """Write the worker's row and take one use of the token."""
        known = self._by_key.get(key)
        now = time.time()
        if known is None:
            if len(self.workers) >= MAX_WORKERS:
                raise PeerError("too-many-workers", f"This chief knows {MAX_WORKERS} workers already.")
            used: list[bool] = []
            await self._store.write(lambda conn: used.append(token_rows.use_one(conn, token, at=now)))
            if not used[0]:
                raise PeerError("token-used-up", "This token was used as often as it may be.", hint="company token create --role worker")
            row = self._tokens[token]
            self._tokens[token] = replace(row, uses_left=None if row.uses_left is None else row.uses_left - 1, last_used=now)
        worker = known or self._new_id(machine.name)
        before = self.workers.get(worker)
        state = before.state if before is not None and before.state in ("paused", "quarantined") else "active"
        saved = WorkerRow(
            id=worker, pubkey=key, name=machine.name, state=state, machine=msgpack.packb(machine.as_array()), transport=transport,
            address=address, via=via, joined=before.joined if before is not None else now, last_seen=now,
        )  # fmt: skip
        await self._store.write(lambda conn: worker_rows.save(conn, [saved]))
        self._remember(saved)
        return worker

    def _new_id(self, name: str) -> str:
        base = _WORKER_NAME.sub("-", name.lower()).strip("-")[:24] or "worker"
        while True:
            found = f"w-{base}-{secrets.token_hex(2)}"
            if found not in self.workers:
                return found

    async def resume(self, worker: str, key: bytes, machine: m.Machine, address: str) -> ev.WorkerHere:
        """A worker that joined before is back."""
        row = self.workers.get(worker)
        if row is None or row.pubkey != key:
            raise PeerError(
                "worker-unknown", "This chief does not know this worker; it needs a new token.", hint="company token create --role worker"
            )
        if row.state == "removed":
            raise PeerError("worker-removed", "This worker was removed from the company.")
        row = replace(row, name=machine.name, machine=msgpack.packb(machine.as_array()), address=address, last_seen=time.time())
        await self._store.write(lambda conn: worker_rows.save(conn, [row]))
        self._remember(row)
        return ev.WorkerHere(spec=spec_of(worker, machine), paused=row.state == "paused", quarantined=row.state == "quarantined")

    async def seen(self, worker: str) -> None:
        """Its channel has closed: note when."""
        row = self.workers.get(worker)
        if row is not None:
            await self.save_worker(replace(row, last_seen=time.time()))

    async def save_worker(self, row: WorkerRow) -> None:
        """Write a worker's row."""
        await self._store.write(lambda conn: worker_rows.save(conn, [row]))
        self._remember(row)

    async def remove_worker(self, worker: str) -> None:
        """Forget a worker; it needs a new token to come back."""
        row = self.workers.pop(worker, None)
        if row is not None:
            self._by_key.pop(row.pubkey, None)
            await self._store.write(lambda conn: worker_rows.delete(conn, worker) and None)
            for bearer in [t for t in self._tokens.values() if t.principal == worker and t.revoked is None]:
                await self._save(replace(bearer, revoked=time.time()))

    def find_worker(self, ref: str) -> WorkerRow:
        """A worker by id, unique prefix or name."""
        if ref in self.workers:
            return self.workers[ref]
        found = [w for w in self.workers.values() if w.id.startswith(ref) or w.id.startswith(f"w-{ref}") or w.name == ref]
        if len(found) == 1:
            return found[0]
        if found:
            raise Invalid("ambiguous", f"{ref!r} fits {len(found)} workers: {', '.join(sorted(w.id for w in found)[:5])}")
        raise NotFound("worker-unknown", f"There is no worker {ref[:80]!r}.", hint="company worker list")


def machine_of(row: WorkerRow) -> m.Machine | None:
    """The machine a worker's row describes."""
    try:
        return m.Machine.parse_untrusted(msgpack.unpackb(row.machine))
    except (MalformedMessage, ValueError):
        return None


def spec_of(worker: str, machine: m.Machine) -> ev.WorkerSpec:
    """What the chief's machine needs to know of a worker."""
    return ev.WorkerSpec(
        id=worker, name=machine.name, slots=machine.slots, cores=machine.cores, memory_bytes=machine.memory_bytes, python=machine.python,
        platform=machine.platform, isolation=machine.isolation, requirements_allowed=machine.requirements_allowed, version=machine.version,
    )  # fmt: skip


def _token_view(row: TokenRow) -> views.TokenView:
    return views.TokenView(
        id=row.id, kind="join" if row.kind == "join" else "access", role=row.role, label=row.label, created=row.created,  # type: ignore[arg-type]
        expires=row.expires, uses_left=row.uses_left, revoked=row.revoked is not None, last_used=row.last_used,
    )  # fmt: skip
