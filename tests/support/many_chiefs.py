"""Many chiefs as real processes on loopback; half of them restart in turn and must find every offer again without a bootstrap address.

``make chiefs`` runs it whole (30), ``python -m tests.support.many_chiefs --chiefs 4`` a little of it. The report says how long it
took to find all offers at first, and after each restart; the program fails where that was more than a minute, or one was not found at all.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from tests.support.companies import Companies
from tests.support.company_processes import until

BOUND_S = 60.0
AT_ONCE = 3  # starts and questions: a start computes for seconds
PATIENCE_S = 240.0  # until something counts as never


@dataclass
class Report:
    """``first_s``: from the last start until everybody saw all; ``again_s``: from a restarted chief's readiness until it saw all offers."""

    chiefs: int
    started_s: float = 0.0
    first_s: float = 0.0
    again_s: list[float] = field(default_factory=list)
    whole_again_s: float = 0.0  # from the last restart's readiness until every chief saw every other's offer
    bound_s: float = BOUND_S

    @property
    def holds(self) -> bool:
        """Whether the bound was kept."""
        return max([*self.again_s, self.whole_again_s]) <= self.bound_s


def missing(companies: Companies, name: str) -> set[str]:
    """Whose offers a company does not find now."""
    all_ids = {str(running.ready["chief"]["company"]) for other, running in companies.of.items() if other != name}
    return all_ids - {offer["company"] for offer in companies.client(name).network.list("offers")["items"]}


def each(do: Callable[[str], object], names: Iterable[str]) -> None:
    """For all of them, some at a time; the first error is raised."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(do, names))


def sees_all(companies: Companies, name: str) -> None:
    """Wait until a company finds every other's offer."""
    until(lambda: not missing(companies, name), f"{name} finds all offers", timeout_s=PATIENCE_S)


def run(root: Path, chiefs: int, seed: int, say: Callable[[str], None]) -> Report:
    """Start, lend, look; restart half of them in turn, look again."""
    report = Report(chiefs)
    names = [f"c{n:02}" for n in range(chiefs)]
    began = time.monotonic()
    with Companies(root) as companies:
        companies.start(names[0])
        each(lambda name: companies.start(name, "--bootstrap", companies.dht(names[0])), names[1:])
        report.started_s = round(time.monotonic() - began, 1)
        say(f"{chiefs} chiefs started in {report.started_s} s")
        began = time.monotonic()
        each(companies.lend, names)
        each(lambda name: sees_all(companies, name), names)
        report.first_s = round(time.monotonic() - began, 1)
        say(f"everybody found {chiefs - 1} offers {report.first_s} s after all had started")
        for name in Random(seed).sample(names, chiefs // 2):
            running = companies.of[name]
            running.stop("chief")
            running._client = None
            companies.start(name, dht=companies.dht(name))  # no --bootstrap: what is remembered must do
            began = time.monotonic()
            sees_all(companies, name)
            report.again_s.append(round(time.monotonic() - began, 1))
            say(f"{name} restarted: all offers after {report.again_s[-1]} s")
        began = time.monotonic()
        each(lambda name: sees_all(companies, name), names)
        report.whole_again_s = round(time.monotonic() - began, 1)
        say(f"everybody found all offers {report.whole_again_s} s after the last restart")
    return report


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chiefs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        report = run(Path(root), wanted.chiefs, wanted.seed, lambda line: print(line, flush=True))
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(asdict(report), indent=2) + "\n", "utf-8")
    print(f"the bound of {BOUND_S:g} s {'holds' if report.holds else 'is missed'}: {asdict(report)}")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
