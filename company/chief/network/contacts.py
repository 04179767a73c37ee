"""How a company says where its chief is, whether it lends or not: one small signed record of kind "contact" (pure).

It lies under a key made of the company's id, so that whoever knows the id, or a node of the DHT, finds the chief's RPC port and its key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgpack

from company.chief.network.contact import Contact
from p2p.base.errors import MalformedMessage
from p2p.base.ids import NODE_ID_BYTES, CompanyId, id_text
from p2p.base.keys import PUBLIC_BYTES, company_id_text
from p2p.base.record import record
from p2p.dht.advertisement import MAX_ENDPOINTS, MAX_HOST_CHARS, MAX_RELAYS, Relay
from p2p.dht.records import Record

KIND = "contact"
VERSION = 1
LIFETIME_S = 1800
MAX_NAME_CHARS = 40


@record(kw_only=True)
class ContactRecord:
    """What a company says of itself. The name is its own choice and proves nothing."""

    contact: Contact
    name: str
    relays_for_others: bool


def contact_key(company: str) -> bytes:
    """Where the record of a company lies."""
    return hashlib.blake2b(company.encode(), digest_size=NODE_ID_BYTES, person=b"dht-contact").digest()


def company_of_node(node_id: bytes) -> CompanyId:
    """A node's id in the DHT is its company's, longer."""
    return CompanyId(id_text("co", node_id))


def contact_payload(name: str, endpoints: Iterable[tuple[str, int]], relays: Iterable[Relay], *, relays_for_others: bool) -> bytes:
    """The payload of one's own record."""
    shown = "".join(c for c in name if c.isprintable())[:MAX_NAME_CHARS]
    packed: bytes = msgpack.packb(
        [
            VERSION, shown, [list(e) for e in endpoints][:MAX_ENDPOINTS], [[r.public, r.host, r.port] for r in relays][:MAX_RELAYS],
            relays_for_others,
        ],
        use_bin_type=True,
    )  # fmt: skip
    return packed


def contact_of_untrusted(record: Record) -> ContactRecord:
    """Read a record whose signature held. Raises only `MalformedMessage`."""
    if record.kind != KIND or record.key != contact_key(company_id_text(record.owner)):
        raise MalformedMessage("this is not the contact of its owner")
    try:
        values = msgpack.unpackb(record.payload, use_list=True, raw=False, strict_map_key=True, max_map_len=0, max_ext_len=0)
    except Exception as error:  # noqa: BLE001 - msgpack raises a wide set; all of it is the sender's fault
        raise MalformedMessage(f"contact cannot be decoded: {type(error).__name__}") from None
    if type(values) is not list or len(values) != 5 or values[0] != VERSION:
        raise MalformedMessage("a contact has 5 fields of version 1")
    _, name, endpoints, relays, offers = values
    if type(name) is not str or len(name) > MAX_NAME_CHARS or not (name.isprintable() or not name) or type(offers) is not bool:
        raise MalformedMessage(f"a name is printable text of at most {MAX_NAME_CHARS} characters")
    if not _is_list(endpoints, MAX_ENDPOINTS, 2) or not _is_list(relays, MAX_RELAYS, 3):
        raise MalformedMessage(f"a contact has at most {MAX_ENDPOINTS} endpoints and {MAX_RELAYS} relays")
    if not all(_is_place(h, p) for h, p in endpoints) or not all(
        type(k) is bytes and len(k) == PUBLIC_BYTES and _is_place(h, p) for k, h, p in relays
    ):
        raise MalformedMessage("an address of this contact is none")
    contact = Contact(
        key=record.owner, endpoints=tuple((h, p) for h, p in endpoints), relays=tuple(Relay(public=k, host=h, port=p) for k, h, p in relays)
    )
    return ContactRecord(contact=contact, name=name, relays_for_others=offers)


def _is_list(values: object, most: int, width: int) -> bool:
    return type(values) is list and len(values) <= most and all(type(v) is list and len(v) == width for v in values)


def _is_place(host: object, port: object) -> bool:
    return type(host) is str and 0 < len(host) <= MAX_HOST_CHARS and host.isascii() and type(port) is int and 0 < port < 65536
