"""A tracker: signed, expiring entries of companies, handed out as a random sample (pure).

A network can start from one plain web address, and a company whose UDP is blocked still finds others. A tracker vouches for nothing:
each entry is signed by its company (`p2p.dht.records`), offers travel in it as the very records of the DHT, and whoever reads them
verifies them. So a tracker can withhold and not lie, and may be reached by plain HTTP.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import json
from random import Random
from typing import Any

import msgpack

from p2p.base.clock import UnixTime
from p2p.base.errors import InvariantBroken, MalformedMessage, PeerError, Unavailable
from p2p.base.ids import NODE_ID_BYTES, CompanyId
from p2p.base.keys import Signer, company_id_text
from p2p.base.record import record
from p2p.dht.records import MAX_RECORD_BYTES, Record, open_record_untrusted, sign_record, supersedes

KIND = "tracker"
KEY = hashlib.blake2b(b"tracker", digest_size=NODE_ID_BYTES, person=b"dht-tracker").digest()
VERSION = 1
MAX_PLACES = 4  # of each kind
MAX_HOST_CHARS = 64
MAX_OFFERS = 4
MAX_LIFETIME_S = 1800
SKEW_S = 600  # accepted difference between clocks, as in the DHT
MAX_ANNOUNCE_BYTES = (MAX_OFFERS + 1) * (MAX_RECORD_BYTES + 8)
MAX_ENTRIES = 10_000  # about 50 MB at the worst
MAX_PER_GROUP = 64  # of one /24 or /48; private ranges do not count as one party
MAX_SAMPLE = 50
ANNOUNCES_PER_MINUTE = 60  # of one address
MAX_ANSWER_BYTES = MAX_SAMPLE * 2 * MAX_ANNOUNCE_BYTES
_COUNTED_ADDRESSES = 4096

Place = tuple[str, int]


@record(kw_only=True)
class Entry:
    """One company as it announced itself. ``dht``, ``rpc``: where it may be reached, empty where it cannot."""

    owner: bytes
    dht: tuple[Place, ...]
    rpc: tuple[Place, ...]
    sequence: int
    expires: UnixTime
    record: Record
    offers: tuple[Record, ...] = ()

    @property
    def company(self) -> CompanyId:
        """Its name."""
        return company_id_text(self.owner)

    @property
    def announcement(self) -> bytes:
        """What was announced, to be verified again by whoever reads it."""
        packed: bytes = msgpack.packb([self.record.raw, [offer.raw for offer in self.offers]], use_bin_type=True)
        return packed


def make_announcement(
    signer: Signer, network_id: bytes, *, dht: tuple[Place, ...], rpc: tuple[Place, ...], offers: tuple[bytes, ...] = (), sequence: int,
    expires: UnixTime,
) -> bytes:  # fmt: skip
    """The body of an announcement. Raises `UsageError` for one too large."""
    payload = msgpack.packb([VERSION, [list(p) for p in dht], [list(p) for p in rpc]], use_bin_type=True)
    record = sign_record(signer, network_id, key=KEY, kind=KIND, sequence=sequence, expires=expires, payload=payload)
    packed: bytes = msgpack.packb([record.raw, list(offers[:MAX_OFFERS])], use_bin_type=True)
    return packed


def open_announcement_untrusted(data: bytes, network_id: bytes) -> Entry:
    """Read and verify an announcement; offers must be of the same company. Raises only `MalformedMessage`."""
    if len(data) > MAX_ANNOUNCE_BYTES:
        raise MalformedMessage(f"an announcement may have {MAX_ANNOUNCE_BYTES} bytes, got {len(data)}")
    raw, offers = _pair(data)
    record = open_record_untrusted(raw, network_id)
    if record.kind != KIND or record.key != KEY:
        raise MalformedMessage("this record is no tracker entry")
    dht, rpc = _places(record.payload)
    opened = tuple(open_record_untrusted(offer, network_id) for offer in offers)
    if any(offer.owner != record.owner for offer in opened):
        raise MalformedMessage("an offer in this announcement is of another company")
    return Entry(owner=record.owner, dht=dht, rpc=rpc, sequence=record.sequence, expires=record.expires, record=record, offers=opened)


def _pair(data: bytes) -> tuple[bytes, list[bytes]]:
    try:
        values = msgpack.unpackb(data, use_list=True, raw=False, strict_map_key=True, max_map_len=0, max_ext_len=0)
    except Exception as error:  # noqa: BLE001 - msgpack raises a wide set; all of it is the sender's fault
        raise MalformedMessage(f"announcement cannot be decoded: {type(error).__name__}") from None
    if type(values) is not list or len(values) != 2 or type(values[0]) is not bytes or type(values[1]) is not list:
        raise MalformedMessage("an announcement is [entry, [offers]]")
    if len(values[1]) > MAX_OFFERS or not all(type(offer) is bytes for offer in values[1]):
        raise MalformedMessage(f"an announcement has at most {MAX_OFFERS} offers")
    return values[0], values[1]


def _places(payload: bytes) -> tuple[tuple[Place, ...], tuple[Place, ...]]:
    try:
        values = msgpack.unpackb(payload, use_list=True, raw=False, strict_map_key=True, max_map_len=0, max_ext_len=0)
    except Exception as error:  # noqa: BLE001 - as above
        raise MalformedMessage(f"tracker entry cannot be decoded: {type(error).__name__}") from None
    if type(values) is not list or len(values) != 3 or values[0] != VERSION:
        raise MalformedMessage("a tracker entry has 3 fields of version 1")
    return _few_places(values[1]), _few_places(values[2])


def _few_places(values: Any) -> tuple[Place, ...]:
    if type(values) is not list or len(values) > MAX_PLACES:
        raise MalformedMessage(f"a tracker entry has at most {MAX_PLACES} addresses of a kind")
    found = []
    for value in values:
        if type(value) is not list or len(value) != 2 or type(value[0]) is not str or type(value[1]) is not int:
            raise MalformedMessage("an address is [IP literal, port]")
        try:
            host = str(ipaddress.ip_address(value[0][:MAX_HOST_CHARS]))
        except ValueError:
            raise MalformedMessage(f"{value[0][:40]!r} is no IP literal") from None
        if not 0 < value[1] < 65536:
            raise MalformedMessage(f"a port lies in 1..65535, got {value[1]}")
        found.append((host, value[1]))
    return tuple(found)


class TrackerBook:
    """The entries of one network. Bounded in total, per address group and per announcing address."""

    def __init__(self, network_id: bytes, rng: Random, *, max_entries: int = MAX_ENTRIES, max_per_group: int = MAX_PER_GROUP) -> None:
        self.network_id = network_id
        self._rng = rng
        self._max_entries = max_entries
        self._max_per_group = max_per_group
        self._entries: dict[bytes, Entry] = {}
        self._group_of: dict[bytes, str] = {}  # owner -> group of the address that announced it
        self._groups: dict[str, list[bytes]] = {}  # group -> owners, oldest first
        self._announces: dict[str, int] = {}  # address -> count of this minute
        self._minute = 0

    def __len__(self) -> int:
        return len(self._entries)

    def announce(self, data: bytes, host: str, now: UnixTime) -> Entry:
        """Take an announcement that came from ``host``; an older one of the same company changes nothing.

        Raises `Unavailable` "tracker-full", "too-many-announcements"; `MalformedMessage`; `PeerError` "announcement-expired".
        """
        self._count(host, now)  # before any signature is checked
        entry = open_announcement_untrusted(data, self.network_id)
        if not now < entry.expires <= now + MAX_LIFETIME_S + SKEW_S:
            raise PeerError(
                "announcement-expired",
                f"an announcement must end within {MAX_LIFETIME_S} s from now, this one ends in {entry.expires - now} s",
                hint="set this machine's clock: timedatectl set-ntp true",
            )
        self.expire(now)
        held = self._entries.get(entry.owner)
        if held is not None and not supersedes(entry.record, held.record):
            return held
        if held is not None:
            self._forget(entry.owner)
        group = group_of_host(host)
        self._make_room(group)
        self._entries[entry.owner] = entry
        self._group_of[entry.owner] = group
        self._groups.setdefault(group, []).append(entry.owner)
        return entry

    def sample(self, now: UnixTime, wanted: int = MAX_SAMPLE) -> tuple[Entry, ...]:
        """A random sample of the live entries."""
        self.expire(now)
        owners = sorted(self._entries)
        return tuple(self._entries[owner] for owner in self._rng.sample(owners, min(max(wanted, 0), MAX_SAMPLE, len(owners))))

    def expire(self, now: UnixTime) -> None:
        """Forget entries whose time is over."""
        for owner in [owner for owner, entry in self._entries.items() if entry.expires <= now]:
            self._forget(owner)

    def _count(self, host: str, now: UnixTime) -> None:
        if self._minute != now // 60:
            self._minute = now // 60
            self._announces.clear()
        count = self._announces.get(host, 0) + 1
        if count > ANNOUNCES_PER_MINUTE or (count == 1 and len(self._announces) >= _COUNTED_ADDRESSES):
            raise Unavailable("too-many-announcements", f"more than {ANNOUNCES_PER_MINUTE} announcements a minute came from {host[:64]}")
        self._announces[host] = count

    def _make_room(self, group: str) -> None:
        """One party that fills its share, or the book, displaces its own entries and nobody else's."""
        own = self._groups.get(group, [])
        if len(own) >= self._max_per_group and not group.startswith("private "):
            self._forget(own[0])
        if len(self._entries) < self._max_entries:
            return
        largest = max(self._groups, key=lambda name: (len(self._groups[name]), name))
        if len(self._groups[largest]) <= len(self._groups.get(group, [])) + 1 and largest != group:
            raise Unavailable("tracker-full", f"this tracker holds {self._max_entries} companies already", hint="give a second --tracker")
        self._forget(self._groups[largest][0])

    def _forget(self, owner: bytes) -> None:
        del self._entries[owner]
        group = self._group_of.pop(owner)
        self._groups[group].remove(owner)
        if not self._groups[group]:
            del self._groups[group]

    def validate(self) -> None:
        """Check invariants."""
        owners = {owner for group in self._groups.values() for owner in group}
        if not set(self._entries) == set(self._group_of) == owners or len(owners) > self._max_entries:
            raise InvariantBroken("the tracker's tables contradict each other", entries=len(self._entries), owners=len(owners))


