"""Sum one group of rows: how many, and the total of a column, by the value of another."""

from collections import defaultdict


def process(fragment: list[dict[str, str]], by: str = "city", column: str = "amount") -> dict[str, list[float]]:
    """Return {value of ``by``: [rows, sum of ``column``]}. The columns are parameters of the job: -p by=city."""
    groups: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for row in fragment:
        group = groups[row[by]]
        group[0] += 1
        group[1] += float(row[column])
    return dict(groups)
