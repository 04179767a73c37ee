"""A directory within one process, for tests of what stands on it (pure).

Nodes made of one `MemoryNetwork` see each other. Records are signed, encoded, merged and verified as over
the wire; only the wire is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage
from p2p.base.keys import Identity, node_id
from p2p.dht.advertisement import (
    KIND,
    Advertisement,
    Listing,
    encode_advertisement,
    listing_of_untrusted,
    parse_capability,
    shard_key,
    shard_of,
    sign_advertisement,
    tombstone_of,
)  # fmt: skip
from p2p.dht.directory import Address, DirectoryStatus, Published
from p2p.dht.records import Record, merge_records, open_record_untrusted, sign_record

DEFAULT_LIFETIME_S = 1800
MEMORY_NETWORK_ID = b"memory-network-1"


class MemoryNetwork:
    """What its directories have published: key → owner → record."""

    def __init__(self, unix_time: Callable[[], UnixTime], rng: Random, network_id: bytes = MEMORY_NETWORK_ID) -> None:
        self.unix_time = unix_time
        self.rng = rng
        self.network_id = network_id
        self.kept: dict[bytes, dict[bytes, Record]] = {}
        self.nodes: dict[Address, MemoryDirectory] = {}

    def directory(self, identity: Identity, address: Address) -> MemoryDirectory:
        """A member of this network."""
        self.nodes[address] = MemoryDirectory(self, identity, address)
        return self.nodes[address]

    def store(self, raw: bytes) -> None:
        """Take a record as another node would."""
        record = open_record_untrusted(raw, self.network_id)
        self.kept[record.key] = merge_records(self.kept.get(record.key, {}), [record])[0]

    def live(self, key: bytes) -> list[Record]:
        """Records under a key that have not expired."""
        return [record for record in self.kept.get(key, {}).values() if record.expires > self.unix_time()]


class MemoryDirectory:
    """Keeps `Directory` (one shard, level 0)."""

    def __init__(self, network: MemoryNetwork, identity: Identity, address: Address) -> None:
        self._network = network
        self._identity = identity
        self._address = address
        self._sequence = 0
        self._published: dict[str, Advertisement] = {}

    async def join(self, addresses: Sequence[Address]) -> int:
        """Count the other members; addresses are not needed."""
        return len(self._network.nodes) - 1

    async def publish(self, advertisement: Advertisement) -> Published:
        """Take its place in the network."""
        encode_advertisement(advertisement)
        self._store(advertisement)
        self._published[advertisement.capability] = advertisement
        return Published(keys=1, stored=1)

    async def withdraw(self, capability: str) -> None:
        """Leave a tombstone."""
        if self._published.pop(capability, None) is not None:
            self._store(tombstone_of(capability))

    async def find(self, capability: str, wanted: int, deadline_s: float) -> tuple[Listing, ...]:
        """A random sample of those that are live."""
        parse_capability(capability)
        found = []
        for record in self._network.live(shard_key(capability, 0, 0)):
            try:
                listing = listing_of_untrusted(record, capability)
            except MalformedMessage:
                continue  # anybody may store what they like under a key
            if not listing.advertisement.is_tombstone:
                found.append(listing)
        found.sort(key=lambda listing: listing.owner)
        return tuple(self._network.rng.sample(found, min(wanted, len(found))))

    async def put(self, kind: str, key: bytes, payload: bytes, lifetime_s: int) -> Published:
        """Store one record."""
        self._network.store(self._signed(kind, key, payload, lifetime_s).raw)
        return Published(keys=1, stored=1)

    async def get(self, key: bytes, wanted: int, deadline_s: float) -> tuple[Record, ...]:
        """Records under a key."""
        found = sorted(self._network.live(key), key=lambda record: record.owner)
        return tuple(self._network.rng.sample(found, min(wanted, len(found))))

    async def ping(self, address: Address) -> float | None:
        """No time at all to a member, None elsewhere."""
        return 0.0 if address in self._network.nodes else None

    def status(self) -> DirectoryStatus:
        """What little there is to say."""
        return DirectoryStatus(
            node_id=node_id(self._identity.public),
            address=self._address,
            network_size=float(len(self._network.nodes)),
            records_held=sum(len(owners) for owners in self._network.kept.values()),
            published=tuple(sorted(self._published)),
        )

    def _store(self, advertisement: Advertisement) -> None:
        key = shard_key(advertisement.capability, 0, shard_of(self._identity.public, 0))
        expires = UnixTime(self._network.unix_time() + DEFAULT_LIFETIME_S)
        record = sign_advertisement(
            self._identity, self._network.network_id, advertisement, key=key, sequence=self._next_sequence(), expires=expires
        )
        self._network.store(record.raw)

    def _signed(self, kind: str, key: bytes, payload: bytes, lifetime_s: int) -> Record:
        if kind == KIND:
            raise ValueError("advertisements are published, not put")
        expires = UnixTime(self._network.unix_time() + lifetime_s)
        return sign_record(
            self._identity, self._network.network_id, key=key, kind=kind, sequence=self._next_sequence(), expires=expires, payload=payload
        )

    def _next_sequence(self) -> int:
        self._sequence = max(self._sequence + 1, self._network.unix_time() * 1000)  # grows across restarts too
        return self._sequence
