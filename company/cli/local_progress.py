"""Progress of the local engine: a bar on a terminal, nothing elsewhere (I/O)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

LocalProgress = Callable[..., Any]


@contextlib.contextmanager
def local_progress(*, quiet: bool) -> Iterator[LocalProgress | None]:
    """A callback ``(done, total or nil, failed=0)``, or nil where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("fragments", total=None)

        def show(done: int, total: int | None = None, failed: int = 0) -> None:
            bars.update(task, completed=done, total=total, description=f"fragments, {failed} failed" if failed else "fragments")

        yield show
