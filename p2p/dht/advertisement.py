"""What a company offers, the one spelling of a capability, and the keys under which it is published (pure).

A capability is ``spare/v1/<arch>/py<major.minor>/<isolation rung>``. Popular ones are cut into ``S = 4^level`` shards: a company lies in
shard ``BLAKE2b(its key) mod S``, readers take shards in random order. Both sides use the level that fits their estimate of the network's
size and its two neighbours, so that estimates that differ by a factor of four still meet.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, fields
from typing import Any

import msgpack

from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage, UsageError
from p2p.base.ids import NODE_ID_BYTES, CompanyId
from p2p.base.keys import PUBLIC_BYTES, Signer, company_id_text
from p2p.base.record import record
from p2p.dht.records import Record, sign_record

KIND = "spare"
PAYLOAD_VERSION = 1
MAX_LEVEL = 6  # 4,096 shards
PEERS_PER_SHARD = 256  # a shard more whenever four times as many nodes could advertise under one key
MAX_ENDPOINTS, MAX_RELAYS, MAX_NAMES = 4, 2, 8
MAX_HOST_CHARS, MAX_NAME_CHARS, MAX_SCHEDULE_CHARS = 64, 24, 64
_CAPABILITY = re.compile(r"spare/v1/([a-z0-9_]{1,16})/py([0-9]{1,2}\.[0-9]{1,3})/([a-z0-9-]{1,16})", re.ASCII)
_BIG = 2**48


@record
class Capability:
    """What a borrower looks for: machine architecture, Python, rung of isolation."""

    arch: str
    python: str
    rung: str

    def __str__(self) -> str:
        return f"spare/v1/{self.arch}/py{self.python}/{self.rung}"


def parse_capability(text: str) -> Capability:
    """Read the one spelling. Raises `UsageError`."""
    found = _CAPABILITY.fullmatch(text)
    if found is None:
        raise UsageError("bad-capability", f"a capability looks like spare/v1/x86_64/py3.11/bubblewrap, got {text[:80]!r}")
    return Capability(found[1], found[2], found[3])


@record(kw_only=True)
class Relay:
    """A public chief that passes channels on to one that cannot be dialled."""

    public: bytes
    host: str
    port: int


@record(kw_only=True)
class Advertisement:
    """Spare workers of one company. Who offers them is the record's owner, until when its expiry."""

    capability: str
    endpoints: tuple[tuple[str, int], ...] = ()  # peer RPC over TCP; empty where only relays lead to it
    relays: tuple[Relay, ...] = ()
    slots: int = 0
    cores: int = 0
    memory_mib: int = 0  # per slot
    pythons: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    speed: int = 0  # measured score of one slot; larger is faster
    max_frame_s: int = 0  # longest time a contract may run; 0: no bound of its own
    min_trust_permille: int = 0
    price_milli: int = 0  # favours (core-seconds) asked per thousand core-seconds given; 0: nothing
    schedule: str = ""  # when it is offered, in the owner's words of `company lend --schedule`
    is_withdrawn: bool = False

    @property
    def is_tombstone(self) -> bool:
        """Whether it says that the offer is over."""
        return self.is_withdrawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """An advertisement found in the network, verified and not expired."""

    owner: bytes
    advertisement: Advertisement
    sequence: int
    expires: UnixTime
    raw: bytes = field(repr=False, default=b"")

    @property
    def company(self) -> CompanyId:
        """The company's name."""
        return company_id_text(self.owner)


def tombstone_of(capability: str) -> Advertisement:
    """What is published when an offer is withdrawn."""
    return Advertisement(capability=capability, is_withdrawn=True)


def level_for(network_size: float) -> int:
    """The shard level for a network of about so many nodes."""
    level = 0
    while level < MAX_LEVEL and network_size > PEERS_PER_SHARD * 4**level:
        level += 1
    return level


def levels_used(level: int) -> tuple[int, ...]:
    """The level first, then its neighbours."""
    return tuple(n for n in (level, level - 1, level + 1) if 0 <= n <= MAX_LEVEL)


def shard_of(owner: bytes, level: int) -> int:
    """The shard in which a company's advertisements lie."""
    drawn = hashlib.blake2b(owner, digest_size=8, person=b"dht-shard-of").digest()
    return int(int.from_bytes(drawn, "big") % 4**level)


def shard_key(capability: str, level: int, shard: int) -> bytes:
    """The 20-byte key of one shard. Raises `UsageError` for a shard that does not exist."""
    if not 0 <= level <= MAX_LEVEL or not 0 <= shard < 4**level:
        raise UsageError("bad-shard", f"shard {shard} of level {level} does not exist")
    parse_capability(capability)
    text = f"{capability}\0{4**level}\0{shard}".encode("ascii")
    return hashlib.blake2b(text, digest_size=NODE_ID_BYTES, person=b"dht-shard-key").digest()


def keys_of_owner(capability: str, owner: bytes, level: int) -> tuple[bytes, ...]:
    """The keys under which a company publishes at this level and its neighbours."""
    return tuple(shard_key(capability, n, shard_of(owner, n)) for n in levels_used(level))


