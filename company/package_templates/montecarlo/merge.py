"""Put the experiments together: an estimate of pi with its standard error."""

import json
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import Any


def merge(results: Iterator[dict[str, int]], output: Path) -> dict[str, Any]:
    """Write estimate.json and return the same."""
    points = inside = 0
    for result in results:
        points += result["points"]
        inside += result["inside"]
    share = inside / points if points else 0.0
    error = 4 * sqrt(share * (1 - share) / points) if points else None
    estimate = {"pi": 4 * share, "standard_error": error, "points": points}
    (output / "estimate.json").write_text(json.dumps(estimate, indent=1) + "\n", encoding="utf-8")
    return estimate