def group_of_host(host: str) -> str:
    """What one party is likely to own whole: a /24 or a /48; each private address is a party of its own."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "private ?"
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if not ip.is_global:
        return f"private {ip}"
    return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False))


# ---- what `GET /tracker/peers` answers -------------------------------------------------------------------------------------------
def peers_json(book: TrackerBook, now: UnixTime, wanted: int = MAX_SAMPLE) -> bytes:
    """The answer: readable by people, with the signed bytes for programs."""
    peers = [
        {
            "company": entry.company, "dht": [list(p) for p in entry.dht], "rpc": [list(p) for p in entry.rpc], "expires": entry.expires,
            "offers": len(entry.offers), "signed": base64.b64encode(entry.announcement).decode(),
        }
        for entry in book.sample(now, wanted)
    ]  # fmt: skip
    return json.dumps({"network": book.network_id.hex(), "known": len(book), "peers": peers}).encode()


def peers_of_json_untrusted(data: bytes, network_id: bytes, now: UnixTime) -> tuple[Entry, ...]:
    """The live entries in a tracker's answer; one that does not verify is left out. Raises only `MalformedMessage`."""
    if len(data) > MAX_ANSWER_BYTES:
        raise MalformedMessage(f"a tracker's answer may have {MAX_ANSWER_BYTES} bytes")
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        raise MalformedMessage("a tracker's answer is JSON") from None
    peers = answer.get("peers") if type(answer) is dict else None
    if type(peers) is not list or len(peers) > MAX_SAMPLE:
        raise MalformedMessage(f"a tracker's answer has at most {MAX_SAMPLE} peers")
    if answer.get("network") != network_id.hex():
        raise MalformedMessage("this tracker serves another network")
    found: dict[bytes, Entry] = {}
    for peer in peers:
        try:
            signed = peer.get("signed") if type(peer) is dict else None
            entry = open_announcement_untrusted(base64.b64decode(signed if type(signed) is str else "", validate=True), network_id)
        except (MalformedMessage, binascii.Error, ValueError):
            continue
        if entry.expires > now:
            found[entry.owner] = entry
    return tuple(found.values())
