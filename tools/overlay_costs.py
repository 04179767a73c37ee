"""What an overlay of a million companies costs each of them: ``python -m tools.overlay_costs [FOLDER]`` (some minutes of one core).

Measured with shipped machines in overlays of some hundred companies, and with the vectorised engine up to a million nodes; what stands in
the page for a million is either measured there (vectorised) or a straight line over log10 n through the overlays, and says which.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

ROOT = Path(__file__).resolve().parent.parent
MILLION: Final = 1_000_000
OVERLAYS: Final = (20, 40, 80)
CAUSES: Final[dict[str | int, str]] = {  # of what is sent: by method of the DHT, and by code of a contract's messages
    "find node": "DHT: tables, and places to store at", "ping": "DHT: tables, and places to store at", "store": "DHT: advertisements",
    "find value": "DHT: looking for lenders", 1: "contracts: agreeing", 2: "contracts: agreeing",
    3: "contracts: agreeing", 4: "contracts: agreeing", 5: "contracts: metering", 6: "contracts: metering",
    11: "contracts: settling and receipts", 12: "contracts: settling and receipts", 13: "contracts: settling and receipts",
    0: "contracts: words of receipt",
}  # fmt: skip
MAX_ASKED: Final = 10_000  # requests whose answers may still come
NETWORKS: Final = (1_000, 10_000, 100_000, MILLION)
WARM_S: Final = 5400.0  # the first contracts have ended and are settled by then
HOURS: Final = 2.0
MAX_HALVES: Final = 100_000  # of `company.chief.contracts.trust`


@dataclass(frozen=True, slots=True)
class Measured:
    """One overlay, per company and second unless named otherwise."""

    dht_bytes: float
    datagrams: float
    contract_bytes: float
    contract_messages: float
    contacts: float
    records: float
    record_bytes: float
    halves_per_day: float
    contracts_per_day: float
    read_per_day: float  # halves of others that a company reads
    by_cause: dict[str, float]  # bytes per second


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


@dataclass(frozen=True, slots=True)
class Units:
    """What single things cost here."""

    sign_us: float
    verify_us: float
    datagram_us: float
    contact_bytes: float
    entry_bytes: float
    half_bytes: float


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


def line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Straight line over log10 x: value at x = 1 and growth per factor of ten."""
    slope, start = np.polyfit(np.log10(xs), ys, 1)
    return float(start), float(slope)


