"""What a borrowed slot does against an own one, and how soon: ``python -m tests.support.secondment_figures [ROUNDS]`` prints JSON.

Two companies of real processes on this machine. Fragments burn 10 ms of CPU each, so that both sides need the machine for themselves.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from company.package import check_package, read_package
from tests.support.company_processes import MERGE_COUNT, until, write_package
from tests.support.two_companies import TwoCompanies

FRAGMENTS = 500
BURN = """
    import time
    def process(fragment):
        end = time.thread_time() + 0.010
        while time.thread_time() < end:
            pass
        return fragment
"""


def timed(both: TwoCompanies, package: Path, data: Path, where: str) -> float:
    began = time.monotonic()
    job = both.borrower.client.submit(package, data, params={"n": FRAGMENTS}, where=where)
    job.wait(120)
    assert job.state == "done", job.view
    return FRAGMENTS / (time.monotonic() - began)


def first_result_s(both: TwoCompanies, package: Path, data: Path, name: str, check: str) -> float:
    """From the moment when both sides hold the contract to the first foreign result on disk."""
    job = both.borrower.client.submit(package, data, params={"n": 50}, where="any", yes_foreign=True)
    both.sign(processor_of(package), contract=name, check=check)
    began = time.monotonic()
    until(lambda: job.status()["fragments"]["done"] > 0, "a foreign result", timeout_s=30)
    took_s = time.monotonic() - began
    job.wait(60)
    return took_s


def processor_of(package: Path) -> str:
    return check_package(read_package(package).files, default_name="p").processor_digest.hex()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    found: dict[str, Any] = {"fragments": FRAGMENTS, "rounds": rounds}
    rates: dict[str, list[float]] = {"spot": [], "none": [], "own": []}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = root / "data"
        data.write_text("x")
        package = write_package(root / "p", BURN, merge=MERGE_COUNT)
        spot, none = TwoCompanies(root / "spot"), TwoCompanies(root / "none")
        own = TwoCompanies(root / "own", own_slots=1)
        with spot, none, own:
            found["first_result_s spot"] = round(first_result_s(spot, package, data, "first", "spot"), 2)
            found["first_result_s none"] = round(first_result_s(none, package, data, "first", "none"), 2)
            timed(own, package, data, "own")
            for _ in range(rounds):  # contenders take turns, so that what else the machine does meets all of them
                for kind, both, where in (("spot", spot, "any"), ("own", own, "own"), ("none", none, "any")):
                    rates[kind].append(timed(both, package, data, where))
    for kind, values in rates.items():
        found[f"fragments/s {kind}"] = [round(x, 1) for x in values]
    for kind in ("spot", "none"):
        found[f"ratio {kind}"] = round(statistics.median(rates[kind]) / statistics.median(rates["own"]), 3)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
