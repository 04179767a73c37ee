"""Another company and the ways to its chief (pure)."""

from __future__ import annotations

from p2p.base.record import record
from p2p.dht.addressing import is_dialable, is_private
from p2p.dht.advertisement import Relay


@record(kw_only=True)
class Contact:
    """The key and the addresses, out of what the company signed."""

    key: bytes
    endpoints: tuple[tuple[str, int], ...] = ()
    relays: tuple[Relay, ...] = ()


def names_only_private(contact: Contact) -> bool:
    """Whether there are addresses, and all of them mean something on their own network alone."""
    return bool(contact.endpoints) and all(is_dialable(e, allow_private=True) and is_private(e[0]) for e in contact.endpoints)
