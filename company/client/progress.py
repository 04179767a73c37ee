"""A bar for whoever looks: on a terminal after a second, by tqdm where it is installed, else by rich; none in a pipe (I/O)."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from typing import Any

SHOWN_AFTER_S = 1.0  # what ends sooner needs no bar
EVERY_S = 0.1


def wanted(shown: bool | None) -> bool:
    """Whether to show bars. ``shown`` nil: where standard error is a terminal, unless $COMPANY_PROGRESS is 0."""
    if shown is not None:
        return shown
    return os.environ.get("COMPANY_PROGRESS", "1") != "0" and sys.stderr.isatty()


class Bar:
    """Counts, and draws what it has counted ten times a second at most. Made by `bar_of`."""

    def __init__(self, text: str, total: int | None) -> None:
        self._text, self._total = text, total
        self._done = self._drawn = 0
        self._next_at = time.monotonic() + SHOWN_AFTER_S
        self._bars: Any = None
        self._task: Any = None

    def advance(self, count: int = 1) -> None:
        """So many more are there."""
        self.reach(self._done + count)

    def reach(self, done: int, total: int | None = None) -> None:
        """So many are there now, of ``total`` if that is known by now."""
        self._done, self._total = done, total if total is not None else self._total
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + EVERY_S
            self._draw()

    def _draw(self) -> None:
        if self._bars is None:
            self._open()
        if self._task is None:  # tqdm
            self._bars.total = self._total
            self._bars.update(self._done - self._drawn)
        else:
            self._bars.update(self._task, completed=self._done, total=self._total)
            self._bars.refresh()
        self._drawn = self._done

    def _open(self) -> None:
        """By name, since a client needs neither of them: not where output is piped."""
        if importlib.util.find_spec("tqdm") is not None:
            self._bars = importlib.import_module("tqdm").tqdm(total=self._total, desc=self._text, file=sys.stderr, leave=False)
            return
        bars, console = importlib.import_module("rich.progress"), importlib.import_module("rich.console")
        columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeRemainingColumn())
        self._bars = bars.Progress(*columns, console=console.Console(stderr=True), transient=True, auto_refresh=False)
        self._bars.start()
        self._task = self._bars.add_task(self._text, total=self._total)

    def close(self) -> None:
        """Take it off the screen."""
        bars, self._bars = self._bars, None
        if bars is not None:
            (bars.close if self._task is None else bars.stop)()


def bar_of(text: str, total: int | None, shown: bool | None = None) -> Bar | None:
    """A bar where somebody looks, else nil."""
    return Bar(text, total) if wanted(shown) else None
