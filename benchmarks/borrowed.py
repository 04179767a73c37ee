"""A borrowed slot against an own one: the same package on both, one slot each, companies taking turns within every round (I/O).

Two companies with a real contract between them, found in a network of their own on loopback, its answers checked as by default; and a third
company with a worker of its own. One slot each, so that the borrower's check slot and its chief have the second core of a small machine.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from benchmarks.company import BenchCompany
from benchmarks.rows import Row
from benchmarks.work import calibrate
from company.demo_borrowing import offers, wait_for

BURN_S = 0.010
SIZE = 64 << 10
CAPS = (1 << 20, 4 << 20, 0)  # bytes a second, one after the other, under one contract; 0: no bound
LOOKS_S = 5.0  # another cap holds within some seconds
ABROAD = {"where": "any", "yes_foreign": True}
Say = Callable[[str], None]


def borrowed_row(fragments: int, rounds: int, say: Say) -> Row:
    """Fragments of ten calibrated milliseconds abroad and at home."""
    row = Row(
        f"{fragments:,} fragments of 10 ms on a borrowed slot",
        "begin of the first fragment to the last result on disk, by the rows of the job; its answers are checked meanwhile",
        "fragments/s", "more", beside={"company": {"own slot": 0.95}},
    )  # fmt: skip
    whole: dict[str, list[float]] = {"company": [], "own slot": []}
    with BenchCompany() as own, BenchCompany() as lender, BenchCompany() as borrower:
        own.start(("own1",))
        own.upload()
        contract = _sign(lender, borrower)
        companies: dict[str, tuple[BenchCompany, dict[str, Any]]] = {"company": (borrower, ABROAD), "own slot": (own, {})}
        for company, options in companies.values():  # children are started, and the lender is believed
            company.finish(company.submit("spin", n=50, turns=calibrate(BURN_S), options=options))
        for _ in range(rounds):
            turns = calibrate(BURN_S)
            for name, (company, options) in companies.items():
                began = time.perf_counter()
                job = company.submit("spin", n=fragments, turns=turns, options=options)
                if company.finish(job) != fragments:
                    raise RuntimeError(f"{name} gave a wrong result")
                whole[name].append(fragments / (time.perf_counter() - began))
                span_s, inside_s = spans(company, job.id)
                row.add(name, fragments / span_s)
                row.notes[name] = f"{inside_s / span_s:.3f} of the time was inside fragments in the last round"
            say(f"  {row.samples}")
        shown = borrower.client.contracts.show(contract)
    for name, rates in whole.items():
        row.notes[name] += f"; from submission to the merged result {statistics.median(rates):.1f} fragments/s"
    row.notes["company"] += f"; contract: {shown['accepted']['fragments']:,} fragments accepted"
    return row


def bandwidth_row(bytes_each: int, say: Say) -> Row:
    """What a lender's cap lets through to a borrower and back, and that a new cap holds for a contract that runs."""
    row = Row(
        f"bytes a second of a borrowed slot under `company lend --max-bandwidth`, {SIZE >> 10} KiB there and back",
        "payload there and back, from the first result on disk to the last, as a share of the cap; a quarter of a second may go at once",
        "of the cap", "less", 1.05,
    )  # fmt: skip
    with BenchCompany() as lender, BenchCompany() as borrower:
        _sign(lender, borrower, package="echo", max_bandwidth_bytes=CAPS[0])
        for cap in CAPS:
            lender.client.network.lend(1, auto_accept="any", max_bandwidth_bytes=cap)
            time.sleep(LOOKS_S)
            n = max(8, bytes_each * (cap or 1 << 24) // (1 << 20) // (2 * SIZE))
            job = borrower.submit("echo", n=n, size=SIZE, options=ABROAD)
            if borrower.finish(job) != n * SIZE:
                raise RuntimeError("a wrong result came back")
            per_s = 2 * SIZE * rate_of(borrower, job.id)
            if cap:
                row.add("company", per_s / cap)
            row.notes["company"] = (
                row.notes.get("company", "") + f"{per_s / (1 << 20):.2f} MiB/s with {f'{cap >> 20} MiB/s' if cap else 'no cap'}; "
            )
            say(f"  {row.notes}")
    return row


def rate_of(company: BenchCompany, job: str) -> float:
    """Fragments a second between the first and the last outcome on disk."""
    with closing(sqlite3.connect(f"file:{company.home / 'chief' / 'company.sqlite'}?mode=ro", uri=True)) as database:
        rows = sorted(database.execute("SELECT at, count FROM outcome WHERE job = ?", (job,)).fetchall())
    return float(sum(count for _, count in rows[1:]) / max(1e-9, rows[-1][0] - rows[0][0]))


def spans(company: BenchCompany, job: str) -> tuple[float, float]:
    """Seconds from the first fragment's begin to the last result on disk, and inside fragments."""
    with closing(sqlite3.connect(f"file:{company.home / 'chief' / 'company.sqlite'}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT at, run_us FROM outcome WHERE job = ?", (job,)).fetchall()
    inside_s = [run_us / 1e6 for _, run_us in rows]
    began = min(at - s for (at, _), s in zip(rows, inside_s, strict=True))
    return max(1e-9, max(at for at, _ in rows) - began), sum(inside_s)


def _sign(lender: BenchCompany, borrower: BenchCompany, *, package: str = "spin", **terms: Any) -> str:
    """Start both, and sign a contract about one slot; its id."""
    lender.start(("lent1",), dht="127.0.0.1:0")
    lender.client.network.lend(1, auto_accept="any", **terms)
    borrower.start((), dht="127.0.0.1:0", options=("--bootstrap", lender.ready["dht"]))
    borrower.upload()
    company = str(lender.ready["company"])
    wait_for(lambda: any(o["company"] == company for o in offers(borrower)), "the borrower finds the lender's offer")
    number = str(borrower.client.contracts.request(company, package=borrower.packages[package], slots=1, time_frame_s=3600)["id"])
    wait_for(lambda: borrower.client.contracts.show(number)["state"] == "active", "both are bound")
    return number
