"""Deal out seeds: every fragment is one independent run of the experiment."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def split(data: Path, runs: int = 200, points: int = 20_000) -> Iterator[dict[str, Any]]:
    """Yield ``runs`` experiments. The seed is part of the fragment, so that a fragment gives the same result wherever it runs."""
    settings = json.loads(Path(data).read_text(encoding="utf-8"))
    for run in range(runs):
        yield {"seed": settings["seed"] * 1_000_003 + run, "points": points}


def count(data: Path, runs: int = 200) -> int:
    """How many fragments there will be: then progress is known from the start."""
    return runs
