"""``python -m benchmarks``: ours and the others in one run, one after the other within each round, medians (I/O).

With --json one object on standard output; what happens meanwhile goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable

from benchmarks import dht, footprint, throughput
from benchmarks.company import BenchCompany
from benchmarks.peer_process import Peer, open_peers
from benchmarks.rows import Row, table
from company import __version__

SLOTS = 2
SECTIONS = ("tiny", "burn", "large", "start", "first", "command", "import", "idle", "memory", "dht")


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="little of everything: shows that it works, measures nothing")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="only this section; may be repeated")
    wanted = parser.parse_args()
    rows, missing = measure(set(wanted.only or SECTIONS), quick=wanted.quick)
    if wanted.json:
        facts = {
            "schema": "company.bench/1", "version": __version__, "python": platform.python_version(), "machine": platform.platform(),
            "cores": os.cpu_count(), "slots": SLOTS, "quick": wanted.quick, "load_average": os.getloadavg()[0], "at": int(time.time()),
        }  # fmt: skip
        print(json.dumps(facts | {"rows": [row.as_dict() for row in rows], "missing": missing}))
    else:
        print(table(rows, missing))
        if wanted.quick:
            print("--quick: this shows that everything runs; its numbers mean nothing")
    return 0


def measure(sections: set[str], *, quick: bool) -> tuple[list[Row], dict[str, str]]:
    """All rows of the sections, and the peers that are not here."""
    rounds = 1 if quick else 5
    rows: list[Row] = []
    missing: dict[str, str] = {}

    def section(name: str, make: Callable[[], Row | list[Row]]) -> None:
        if name in sections:
            say(f"{name} ...")
            made = make()
            rows.extend(made if isinstance(made, list) else [made])

    section("start", lambda: footprint.start_row(1 if quick else 3))
    section("import", lambda: footprint.import_row(rounds))
    section("dht", lambda: dht.dht_rows(quick=quick))
    if sections & {"tiny", "burn", "large", "first", "command", "idle", "memory"}:
        scale = throughput.Scale.of(quick=quick)
        with BenchCompany() as company:
            company.start(tuple(f"w{number + 1}" for number in range(SLOTS)))
            company.upload()
            section("first", lambda: footprint.first_result_row(company, rounds))
            section("command", lambda: footprint.command_row(company, rounds))
            if sections & {"tiny", "burn", "large"}:
                with open_peers(SLOTS) as (peers, absent):
                    missing |= absent
                    _maps(section, company, peers, scale)
            section("idle", lambda: footprint.idle_rows(company, 3.0 if quick else 20.0))
            section("memory", lambda: footprint.memory_rows(company))
    return rows, missing


def _maps(
    section: Callable[[str, Callable[[], Row | list[Row]]], None], company: BenchCompany, peers: list[Peer], scale: throughput.Scale
) -> None:
    section("tiny", lambda: throughput.tiny_row(company, peers, scale, say))
    section("burn", lambda: throughput.burn_row(company, peers, scale, SLOTS, say))
    section("large", lambda: throughput.large_row(company, peers, scale, say))


def say(text: str) -> None:
    """A line for the person who waits."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