def sign_advertisement(
    signer: Signer, network_id: bytes, advertisement: Advertisement, *, key: bytes, sequence: int, expires: UnixTime
) -> Record:
    """The record of one shard. Raises `UsageError` where a field is out of bounds or the whole too large."""
    return sign_record(
        signer, network_id, key=key, kind=KIND, sequence=sequence, expires=expires, payload=encode_advertisement(advertisement)
    )


def encode_advertisement(advertisement: Advertisement) -> bytes:
    """The payload of a record. Raises `UsageError`."""
    wrong = _wrong_part(advertisement)
    if wrong is not None:
        raise UsageError("bad-advertisement", f"an advertisement cannot be made: {wrong}")
    if advertisement.is_withdrawn:
        values: list[Any] = [PAYLOAD_VERSION, advertisement.capability]
    else:
        a = advertisement
        values = [
            PAYLOAD_VERSION, a.capability, [list(e) for e in a.endpoints], [[r.public, r.host, r.port] for r in a.relays],
            a.slots, a.cores, a.memory_mib, list(a.pythons), list(a.runtimes), a.speed, a.max_frame_s, a.min_trust_permille,
            a.price_milli, a.schedule,
        ]  # fmt: skip
    packed: bytes = msgpack.packb(values, use_bin_type=True)
    return packed


def advertisement_of_untrusted(payload: bytes) -> Advertisement:
    """Read a payload (a signature over it has held, which makes its owner known, not honest). Raises `MalformedMessage`."""
    try:
        values = msgpack.unpackb(payload, use_list=True, raw=False, strict_map_key=True, max_map_len=0, max_ext_len=0)
        if type(values) is not list or len(values) not in (2, 14) or values[0] != PAYLOAD_VERSION or type(values[1]) is not str:
            raise MalformedMessage("an advertisement has 2 or 14 fields of version 1")
        found = tombstone_of(values[1]) if len(values) == 2 else _of_values(values)
    except MalformedMessage:
        raise
    except Exception as error:  # noqa: BLE001 - msgpack raises a wide set; all of it is the sender's fault
        raise MalformedMessage(f"advertisement cannot be decoded: {type(error).__name__}") from None
    wrong = _wrong_part(found)
    if wrong is not None:
        raise MalformedMessage(f"an advertisement is refused: {wrong}")
    return found


def listing_of_untrusted(record: Record, capability: str) -> Listing:
    """The listing in a verified record. Raises `MalformedMessage` when it is of another kind, capability or shard."""
    if record.kind != KIND:
        raise MalformedMessage(f"a record of kind {record.kind} is no advertisement")
    advertisement = advertisement_of_untrusted(record.payload)
    if advertisement.capability != capability:
        raise MalformedMessage("an advertisement for another capability")
    if all(record.key != shard_key(capability, n, shard_of(record.owner, n)) for n in range(MAX_LEVEL + 1)):
        raise MalformedMessage("an advertisement outside its owner's shard")
    return Listing(owner=record.owner, advertisement=advertisement, sequence=record.sequence, expires=record.expires, raw=record.raw)


def _of_values(values: list[Any]) -> Advertisement:
    _, capability, endpoints, relays, slots, cores, memory, pythons, runtimes, speed, frame, trust, price, schedule = values
    return Advertisement(
        capability=capability, endpoints=tuple((h, p) for h, p in endpoints),
        relays=tuple(Relay(public=k, host=h, port=p) for k, h, p in relays), slots=slots, cores=cores, memory_mib=memory,
        pythons=tuple(pythons), runtimes=tuple(runtimes), speed=speed, max_frame_s=frame, min_trust_permille=trust,
        price_milli=price, schedule=schedule,
    )  # fmt: skip


def _wrong_part(a: Advertisement) -> str | None:
    if type(a.capability) is not str or _CAPABILITY.fullmatch(a.capability) is None:
        return "its capability is not spelled spare/v1/<arch>/py<major.minor>/<rung>"
    for part in fields(a):
        value = getattr(a, part.name)
        if part.type == "int" and (type(value) is not int or not 0 <= value < _BIG):
            return f"{part.name} lies in 0..2^48, got {value!r:.40}"
    if a.min_trust_permille > 1000:
        return "min_trust_permille lies in 0..1000"
    if len(a.endpoints) > MAX_ENDPOINTS or len(a.relays) > MAX_RELAYS:
        return f"at most {MAX_ENDPOINTS} endpoints and {MAX_RELAYS} relays"
    places = [*a.endpoints, *((r.host, r.port) for r in a.relays)]
    if not all(_is_text(h, MAX_HOST_CHARS) and h and type(p) is int and 0 < p < 65536 for h, p in places):
        return f"an endpoint is a host of at most {MAX_HOST_CHARS} characters and a port"
    if not all(type(r.public) is bytes and len(r.public) == PUBLIC_BYTES for r in a.relays):
        return "a relay has a public key"
    for names in (a.pythons, a.runtimes):
        if len(names) > MAX_NAMES or not all(_is_text(name, MAX_NAME_CHARS) and name for name in names):
            return f"at most {MAX_NAMES} names of at most {MAX_NAME_CHARS} characters"
    if not _is_text(a.schedule, MAX_SCHEDULE_CHARS):
        return f"a schedule is ASCII text of at most {MAX_SCHEDULE_CHARS} characters"
    return None


def _is_text(value: object, most: int) -> bool:
    return type(value) is str and len(value) <= most and value.isascii() and (value.isprintable() or not value)
