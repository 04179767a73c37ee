"""A whole node without its wires: joins, keeps its table fresh, publishes again in time, reads (pure).

Every method returns effects; an operation's outcome comes as `Done` with the number it was started under. The driver calls `tick` at
`next_deadline`.
"""

from __future__ import annotations

import heapq
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage
from p2p.base.ids import NODE_ID_BYTES
from p2p.dht import packets as pk
from p2p.dht.advertisement import (
    Advertisement,
    Listing,
    keys_of_owner,
    level_for,
    levels_used,
    listing_of_untrusted,
    shard_key,
    sign_advertisement,
    tombstone_of,
)  # fmt: skip
from p2p.dht.core import DhtCore, Done, Effect
from p2p.dht.crawl import Crawl
from p2p.dht.directory import Address, Published
from p2p.dht.operations import StoreRecord
from p2p.dht.reading import FoundCache, Reading
from p2p.dht.records import Record, sign_record
from p2p.dht.requests import Waiting
from p2p.dht.routing import size_from

REFRESHES_AT_ONCE = 2
REJOIN_S = 15.0
PING_EVERY_S = 5.0


class Endable(Protocol):
    """Whatever can be told that its time is over."""

    is_over: bool

    def end(self, now: float) -> None:
        """Give what there is."""


@dataclass(slots=True)
class Publication:
    """Something that is kept in the network until it is withdrawn."""

    keys: Callable[[], tuple[bytes, ...]]
    sign: Callable[[bytes, int, UnixTime], Record]
    lifetime_s: int
    next_at: float
    used_keys: tuple[bytes, ...] = ()  # where it lies: a tombstone must go there too, whatever level is the right one by then


