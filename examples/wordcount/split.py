"""Cut a folder of Python files into fragments of about ``group_bytes`` of text."""

import os
from collections.abc import Iterator
from pathlib import Path


def source_files(data: Path) -> Iterator[Path]:
    """Every .py file below ``data``, in an order that is the same on every machine."""
    if data.is_file():
        yield data
        return
    for folder, folders, names in os.walk(data):
        folders.sort()  # os.walk goes down in this order; split must yield the same fragments when it is run again
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file() and not path.is_symlink():
                yield path


def split(data: Path, group_bytes: int = 65536) -> Iterator[list[bytes]]:
    """Yield lists of whole files as bytes. Only one list is in memory at a time."""
    group: list[bytes] = []
    size = 0
    for path in source_files(Path(data)):
        content = path.read_bytes()
        if group and size + len(content) > group_bytes:
            yield group
            group, size = [], 0
        group.append(content)
        size += len(content)
    if group:
        yield group
