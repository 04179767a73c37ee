"""Join the ranges: twins and gaps may lie across a border."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def merge(results: Iterator[dict[str, Any]], output: Path) -> dict[str, Any]:
    """Write primes.json and return the same."""
    total = {"primes": 0, "largest": None, "twins": 0, "gap": 0, "gap_after": None}
    for part in results:  # in the order of the ranges
        if part["primes"] == 0:
            continue
        total["primes"] += part["primes"]
        total["twins"] += part["twins"]
        gaps = [(part["gap"], part["gap_after"])]
        if total["largest"] is not None:
            across = part["first"] - total["largest"]
            total["twins"] += across == 2
            gaps.insert(0, (across, total["largest"]))
        for gap, after in gaps:
            if gap > total["gap"]:
                total["gap"], total["gap_after"] = gap, after
        total["largest"] = part["last"]
    (output / "primes.json").write_text(json.dumps(total, indent=1) + "\n")
    return total
