"""Cut the dataset into fragments. Runs on the chief, in the sandbox, and only as fast as the workers need more."""

from collections.abc import Iterator
from pathlib import Path


def split(data: Path, lines: int = 100) -> Iterator[list[str]]:
    """Yield ``lines`` lines at a time. Parameters come from the job: -p lines=1000."""
    group: list[str] = []
    with Path(data).open(encoding="utf-8", errors="replace") as file:
        for line in file:
            group.append(line.rstrip("\n"))
            if len(group) == lines:
                yield group
                group = []
    if group:
        yield group
