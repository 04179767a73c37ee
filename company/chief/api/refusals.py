"""One line in the log for each request that was turned away at the door, at most so many in a second (I/O: logging).

Neither token nor query is written: secrets stand there. Whoever hammers at the door does not fill the disk with it.
"""

from __future__ import annotations

import logging

from p2p.base.clock import Monotonic

SHOWN = frozenset({401, 403, 421, 429})
LINES_PER_S = 10
MAX_PATH_CHARS = 200
_log = logging.getLogger("company.chief.door")


class RefusalLog:
    """Counts lines per second; those left out are told with the next one."""

    def __init__(self) -> None:
        self._second = -1
        self._lines = 0
        self._left_out = 0

    def note(self, status: int, code: str, method: str, path: str, remote: str, now: Monotonic) -> None:
        """Write the line, unless there were enough in this second."""
        if status not in SHOWN:
            return
        if int(now) != self._second:
            self._second, self._lines = int(now), 0
        self._lines += 1
        if self._lines > LINES_PER_S:
            self._left_out += 1
            return
        before = f" ({self._left_out} more before it were not shown)" if self._left_out else ""
        self._left_out = 0
        _log.warning("refused %d %s: %s %s from %s%s", status, code, method, ascii(path[:MAX_PATH_CHARS])[1:-1], remote, before)
