"""Another company and the ways to its chief (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from p2p.dht.advertisement import Relay


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """The key and the addresses, out of what the company signed."""

    key: bytes
    endpoints: tuple[tuple[str, int], ...] = ()
    relays: tuple[Relay, ...] = ()