def exponent(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """e of y ~ x^e and its standard error."""
    x, y = np.log(xs), np.log(np.maximum(ys, 1e-9))
    (e, _), covariance = np.polyfit(x, y, 1, cov="unscaled") if len(xs) > 2 else (np.polyfit(x, y, 1), np.zeros((2, 2)))
    rest = y - np.polyval(np.polyfit(x, y, 1), x)
    return float(e), float(np.sqrt(max(0.0, covariance[0, 0]) * float(rest @ rest) / max(1, len(xs) - 2)))


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


def contacts_at(nodes: int, k: int = 20) -> float:
    """Contacts of a full table: k in each bucket that has so many nodes, all of the others."""
    shares = nodes / 2.0 ** np.arange(1, 64)
    return float(np.minimum(shares, k).sum())


def measured_table(runs: dict[int, Measured]) -> str:
    """Each overlay as it was measured."""
    lines = [
        "| companies | DHT, bytes/s | datagrams/s | contracts, bytes/s | contract messages/s | contacts | records held | contracts/day |\n"
        "|---|---|---|---|---|---|---|---|"
    ]
    for n, m in runs.items():
        traffic = (m.dht_bytes, m.datagrams, m.contract_bytes, m.contract_messages)
        values = (*traffic, m.contacts, m.records, m.contracts_per_day)
        lines.append(f"| {n} | " + " | ".join(f"{v:.3g}" for v in values) + " |")
    return "\n".join(lines)


def causes_table(runs: dict[int, Measured]) -> str:
    """What is sent, by cause, with the exponent of its growth."""
    sizes = list(runs)
    lines = [f"| bytes/s sent for | {' | '.join(map(str, sizes))} | exponent |\n|---|" + "---|" * (len(sizes) + 1)]
    for cause in sorted({cause for m in runs.values() for cause in m.by_cause}):
        ys = [m.by_cause.get(cause, 0.0) for m in runs.values()]
        e, error = exponent(sizes, ys)
        fit = f"{e:.2f} ± {error:.2f}" if min(ys) > 0 else "-"
        lines.append(f"| {cause} | {' | '.join(f'{y:.3g}' for y in ys)} | {fit} |")
    return "\n".join(lines)


def growth_table(found: dict[str, list[float]]) -> str:
    """Fitted exponents."""
    head = " | ".join(f"{n:,}" for n in NETWORKS)
    lines = [f"| what | {head} | exponent | per factor of ten |\n|---|" + "---|" * (len(NETWORKS) + 2)]
    for name, ys in found.items():
        e, error = exponent(NETWORKS, ys)
        cells = [f"{y:.3g}" for y in ys]
        lines.append(f"| {name} | {' | '.join(cells)} | {e:.3f} ± {error:.3f} | {line(NETWORKS, ys)[1]:+.3g} |")
    return "\n".join(lines)


def page(runs: dict[int, Measured], unit: Units, found: dict[str, list[float]], hot: dict[int, dict[str, Any]]) -> str:
    """The page."""
    sizes = list(runs)

    def at_million(name: str) -> float:
        start, slope = line(sizes, [getattr(runs[n], name) for n in sizes])
        return start + slope * 6

    last = runs[sizes[-1]]
    datagrams, dht_bytes = at_million("datagrams"), at_million("dht_bytes")
    dht_cpu = datagrams * (unit.sign_us + unit.verify_us + 2 * unit.datagram_us) / 1e6
    messages = last.contract_messages
    contract_cpu = messages * (unit.sign_us + unit.verify_us) / 1e6
    contacts, big = contacts_at(MILLION), hot[MILLION]
    full_days = MAX_HALVES / max(1e-9, last.halves_per_day + last.read_per_day)
    e, error = exponent(sizes, [m.dht_bytes for m in runs.values()])
    c, c_error = exponent(sizes, [m.contract_bytes for m in runs.values()])
    costs = [
        "| of each company, at 10⁶ | cost | from |\n|---|---|---|",
        f"| DHT sent | {dht_bytes:,.0f} bytes/s, {datagrams:.2f} datagrams/s | line over log n through the overlays |",
        f"| contracts sent | {last.contract_bytes:.1f} bytes/s, {messages:.3f} messages/s | overlay of {sizes[-1]}; does not grow with n |",
        f"| holding others' advertisements | {big['bytes_per_s_mean']:.3g} bytes/s; the busiest {big['bytes_per_s_max']:,.0f} | "
        "vectorised, measured at 10⁶ |",
        f"| memory: routing table | {contacts * unit.contact_bytes / 1024:.0f} KiB | "
        f"{contacts:.0f} contacts × {unit.contact_bytes:.0f} bytes |",
        f"| memory: records held | {big['records_kept']['mean'] * 2:.0f} KiB; the busiest {big['records_kept']['max'] * 2:,.0f} KiB | "
        f"{big['records_kept']['mean']:.1f} records ({big['records_kept']['max']:.0f}), allowing 2 KiB each |",
        f"| reading helpers' receipts | {last.read_per_day * unit.half_bytes / 86_400:.2f} bytes/s | "
        f"{last.read_per_day:,.0f} halves a day × {unit.half_bytes:.0f} bytes, overlay of {sizes[-1]} |",
        f"| memory: receipts | {(last.halves_per_day + last.read_per_day) * unit.entry_bytes / 1024:,.0f} KiB more each day | "
        f"{last.halves_per_day:.0f} own halves a day and {last.read_per_day:,.0f} read, × {unit.entry_bytes:.0f} bytes |",
        f"| CPU: DHT | {dht_cpu * 100:.2f} % of one core | sign {unit.sign_us:.0f} µs, verify {unit.verify_us:.0f} µs, "
        f"core {unit.datagram_us:.0f} µs per datagram |",
        f"| CPU: contracts | {contract_cpu * 100:.3f} % of one core | signatures alone |",
    ]
    found_lines = ["| companies | lenders that can be found | busiest node, bytes/s | records on the fullest node |\n|---|---|---|---|"]
    for n, h in hot.items():
        found_lines.append(f"| {n:,} | {h['findable_share']:.4f} | {h['bytes_per_s_max']:,.0f} | {h['records_kept']['max']:,.0f} |")
    return (
        "# What an overlay of a million companies costs each of them\n\n"
        "Made by `python -m tools.overlay_costs` on one core; seed 1. Companies of 10 workers that want 0.6 of all machines' time in jobs "
        "of 20 core-hours; no churn, no loss. An hour and a half to begin with, then two hours that are measured.\n"
        "**Lines over log n and what is taken over from the largest overlay are extrapolations**; what the vectorised\nengine "
        "measured at 10⁶ is named so.\n\n"
        "## The bill\n\n" + "\n".join(costs) + "\n\n## What breaks first\n\n" + "\n".join(found_lines) + "\n\n"
        f"- Receipts: a chief keeps at most {MAX_HALVES:,} in memory. At this rate ({last.contracts_per_day:.0f} contracts a day) that is "
        f"reached after {full_days:,.0f} days, with {MAX_HALVES * unit.entry_bytes / 2**20:.0f} MiB; new ones are then not counted.\n"
        f"- Shards: 4,096 per capability, of 64 owners each, hold {4096 * 64:,} lenders of one capability; the table shows from which size "
        "on the most popular one does not fit any more.\n"
        f"- Bytes, CPU and routing tables grow with the logarithm of n: none of them is near a limit at 10⁶.\n\n"
        "## Measured overlays\n\n" + measured_table(runs) + "\n\n" + causes_table(runs) + "\n\n"
        f"Over these sizes DHT traffic grows as n^{e:.2f} (± {error:.2f}), contract traffic as n^{c:.2f} (± {c_error:.2f}).\n\n"
        "![traffic](overlay-costs.svg)\n\n## Growth up to a million nodes (vectorised)\n\n" + growth_table(found) + "\n"
    )


def main() -> int:
    """Measure, draw, write."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "findings"
    folder.mkdir(parents=True, exist_ok=True)
    runs: dict[int, Measured] = {}
    for companies in OVERLAYS:
        began = time.process_time()
        runs[companies], world = overlay(companies)
        print(f"{companies} companies: {runs[companies]} in {time.process_time() - began:.1f} s of CPU", flush=True)
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
    (folder / "overlay-costs.md").write_text(page(runs, unit, found, hot), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
