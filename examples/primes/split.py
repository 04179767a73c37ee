"""Cut the numbers below a limit into ranges."""

from collections.abc import Iterator
from pathlib import Path


def limit_of(data: Path) -> int:
    """The number in the dataset."""
    limit = int(Path(data).read_text().strip().replace("_", ""))
    if not 0 <= limit <= 10**13:
        raise ValueError(f"the limit must be in 0..10^13, got {limit}")
    return limit


def split(data: Path, step: int = 1_000_000) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of each range; ``end`` is not part of it."""
    limit = limit_of(data)
    for first in range(0, limit, step):
        yield first, min(first + step, limit)


def count(data: Path, step: int = 1_000_000) -> int:
    """How many ranges there will be, so that progress is known from the start."""
    return -(-limit_of(data) // step)
