"""Put the results together. They arrive one after the other, in the order of the fragments."""

from collections.abc import Iterator
from pathlib import Path


def merge(results: Iterator[list[str]], output: Path) -> dict[str, int]:
    """Write files below ``output``; a small value may be returned too."""
    count = 0
    with (output / "result.txt").open("w", encoding="utf-8") as file:
        for lines in results:
            file.writelines(line + "\n" for line in lines)
            count += len(lines)
    return {"lines": count}
