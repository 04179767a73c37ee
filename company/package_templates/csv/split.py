"""Cut a CSV file into groups of rows, without ever holding the whole."""

import csv
from collections.abc import Iterator
from pathlib import Path


def split(data: Path, rows: int = 1000) -> Iterator[list[dict[str, str]]]:
    """Yield ``rows`` rows at a time, each a map from column to text."""
    group: list[dict[str, str]] = []
    with Path(data).open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            group.append(row)
            if len(group) == rows:
                yield group
                group = []
    if group:
        yield group
