"""The records that this node keeps for others, within bounds that one network cannot use up (pure).

When a key has too many owners, what has expired goes first; then a random one of the address group that has most records there (the
newcomer counts too); where no group has more than another, a random one. So a flood from one network pushes out its own records only, and
nobody can aim at a record by being newer, older or nearer. The same holds for the whole store.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from p2p.base.errors import InvariantBroken
from p2p.dht.packets import CURSOR_BYTES, FULL, KEPT, OLDER, REFUSED
from p2p.dht.parameters import Parameters
from p2p.dht.records import Equivocation, Record, is_equivocation, supersedes


class Held:
    """One record and the address group it came from."""

    __slots__ = ("group", "record")

    def __init__(self, record: Record, group: bytes) -> None:
        self.record = record
        self.group = group


class RecordStore:
    """key → owner → record. Records must have been verified."""

    def __init__(self, parameters: Parameters, rng: Random) -> None:
        self._p = parameters
        self._rng = rng
        self._keys: dict[bytes, dict[bytes, Held]] = {}
        self._owners: Counter[bytes] = Counter()
        self._groups: Counter[bytes] = Counter()
        self.count = 0
        self.size_bytes = 0
        self.equivocations: dict[bytes, Equivocation] = {}  # by owner

    def put(self, record: Record, group: bytes, unix: float) -> int:
        """Keep a record; return a verdict of `p2p.dht.packets`. Something refused changes nothing else."""
        if not unix < record.expires <= unix + self._p.max_lifetime_s + self._p.window_s:
            return REFUSED
        owners = self._keys.get(record.key, {})
        old = owners.get(record.owner)
        if old is not None:
            if is_equivocation(old.record, record) and len(self.equivocations) < self._p.equivocations:
                first, second = sorted((old.record, record), key=lambda r: r.raw)
                self.equivocations.setdefault(record.owner, Equivocation(first, second))
            if old.record.raw == record.raw:
                return KEPT
            if not supersedes(record, old.record):
                return OLDER
            self._drop(old)
        elif self._owners[record.owner] >= self._p.per_owner or not self._has_room(record, group, unix):
            return FULL
        self._add(Held(record, group))
        return KEPT

    def _has_room(self, record: Record, group: bytes, unix: float) -> bool:
        """Make room for one of a new owner; False where it is the newcomer that has to go."""
        owners = self._keys.get(record.key, {})
        for held in [h for h in owners.values() if h.record.expires <= unix]:
            self._drop(held)
        if sum(h.group == group for h in owners.values()) >= self._p.per_key_and_group:
            return False
        if self._groups[group] >= self._p.per_group:
            return False
        if len(owners) >= self._p.per_key and not self._drop_one(list(owners.values()), group):
            return False
        if self.count >= self._p.records or self.size_bytes + len(record.raw) > self._p.record_bytes:
            self.expire(unix)
        while self.count >= self._p.records or self.size_bytes + len(record.raw) > self._p.record_bytes:
            (largest, most), *_ = self._groups.most_common(1)
            if most <= self._groups[group] + 1:
                largest = group if self._groups[group] else largest
            if largest == group or not self._drop_one([h for o in self._keys.values() for h in o.values() if h.group == largest], group):
                return False
        return True

    def _drop_one(self, held: list[Held], newcomer: bytes) -> bool:
        groups = Counter(h.group for h in held)
        groups[newcomer] += 1
        most = max(groups.values())
        candidates: list[Held | None] = [h for h in held if groups[h.group] == most]
        if groups[newcomer] == most:
            candidates.append(None)  # the newcomer itself
        chosen = self._rng.choice(candidates)
        if chosen is None:
            return False
        self._drop(chosen)
        return True

    def _add(self, held: Held) -> None:
        record = held.record
        self._keys.setdefault(record.key, {})[record.owner] = held
        self._owners[record.owner] += 1
        self._groups[held.group] += 1
        self.count += 1
        self.size_bytes += len(record.raw)

    def _drop(self, held: Held) -> None:
        record = held.record
        owners = self._keys[record.key]
        del owners[record.owner]
        if not owners:
            del self._keys[record.key]
        for counter, part in ((self._owners, record.owner), (self._groups, held.group)):
            counter[part] -= 1
            if not counter[part]:
                del counter[part]
        self.count -= 1
        self.size_bytes -= len(record.raw)

    def read(self, key: bytes, after: bytes, unix: float) -> tuple[list[Record], int]:
        """All live records of a key in the order of their owners, beginning behind ``after`` and going round; and how many."""
        live = sorted((h.record for h in self._keys.get(key, {}).values() if h.record.expires > unix), key=lambda r: r.owner)
        at = next((i for i, r in enumerate(live) if r.owner[:CURSOR_BYTES] > after), 0)
        return live[at:] + live[:at], len(live)

    def expire(self, unix: float) -> int:
        """Drop what has expired; return how many."""
        over = [h for owners in self._keys.values() for h in owners.values() if h.record.expires <= unix]
        for held in over:
            self._drop(held)
        return len(over)

    def most_under_one_key(self) -> int:
        """The fullest key, for tests and pages."""
        return max(map(len, self._keys.values()), default=0)

    def validate(self) -> None:
        """Raise `InvariantBroken` when counts are wrong or a bound is passed."""
        held = [h for owners in self._keys.values() for h in owners.values()]
        if len(held) != self.count or sum(len(h.record.raw) for h in held) != self.size_bytes:
            raise InvariantBroken("the store's counts are wrong", count=self.count, held=len(held))
        if self.count > self._p.records or self.most_under_one_key() > self._p.per_key:
            raise InvariantBroken("the store holds more than it may", count=self.count)
        if Counter(h.group for h in held) != self._groups or Counter(h.record.owner for h in held) != self._owners:
            raise InvariantBroken("the store's counts of groups or owners are wrong")
