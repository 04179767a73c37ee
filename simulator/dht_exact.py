"""Look-ups by the shipped core of a node (`p2p.dht`), a few thousand nodes in virtual time (pure).

Every datagram is packed, signed with a stand-in of the same length, carried by the simulated network, checked and answered as shipped.
Tables are the ones that hours of traffic would give: in each bucket random nodes, up to k, told to the core as nodes that have answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import numpy as np

from p2p.dht import packets as pk
from p2p.dht.core import DhtCore, Send
from p2p.dht.crawl import Crawl
from p2p.dht.directory import Address
from p2p.dht.parameters import Parameters, make_network_id
from simulator.chance import seed_word, unit, word
from simulator.dht_search import Found
from simulator.engine import Engine
from simulator.network import LinkFaults, Network

NETWORK_ID: Final = make_network_id("simulator")
UNIX: Final = 1_800_000_000.0
START_S: Final = 1000.0
APART_S: Final = 0.02  # between the beginnings of two look-ups: no node comes near its limits of requests per second
ID_BITS: Final = 160


class StandInKey:
    """Signs with a keyed hash of a signature's length: nobody forges here, and it is thirty times faster."""

    def __init__(self, public: bytes) -> None:
        self.public = public

    def sign(self, data: bytes) -> bytes:
        """64 bytes."""
        return hashlib.blake2b(data, key=self.public).digest()


def stand_in_verify(public: bytes, data: bytes, signature: bytes) -> bool:
    """Whether `StandInKey` made it."""
    return hashlib.blake2b(data, key=public).digest() == signature


class ExactNode:
    """One shipped core in virtual time."""

    def __init__(self, world: ExactNetwork, number: int) -> None:
        self.world, self.number = world, number
        # one /24 each, so that limits per address group do not shape the tables
        self.address: Address = (f"{23 + number // 65536}.{number // 256 % 256}.{number % 256}.7", 8468)
        public = b"".join(word(seed_word(world.seed, "keys"), number, part).to_bytes(8, "big") for part in range(4))
        rng = Random(f"{world.seed}/{number}")
        self.core = DhtCore(StandInKey(public), NETWORK_ID, rng, world.parameters, unix_offset=UNIX, verify=stand_in_verify)
        self.is_dead = unit(seed_word(world.seed, "dead"), number) < world.dead
        self._wake_at = float("inf")

    def receive(self, packet: tuple[bytes, Address]) -> None:
        """A datagram came."""
        if not self.is_dead:
            self.perform(self.core.on_datagram(self.world.now, *packet))

    def perform(self, effects: list[Any]) -> None:
        """Do what the core wants done, and set its alarm."""
        for effect in effects:
            if isinstance(effect, Send):
                self.world.carry(self, effect)
        due = self.core.next_deadline()
        if due is not None and due < self._wake_at:
            self._wake_at = due
            self.world.engine.at(due, self._wake, due)
        self.world.validate(self)

    def _wake(self, due: float) -> None:
        if due == self._wake_at:
            self._wake_at = float("inf")
            self.perform(self.core.tick(self.world.now))


@dataclass(slots=True)
class _Lookup:
    """What is noted of one look-up."""

    began: float
    node: ExactNode
    target: int
    depth: dict[int, int] = field(default_factory=dict)
    requests: int = 0
    ended: float | None = None
    answered: list[int] = field(default_factory=list)


