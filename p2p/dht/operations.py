"""What a node undertakes in several steps: store a record where it belongs, read a key (pure).

Both go on to the region around a key where its nearest nodes lie suspiciously close together. A read collects until it has enough: it
pauses its look-up while a node that holds more is read page by page, and goes on when that node has no more (or nothing that holds).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from p2p.dht import packets as pk
from p2p.dht.core import DhtCore
from p2p.dht.crawl import Crawl, is_crowded, region_probes
from p2p.dht.directory import Address
from p2p.dht.records import Record, supersedes
from p2p.dht.requests import Waiting

RECORDS_PER_PAGE = 4


class StoreRecord:
    """Find the nodes for one record and store it on them; ``on_end`` gets how many took it."""

    def __init__(self, core: DhtCore, record: Record, network_size: float, on_end: Callable[[int, float], None]) -> None:
        self._core = core
        self._record = record
        self._size = network_size
        self._on_end = on_end
        self.stored = 0
        self._waiting = 0
        self._crawls = 0
        self._asked: set[int] = set()
        self.is_over = False

    def start(self, now: float) -> None:
        """Begin."""
        self._crawl(self._record.key, now, self._at_key)

    def _crawl(self, target: bytes, now: float, on_end: Callable[[Crawl, float], None]) -> None:
        self._crawls += 1
        Crawl(self._core, target, on_end, width=self._core.p.replicas).pump(now)

    def _at_key(self, crawl: Crawl, now: float) -> None:
        p = self._core.p
        near = crawl.answered(p.replicas)
        distances = [crawl.distance(id_) for id_, _ in near]
        if len(near) < p.replicas or crawl.distance(self._core.id) < distances[-1]:
            self._core.store.put(self._record, b"self", self._core.unix(now))
        if is_crowded(distances, self._size, p.replicas):
            for probe in region_probes(self._record.key, self._size, p.k):
                self._crawl(probe, now, self._store_at)
        self._store_at(crawl, now)

    def _store_at(self, crawl: Crawl, now: float) -> None:
        self._crawls -= 1
        for id_, address in crawl.answered(self._core.p.replicas):
            if id_ not in self._asked:
                self._asked.add(id_)
                if self._core.ask(now, id_, address, pk.STORE, [self._record.raw], self) is not None:
                    self._waiting += 1
        self._end_if_through(now)

    def _end_if_through(self, now: float) -> None:
        if not self._waiting and not self._crawls:
            self.end(now)

    def end(self, now: float) -> None:
        """Wait no longer."""
        if not self.is_over:
            self.is_over = True
            self._on_end(self.stored, now)

    def on_reply(self, request: Waiting, reply: pk.Reply, now: float) -> None:
        """One verdict."""
        self._waiting -= 1
        self.stored += reply.result[0] == pk.KEPT
        self._end_if_through(now)

    def on_slow(self, request: Waiting, now: float) -> None:
        """The other stores go on anyway."""

    def on_failure(self, request: Waiting, now: float) -> None:
        """One node less."""
        self._waiting -= 1
        if request.id is not None:
            self._core.table.failed(request.id, now)
        self._end_if_through(now)


class Holder:
    """A node that keeps records of the key."""

    __slots__ = ("address", "cursor", "id", "part", "seen", "total")

    def __init__(self, id_: int, address: Address) -> None:
        self.id = id_
        self.address = address
        self.cursor = bytes(pk.CURSOR_BYTES)
        self.part = -1  # the furthest part of the current answer; parts come in any order
        self.seen: set[bytes] = set()
        self.total = 0


class ReadKey:
    """Collect live records of one key until ``wanted`` of them please ``accepts``, and the nearest few nodes have had their say."""

    def __init__(
        self,
        core: DhtCore,
        key: bytes,
        wanted: int,
        network_size: float,
        on_end: Callable[[ReadKey, float], None],
        accepts: Callable[[Record], bool] = lambda record: True,
    ) -> None:
        self._core = core
        self.key = key
        self._wanted = wanted
        self._size = network_size
        self._on_end = on_end
        self._accepts = accepts
        self.found: dict[bytes, Record] = {}
        self._known: set[bytes] = set()  # raw records that were opened already
        self._holders: dict[int, Holder] = {}
        self._pager: Holder | None = None
        self._crawls: list[Crawl] = []
        self._has_probed = False
        self._heard: set[int] = set()  # nodes that answered, with records or without
        self.is_over = False
        self._page_new = 0

    def start(self, now: float) -> None:
        """Begin: with what we keep ourselves, then at nodes near the key."""
        cursor = self._core.rng.randbytes(pk.CURSOR_BYTES)
        for record in self._core.store.read(self.key, cursor, self._core.unix(now))[0]:
            self._take(record, now)
        self._crawl(self.key, cursor, now)

    def _crawl(self, target: bytes, cursor: bytes, now: float) -> None:
        crawl = Crawl(
            self._core, target, self._crawl_ended, width=self._core.p.replicas, key=self.key, on_value=self._on_value, cursor=cursor
        )
        self._crawls.append(crawl)
        crawl.pump(now)

    def _on_value(self, id_: int, address: Address, reply: pk.Reply, now: float) -> None:
        if self.is_over:
            return
        self._heard.add(id_)
        raws, total = reply.result[2], reply.result[3]
        if raws or total:
            holder = self._holders.setdefault(id_, Holder(id_, address))
            self._learn(holder, raws, total, reply.part, now)
        self._go_on(now)

    def _learn(self, holder: Holder, raws: list[bytes], total: int, part: int, now: float) -> int:
        """Take records of a holder; return how many it had not shown before."""
        holder.total = total
        new = 0
        for raw in raws:
            owner = raw[:32]
            new += owner not in holder.seen
            holder.seen.add(owner)
            if raw not in self._known:
                self._known.add(raw)
                record = self._core.open_record(raw)
                if record is None or record.key != self.key:
                    holder.total = 0  # what else it says is not worth a question
                    return 0
                self._take(record, now)
        if raws and part >= holder.part:
            holder.part, holder.cursor = part, raws[-1][: pk.CURSOR_BYTES]
        return new

    def _take(self, record: Record, now: float) -> None:
        unix = self._core.unix(now)
        if not unix < record.expires <= unix + self._core.p.max_lifetime_s + self._core.p.window_s:
            return
        old = self.found.get(record.owner)
        if old is None or supersedes(record, old):
            self.found[record.owner] = record

    def has_enough(self) -> bool:
        """Whether as many were found as were wanted."""
        return len(self.found) >= self._wanted and sum(map(self._accepts, self.found.values())) >= self._wanted

    def _go_on(self, now: float) -> None:
        has_enough = self.has_enough()
        if has_enough and len(self._heard) >= self._core.p.resiliency:  # one node alone might hide a newer record
            self.end(now)
            return
        if self._pager is None and not has_enough:
            self._next_page(now)
        for crawl in list(self._crawls):
            crawl.has_found = has_enough
            crawl.is_paused = self._pager is not None
            crawl.pump(now)
        if not self.is_over and self._pager is None and not self._crawls:
            self.end(now)

    def _next_page(self, now: float) -> None:
        unread = [h for h in self._holders.values() if h.total > len(h.seen)]
        if not unread:
            return
        holder = max(unread, key=lambda h: (h.total - len(h.seen), h.id))
        missing = min(self._wanted - len(self.found), holder.total - len(holder.seen))
        pages = max(2, min(self._core.p.pages, -(-missing // RECORDS_PER_PAGE)))
        args: list[Any] = [self.key, self.key, holder.cursor, pages]
        if self._core.ask(now, holder.id, holder.address, pk.FIND_VALUE, args, self) is not None:
            self._pager = holder
            holder.part = -1
            self._page_new = 0

    def on_reply(self, request: Waiting, reply: pk.Reply, now: float) -> None:
        """One page of a holder."""
        if self._pager is None or self._pager.id != request.id or self.is_over:
            return
        self._page_new += self._learn(self._pager, reply.result[2], reply.result[3], reply.part, now)
        if request.is_over or self.has_enough():
            self._page_over(now)

    def _page_over(self, now: float) -> None:
        if self._pager is not None and not self._page_new:
            self._pager.total = 0  # nothing new: it has no more, or lies about it
        self._pager = None
        self._go_on(now)

    def on_slow(self, request: Waiting, now: float) -> None:
        """Some pages are lost: what came is kept."""
        if request.is_over and not self.is_over:
            self._page_over(now)

    def on_failure(self, request: Waiting, now: float) -> None:
        """The holder went away."""
        if request.id is not None:
            self._core.table.failed(request.id, now)
            if request.id in self._holders:
                self._holders[request.id].total = 0
        if not self.is_over:
            self._pager = None
            self._go_on(now)

    def _crawl_ended(self, crawl: Crawl, now: float) -> None:
        if crawl in self._crawls:
            self._crawls.remove(crawl)
        if self.is_over:
            return
        if not self._has_probed:
            self._has_probed = True
            near = [crawl.distance(id_) for id_, _ in crawl.answered(self._core.p.replicas)]
            if is_crowded(near, self._size, self._core.p.replicas):
                for probe in region_probes(self.key, self._size, self._core.p.k):
                    self._crawl(probe, self._core.rng.randbytes(pk.CURSOR_BYTES), now)
        if not self._crawls:
            self._go_on(now)

    def end(self, now: float) -> None:
        """Collect no more."""
        if not self.is_over:
            self.is_over = True
            for crawl in self._crawls:
                crawl.is_over = True
            self._on_end(self, now)
