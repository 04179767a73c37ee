"""What the owner has noted beside the contracts: drafts, blocked companies, offers looked at later (I/O: one row of the database)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from company.chief.backup import RESTORED
from company.chief.facade import Conflict
from company.chief.store import meta
from company.chief.store.store import Store

ROW = "contract-notes"
MAX_DRAFTS, MAX_BLOCKED, MAX_LATER = 64, 1000, 256


@dataclass(slots=True)
class Draft:
    """Terms that nobody has signed."""

    id: str
    nonce: bytes
    peer: bytes
    terms: bytes
    valid_s: int


@dataclass(slots=True)
class Notes:
    """Bounded, and on disk before a call returns."""

    store: Store
    drafts: dict[str, Draft] = field(default_factory=dict)
    blocked: dict[bytes, None] = field(default_factory=dict)
    later: dict[bytes, None] = field(default_factory=dict)  # nonces
    is_restored: bool = False  # from a backup with contracts: nothing more is signed

    async def load(self) -> None:
        """What was noted before."""
        self.is_restored = await self.store.read(lambda conn: meta.get(conn, RESTORED)) is not None
        found = await self.store.read(lambda conn: meta.get(conn, ROW))
        if found:
            said = json.loads(found)
            for id_, nonce, peer, terms, valid_s in said["drafts"]:
                self.drafts[id_] = Draft(id_, bytes.fromhex(nonce), bytes.fromhex(peer), bytes.fromhex(terms), valid_s)
            self.blocked = dict.fromkeys(map(bytes.fromhex, said["blocked"]))
            self.later = dict.fromkeys(map(bytes.fromhex, said["later"]))

    async def add_draft(self, draft: Draft) -> None:
        """Keep a draft. Raises `Conflict` where there are too many."""
        if draft.id not in self.drafts and len(self.drafts) >= MAX_DRAFTS:
            raise Conflict("too-many-drafts", f"{MAX_DRAFTS} drafts are kept", hint="company contract discard ID")
        self.drafts[draft.id] = draft
        await self._save()

    async def drop_draft(self, id_: str) -> None:
        """It was sent, or is not wanted."""
        if self.drafts.pop(id_, None) is not None:
            await self._save()

    async def block(self, peer: bytes) -> None:
        """Deal with it no more; the one blocked longest ago is forgotten when there are too many."""
        self.blocked[peer] = None
        while len(self.blocked) > MAX_BLOCKED:
            del self.blocked[next(iter(self.blocked))]
        await self._save()

    async def unblock(self, peer: bytes) -> None:
        """Deal with it again."""
        if self.blocked.pop(peer, 0) is None:
            await self._save()

    async def look_later(self, nonce: bytes) -> None:
        """It stays in the inbox and asks for nobody's attention."""
        self.later[nonce] = None
        while len(self.later) > MAX_LATER:
            del self.later[next(iter(self.later))]
        await self._save()

    async def _save(self) -> None:
        drafts = [[d.id, d.nonce.hex(), d.peer.hex(), d.terms.hex(), d.valid_s] for d in self.drafts.values()]
        said = {"drafts": drafts, "blocked": [k.hex() for k in self.blocked], "later": [n.hex() for n in self.later]}
        await self.store.write(lambda conn: meta.put(conn, ROW, json.dumps(said).encode()))
