"""The companies that this chief has heard of, and how they are reached (pure). Whoever was heard of longest ago is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from company.chief.facade import NotFound
from company.chief.network.contact import Contact
from p2p.base.ids import CompanyId
from p2p.base.keys import company_id_text
from p2p.base.record import record

MAX_COMPANIES = 1024


@record(kw_only=True)
class Company:
    """One of them. ``seen_at``: monotonic seconds."""

    contact: Contact
    name: str = ""
    source: str = ""
    seen_at: float = 0.0
    relays_for_others: bool = False
    round_trip_s: float | None = None

    @property
    def id(self) -> CompanyId:
        """Its id."""
        return company_id_text(self.contact.key)


class Known:
    """By key."""

    def __init__(self, own: bytes) -> None:
        self._own = own
        self._of: dict[bytes, Company] = {}

    def __len__(self) -> int:
        return len(self._of)

    def __iter__(self) -> Iterator[Company]:
        return iter(list(self._of.values()))

    def heard(self, contact: Contact, source: str, now: float, *, name: str = "", relays_for_others: bool = False) -> None:
        """Something signed by this company came. What names no way to it leaves the ways that were known."""
        if contact.key == self._own:
            return
        old = self._of.pop(contact.key, None)
        if old is None:
            old = Company(contact=contact)
        kept = contact if contact.endpoints or contact.relays else old.contact
        is_contact = source == "contact"
        if old.source == "contact" and not is_contact and (old.contact.endpoints or old.contact.relays):
            kept = old.contact  # what the chief says of itself is meant for this; an offer may be older
        self._of[contact.key] = replace(
            old, contact=kept, source=source if is_contact or old.source != "contact" else old.source, seen_at=now,
            name=name if is_contact else old.name, relays_for_others=relays_for_others if is_contact else old.relays_for_others,
        )  # fmt: skip
        while len(self._of) > MAX_COMPANIES:
            del self._of[next(iter(self._of))]

    def measured(self, key: bytes, round_trip_s: float) -> None:
        """A channel to it took so long."""
        if key in self._of:
            self._of[key] = replace(self._of[key], round_trip_s=round_trip_s)

    def get(self, key: bytes) -> Company | None:
        """One company."""
        return self._of.get(key)

    def find(self, ref: str) -> Company:
        """By id, unique beginning of an id, or name. Raises `NotFound`."""
        by_id = [c for c in self._of.values() if c.id == ref or (len(ref) >= 6 and c.id.startswith(ref))]
        found = by_id or [c for c in self._of.values() if c.name == ref]
        if len(found) == 1:
            return found[0]
        if found:
            text = f"{len(found)} companies are called {ref[:40]!r}"
            raise NotFound("company-ambiguous", text, hint="give the id: company network companies")
        raise NotFound("company-unknown", f"no company {ref[:40]!r} was heard of", hint="company network companies lists those that were")
