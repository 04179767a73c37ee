"""Store and get among 1,024 nodes of the network of companies in one process, without latency (I/O: reads clocks).

The same shape as hivemind's published benchmark (docs/user/benchmarks.md: 1,024 peers on one machine, no latency, no failures, five
replicas: store 14.87 ms, get 6.64 ms in the mean), on another machine: its numbers stand here as goals, not as a race in one run. Every
packet and record is signed and verified with Ed25519. Tables are filled beforehand as hours of traffic would leave them.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from dataclasses import replace
from random import Random

from benchmarks.rows import Row
from p2p.base.keys import Identity
from p2p.dht.agent import DhtAgent
from p2p.dht.core import DhtCore, Effect, Send
from p2p.dht.directory import Address, Published
from p2p.dht.parameters import Parameters, make_network_id

NETWORK_ID = make_network_id("benchmark")
PARAMETERS = Parameters(replicas=5, refresh_s=1e9, unproved_per_s=1e9, unproved_burst=1e9)
HIVEMIND_STORE_MS, HIVEMIND_GET_MS = 14.87, 6.64
VALUE = b"v" * 64


class Swarm:
    """All nodes, and a queue in the place of the network."""

    def __init__(self, count: int, parameters: Parameters = PARAMETERS) -> None:
        rng = Random("swarm")
        self.agents: dict[Address, DhtAgent] = {}
        offset = time.time() - time.monotonic()
        for n in range(count):
            core = DhtCore(Identity(rng.randbytes(32)), NETWORK_ID, Random(n), parameters, unix_offset=offset)
            self.agents[(f"23.{n // 250}.{n % 250}.1", 8468)] = DhtAgent(core, time.monotonic())
        self.queue: deque[tuple[bytes, Address, Address]] = deque()
        self.datagrams = 0
        self._fill(rng)

    def _fill(self, rng: Random) -> None:
        everybody = list(self.agents.items())
        for agent in self.agents.values():
            for address, other in rng.sample(everybody, len(everybody)):
                if agent.core.table.wants(other.core.id, address):
                    agent.core.table.answered(other.core.id, address, time.monotonic())

    def finish(self, at: Address, operation: int) -> object:
        """Deliver datagrams until none is on its way; the outcome of the operation."""
        outcome = self._send(at, self.agents[at].core.take_effects(), operation)
        while self.queue:
            data, sender, receiver = self.queue.popleft()
            effects = self.agents[receiver].on_datagram(time.monotonic(), data, sender)
            found = self._send(receiver, effects, operation if receiver == at else -1)
            outcome = found if found is not None else outcome
        return outcome

    def _send(self, at: Address, effects: list[Effect], operation: int) -> object:
        outcome: object = None
        for effect in effects:
            if isinstance(effect, Send):
                self.datagrams += 1
                self.queue.append((effect.data, at, effect.address))
            elif effect.operation == operation:
                outcome = effect.outcome
        return outcome


def dht_rows(*, quick: bool) -> list[Row]:
    """Mean wall and CPU time of a store and of a get, and packets: as shipped, and with fewer requests in flight.

    Requests in flight beyond what is needed buy latency with packets; here there is no latency to buy.
    """
    peers, operations = (64, 20) if quick else (1024, 300)
    counted = f"{peers} nodes in one process, no latency, 5 replicas, all signatures on; mean of {operations}, one after the other"
    store = Row("DHT store", counted, "ms", "less", goal=HIVEMIND_STORE_MS)
    get = Row("DHT get", counted, "ms", "less", goal=HIVEMIND_GET_MS)
    for name, parameters in (("company", PARAMETERS), ("company, 3 in flight", replace(PARAMETERS, alpha=3, read_alpha=3))):
        swarm = Swarm(peers, parameters)
        keys = [Random(n).randbytes(20) for n in range(operations)]
        for row in (store, get):
            _measure(row, name, swarm, keys, is_store=row is store)
    for row in (store, get):
        row.notes["goal"] = "hivemind's published mean, from its own machine"
    return [store, get]


def _measure(row: Row, name: str, swarm: Swarm, keys: list[bytes], *, is_store: bool) -> None:
    rng = Random("operations")
    addresses = list(swarm.agents)
    wall, cpu, complete, before = [], [], 0, swarm.datagrams
    for key in keys:
        at = rng.choice(addresses)
        agent = swarm.agents[at]
        began, cpu_began = time.perf_counter(), time.process_time()
        if is_store:
            operation = agent.put(time.monotonic(), "bench", key, VALUE, 3600, is_kept=False)
        else:
            operation = agent.get(time.monotonic(), key, 1, 10.0)
        outcome = swarm.finish(at, operation)
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - cpu_began))
        complete += bool(outcome) and (not isinstance(outcome, Published) or outcome.stored >= 5)
    row.add(name, statistics.fmean(wall))
    packets = (swarm.datagrams - before) / len(keys)
    row.notes[name] = f"{statistics.fmean(cpu):.2f} CPU ms, {packets:.1f} packets; {complete} of {len(keys)} succeeded"
