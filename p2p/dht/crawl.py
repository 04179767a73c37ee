"""One look-up on its way through the network: `Lookup` decides whom to ask, the core asks (pure)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from p2p.base.ids import NODE_ID_BYTES
from p2p.dht import packets as pk
from p2p.dht.core import DhtCore
from p2p.dht.directory import Address
from p2p.dht.lookup import Lookup
from p2p.dht.requests import Waiting


class Crawl:
    """Asks until the look-up is through; then ``on_end`` is called once."""

    def __init__(
        self,
        core: DhtCore,
        target: bytes,
        on_end: Callable[[Crawl, float], None],
        *,
        width: int,
        key: bytes | None = None,
        on_value: Callable[[int, Address, pk.Reply, float], None] | None = None,
        cursor: bytes = bytes(pk.CURSOR_BYTES),
    ) -> None:
        self._core = core
        self._target = target
        self._key = key
        self._on_end = on_end
        self._on_value = on_value
        self._cursor = cursor
        self.has_found = False  # a read may end once its nearest few have answered
        self.is_paused = False
        self.is_over = False
        self._addresses: dict[int, Address] = {}
        self._asked_anew: set[int] = set()
        p = core.p
        goal = int.from_bytes(target, "big")
        seeds = core.table.nearest(goal, p.k)
        if len(seeds) < p.k:
            known = {c.id for c in seeds}
            seeds += [c for c in core.table.nearest(goal, p.k, is_reliable=False) if c.id not in known]
        alpha = p.alpha if key is None else p.read_alpha
        at = [(c.id, c.packed) for c in seeds]
        self._lookup = Lookup(
            goal, core.id, at, width=width, alpha=alpha, paths=p.paths, resiliency=p.resiliency, queries=p.queries_per_lookup
        )

    def pump(self, now: float) -> None:
        """Ask whom there is to ask; end when nothing is left."""
        if not self._addresses:
            self._core.table.looked_up(int.from_bytes(self._target, "big"), now)
        if self.is_over or self.is_paused:
            return
        while queries := self._lookup.next_queries():
            for id_, at in queries:
                self._ask(id_, at, now)
        if self._lookup.is_through(has_found=self.has_found):
            self.end(now)

    def _ask(self, id_: int, at: bytes, now: float) -> None:
        address = self._core.address_of(at)
        if address is None:
            self._lookup.on_failure(id_)
            return
        self._addresses[id_] = address
        args: list[Any] = [self._target]
        if self._key is not None:
            args = [self._key, self._target, self._cursor, 1]
        method = pk.FIND_NODE if self._key is None else pk.FIND_VALUE
        if self._core.ask(now, id_, address, method, args, self) is None:
            self._lookup.on_failure(id_)

    def end(self, now: float) -> None:
        """Ask no more; answers that still come are ignored."""
        if not self.is_over:
            self.is_over = True
            self._on_end(self, now)

    def on_reply(self, request: Waiting, reply: pk.Reply, now: float) -> None:
        """Learn from an answer."""
        if request.id is None or self.is_over:
            return
        if reply.part == 0:
            self._lookup.on_answer(request.id, list(pk.contacts_in(reply.result[0], reply.result[1]))[: self._core.p.k])
        if self._on_value is not None:
            self._on_value(request.id, request.address, reply, now)
        self.pump(now)

    def on_slow(self, request: Waiting, now: float) -> None:
        """Ask another meanwhile."""
        if request.id is not None and not self.is_over:
            self._lookup.on_slow(request.id)
            self.pump(now)

    def on_failure(self, request: Waiting, now: float) -> None:
        """Do without it; where datagrams get lost, not before one more question, if it is one of those that are looked for."""
        if request.id is None or self._asks_anew(request, now):
            return
        self._core.table.failed(request.id, now)
        if not self.is_over:
            self._lookup.on_failure(request.id)
            self.pump(now)

    def _asks_anew(self, request: Waiting, now: float) -> bool:
        id_ = request.id
        if id_ is None or self.is_over or id_ in self._asked_anew or not self._core.is_lossy or not self._lookup.is_near(id_):
            return False
        self._asked_anew.add(id_)
        return self._core.ask(now, id_, request.address, request.method, request.args, self) is not None

    def answered(self, count: int) -> list[tuple[int, Address]]:
        """The nearest that answered, nearest first."""
        return [(id_, self._addresses[id_]) for id_ in self._lookup.answered(count)]

    def distance(self, id_: int) -> int:
        """From the target."""
        return id_ ^ self._lookup.target


def region_probes(key: bytes, network_size: float, k: int) -> list[bytes]:
    """Two places beside a key within the part of the id space that holds about 2k nodes.

    Nodes made to lie nearest to the key are one clump seen from there, so look-ups for these places find the honest ones around it.
    Source of the idea (store in a region, not at the nearest k): arXiv 2505.01139.
    """
    shared = max(0, int(max(1.0, network_size / (2 * k))).bit_length() - 1)
    at = int.from_bytes(key, "big")
    bits = 8 * NODE_ID_BYTES
    return [(at ^ (1 << (bits - 1 - shared - n))).to_bytes(NODE_ID_BYTES, "big") for n in (0, 1)]


def is_crowded(distances: list[int], network_size: float, k: int) -> bool:
    """Whether the k nearest lie much nearer than chance puts them: four times as dense has a probability of about 10^-7 for k = 20."""
    if len(distances) < k or network_size < 2 * k:
        return False
    return distances[k - 1] < (k / network_size) * 2.0 ** (8 * NODE_ID_BYTES) / 4
