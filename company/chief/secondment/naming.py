"""Contract path 5/8 - how a guest is called (pure)."""

from __future__ import annotations

from p2p.base.ids import digest
from p2p.base.keys import company_id_text

PREFIX = "g-"  # of a guest's worker id; an own worker's begins with w-
_ID_CHARS = 16


def guest_id(lender: bytes, contract: bytes, key: bytes) -> str:
    """The worker id of a guest: its company, and a hash that tells its workers apart and says nothing."""
    return f"{PREFIX}{company_id_text(lender)[3:]}-{digest(contract + key).hex()[:8]}"


def origin_of(worker: str) -> str:
    """The company id of a guest's worker id; empty for an own worker."""
    return f"co-{worker[len(PREFIX) : len(PREFIX) + _ID_CHARS]}" if worker.startswith(PREFIX) else ""
