"""The page of `tools.overlay_costs`: fits, intervals over seeds, tables (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from simulator.student import interval, t95

MILLION: Final = 1_000_000
NETWORKS: Final = (1_000, 10_000, 100_000, MILLION)
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


def mean(runs: Sequence[Measured]) -> Measured:
    """Of several seeds."""
    each = [asdict(run) for run in runs]
    causes = sorted({cause for run in runs for cause in run.by_cause})
    by_cause = {cause: float(np.mean([run.by_cause.get(cause, 0.0) for run in runs])) for cause in causes}
    return Measured(**{name: float(np.mean([e[name] for e in each])) for name in each[0] if name != "by_cause"}, by_cause=by_cause)


@dataclass(frozen=True, slots=True)
class Units:
    """What single things cost here."""

    sign_us: float
    verify_us: float
    datagram_us: float
    contact_bytes: float
    entry_bytes: float
    half_bytes: float


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


def contacts_at(nodes: int, k: int = 20) -> float:
    """Contacts of a full table: k in each bucket that has so many nodes, all of the others."""
    shares = nodes / 2.0 ** np.arange(1, 64)
    return float(np.minimum(shares, k).sum())


def over_seeds(runs: dict[int, list[Measured]], name: str) -> str:
    """One row: mean and 95 % interval (Student's t) of each size."""
    return " | ".join(interval([float(getattr(run, name)) for run in some]) for some in runs.values())


def intervals(runs: dict[int, list[Measured]]) -> str:
    """What differs between seeds."""
    names = {"dht_bytes": "DHT, bytes/s", "contract_bytes": "contracts, bytes/s", "contracts_per_day": "contracts a day",
             "halves_per_day": "own halves a day", "read_per_day": "halves read a day"}  # fmt: skip
    head = " | ".join(f"{n} companies, {len(some)} seeds" for n, some in runs.items())
    lines = [f"| of each company | {head} |\n|---|" + "---|" * len(runs)]
    return "\n".join(lines + [f"| {text} | {over_seeds(runs, name)} |" for name, text in names.items()])


def grown(runs: dict[int, list[Measured]], name: str, companies: int) -> tuple[float, float, float]:
    """A power of n through every run, carried on: value, and the ends of the 95 % interval of the line there."""
    x = np.log([n for n, some in runs.items() for _ in some])
    y = np.log([getattr(run, name) for some in runs.values() for run in some])
    (slope, start), covariance = np.polyfit(x, y, 1, cov=True)
    at = np.array([np.log(companies), 1.0])
    value, half = slope * at[0] + start, t95(len(x) - 2) * float(np.sqrt(at @ covariance @ at))
    return float(np.exp(value)), float(np.exp(value - half)), float(np.exp(value + half))


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


def page(each: dict[int, list[Measured]], unit: Units, found: dict[str, list[float]], hot: dict[int, dict[str, Any]]) -> str:
    """The page."""
    runs = {n: mean(some) for n, some in each.items()}
    sizes = list(runs)
    flat = [(n, run) for n, some in each.items() for run in some]
    contracts, least, most = grown(each, "contract_bytes", MILLION)

    def at_million(name: str) -> float:
        start, slope = line(sizes, [getattr(runs[n], name) for n in sizes])
        return start + slope * 6

    last = runs[sizes[-1]]
    datagrams, dht_bytes = at_million("datagrams"), at_million("dht_bytes")
    dht_cpu = datagrams * (unit.sign_us + unit.verify_us + 2 * unit.datagram_us) / 1e6
    messages = last.contract_messages
    contract_cpu = messages * (unit.sign_us + unit.verify_us) / 1e6
    contacts, big = contacts_at(MILLION), hot[MILLION]
    full_days = MAX_HALVES / max(1e-9, last.read_per_day)
    e, error = exponent([n for n, _ in flat], [run.dht_bytes for _, run in flat])
    c, c_error = exponent([n for n, _ in flat], [run.contract_bytes for _, run in flat])
    costs = [
        "| of each company, at 10⁶ | cost | from |\n|---|---|---|",
        f"| DHT sent | {dht_bytes:,.0f} bytes/s, {datagrams:.2f} datagrams/s | line over log n through the overlays |",
        f"| contracts sent | {last.contract_bytes:.1f} bytes/s, {messages:.3f} messages/s if they grow no further; "
        f"{contracts:.0f} ({least:.0f} to {most:.0f}) if they do | overlay of {sizes[-1]}; n^{c:.2f} through all runs, carried on |",
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
        "Made by `python -m tools.overlay_costs` on one core; means over seeds. Companies of 10 workers that want 0.6 of all machines' "
        "time in jobs of 20 core-hours; no churn, no loss. An hour and a half to begin with, then two hours that are measured.\n"
        "**Lines over log n and what is taken over from the largest overlay are extrapolations**; what the vectorised\nengine "
        "measured at 10⁶ is named so.\n\n"
        "## The bill\n\n" + "\n".join(costs) + "\n\n## What breaks first\n\n" + "\n".join(found_lines) + "\n\n"
        f"- Receipts: a chief keeps at most {MAX_HALVES:,} contracts between others in memory, "
        f"{MAX_HALVES * unit.entry_bytes / 2**20:.0f} MiB. "
        f"That is reached after {full_days:,.0f} days; the oldest then make room. Its own, {last.halves_per_day:.0f} a day, all stay: "
        f"{last.halves_per_day * 365 * unit.entry_bytes / 2**20:.0f} MiB a year.\n"
        f"- Shards: 4,096 per capability, of 64 owners each, hold {4096 * 64:,} lenders of one capability; the table shows from which size "
        "on the most popular one does not fit any more.\n"
        f"- Bytes, CPU and routing tables grow with the logarithm of n: none of them is near a limit at 10⁶.\n\n"
        "## Measured overlays\n\n" + measured_table(runs) + "\n\n" + causes_table(runs) + "\n\n"
        f"Over these sizes DHT traffic grows as n^{e:.2f} (± {error:.2f}), contract traffic as n^{c:.2f} (± {c_error:.2f}), "
        "fitted through every run.\n\n" + intervals(each) + "\n\n"
        "![traffic](overlay-costs.svg)\n\n## Growth up to a million nodes (vectorised)\n\n" + growth_table(found) + "\n"
    )
