"""`make chaos`: rounds of seeded faults against a real company. ``python -m tests.faults --rounds 20 --seed 1 [--json FILE]`` (I/O)."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.faults.plan import KINDS, draw
from tests.faults.rounds import Harmed, Report

DISK_BYTES = 96 << 20


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A tmpfs at ``folder``; False where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    argv = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "company-faults", str(folder)]
    is_mounted = os.geteuid() == 0 and subprocess.run(argv, capture_output=True, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def run(seeds: list[int], *, say: bool = True, most: int = 5, kinds: tuple[str, ...] = KINDS) -> Report:
    """All rounds in one company, which has to stand them one after the other."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, small_disk(Path(folder) / "home") as is_small:
        chosen = kinds if is_small else tuple(k for k in kinds if k != "fill-disk")
        with Harmed(Path(folder), small_disk=is_small) as company:
            company.open()
            for seed in seeds:
                plan = draw(seed, kinds=chosen, most=most)
                company.round(plan, report)
                if say:
                    bad = f"  {len(report.violations)} violations" if report.violations else ""
                    print(f"seed {seed}: {plan.fragments} fragments, {', '.join(f.kind for f in plan.faults)}{bad}", flush=True)
                if report.violations and report.violations[-1]["seed"] == seed:
                    report.violations[-1]["chief_log"] = company.tail_of("chief", 30)
                    break  # the company may be beyond help: what follows would show nothing new
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=5, help="at most so many in a round")
    parser.add_argument("--kinds", default=",".join(KINDS), help="which kinds, with commas between")
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    report = run(list(range(given.seed, given.seed + given.rounds)), most=given.faults, kinds=tuple(given.kinds.split(",")))
    if given.json:
        given.json.write_text(json.dumps(report.as_dict(), indent=1))
    for violation in report.violations:
        print(json.dumps(violation, indent=1))
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(report.faults.items()))
    print(f"{report.rounds} rounds, {sum(report.faults.values())} faults ({kinds}), {len(report.violations)} violations")
    return 1 if report.violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
