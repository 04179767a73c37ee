"""A network of DHT cores in virtual time: latency, loss, dead nodes, churn, liars. A heap of events; no clock, no socket, no task."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from random import Random
from typing import Any

from p2p.dht.addressing import group_of, packed
from p2p.dht.agent import DhtAgent
from p2p.dht.core import DhtCore, Done, Send
from p2p.dht.directory import Address
from p2p.dht.parameters import DEFAULTS, Parameters, make_network_id
from p2p.dht.routing import Contact

NETWORK_ID = make_network_id("virtual")
UNIX = 1_800_000_000.0


class CheapKey:
    """Signs with a keyed hash: no security, and none is needed where nobody forges; 30 times faster than Ed25519."""

    def __init__(self, public: bytes) -> None:
        self.public = public

    def sign(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, key=self.public).digest()


def cheap_verify(public: bytes, data: bytes, signature: bytes) -> bool:
    return hashlib.blake2b(data, key=public).digest() == signature


class Node:
    """One node of the virtual network."""

    def __init__(self, network: VirtualNetwork, number: int, public: bytes, parameters: Parameters) -> None:
        self.network = network
        self.number = number
        self.address: Address = (f"{23 + number // 65536}.{number // 256 % 256}.{number % 256}.7", 8468)
        self.rng = Random(f"node {number} {network.seed}")
        core = DhtCore(CheapKey(public), NETWORK_ID, self.rng, parameters, unix_offset=UNIX, verify=cheap_verify)
        self.agent = DhtAgent(core, network.now)
        self.is_alive = True
        self.done: dict[int, Any] = {}
        self._wake_at: float | None = None

    @property
    def core(self) -> DhtCore:
        return self.agent.core

    def receive(self, data: bytes, sender: Address) -> None:
        if self.is_alive:
            self.perform(self.agent.on_datagram(self.network.now, data, sender))

    def perform(self, effects: list[Any] | None = None) -> None:
        for effect in [*(effects or ()), *self.core.take_effects()]:
            if isinstance(effect, Send):
                self.network.send(effect.data, self, effect.address)
            elif isinstance(effect, Done):
                self.done[effect.operation] = effect.outcome
        self.sleep()

    def sleep(self) -> None:
        """Wake the agent at its deadline."""
        at = self.agent.next_deadline()
        if self._wake_at is None or at < self._wake_at - 1e-9:
            self._wake_at = at
            self.network.at(at, lambda: self.wake(at))

    def wake(self, due: float) -> None:
        if self._wake_at == due:
            self._wake_at = None
            if self.is_alive:
                self.perform(self.agent.tick(self.network.now))


class VirtualNetwork:
    """All nodes, and the events that are to come."""

    def __init__(
        self, seed: int = 1, *, one_way_s: tuple[float, float] = (0.020, 0.080), loss: float = 0.0, parameters: Parameters = DEFAULTS
    ) -> None:
        self.seed = seed
        self.rng = Random(f"network {seed}")
        self.now = 1000.0
        self.one_way_s = one_way_s
        self.loss = loss
        self.parameters = parameters
        self.nodes: list[Node] = []
        self.made = 0
        self.by_address: dict[Address, Node] = {}
        self.datagrams = 0
        self.bytes = 0
        self.largest = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def add(self, count: int = 1, make: type[Node] = Node, public: bytes | None = None) -> list[Node]:
        made = []
        for _ in range(count):
            self.made += 1
            node = make(self, self.made, public or self.rng.randbytes(32), self.parameters)
            self.nodes.append(node)
            self.by_address[node.address] = node
            made.append(node)
        return made

    def at(self, time: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, what))

    def send(self, data: bytes, sender: Node, to: Address) -> None:
        self.datagrams += 1
        self.bytes += len(data)
        self.largest = max(self.largest, len(data))
        receiver = self.by_address.get(to)
        if receiver is None or (self.loss and self.rng.random() < self.loss):
            return
        self.at(self.now + self.rng.uniform(*self.one_way_s), lambda: receiver.receive(data, sender.address))

    def step(self) -> bool:
        if not self._heap:
            return False
        time, _, what = heapq.heappop(self._heap)
        self.now = max(self.now, time)
        what()
        return True

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.step()
        self.now = end

    def wait(self, node: Node, operation: int, at_most_s: float = 120.0) -> Any:
        """Run until an operation ends; its outcome."""
        node.perform()
        end = self.now + at_most_s
        while operation not in node.done:
            assert self.now < end and self.step(), "the operation did not end"
        return node.done.pop(operation)

    def fill_tables(self, known: list[Node] | None = None) -> None:
        """Give every node the table that hours of traffic would: in each bucket random nodes, up to k."""
        nodes = known or self.nodes
        p = self.parameters
        for node in nodes:
            table = node.core.table
            order = nodes[:]
            node.rng.shuffle(order)
            for other in order:
                bits = table.shared_bits(other.core.id)
                if other is not node and len(table._buckets.get(bits, ())) < p.k:
                    contact = Contact(other.core.id, other.address, group_of(other.address, p.allow_private), self.now)
                    table._place(contact, bits)

    def true_nearest(self, target: bytes, count: int, *, of: list[Node] | None = None) -> list[Node]:
        goal = int.from_bytes(target, "big")
        return sorted((n for n in of or self.nodes if n.is_alive), key=lambda n: n.core.id ^ goal)[:count]


class Colluder(Node):
    """Answers only with other colluders, the nearest to what is asked; takes records and drops them."""

    ring: list[Colluder]

    def __init__(self, network: VirtualNetwork, number: int, public: bytes, parameters: Parameters) -> None:
        super().__init__(network, number, public, parameters)
        rings: dict[str, list[Colluder]] = network.__dict__.setdefault("rings", {})
        self.ring = rings.setdefault(type(self).__name__, [])
        self.ring.append(self)
        core = self.core
        core._contacts_near = self.contacts_near  # type: ignore[method-assign]
        core.store.put = lambda record, group, unix: 1  # type: ignore[method-assign]

    def contacts_near(self, target: bytes, asker: int, room: int) -> list[bytes]:
        goal = int.from_bytes(target, "big")
        near = sorted((n for n in self.ring if n.core.id != asker), key=lambda n: n.core.id ^ goal)[: min(20, max(0, room) // 26)]
        return [b"".join(n.core.node_id + packed(n.address) for n in near), b""]


class Dropper(Node):
    """Behaves, but drops the records it is given."""

    def __init__(self, network: VirtualNetwork, number: int, public: bytes, parameters: Parameters) -> None:
        super().__init__(network, number, public, parameters)
        self.core.store.put = lambda record, group, unix: 1  # type: ignore[method-assign]
