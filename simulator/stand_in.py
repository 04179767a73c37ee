"""For the exact engine: signatures that are keyed hashes of a signature's length, messages parsed once, receipts held once (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from p2p.contracts.signing import Signed, Signer, open_signed_untrusted
from p2p.reputation.evidence import Entry, Evidence
from simulator.dht_exact import StandInKey, stand_in_verify

NETWORK: Final = b"market-simulator"
MEMO: Final = 65_536  # messages on their way that are not parsed a second time


class StandInSigner(Signer):
    """Signs with a keyed hash. What was signed here a moment ago is not parsed again: parsing is a function of the bytes alone."""

    def __init__(self, key: StandInKey, memo: dict[bytes, Signed]) -> None:
        super().__init__(key, NETWORK)  # type: ignore[arg-type]  # it signs and has a public key
        self._memo = memo

    def sign(self, message: Any) -> Signed:
        """Sign, and remember."""
        signed = super().sign(message)
        if len(self._memo) >= MEMO:
            for old in list(self._memo)[: MEMO // 2]:
                del self._memo[old]
        self._memo[signed.body] = signed
        return signed

    def open_untrusted(self, author: bytes, code: int, body: bytes, signature: bytes) -> Signed:
        """Verify, then read."""
        known = self._memo.get(body)
        if known is not None and (known.signature, known.message.code, known.message.author) == (signature, code, author):  # type: ignore[attr-defined]
            return known
        return open_signed_untrusted(self.network_id, author, code, body, signature, verify=stand_in_verify)


class SharedEvidence(Evidence):
    """The shipped evidence; receipts that many companies read alike are read once, and lie in memory once."""

    def __init__(self, me: bytes, pool: Pool) -> None:
        super().__init__(me)
        self._pool = pool

    def _entry(self, half: Signed) -> Entry:
        found = self._pool.read.get(half.hash)
        if found is None:
            found = self._pool.read[half.hash] = super()._entry(half)
        return found

    def _joined(self, known: Entry, new: Entry) -> Entry:
        key = (id(known), id(new))  # both are of the pool, which keeps them
        found = self._pool.joined.get(key)
        if found is None:
            found = self._pool.joined[key] = super()._joined(known, new)
        return found


@dataclass(slots=True)
class Pool:
    """Entries of halves by their hash, and of two entries together."""

    read: dict[bytes, Entry] = field(default_factory=dict)
    joined: dict[tuple[int, int], Entry] = field(default_factory=dict)
