"""The bar of an upload or download, only where a person looks (I/O)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Progress = Callable[[str, int, int], None]
_WORDS = {"hash": "reading", "upload": "uploading", "download": "downloading"}
MIN_BYTES = 4 << 20  # below, it is over before it can be read


@contextlib.contextmanager
def transfer_bar(label: str, *, quiet: bool) -> Iterator[Progress | None]:
    """A callback for `company.client` that draws a bar on a terminal, nil elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:

        def show(phase: str, done: int, total: int) -> None:
            if total < MIN_BYTES:
                return
            if phase not in tasks:
                tasks[phase] = bars.add_task(f"{_WORDS.get(phase, phase)} {label}", total=total, completed=done)
            bars.update(tasks[phase], completed=done)

        yield show
