"""The directory over the network: one agent, one socket, the clock (I/O).

Cancelling a call leaves the node as it was: what was begun ends by its own deadline and its outcome is dropped.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import trio

from p2p.base.clock import Monotonic
from p2p.base.errors import MalformedMessage
from p2p.base.keys import Identity
from p2p.dht.adapter import Overlay, close_overlay, open_overlay
from p2p.dht.addressing import unpacked
from p2p.dht.advertisement import Advertisement, Listing
from p2p.dht.agent import DhtAgent
from p2p.dht.core import DhtCore, Done, Effect, Send
from p2p.dht.directory import Address, Bucket, DirectoryStatus, Peer, Published, Traffic
from p2p.dht.packets import METHODS, Reply, find_work
from p2p.dht.parameters import DEFAULTS, PUBLIC_NETWORK, Parameters
from p2p.dht.records import Record
from p2p.dht.requests import Waiting
from p2p.dht.routing import saved_contacts_untrusted
from p2p.net.asyncio_bridge import open_bridge
from p2p.net.clock import read_monotonic

_log = logging.getLogger("parallel.dht")
SAVE_EVERY_S = 120.0
LONGEST_SLEEP_S = 60.0
MAX_FILE_BYTES = 256 << 10
RATE_WINDOW_S = 60.0
TELL_EVERY_S = 60.0  # at most, of datagrams that were dropped
RESOLVE_S = 5.0


@asynccontextmanager
async def open_dht(
    identity: Identity,
    *,
    network_id: bytes = PUBLIC_NETWORK,
    host: str = "0.0.0.0",
    port: int = 0,
    parameters: Parameters = DEFAULTS,
    contacts_file: Path | None = None,
    bootstrap: Sequence[Address] = (),
    is_read_only: bool = False,
    rng: Random | None = None,
) -> AsyncIterator[DhtNode]:
    """A node of the network for the length of the block. ``contacts_file``: contacts are kept there, so that a restart needs no bootstrap.

    ``bootstrap``: (host name or IP, port). Raises `Unavailable` when the UDP port cannot be had.
    """
    async with open_bridge():
        work = await trio.to_thread.run_sync(find_work, identity.public, min(network_id[-1], 32))
        core = DhtCore(identity, network_id, rng or SystemRandom(), parameters, work=work, is_read_only=is_read_only)
        node = DhtNode(core, contacts_file)
        overlay = await open_overlay(core.node_id, node.receive, host, port)
        node.attach(overlay)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.run)
                nursery.start_soon(node.save_regularly)
                if bootstrap or node.has_remembered:
                    nursery.start_soon(node.join, bootstrap)
                yield node
                nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(2, shield=True):
                await node.save()
                await close_overlay(overlay)


class DhtNode:
    """Keeps `p2p.dht.directory.Directory`. Made by `open_dht`."""

    def __init__(self, core: DhtCore, contacts_file: Path | None) -> None:
        self._core = core
        self._file = contacts_file
        self._set_clock()
        self._agent = DhtAgent(core, read_monotonic())
        self._overlay: Overlay | None = None
        self._waiting: dict[int, tuple[trio.Event, list[Any]]] = {}
        self._earlier = trio.Event()
        self._sleeps_until = 0.0
        self._told: Counter[str] = Counter()  # drops that the log knows of
        self._tells_at = 0.0
        self._counts: deque[tuple[float, dict[int, tuple[int, int]]]] = deque(maxlen=16)
        self._agent.remembered = self._load()

    @property
    def has_remembered(self) -> bool:
        """Whether contacts of an earlier run are there to be asked."""
        return bool(self._agent.remembered)

    @property
    def node_id(self) -> bytes:
        """Our place in the network."""
        return self._core.node_id

    @property
    def network_id(self) -> bytes:
        """Which network it is."""
        return self._core.network_id

    def attach(self, overlay: Overlay) -> None:
        """From now on datagrams can be sent."""
        self._overlay = overlay

    @property
    def address(self) -> Address | None:
        """Where we listen; the host may be a wildcard."""
        return None if self._overlay is None else self._overlay.address()

    def seen_addresses(self) -> tuple[Address, ...]:
        """Our address as different networks' nodes saw it, oldest word first."""
        return tuple(unpacked(at) for at in self._core.seen_as.values())

    def set_read_only(self, is_read_only: bool) -> None:
        """A node that cannot be reached asks, and is put in no table."""
        self._core.is_read_only = is_read_only

    # --- driving the agent

    def _set_clock(self) -> None:
        self._core.unix_offset = time.time() - time.monotonic()

    def receive(self, data: bytes, address: Address) -> None:
        """A datagram came."""
        self._perform(self._agent.on_datagram(read_monotonic(), data, address))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                if self._overlay is not None:
                    self._overlay.send(effect.data, effect.address)
            else:
                self._outcome(effect)
        if self._agent.next_deadline() < self._sleeps_until:
            self._earlier.set()

    def _outcome(self, done: Done) -> None:
        waiter = self._waiting.get(done.operation)
        if waiter is not None:  # else whoever asked was cancelled
            waiter[1].append(done.outcome)
            waiter[0].set()

    async def run(self) -> None:
        """Wake the agent when it wants to be."""
        while True:
            now = read_monotonic()
            self._sleeps_until = min(self._agent.next_deadline(), now + LONGEST_SLEEP_S)
            with trio.move_on_after(max(0.0, self._sleeps_until - now)):
                await self._earlier.wait()
            self._earlier = trio.Event()
            self._set_clock()
            now = read_monotonic()
            if not self._counts or now - self._counts[-1][0] >= RATE_WINDOW_S / 6:
                self._counts.append((now, {m: (self._core.sent[m], self._core.served[m]) for m in METHODS}))
            self._perform(self._agent.tick(now))
            self._tell_drops(now)
            await trio.lowlevel.checkpoint()

    def _tell_drops(self, now: Monotonic) -> None:
        """One line a minute on datagrams that were dropped, if there were any."""
        if now >= self._tells_at and (fresh := self._core.drops - self._told):
            self._tells_at = now + TELL_EVERY_S
            self._told = Counter(self._core.drops)
            _log.warning("dropped %d datagrams: %s", fresh.total(), ", ".join(f"{n} {why}" for why, n in sorted(fresh.items())))

    async def _wait(self, operation: int, deadline_s: float) -> Any:
        """The outcome, or None when it does not come in time."""
        waiter: tuple[trio.Event, list[Any]] = (trio.Event(), [])
        self._waiting[operation] = waiter
        try:
            self._perform(self._core.take_effects())
            with trio.move_on_after(deadline_s):
                await waiter[0].wait()
            return waiter[1][0] if waiter[1] else None
        finally:
            del self._waiting[operation]

    # --- Directory

    async def join(self, addresses: Sequence[Address]) -> int:
        """Ask these for the network, besides remembered ones; return how many nodes are known afterwards."""
        found: list[Address] = []
        for host, port in addresses:
            found += await _resolve(host, port, is_v6=":" in (self.address or ("", 0))[0])
        operation = self._agent.join(read_monotonic(), found)
        await self._wait(operation, 3 * self._core.p.lookup_deadline_s)
        return len(self._core.table)

    async def publish(self, advertisement: Advertisement) -> Published:
        """Advertise, and go on doing so until withdrawn or closed."""
        operation = self._agent.publish(read_monotonic(), advertisement)
        return await self._published(operation)

    async def put(self, kind: str, key: bytes, payload: bytes, lifetime_s: int) -> Published:
        """Store one record, and again at a third of its lifetime while this node runs."""
        return await self._published(self._agent.put(read_monotonic(), kind, key, payload, lifetime_s))

    async def _published(self, operation: int) -> Published:
        outcome = await self._wait(operation, 3 * self._core.p.lookup_deadline_s)
        return outcome if isinstance(outcome, Published) else Published(keys=0, stored=0)

    async def withdraw(self, capability: str) -> None:
        """Stop advertising, and tell those who keep it."""
        operation = self._agent.withdraw(read_monotonic(), capability)
        if operation is not None:
            await self._published(operation)

    async def find(self, capability: str, wanted: int, deadline_s: float) -> tuple[Listing, ...]:
        """Up to ``wanted`` verified live advertisements, in random order."""
        operation = self._agent.find(read_monotonic(), capability, wanted, deadline_s)
        found = await self._wait(operation, deadline_s + 1.0)
        return found or ()

    async def get(self, key: bytes, wanted: int, deadline_s: float) -> tuple[Record, ...]:
        """Verified live records under a key."""
        operation = self._agent.get(read_monotonic(), key, wanted, deadline_s)
        found = await self._wait(operation, deadline_s + 1.0)
        return found or ()

    async def ping(self, address: Address) -> float | None:
        """Seconds until a node answered, or None."""
        for host_port in await _resolve(*address, is_v6=":" in (self.address or ("", 0))[0]):
            probe = Probe()
            began = read_monotonic()
            self._core.ping(began, None, host_port, probe)
            self._perform(self._core.take_effects())
            with trio.move_on_after(3 * self._core.p.max_rto_s + 1.0):
                await probe.is_over.wait()
            if probe.answered_at is not None:
                return probe.answered_at - began
        return None

    def status(self) -> DirectoryStatus:
        """Facts for people."""
        core, now = self._core, read_monotonic()
        peers = [
            Peer(node_id=c.node_id, address=c.address, answered_ago_s=now - c.answered_at, round_trip_s=c.rtt.avg_s, failures=c.failures)
            for c in core.table
        ]
        return DirectoryStatus(
            node_id=core.node_id,
            address=self.address,
            network_size=self._agent.network_size(),
            peers=tuple(sorted(peers, key=lambda p: p.answered_ago_s)),
            buckets=tuple(Bucket(shared_bits=b, contacts=n, replacements=r) for b, n, r in core.table.fill()),
            rpc={name: self._traffic(method, now) for method, name in METHODS.items()},
            drops=dict(core.drops),
            records_held=core.store.count,
            published=self._agent.published,
            skew_s=core.clocks.median(now, is_alone=not peers),
            equivocations=len(core.store.equivocations),
        )

    def _traffic(self, method: int, now: Monotonic) -> Traffic:
        core = self._core
        since, old = next(((t, c) for t, c in self._counts if now - t <= RATE_WINDOW_S), (now, {}))
        sent, served = old.get(method, (core.sent[method], core.served[method]))
        passed = max(1.0, now - since)
        return Traffic(
            sent=core.sent[method],
            answered=core.answered[method],
            failed=core.flying.failed[method],
            served=core.served[method],
            sent_per_s=(core.sent[method] - sent) / passed,
            served_per_s=(core.served[method] - served) / passed,
        )

    # --- contacts on disk

    def _load(self) -> list[tuple[bytes, Address]]:
        if self._file is None or not self._file.is_file():
            return []
        try:
            if self._file.stat().st_size > MAX_FILE_BYTES:
                raise MalformedMessage("the file of contacts is too large")
            return saved_contacts_untrusted(self._file.read_bytes())
        except (MalformedMessage, OSError) as error:
            _log.warning("contacts of the last run cannot be used: %s", error)
            return []

    async def save(self) -> None:
        """Write the contacts worth asking after a restart; an empty table does not replace what is there."""
        if self._file is not None and len(self._core.table):
            await trio.to_thread.run_sync(_write, self._file, self._core.table.save())

    async def save_regularly(self) -> None:
        """Every two minutes."""
        while True:
            await trio.sleep(SAVE_EVERY_S)
            try:
                await self.save()
            except OSError as error:
                _log.warning("contacts cannot be saved: %s", error)


class Probe:
    """One ping and when it was answered."""

    def __init__(self) -> None:
        self.is_over = trio.Event()
        self.answered_at: float | None = None

    def on_reply(self, request: Waiting, reply: Reply, now: float) -> None:
        """There it is."""
        self.answered_at = now
        self.is_over.set()

    def on_slow(self, request: Waiting, now: float) -> None:
        """Wait on."""

    def on_failure(self, request: Waiting, now: float) -> None:
        """No answer."""
        self.is_over.set()


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(data)
    os.replace(part, path)


async def _resolve(host: str, port: int, *, is_v6: bool) -> list[Address]:
    """IP addresses of a name that our socket can send to; none when it cannot be resolved in time."""
    found: list[Address] = []
    with trio.move_on_after(RESOLVE_S):
        try:
            rows = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_DGRAM)
        except OSError as error:
            _log.warning("cannot resolve %s: %s", host, error)
            return []
        for family, _, _, _, address in rows:
            if is_v6 or family == trio.socket.AF_INET:
                found.append((str(address[0]).partition("%")[0], int(address[1])))
    return list(dict.fromkeys(found))