class ExactNetwork:
    """All nodes."""

    def __init__(self, nodes: int, *, seed: int, parameters: Parameters, dead: float, loss: float, validate_every: int = 0) -> None:
        self.seed, self.parameters, self.dead = seed, parameters, dead
        self.engine = Engine()
        self.engine.run(until=START_S)
        self.network = Network(self.engine, seed, LinkFaults(loss=loss, jitter=0.0))
        self._validate_every, self._handled, self._open = validate_every, 0, 0
        self.nodes = [ExactNode(self, number) for number in range(nodes)]
        self.at_address = {node.address: node for node in self.nodes}
        self._fill()

    @property
    def now(self) -> float:
        """Virtual time."""
        return self.engine.now

    def validate(self, node: ExactNode) -> None:
        """Check the core's invariants, now and then."""
        self._handled += 1
        if self._validate_every and self._handled % self._validate_every == 0:
            node.core.validate()

    def carry(self, sender: ExactNode, effect: Send) -> None:
        """Put a datagram on the wire."""
        receiver = self.at_address.get(effect.address)
        if receiver is not None:
            self.network.send(sender.number, receiver.number, len(effect.data), receiver.receive, (effect.data, sender.address))

    def _fill(self) -> None:
        order = sorted(self.nodes, key=lambda n: n.core.id)
        ids = [n.core.id for n in order]
        for node in self.nodes:
            for depth, first, last in _intervals(ids, node.core.id):
                for other in _some(order[first:last], self.parameters.k, seed_word(self.seed, f"table {depth}"), node.number):
                    node.core.table.answered(other.core.id, other.address, self.now)

    def look_up(self, count: int, *, width: int) -> list[_Lookup]:
        """Run look-ups for random keys from random live nodes, one begun every 20 ms."""
        alive = [n for n in self.nodes if not n.is_dead]
        notes = []
        for number in range(count):
            node = alive[word(seed_word(self.seed, "requester"), number) % len(alive)]
            target = int.from_bytes(hashlib.blake2b(f"{self.seed}/{number}".encode(), digest_size=20).digest(), "big")
            notes.append(_Lookup(0.0, node, target))
            self.engine.at(START_S + 1 + number * APART_S, self._begin, (notes[-1], width))
        self._open = count
        self.engine.run_while(lambda: self._open > 0, max_events=10**9, why=lambda: f"{self._open} look-ups have not ended")
        return notes

    def _begin(self, task: tuple[_Lookup, int]) -> None:
        note, width = task
        core = note.node.core
        note.began = self.now

        def learnt(id_: int, address: Address, reply: pk.Reply, now: float) -> None:
            deeper = note.depth.get(id_, 0) + 1
            for other, _ in pk.contacts_in(reply.result[0], reply.result[1]):
                note.depth[other] = min(deeper, note.depth.get(other, deeper))

        def ended(crawl: Crawl, now: float) -> None:
            note.ended = now
            self._open -= 1
            note.answered = [id_ for id_, _ in crawl.answered(self.parameters.k)]
            note.requests = crawl._lookup.count(1, 2, 3, 4)  # everybody who was asked

        for contact in core.table.nearest(note.target, self.parameters.k):
            note.depth[contact.id] = 0
        Crawl(core, note.target.to_bytes(20, "big"), ended, width=width, on_value=learnt).pump(self.now)
        note.node.perform(core.take_effects())

    def found(self, notes: list[_Lookup]) -> Found:
        """The measures of the vectorised engine."""
        ids = [n.core.id for n in self.nodes if not n.is_dead]
        k, count = self.parameters.k, len(notes)
        whole = [np.zeros(count, dtype=np.int64) for _ in range(2)]
        out = Found(np.zeros(count, dtype=bool), whole[0], whole[1], np.zeros(count), np.zeros(count))
        for at, note in enumerate(notes):
            truth = set(sorted(ids, key=lambda i, t=note.target: i ^ t)[:k])  # type: ignore[misc]
            out.is_success[at] = bool(truth & set(note.answered))
            out.recall[at] = len(truth & (set(note.answered) | set(note.depth))) / len(truth)
            out.hops[at] = note.depth.get(note.answered[0], 0) + 1 if note.answered else 0
            out.messages[at] = note.requests
            out.latency_s[at] = (note.ended or note.began) - note.began
        return out


def _intervals(ids: list[int], own: int) -> Iterator[tuple[int, int, int]]:
    """(bits, first, last) of each bucket of a node in the sorted ids."""
    low, high = 0, len(ids)
    for depth in range(ID_BITS):
        if high - low <= 1:
            return
        bit = 1 << (ID_BITS - 1 - depth)
        middle = low
        step = high - low
        while step:  # bisect by one bit
            half = step // 2
            if ids[middle + half] & bit:
                step = half
            else:
                middle, step = middle + half + 1, step - half - 1
        if own & bit:
            yield depth, low, middle
            low = middle
        else:
            yield depth, middle, high
            high = middle


def _some(nodes: list[ExactNode], count: int, key: int, number: int) -> list[ExactNode]:
    """``count`` of them at random, or all."""
    if len(nodes) <= count:
        return nodes
    chosen: dict[int, None] = {}
    event = 0
    while len(chosen) < count:
        chosen[word(key, number, event) % len(nodes)] = None
        event += 1
    return [nodes[i] for i in chosen]
