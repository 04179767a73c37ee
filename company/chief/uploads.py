"""Resumable uploads (tus 1.0), their state on disk: bytes in ``uploads/<id>``, how many of them count in a row (I/O).

The row's offset moves only after the bytes before it were fsynced and, where the client sent a checksum, verified. What lies
behind it in the file is overwritten by the next piece, so a crash, a broken line and a wrong checksum all mean the same:
go on from the offset. A finished upload leaves its bytes to whoever takes them in, and stays known until it expires, so that a client
that lost the last answer learns what became of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from company.chief.facade import Conflict, Invalid, NotFound, Principal, Refused, TooLarge
from company.chief.quota import Key
from company.chief.share import Share, Shares
from company.chief.spool import Spool
from company.chief.store import Store
from company.chief.store import uploads as rows
from company.chief.store.uploads import UploadRow
from p2p.base.errors import ParallelError
from p2p.base.record import record

LIFETIME_S = 86_400.0  # after the last piece
MAX_PER_PRINCIPAL = 16
MAX_META_BYTES = 4096
CHECKSUMS = ("sha1", "sha256")
_ID = re.compile(r"[0-9a-f]{32}")


class ChecksumMismatch(ParallelError):
    """The piece is not what its checksum says (tus: 460); nothing of it counts."""


@record
class _Hashed:
    """SHA-256 of the first ``upto`` bytes of an upload."""

    upto: int
    state: Any


@record
class UploadState:
    """How far an upload has come. ``length``: None while the client has not said; ``expires``: Unix seconds."""

    id: str
    principal: str
    meta: Mapping[str, str]
    offset: int
    length: int | None
    expires: float
    made: Mapping[str, Any] | None = None  # what it became, or why it was refused

    @property
    def is_complete(self) -> bool:
        return self.length is not None and self.offset == self.length


class Uploads:
    """All uploads of one chief. Callers pass ``now``, Unix seconds."""

    def __init__(
        self, directory: Path, store: Store, shares: Shares, *, max_bytes: int, max_per_principal: int = MAX_PER_PRINCIPAL,
        lifetime_s: float = LIFETIME_S, new_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:  # fmt: skip
        self._dir = directory
        self._store = store
        self._shares = shares
        self._max_bytes = max_bytes
        self._max_per_principal = max_per_principal
        self._lifetime_s = lifetime_s
        self._new_id = new_id
        self._rows: dict[str, UploadRow] = {}
        self._hashed: dict[str, _Hashed] = {}  # as long as every piece came to this process, whole or not
        self._busy: set[str] = set()

    async def load(self, *, now: float) -> None:
        """Read the rows at start-up; drop what has expired and files that no row names."""
        self._rows = {row.id: row for row in await self._store.read(rows.load_all)}
        for row in self._rows.values():
            self._count(row)
        await self.expire(now=now)
        for row in list(self._rows.values()):
            path = self._dir / row.id
            if row.made is None and row.offset and (not path.exists() or path.stat().st_size < row.offset):
                await self._save(replace(row, offset=0))  # the disk lost it: the client begins again
        for path in self._dir.iterdir():
            if _ID.fullmatch(path.name) and (path.name not in self._rows or self._rows[path.name].made is not None):
                path.unlink()

    async def create(self, *, length: int | None, meta: Mapping[str, str], principal: str, now: float) -> UploadState:
        """Begin an upload; ``meta`` says by whom (`principal_of`). Raises: `TooLarge`, `StorageFull`, `Refused` ("too-many-uploads"),
        `Invalid`."""
        await self.expire(now=now)
        self._check_length(length)
        packed = json.dumps(dict(meta), ensure_ascii=False).encode()
        if len(packed) > MAX_META_BYTES:
            raise Invalid("bad-metadata", f"upload metadata may have {MAX_META_BYTES} bytes, got {len(packed)}")
        held = sum(row.principal == principal and row.made is None for row in self._rows.values())
        if held >= self._max_per_principal:
            raise Refused(
                "too-many-uploads", f"{held} uploads are open; the limit is {self._max_per_principal}",
                hint="finish or abort one of them", limit=self._max_per_principal, actual=held,
            )  # fmt: skip
        row = UploadRow(
            id=self._new_id(), principal=principal, meta=packed, length=length, offset=0, created=now, expires=now + self._lifetime_s
        )
        if not _ID.fullmatch(row.id) or row.id in self._rows:
            raise Invalid("bad-upload-id", "upload ids must be new and of 32 hex digits")
        self._share(row).resize(row.length or 0)  # all of it counts from now on, so that what has begun can end
        self._rows[row.id] = row  # before the wait, so that two at once are both counted
        try:
            (self._dir / row.id).touch(mode=0o600, exist_ok=False)
            await self._store.write(lambda conn: rows.save(conn, row))
        except BaseException:
            del self._rows[row.id]
            self._shares.quota.drop(key_of(row.id))
            (self._dir / row.id).unlink(missing_ok=True)
            raise
        return _state(row)

    def state(self, upload_id: str, *, now: float) -> UploadState:
        """How far it has come. Raises `NotFound` ("upload-unknown", "upload-expired")."""
        return _state(self._row(upload_id, now))

    async def set_length(self, upload_id: str, length: int, *, now: float) -> UploadState:
        """Say a length that was deferred. Raises: `Conflict` when another was said, `TooLarge`, `StorageFull`."""
        row = self._row(upload_id, now)
        if row.length not in (None, length) or length < row.offset:
            raise Conflict("length-fixed", f"the upload has {row.offset} of {row.length} bytes; its length cannot become {length}")
        self._check_length(length)
        self._share(row).resize(length)
        return _state(await self._save(replace(row, length=length)))

    async def append(
        self, upload_id: str, offset: int, chunks: AsyncIterator[bytes], *, now: float, checksum: tuple[str, bytes] | None = None
    ) -> UploadState:
        """Add a piece that begins at ``offset``.

        Without a checksum, what came before a broken line counts, also when this raises or is cancelled.
        Raises: `NotFound`, `Conflict` ("offset-mismatch", "upload-busy"), `TooLarge`, `Invalid` ("bad-checksum-algorithm"),
        `ChecksumMismatch`, `StorageFull` where the length is not known, `Unavailable` ("storage-full"), and what ``chunks`` raises.
        """
        row = self._row(upload_id, now)
        if checksum is not None and checksum[0] not in CHECKSUMS:
            raise Invalid("bad-checksum-algorithm", f"checksum must be one of {', '.join(CHECKSUMS)}, got {checksum[0][:40]!r}")
        if upload_id in self._busy:
            raise Conflict("upload-busy", "another request is writing to this upload", hint="wait for it to end, then ask for the offset")
        if offset != row.offset:
            raise Conflict("offset-mismatch", f"the upload stands at byte {row.offset}, not {offset}", offset=row.offset)
        self._busy.add(upload_id)
        try:
            return await self._append(row, chunks, now, checksum)
        finally:
            self._busy.discard(upload_id)

    async def _append(self, row: UploadRow, chunks: AsyncIterator[bytes], now: float, checksum: tuple[str, bytes] | None) -> UploadState:
        digest = hashlib.new(checksum[0], usedforsecurity=False) if checksum is not None else None
        left = (self._max_bytes if row.length is None else row.length) - row.offset
        fd = os.open(self._dir / row.id, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        sha256 = self._digest_so_far(row)
        updates = tuple(state.update for state in (digest, sha256) if state is not None)
        spool = Spool(fd, max_bytes=left, offset=row.offset, updates=updates)
        is_whole = False
        try:
            await spool.take(chunks if row.length is not None else self._share(row).counted(chunks))
            is_whole = True
            if checksum is not None and digest is not None and digest.digest() != checksum[1]:
                raise ChecksumMismatch(
                    "checksum-mismatch", f"the {checksum[0]} of this piece is {digest.hexdigest()}", hint="send the piece again"
                )
            kept = await self._keep(row, fd, spool.written, now)
            self._remember(kept, sha256)
            return _state(kept)
        except TooLarge as error:
            raise TooLarge("too-large", f"the upload may have {row.offset + left} bytes", limit=row.offset + left) from error
        finally:
            if not is_whole and checksum is None and spool.written:
                with trio.CancelScope(shield=True):
                    kept = await self._keep(row, fd, spool.written, now)
                    if spool.hashed == spool.written:
                        self._remember(kept, sha256)
            self._count(self._rows.get(row.id, row))
            os.close(fd)

    async def finish(self, upload_id: str, *, now: float) -> Path | None:
        """The file of a complete upload, or None when bytes are missing. `settle` it when it was taken in or refused."""
        return self._dir / upload_id if _state(self._row(upload_id, now)).is_complete else None

    def digest_of(self, upload_id: str) -> bytes | None:
        """SHA-256 of a complete file as it came, or None where it must be read from the disk (the chief has restarted meanwhile)."""
        row, hashed = self._rows.get(upload_id), self._hashed.get(upload_id)
        if row is None or hashed is None or hashed.upto != row.length:
            return None
        return bytes(hashed.state.digest())

    def _digest_so_far(self, row: UploadRow) -> Any:
        """A copy to go on with; None where the beginning came to another process, or where a tree is hashed file by file."""
        if _state(row).meta.get("kind") in ("tree", "package"):
            return None
        if row.offset == 0:
            return hashlib.sha256()
        hashed = self._hashed.get(row.id)
        return hashed.state.copy() if hashed is not None and hashed.upto == row.offset else None

    def _remember(self, row: UploadRow, sha256: Any) -> None:
        if sha256 is not None:
            self._hashed[row.id] = _Hashed(row.offset, sha256)

    async def settle(self, upload_id: str, made: Mapping[str, Any]) -> None:
        """Keep what became of a complete upload, and drop its bytes where they still lie here."""
        row = self._rows.get(upload_id)
        self._hashed.pop(upload_id, None)
        if row is not None:
            await self._save(replace(row, made=json.dumps(dict(made))))
            (self._dir / upload_id).unlink(missing_ok=True)

    async def forget(self, upload_id: str) -> None:
        """Delete an upload, finished or given up. Raises `Conflict` while a piece is being written."""
        if upload_id in self._busy:
            raise Conflict("upload-busy", "another request is writing to this upload")
        self._hashed.pop(upload_id, None)
        if self._rows.pop(upload_id, None) is not None:
            self._shares.quota.drop(key_of(upload_id))
            await self._store.write(lambda conn: rows.delete(conn, upload_id))
            (self._dir / upload_id).unlink(missing_ok=True)

    async def expire(self, *, now: float) -> tuple[str, ...]:
        """Delete uploads whose time is over; return their ids."""
        over = tuple(row.id for row in self._rows.values() if row.expires <= now and row.id not in self._busy)
        for upload_id in over:
            await self.forget(upload_id)
        return over

    def list(self, *, now: float) -> tuple[UploadState, ...]:
        """Every upload that is open, oldest first."""
        return tuple(_state(row) for row in self._rows.values() if row.expires > now)

    def _row(self, upload_id: str, now: float) -> UploadRow:
        row = self._rows.get(upload_id)
        if row is None:
            raise NotFound("upload-unknown", f"there is no upload {upload_id[:40]!r}", hint="begin a new one")
        if row.expires <= now:
            raise NotFound("upload-expired", f"upload {upload_id} has expired", hint="begin a new one", expired=row.expires)
        return row

    def _check_length(self, length: int | None) -> None:
        if length is not None and length < 0:
            raise Invalid("bad-length", f"upload length must be >= 0, got {length}")
        if length is not None and length > self._max_bytes:
            raise TooLarge("too-large", f"an upload may have {self._max_bytes} bytes, got {length}", limit=self._max_bytes, actual=length)

    async def _keep(self, row: UploadRow, fd: int, written: int, now: float) -> UploadRow:
        await trio.to_thread.run_sync(os.fdatasync, fd)
        return await self._save(replace(row, offset=row.offset + written, expires=now + self._lifetime_s))

    async def _save(self, row: UploadRow) -> UploadRow:
        with trio.CancelScope(shield=True):  # or memory and row would differ
            await self._store.write(lambda conn: rows.save(conn, row))
        self._rows[row.id] = row
        self._count(row)
        return row

    def _count(self, row: UploadRow) -> None:
        size = 0 if row.made is not None else row.offset if row.length is None else row.length
        self._shares.quota.put(key_of(row.id), principal_of(_state(row)).name, size)

    def _share(self, row: UploadRow) -> Share:
        return self._shares.of(principal_of(_state(row)), key_of(row.id))


def key_of(upload_id: str) -> Key:
    """As what an upload counts."""
    return Key("upload", upload_id)


def meta_of(meta: Mapping[str, str], by: Principal) -> dict[str, str]:
    """A client's words, and who it is, which no word of its own replaces."""
    return {**meta, "by": by.name, "role": by.role}


def principal_of(state: UploadState) -> Principal:
    """Who began an upload."""
    role = state.meta.get("role", "submitter")
    return Principal(state.principal, role if role in ("operator", "owner") else "submitter", state.meta.get("by", state.principal))  # type: ignore[arg-type]


def _state(row: UploadRow) -> UploadState:
    made = None if row.made is None else json.loads(row.made)
    return UploadState(row.id, row.principal, json.loads(row.meta), row.offset, row.length, row.expires, made)
