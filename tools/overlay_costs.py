"""What an overlay of a million companies costs each: ``python -m tools.overlay_costs [FOLDER [MEASURED]]``.

Twenty minutes of CPU; what lies in MEASURED, a file per overlay and seed, is not measured again.

Measured with shipped machines in overlays of some hundred companies, and with the vectorised engine up to a million nodes; what stands in
the page for a million is either measured there (vectorised) or a straight line over log10 n through the overlays, and says which.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np

from p2p.base.keys import Identity, is_signed_by
from p2p.dht.core import DhtCore, Send
from p2p.dht.packets import BODY_AT, MESSAGE_ID_BYTES, METHODS, REQUEST
from p2p.dht.parameters import Parameters
from p2p.reputation.evidence import Evidence
from simulator.dht_exact import NETWORK_ID, ExactNetwork
from simulator.dht_hops import hop_counts
from simulator.dht_search import Search, search
from simulator.dht_tables import Tables
from simulator.engine import seldom_collected
from simulator.market_company import Company
from simulator.market_exact import CHANNEL_BYTES, MarketRules
from simulator.overlay import Faults, OverlayNode, OverlayWorld
from simulator.parameters import parse_all
from simulator.registry import SCENARIOS
from simulator.scenario import Plot
from simulator.svg import draw
from tools.overlay_page import MILLION, NETWORKS, Measured, Units, line, mean, page

ROOT = Path(__file__).resolve().parent.parent
OVERLAYS: Final = {20: 4, 40: 4, 80: 4}  # companies: seeds
CAUSES: Final[dict[str | int, str]] = {  # of what is sent: by method of the DHT, and by code of a contract's messages
    "find node": "DHT: tables, and places to store at", "ping": "DHT: tables, and places to store at", "store": "DHT: advertisements",
    "find value": "DHT: looking for lenders", 1: "contracts: agreeing", 2: "contracts: agreeing",
    3: "contracts: agreeing", 4: "contracts: agreeing", 5: "contracts: metering", 6: "contracts: metering",
    11: "contracts: settling and receipts", 12: "contracts: settling and receipts", 13: "contracts: settling and receipts",
    0: "contracts: words of receipt",
}  # fmt: skip
MAX_ASKED: Final = 10_000  # requests whose answers may still come
WARM_S: Final = 5400.0  # the first contracts have ended and are settled by then
HOURS: Final = 2.0


class Metered(OverlayWorld):
    """An overlay that counts what is sent by its cause."""

    def __init__(self, rules: MarketRules, seed: int) -> None:
        self.bytes_of: Counter[str] = Counter()
        self._asked: dict[bytes, str] = {}
        super().__init__(rules, seed, Faults(at_s=1e12))

    def carry(self, sender: OverlayNode, effect: Send) -> None:
        """A datagram: answers are put down to what was asked."""
        data = effect.data
        if data[0] == REQUEST:
            method = METHODS[msgpack.unpackb(data[BODY_AT:])[4]]
            if len(self._asked) >= MAX_ASKED:
                self._asked.clear()
            self._asked[data[1 : 1 + MESSAGE_ID_BYTES]] = method
        else:
            method = self._asked.get(data[1 : 1 + MESSAGE_ID_BYTES], "find node")
        self.bytes_of[CAUSES[method]] += len(data) + 28
        super().carry(sender, effect)

    def send(self, sender: Company, peer: bytes, wire: bytes) -> None:
        """A contract's message."""
        self.bytes_of[CAUSES.get(wire[1], "contracts: ends and restarts")] += len(wire) + CHANNEL_BYTES
        super().send(sender, peer, wire)


def piece(companies: int, seed: int, folder: Path) -> Measured:
    """One overlay, from its file where it was measured before."""
    path = folder / f"overlay-{companies}-{seed}.json"
    if not path.exists():
        began = time.process_time()
        found = overlay(companies, seed)[0]
        print(f"{companies} companies, seed {seed}: {found} in {time.process_time() - began:.1f} s of CPU", flush=True)
        path.write_text(json.dumps(asdict(found)), "utf-8")
    return Measured(**json.loads(path.read_text("utf-8")))


def overlay(companies: int, seed: int = 1) -> tuple[Measured, OverlayWorld]:
    """Two hours of an overlay that has been up for an hour and a half: contracts begin and end all the time."""
    rules = MarketRules(companies=companies, hours=HOURS, job_hours=20.0, load=0.6, epoch_s=300, lease_s=900, journal_s=0.003)
    world = Metered(rules, seed)
    world.engine.run(until=WARM_S)
    before = (world.dht_bytes, world.datagrams, world.network.sent_bytes, world.network.sent, world.contracts)
    chains, read = (sum(counted(c) for c in world.companies) for counted in (_own_halves, _read_halves))
    causes = Counter(world.bytes_of)
    with seldom_collected():
        world.engine.run(until=WARM_S + HOURS * 3600)
    after = (world.dht_bytes, world.datagrams, world.network.sent_bytes, world.network.sent, world.contracts)
    dht_bytes, datagrams, all_bytes, packets, contracts = (b - a for a, b in zip(before, after, strict=True))
    per_s, per_day = companies * HOURS * 3600, companies * HOURS / 24
    cores = [node.agent.core for node in world.nodes]
    found = Measured(
        dht_bytes / per_s, datagrams / per_s, (all_bytes - dht_bytes) / per_s, (packets - datagrams) / per_s,
        float(np.mean([len(core.table) for core in cores])), float(np.mean([core.store.count for core in cores])),
        float(np.mean([core.store.size_bytes for core in cores])),
        (sum(map(_own_halves, world.companies)) - chains) / per_day, contracts / per_day,
        (sum(map(_read_halves, world.companies)) - read) / per_day,
        {cause: (world.bytes_of[cause] - causes[cause]) / per_s for cause in sorted(world.bytes_of)},
    )  # fmt: skip
    return found, world


