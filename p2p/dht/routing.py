"""Who is known: contacts by how many bits they share with us, and exactly the nearest to any target (pure).

A contact enters only after it answered a request of ours, so nobody fills the table by speaking. A live contact is never pushed out by a
new one; the new one waits in the replacement cache until one fails. A contact that failed once is not passed on to others; after
repeated failures, tried again with back-off, it is dropped. At most so many of one address group per bucket and in all.

Source: Maymounkov, Mazieres 2002; group limits as geth and Amino have them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from random import Random

import msgpack

from p2p.base.errors import InvariantBroken, MalformedMessage
from p2p.base.ids import NODE_ID_BYTES
from p2p.dht.addressing import group_of, packed, unpacked
from p2p.dht.directory import Address
from p2p.dht.parameters import Parameters

ID_BITS = 8 * NODE_ID_BYTES
MAX_UNREACHED = 1024  # nodes remembered that said that nobody reaches them


class Estimate:
    """A round trip time and how long to wait for one: RTO = AVG + 4·VAR. Source: Jacobson 1988."""

    __slots__ = ("avg_s", "var_s")

    def __init__(self) -> None:
        self.avg_s: float | None = None
        self.var_s = 0.0

    def add(self, took_s: float) -> None:
        """Take one measurement of a request that was not sent twice."""
        if self.avg_s is None:
            self.avg_s, self.var_s = took_s, took_s / 2
        else:
            self.var_s += 0.25 * (abs(self.avg_s - took_s) - self.var_s)
            self.avg_s += 0.125 * (took_s - self.avg_s)

    def rto_s(self) -> float | None:
        """Seconds to wait, or None while nothing is known."""
        return None if self.avg_s is None else self.avg_s + 4 * self.var_s


class Contact:
    """One node that has answered us."""

    __slots__ = ("address", "answered_at", "failures", "group", "id", "packed", "retry_at", "row", "rtt", "since")

    def __init__(self, id_: int, address: Address, group: bytes, now: float) -> None:
        self.id = id_
        self.address = address
        self.packed = packed(address)
        self.row = id_.to_bytes(NODE_ID_BYTES, "big") + self.packed  # as it travels
        self.group = group
        self.since = now
        self.answered_at = now
        self.failures = 0
        self.retry_at = 0.0
        self.rtt = Estimate()

    @property
    def node_id(self) -> bytes:
        """The id as bytes."""
        return self.row[:NODE_ID_BYTES]


class Table:
    """The contacts of one node."""

    def __init__(self, own_id: int, parameters: Parameters) -> None:
        self.own_id = own_id
        self._p = parameters
        self._contacts: dict[int, Contact] = {}
        self._buckets: dict[int, dict[int, Contact]] = {}  # shared bits → id → contact, the one longest unheard first
        self._waiting: dict[int, dict[int, Contact]] = {}  # replacement caches
        self._groups: Counter[bytes] = Counter()
        self._unreached: dict[tuple[int, Address], float] = {}  # until when it gets no place
        self._looked_at: dict[int, float] = {}  # bucket → when something in it was last looked up

    def __len__(self) -> int:
        return len(self._contacts)

    def __iter__(self) -> Iterator[Contact]:
        return iter(self._contacts.values())

    def get(self, id_: int) -> Contact | None:
        """A contact in a bucket."""
        return self._contacts.get(id_)

    def shared_bits(self, id_: int) -> int:
        """How many leading bits an id shares with ours; also its bucket."""
        return ID_BITS - (self.own_id ^ id_).bit_length()

    def nearest(self, target: int, count: int, *, is_reliable: bool = True, but: int | None = None) -> list[Contact]:
        """Exactly the ``count`` nearest, nearest first, ``but`` one; ``is_reliable``: only those whose last request was answered.

        No need to sort the whole table: what shares more bits with the target is nearer. First the target's own bucket, then all deeper
        ones together (there our own id and the target part), then the shallower ones one by one.
        """
        bits = self.shared_bits(target)
        buckets = self._buckets
        found: list[Contact] = []
        for group in self._groups_from(bits):
            by_distance = {
                id_ ^ target: c for n in group for id_, c in buckets[n].items() if id_ != but and not (is_reliable and c.failures)
            }
            found += [by_distance[d] for d in sorted(by_distance)]
            if len(found) >= count:
                break
        return found[:count]

    def _groups_from(self, bits: int) -> Iterator[list[int]]:
        used = [n for n, bucket in self._buckets.items() if bucket]
        yield [n for n in used if n == bits]
        yield [n for n in used if n > bits]
        yield from ([n] for n in sorted((n for n in used if n < bits), reverse=True))

    def wants(self, id_: int, address: Address) -> bool:
        """Whether this node would get a place, if it answered."""
        if id_ == self.own_id or id_ in self._contacts:
            return False
        bucket = self._buckets.get(self.shared_bits(id_), {})
        if len(bucket) >= self._p.k and all(not c.failures for c in bucket.values()):
            return False
        return self._group_has_room(group_of(address, self._p.allow_private), bucket)

    def answered(self, id_: int, address: Address, now: float) -> Contact | None:
        """A node answered a request of ours at this address: keep it, or let it wait; None where it gets neither."""
        if id_ == self.own_id or self._unreached.get((id_, address), now) > now:
            return None
        contact = self._contacts.get(id_)
        bits = self.shared_bits(id_)
        if contact is not None:
            if contact.address != address:
                if not contact.failures and now - contact.answered_at < self._p.refresh_s:
                    return contact  # the place we know answers; a second one for the same key is not needed
                self._remove(contact)
                contact = None
            else:
                contact.failures = 0
                contact.answered_at = now
                bucket = self._buckets[bits]
                bucket[id_] = bucket.pop(id_)  # the tail: heard last
                return contact
        new = self._waiting.get(bits, {}).pop(id_, None)
        if new is None or new.address != address:
            new = Contact(id_, address, group_of(address, self._p.allow_private), now)
        new.answered_at = now
        new.failures = 0
        return new if self._place(new, bits) else None

    def _place(self, new: Contact, bits: int) -> bool:
        bucket = self._buckets.setdefault(bits, {})
        if len(bucket) >= self._p.k:
            doubtful = max(bucket.values(), key=lambda c: c.failures)
            if doubtful.failures and self._group_has_room(new.group, bucket, leaving=doubtful):
                self._remove(doubtful, promote=False)
        if len(bucket) < self._p.k and self._group_has_room(new.group, bucket):
            bucket[new.id] = self._contacts[new.id] = new
            self._groups[new.group] += 1
            return True
        waiting = self._waiting.setdefault(bits, {})
        waiting[new.id] = new
        while len(waiting) > self._p.k:
            del waiting[next(iter(waiting))]
        return False

    def _group_has_room(self, group: bytes, bucket: dict[int, Contact], leaving: Contact | None = None) -> bool:
        freed = 1 if leaving is not None and leaving.group == group else 0
        if self._groups[group] - freed >= self._p.group_per_table:
            return False
        return sum(c.group == group for c in bucket.values()) - freed < self._p.group_per_bucket

    def failed(self, id_: int, now: float) -> None:
        """A request to this contact got no answer, sent twice."""
        contact = self._contacts.get(id_)
        if contact is None:
            self._waiting.get(self.shared_bits(id_), {}).pop(id_, None)
            return
        contact.failures += 1
        contact.retry_at = now + self._p.back_off_s * 2 ** (contact.failures - 1)
        if contact.failures >= self._p.drop_after_failures or self._waiting.get(self.shared_bits(id_)):
            self._remove(contact)

    def forget(self, id_: int, address: Address, now: float) -> None:
        """This node says itself that nobody reaches it at ``address``: that has no place here for a while, whatever still answers there.

        Only there: a node that tries for others whether they are reached asks from another socket than its own.
        """
        self._unreached.pop((id_, address), None)
        self._unreached[id_, address] = now + self._p.refresh_s
        if len(self._unreached) > MAX_UNREACHED:
            del self._unreached[next(iter(self._unreached))]
        waiting = self._waiting.get(self.shared_bits(id_), {})
        if id_ in waiting and waiting[id_].address == address:
            del waiting[id_]
        contact = self._contacts.get(id_)
        if contact is not None and contact.address == address:
            self._remove(contact)

    def is_reached(self, id_: int, address: Address) -> None:
        """It no longer says so."""
        self._unreached.pop((id_, address), None)

    def _remove(self, contact: Contact, *, promote: bool = True) -> None:
        bits = self.shared_bits(contact.id)
        del self._contacts[contact.id]
        del self._buckets[bits][contact.id]
        self._groups[contact.group] -= 1
        if not self._groups[contact.group]:
            del self._groups[contact.group]
        waiting = self._waiting.get(bits)
        while promote and waiting:
            _, latest = waiting.popitem()
            if self._group_has_room(latest.group, self._buckets[bits]):
                self._buckets[bits][latest.id] = self._contacts[latest.id] = latest
                self._groups[latest.group] += 1
                return

    def due(self, now: float, silent_s: float) -> list[Contact]:
        """Contacts to ping: those that failed and have waited, and those not heard for so long."""
        return [c for c in self if (c.retry_at <= now if c.failures else now - c.answered_at >= silent_s)]

    def fill(self) -> list[tuple[int, int, int]]:
        """(shared bits, contacts, replacements) of each bucket that is not empty."""
        return [(bits, len(b), len(self._waiting.get(bits, ()))) for bits, b in sorted(self._buckets.items()) if b]

    def looked_up(self, target: int, now: float) -> None:
        """A look-up for this target begins: its bucket needs no refresh for a while."""
        self._looked_at[min(self.shared_bits(target), ID_BITS - 1)] = now

    def refresh_targets(self, rng: Random, now: float) -> list[int]:
        """Our own id, then a random one for each bucket, down to the deepest that is not empty, in which nothing was looked up lately."""
        deepest = max((bits for bits, bucket in self._buckets.items() if bucket), default=0)
        targets = [self.own_id]
        for bits in range(min(deepest, ID_BITS - 1) + 1):
            if now - self._looked_at.get(bits, -1e9) < 0.8 * self._p.refresh_s:
                continue
            below = ID_BITS - bits - 1
            targets.append(self.own_id ^ (1 << below) ^ rng.getrandbits(below) if below else self.own_id ^ 1)
        return targets

    def network_size(self) -> float:
        """How many nodes there are, from how near the nearest are to us. Source: Amino's netsize (least squares over ranks)."""
        return size_from(sorted(id_ ^ self.own_id for id_ in self._contacts)[: self._p.k])

    def save(self) -> bytes:
        """Contacts worth asking after a restart: the longest known (anchors), then in turn one of each bucket."""
        reliable = [c for c in self if not c.failures]
        chosen = {c.id: c for c in sorted(reliable, key=lambda c: (c.since, c.id))[: self._p.anchors]}
        columns = [[c for c in b.values() if not c.failures][::-1] for _, b in sorted(self._buckets.items())]
        for row in range(self._p.k):
            for column in columns:
                if row < len(column) and len(chosen) < self._p.saved_contacts:
                    chosen.setdefault(column[row].id, column[row])
        data: bytes = msgpack.packb([1, [[c.node_id, c.packed] for c in chosen.values()]])
        return data

    def validate(self) -> None:
        """Raise `InvariantBroken` when the two views of the table differ or a bound is passed."""
        inside = {c.id: c for b in self._buckets.values() for c in b.values()}
        if inside != self._contacts or any(len(b) > self._p.k for b in self._buckets.values()):
            raise InvariantBroken("the table's buckets and its contacts differ", contacts=len(self._contacts), inside=len(inside))
        if Counter(c.group for c in self) != self._groups:
            raise InvariantBroken("the table's count of address groups is wrong")


def size_from(distances: Iterable[int]) -> float:
    """The number of nodes at which the i-th nearest would lie, on average, at these distances."""
    ranks = list(enumerate(distances, 1))
    total = sum(i * d for i, d in ranks)
    return float(len(ranks) + 1) if len(ranks) < 8 or not total else sum(i * i for i, _ in ranks) * 2.0**ID_BITS / total


def saved_contacts_untrusted(data: bytes, most: int = 1024) -> list[tuple[bytes, Address]]:
    """(node id, address) of each contact in a file. Raises `MalformedMessage`."""
    try:
        version, rows = msgpack.unpackb(data, use_list=True, raw=False, max_array_len=most, max_map_len=0, max_ext_len=0)
        if version != 1 or type(rows) is not list:
            raise MalformedMessage("a file of contacts of another version")
        found = [(bytes(id_), unpacked(bytes(at))) for id_, at in rows if type(id_) is type(at) is bytes]
    except MalformedMessage:
        raise
    except Exception as error:  # noqa: BLE001 - msgpack raises a wide set; all of it is the file's fault
        raise MalformedMessage(f"the file of contacts cannot be decoded: {type(error).__name__}") from None
    return [(id_, at) for id_, at in found if len(id_) == NODE_ID_BYTES and at[1]]
