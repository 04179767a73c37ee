"""How connections of strangers ended: counted by reason, and told in the log, so many lines a minute at most (I/O: logging, a clock).

One connection that brings nonsense, says nothing or comes too often must leave a trace, and a million of them must not fill the disk
with it. Reasons are words of this code's, never of a peer's, so there are few. One table per process: its ports are told apart by name.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from p2p.net.clock import read_monotonic

LINES_PER_MINUTE = 10  # of one port and reason
MAX_TEXT_CHARS = 200
_log = logging.getLogger("parallel.endings")


class Endings:
    """Counts by (port, reason)."""

    def __init__(self, *, clock: Callable[[], float] = read_monotonic) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._clock = clock
        self._minute = -1
        self._lines: Counter[tuple[str, str]] = Counter()
        self._left_out: Counter[tuple[str, str]] = Counter()

    def note(self, port: str, reason: str, address: str, text: str, *, level: int = logging.WARNING) -> None:
        """Count one, and write its line unless there were enough in this minute; those left out are told with the next one."""
        self.counts[port, reason] += 1
        if not _log.isEnabledFor(level):
            return
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._minute = minute
            self._lines.clear()
        self._lines[port, reason] += 1
        if self._lines[port, reason] > LINES_PER_MINUTE:
            self._left_out[port, reason] += 1
            return
        left_out = self._left_out.pop((port, reason), 0)
        before = f" ({left_out} more of its kind before it were not shown)" if left_out else ""
        _log.log(level, "%s: the connection from %s ended, %s: %s%s", port, address, reason, ascii(text[:MAX_TEXT_CHARS])[1:-1], before)


ENDINGS = Endings()