class DhtAgent:
    """One node of the network of companies."""

    def __init__(self, core: DhtCore, now: float) -> None:
        self.core = core
        self._numbers = 0
        self._sequence = 0
        self._sizes: deque[float] = deque(maxlen=16)
        self._deadlines: list[tuple[float, int, Endable]] = []
        self._publications: dict[str, Publication] = {}
        self._withdrawn: dict[str, tuple[Publication, float]] = {}  # tombstones that nobody has taken yet, until when they matter
        self._cache = FoundCache(core.p)
        self._targets: deque[int] = deque()
        self._refreshing = 0
        self._refresh_at = now + core.p.refresh_s * (0.9 + 0.2 * core.rng.random())
        self._rejoin_at = now + REJOIN_S
        self._ping_at = now + PING_EVERY_S
        self._expire_at = now + 60.0
        self.remembered: list[tuple[bytes, Address]] = []  # contacts of an earlier run
        self.bootstrap: list[Address] = []

    # --- driving

    def on_datagram(self, now: float, data: bytes, address: Address) -> list[Effect]:
        """Whatever came from wherever."""
        return self.core.on_datagram(now, data, address)

    def next_deadline(self) -> float:
        """When `tick` has something to do."""
        times = [self._refresh_at, self._rejoin_at, self._ping_at, self._expire_at]
        times += [publication.next_at for publication in self._publications.values()]
        times += [tombstone.next_at for tombstone, _ in self._withdrawn.values()]
        while self._deadlines and self._deadlines[0][2].is_over:
            heapq.heappop(self._deadlines)
        if self._deadlines:
            times.append(self._deadlines[0][0])
        late = self.core.next_deadline()
        return min(times) if late is None else min(late, *times)

    def tick(self, now: float) -> list[Effect]:
        """Everything that time alone brings."""
        self.core.flying.tick(now)
        while self._deadlines and self._deadlines[0][0] <= now:
            heapq.heappop(self._deadlines)[2].end(now)
        if self._ping_at <= now:
            self._ping_at = now + PING_EVERY_S
            self.core.ping_due(now)
        if self._expire_at <= now:
            self._expire_at = now + 60.0
            self.core.store.expire(self.core.unix(now))
        if self._refresh_at <= now:
            self.refresh(now)
        if self._rejoin_at <= now:
            self._rejoin_at = now + REJOIN_S
            if len(self.core.table) == 0:
                self._join(now, None)
        for publication in list(self._publications.values()):
            if publication.next_at <= now:
                self._store_again(publication, None, now)
        for capability, (tombstone, until) in list(self._withdrawn.items()):
            if until <= now:
                del self._withdrawn[capability]  # what it stands for has run out
            elif tombstone.next_at <= now:
                self._bury(capability, tombstone, None, now)
        return self.core.take_effects()

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _done(self, number: int | None, outcome: object) -> None:
        if number is not None:
            self.core.out.append(Done(number, outcome))

    def _until(self, deadline: float, what: Endable) -> None:
        heapq.heappush(self._deadlines, (deadline, self._number(), what))

    # --- the table

    def network_size(self) -> float:
        """Median of what look-ups of random places showed; from our own neighbours at first."""
        return statistics.median(self._sizes) if self._sizes else self.core.table.network_size()

    def join(self, now: float, addresses: Sequence[Address]) -> int:
        """Ask these, and those remembered; `Done` brings the number of contacts."""
        self.bootstrap = list(dict.fromkeys([*addresses, *self.bootstrap]))[:64]
        number = self._number()
        self._join(now, number)
        return number

    def _join(self, now: float, number: int | None) -> None:
        known: list[tuple[int | None, Address]] = [(None, address) for address in self.bootstrap]
        known += [(int.from_bytes(id_, "big"), address) for id_, address in self.remembered]
        joining = Joining(self, number, len(known))
        self._until(now + self.core.p.lookup_deadline_s, joining)
        for id_, address in known:
            if self.core.ask(now, id_, address, pk.FIND_NODE, [self.core.node_id], joining) is None:
                joining.left -= 1
        joining.end_if_none_left(now)

    def joined(self, number: int | None, now: float) -> None:
        """The first ones have answered: look ourselves up, then fill the table."""

        def over(crawl: Crawl, at: float) -> None:
            self._done(number, len(self.core.table))
            self.refresh(at)

        self._lookup(self.core.id, now, over)

    def refresh(self, now: float) -> None:
        """One look-up for each bucket."""
        self._refresh_at = now + self.core.p.refresh_s * (0.9 + 0.2 * self.core.rng.random())
        self._targets = deque(self.core.table.refresh_targets(self.core.rng, now))
        self._go_on_refreshing(now)

    def _go_on_refreshing(self, now: float) -> None:
        while self._targets and self._refreshing < REFRESHES_AT_ONCE:
            self._refreshing += 1
            self._lookup(self._targets.popleft(), now, self._refreshed)

    def _refreshed(self, crawl: Crawl, now: float) -> None:
        self._refreshing -= 1
        self._sizes.append(size_from([crawl.distance(id_) for id_, _ in crawl.answered(self.core.p.k)]))
        self._go_on_refreshing(now)

    @property
    def is_refreshing(self) -> bool:
        """Whether a refresh goes on."""
        return bool(self._targets or self._refreshing)

    def _lookup(self, target: int, now: float, on_end: Callable[[Crawl, float], None]) -> None:
        crawl = Crawl(self.core, target.to_bytes(NODE_ID_BYTES, "big"), on_end, width=self.core.p.k)
        self._until(now + self.core.p.lookup_deadline_s, crawl)
        crawl.pump(now)

    def lookup(self, now: float, target: bytes) -> int:
        """The k nearest nodes that answer; `Done` brings [(id, address)]."""
        number = self._number()
        self._lookup(int.from_bytes(target, "big"), now, lambda crawl, at: self._done(number, crawl.answered(self.core.p.k)))
        return number

    # --- publishing

    def next_sequence(self, now: float) -> int:
        """Grows, also across restarts, as long as the clock is not set back."""
        self._sequence = max(self._sequence + 1, int(1000 * (now + self.core.unix_offset)))
        return self._sequence

    def publish(self, now: float, advertisement: Advertisement) -> int:
        """Advertise until withdrawn; `Done` brings a `Published`."""
        core = self.core

        def keys() -> tuple[bytes, ...]:
            return keys_of_owner(advertisement.capability, core.signer.public, level_for(self.network_size()))

        def sign(key: bytes, sequence: int, expires: UnixTime) -> Record:
            return sign_advertisement(core.signer, core.network_id, advertisement, key=key, sequence=sequence, expires=expires)

        return self._publish(advertisement.capability, Publication(keys, sign, core.p.lifetime_s, now), now)

    def put(self, now: float, kind: str, key: bytes, payload: bytes, lifetime_s: int, *, is_kept: bool = True) -> int:
        """Store one record, and again at a third of its lifetime; `Done` brings a `Published`."""
        core = self.core

        def sign(key: bytes, sequence: int, expires: UnixTime) -> Record:
            return sign_record(core.signer, core.network_id, key=key, kind=kind, sequence=sequence, expires=expires, payload=payload)

        publication = Publication(lambda: (key,), sign, lifetime_s, now)
        if is_kept:
            return self._publish(f"{kind}/{key.hex()}", publication, now)
        number = self._number()
        self._store_again(publication, number, now)
        return number

    def _publish(self, name: str, publication: Publication, now: float) -> int:
        publication.sign(bytes(NODE_ID_BYTES), 0, UnixTime(0))  # raises before anything is kept
        old = self._publications.get(name)
        if old is not None:
            publication.used_keys = old.used_keys
        self._publications[name] = publication
        self._withdrawn.pop(name, None)
        number = self._number()
        self._store_again(publication, number, now)
        return number

    def withdraw(self, now: float, capability: str) -> int | None:
        """Put tombstones where it lies; None where there is nothing to withdraw."""
        publication = self._publications.pop(capability, None)
        if publication is None:
            return None
        core = self.core

        def sign(key: bytes, sequence: int, expires: UnixTime) -> Record:
            return sign_advertisement(core.signer, core.network_id, tombstone_of(capability), key=key, sequence=sequence, expires=expires)

        number = self._number()
        keys = publication.used_keys
        tombstone = Publication(lambda: keys, sign, publication.lifetime_s, now)
        self._withdrawn[capability] = (tombstone, now + publication.lifetime_s)
        self._bury(capability, tombstone, number, now)
        return number

    def _bury(self, capability: str, tombstone: Publication, number: int | None, now: float) -> None:
        """Store a tombstone, and again until somebody took it: who withdraws may know nobody at that moment."""

        def stored(count: int) -> None:
            if count and self._withdrawn.get(capability, (None, 0.0))[0] is tombstone:
                del self._withdrawn[capability]

        self._store_again(tombstone, number, now, stored)
        tombstone.next_at = now + REJOIN_S

    def _store_again(
        self, publication: Publication, number: int | None, now: float, on_stored: Callable[[int], None] = lambda count: None
    ) -> None:
        third = publication.lifetime_s / 3
        publication.next_at = now + third * (0.85 + 0.15 * self.core.rng.random())
        keys = publication.keys()
        publication.used_keys = tuple(dict.fromkeys([*keys, *publication.used_keys]))[:8]
        expires = UnixTime(self.core.unix(now) + publication.lifetime_s)
        sequence = self.next_sequence(now)
        state = [len(keys), 0]

        def over(stored: int, at: float) -> None:
            state[0] -= 1
            state[1] += stored
            if state[0] == 0:
                on_stored(state[1])
                self._done(number, Published(keys=len(keys), stored=state[1]))

        size = self.network_size()
        for key in keys:
            self._cache.forget(key)
            store = StoreRecord(self.core, publication.sign(key, sequence, expires), size, over)
            self._until(now + 2 * self.core.p.lookup_deadline_s, store)
            store.start(now)

    @property
    def published(self) -> tuple[str, ...]:
        """What is advertised now."""
        return tuple(sorted(name for name in self._publications if name.startswith("spare/")))

    # --- reading

    def find(self, now: float, capability: str, wanted: int, deadline_s: float) -> int:
        """Live advertisements of a capability; `Done` brings listings, in random order."""
        number = self._number()
        keys = []
        for level in levels_used(level_for(self.network_size())):
            shards = list(range(4**level))
            self.core.rng.shuffle(shards)
            keys += [shard_key(capability, level, shard) for shard in shards]

        def over(reading: Reading, at: float) -> None:
            listings = [found for record in reading.found.values() if (found := _listing(record, capability)) is not None]
            listings = [found for found in listings if not found.advertisement.is_tombstone and found.expires > self.core.unix(at)]
            self.core.rng.shuffle(listings)
            self._done(number, tuple(listings[:wanted]))

        def is_offer(record: Record) -> bool:
            found = _listing(record, capability)
            return found is not None and not found.advertisement.is_tombstone

        reading = Reading(self.core, self._cache, keys, wanted, self.network_size(), over, is_offer)
        self._until(now + deadline_s, reading)
        reading.start(now)
        return number

    def get(self, now: float, key: bytes, wanted: int, deadline_s: float) -> int:
        """Live records of one key; `Done` brings them, one per owner."""
        number = self._number()

        def over(reading: Reading, at: float) -> None:
            found = list(reading.found.values())
            self.core.rng.shuffle(found)
            self._done(number, tuple(found[:wanted]))

        reading = Reading(self.core, self._cache, [key], wanted, self.network_size(), over)
        self._until(now + deadline_s, reading)
        reading.start(now)
        return number


class Joining:
    """Waits for the first nodes to answer."""

    def __init__(self, agent: DhtAgent, number: int | None, left: int) -> None:
        self._agent = agent
        self._number = number
        self.left = left
        self.is_over = False

    def end_if_none_left(self, now: float) -> None:
        """All have answered or failed."""
        if self.left <= 0:
            self.end(now)

    def end(self, now: float) -> None:
        """Go on with those that answered."""
        if not self.is_over:
            self.is_over = True
            self._agent.joined(self._number, now)

    def on_reply(self, request: Waiting, reply: pk.Reply, now: float) -> None:
        """One is there."""
        self.left -= 1
        self.end_if_none_left(now)

    def on_slow(self, request: Waiting, now: float) -> None:
        """Others may have answered: do not wait for the dead."""
        if len(self._agent.core.table):
            self.end(now)

    def on_failure(self, request: Waiting, now: float) -> None:
        """One is not."""
        self.left -= 1
        self.end_if_none_left(now)


def _listing(record: Record, capability: str) -> Listing | None:
    try:
        return listing_of_untrusted(record, capability)
    except MalformedMessage:
        return None
