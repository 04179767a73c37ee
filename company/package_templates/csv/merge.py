"""Add the groups up and write them as CSV."""

import csv
from collections.abc import Iterator
from pathlib import Path


def merge(results: Iterator[dict[str, list[float]]], output: Path, by: str = "city", column: str = "amount") -> dict[str, int]:
    """Write summary.csv: one line for each value of ``by``."""
    groups: dict[str, list[float]] = {}
    for result in results:
        for key, (rows, total) in result.items():
            group = groups.setdefault(key, [0, 0.0])
            group[0] += rows
            group[1] += total
    with (output / "summary.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([by, "rows", f"sum of {column}", f"mean of {column}"])
        for key, (rows, total) in sorted(groups.items()):
            writer.writerow([key, rows, round(total, 2), round(total / rows, 4)])
    return {"groups": len(groups)}