def _own_halves(company: Company) -> int:
    return len(company.book.chain.halves)


def _read_halves(company: Company) -> int:
    return sum(company.read_halves.values())


def _us(work: Callable[[int], object], count: int) -> float:
    began = time.process_time()
    for number in range(count):
        work(number)
    return (time.process_time() - began) / count * 1e6


def units(world: OverlayWorld) -> Units:
    """Real signatures; the shipped core per datagram; memory of a contact and of a receipt."""
    key, data = Identity(b"k" * 32), b"d" * 400
    signature = key.sign(data)
    sign_us, verify_us = _us(lambda _: key.sign(data), 2000), _us(lambda _: is_signed_by(key.public, data, signature), 2000)
    network = ExactNetwork(500, seed=1, parameters=Parameters(), dead=0.0, loss=0.0)
    began = time.process_time()
    network.look_up(200, width=3)
    datagram_us = (time.process_time() - began) / network.network.sent * 1e6
    some = max(network.nodes, key=lambda node: len(node.core.table))
    contacts = some.core.table.nearest(some.core.id, 1000)
    tracemalloc.start()
    core = DhtCore(some.core.signer, NETWORK_ID, some.core.rng, Parameters())
    before = tracemalloc.get_traced_memory()[0]
    for contact in contacts:
        core.table.answered(contact.id, (contact.address[0] + "", contact.address[1]), 1.0)
    contact_bytes = (tracemalloc.get_traced_memory()[0] - before) / len(contacts)
    halves = [half for company in world.companies for half in company.book.chain.halves]
    evidence = Evidence(b"m" * 32)
    before = tracemalloc.get_traced_memory()[0]
    evidence.add_all(halves)
    entry_bytes = (tracemalloc.get_traced_memory()[0] - before) / max(1, len(evidence.entries))
    tracemalloc.stop()
    half_bytes = float(np.mean([len(half.body) + len(half.signature) for half in halves])) if halves else 0.0
    return Units(sign_us, verify_us, datagram_us, contact_bytes, entry_bytes, half_bytes)


def networks() -> dict[str, list[float]]:
    """What grows with a network, by the vectorised engine."""
    names = (
        "hops to a node", "messages per look-up for a key", "median look-up for a key, s", "memory of the tables, bytes",
        "CPU to build the tables, s", "CPU of 1,000 look-ups, s", "mean node's advertisement traffic, bytes/s",
        "busiest node's advertisement traffic, bytes/s",
    )  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in names}
    for nodes in NETWORKS:
        began = time.process_time()
        tables = Tables(nodes, 20, 1)
        built = time.process_time() - began
        began = time.process_time()
        keys = search(tables, Search(alpha=3, resiliency=3), lookups=4000, seed=1)
        took = (time.process_time() - began) / 4
        hops = hop_counts(tables, alpha=4, beta=1, lookups=8000, seed=1)[0]
        hot = hot_keys(nodes)
        row = (
            float(hops.mean()), float(keys.messages.mean()), float(np.median(keys.latency_s)), float(tables.size_bytes), built, took,
            hot["bytes_per_s_mean"], hot["bytes_per_s_max"],
        )  # fmt: skip
        for name, value in zip(names, row, strict=True):
            found[name].append(value)
    return found


def hot_keys(companies: int) -> dict[str, Any]:
    """Advertisements among so many companies."""
    scenario = SCENARIOS["hotkeys"]
    metrics: dict[str, Any] = scenario.run(parse_all(scenario.parameters, {"companies": companies}), 1, lambda _: None).metrics
    return metrics


def main() -> int:
    """Measure, draw, write."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "findings"
    pieces = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    each = {companies: [piece(companies, seed, pieces) for seed in range(1, 1 + seeds)] for companies, seeds in OVERLAYS.items()}
    runs, world = {n: mean(some) for n, some in each.items()}, overlay(min(OVERLAYS))[1]
    unit, found = units(world), networks()
    print(unit, found, flush=True)
    hot = {n: hot_keys(n) for n in (MILLION, 4 * MILLION)}
    start, slope = line(list(runs), [m.dht_bytes for m in runs.values()])
    x = [*runs, 1_000, 10_000, 100_000, MILLION]
    plot = Plot(
        "DHT traffic of one company", "companies", "bytes/s", x,
        {
            "measured": [runs[n].dht_bytes if n in runs else None for n in x],
            "line over log n": [start + slope * float(np.log10(n)) for n in x],
            "contracts": [runs[n].contract_bytes if n in runs else None for n in x],
        },
        log_x=True,
    )  # fmt: skip
    (folder / "overlay-costs.svg").write_text(draw(plot), "utf-8")
    (folder / "overlay-costs.md").write_text(page(each, unit, found, hot), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
