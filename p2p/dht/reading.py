"""Reading several keys at once until enough was found, and what was found a moment ago (pure)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from p2p.dht.core import DhtCore
from p2p.dht.operations import ReadKey
from p2p.dht.parameters import Parameters
from p2p.dht.records import Record, supersedes

KEYS_AT_ONCE = 3  # after the first, and where that brought too little to say how many are needed


class FoundCache:
    """Sets found lately, for `Parameters.cache_s` seconds."""

    def __init__(self, parameters: Parameters) -> None:
        self._p = parameters
        self._of: dict[bytes, tuple[float, bool, dict[bytes, Record]]] = {}

    def get(self, key: bytes, wanted: int, now: float, unix: float) -> dict[bytes, Record] | None:
        """What was found a moment ago, where that is enough or was all there is."""
        since, is_whole, found = self._of.get(key, (-1e9, False, {}))
        if now - since > self._p.cache_s or not (is_whole or len(found) >= wanted):
            return None
        return {owner: record for owner, record in found.items() if record.expires > unix}

    def put(self, key: bytes, found: dict[bytes, Record], now: float, *, is_whole: bool) -> None:
        """Keep what was found; nothing found is not kept."""
        self._of.pop(key, None)
        if found:
            self._of[key] = (now, is_whole, found)
        if len(self._of) > self._p.cached_keys:
            del self._of[next(iter(self._of))]

    def forget(self, key: bytes) -> None:
        """We changed it ourselves."""
        self._of.pop(key, None)


class Reading:
    """Reads keys one after the other, a few at once, until enough was found."""

    def __init__(
        self,
        core: DhtCore,
        cache: FoundCache,
        keys: list[bytes],
        wanted: int,
        network_size: float,
        on_end: Callable[[Reading, float], None],
        accepts: Callable[[Record], bool] = lambda record: True,
    ) -> None:
        self._core = core
        self._cache = cache
        self._size = network_size
        self._left = deque(keys)
        self._wanted = wanted
        self._accepts = accepts
        self._on_end = on_end
        self._running: list[ReadKey] = []
        self._read = 0
        self.found: dict[bytes, Record] = {}
        self.is_over = False

    def start(self, now: float) -> None:
        """Begin."""
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        while not self.is_over:
            if self._count() >= self._wanted or not (self._left or self._running):
                self.end(now)
                return
            if not self._left or len(self._running) >= self._at_once():
                return
            key = self._left.popleft()
            cached = self._cache.get(key, self._wanted, now, self._core.unix(now))
            if cached is not None:
                self._merge(cached)
                self._read += 1
                continue
            missing = self._wanted - self._count()
            read = ReadKey(self._core, key, missing, self._size, self._one_ended, self._is_new)
            self._running.append(read)
            read.start(now)

    def _at_once(self) -> int:
        """One key first; then as many as seem needed, if the others hold as much as those that were read."""
        if not self._read:
            return 1
        each = self._count() / self._read
        return min(KEYS_AT_ONCE, math.ceil((self._wanted - self._count()) / each)) if each else KEYS_AT_ONCE

    def _is_new(self, record: Record) -> bool:
        return record.owner not in self.found and self._accepts(record)

    def _count(self) -> int:
        return sum(map(self._accepts, self.found.values()))

    def _merge(self, found: dict[bytes, Record]) -> None:
        for owner, record in found.items():
            old = self.found.get(owner)
            if old is None or record.sequence > old.sequence or (record.key == old.key and supersedes(record, old)):
                self.found[owner] = record

    def _one_ended(self, read: ReadKey, now: float) -> None:
        if read in self._running:
            self._running.remove(read)
        self._read += 1
        is_whole = not read.has_enough() and not self.is_over  # asked before its records become ours, after which none is new
        self._merge(read.found)
        self._cache.put(read.key, read.found, now, is_whole=is_whole)
        if not self.is_over:
            self._go_on(now)

    def end(self, now: float) -> None:
        """Give what was found."""
        if not self.is_over:
            self.is_over = True
            for read in list(self._running):
                read.end(now)
            self._on_end(self, now)
