"""How long a child has let its daemon wait, by the daemon's own clock and by what came through the pipe (pure).

The shared page is the child's word: a module may write into it and look busy with ever new fragments. What it cannot forge is
an answer that has not come. So beside the page's limit stands this one: the time that the daemon has stood waiting at the
pipe since the last step it was told of, while the child owed it one.

A process child owes an OUTCOME of at least one fragment per (time limit + flush interval) as long as a RUN is out. A split
child owes fragments until SPLIT_END. A merge child tells nothing until it is done, so all that is known is how many results
it was given, and the limit counts once for each step of them. Time in which the daemon itself did not read is nobody's delay.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from company.sandbox import wire

GRACE_S = 1.0  # between the page's verdict, which names the fragment, and this one
AWAY_S = 0.05  # shorter absences count as waiting, or a flood of idle words would stop the clock
CHUNK_BYTES_PER_S = 20e6  # a large result on its way is progress at this speed,
MAX_CHUNK_BYTES = 4 << 30  # up to the largest there may be
MERGE_STEP = 256  # results that a merge takes at once, before its page tells of progress


class Patience:
    """What one child owes. ``now``: seconds of one monotonic clock, never decreasing."""

    def __init__(self, role: str, *, flush_s: float = wire.FLUSH_US / 1e6) -> None:
        self._role = role
        self._flush_s = flush_s
        self._runs: deque[list[int]] = deque()  # [token, fragments not answered yet]
        self._is_owing = role == "split"
        self._sending = 0
        self._steps = 1
        self._waited_s = 0.0
        self._waiting_since: float | None = None
        self._away_since = float("-inf")
        self._chunk_bytes = 0

    def send_begun(self, header: list[Any], count: int, *, now: float) -> None:
        """A frame of ``count`` items is being written to the child."""
        self._sending += 1
        if header[0] == wire.RUN:
            self._runs.append([header[1], count])
            if len(self._runs) == 1:
                self._progress(now)
        elif header[0] == wire.RESULTS:
            self._steps += 1 + count // MERGE_STEP
        elif header[0] == wire.END and self._role == "merge":
            self._is_owing = True
        if not self._runs:
            self._progress(now)

    def send_ended(self, *, now: float) -> None:
        """It has been written, or given up."""
        self._sending -= 1
        if not self._runs:  # it reads, so it is not stuck before the first batch
            self._progress(now)

    def wait_begun(self, *, now: float) -> None:
        """The daemon stands at the pipe from here."""
        if now - self._away_since < AWAY_S:
            self._waited_s += now - self._away_since
        self._waiting_since = now

    def wait_ended(self, *, now: float) -> None:
        """Something came, or the daemon has other things to do."""
        if self._waiting_since is not None:
            self._waited_s += now - self._waiting_since
            self._waiting_since = None
            self._away_since = now

    def received(self, header: list[Any], items: int, body_bytes: int, *, now: float) -> None:
        """A checked frame came."""
        code = header[0]
        if code == wire.CHUNK:
            self._chunk_bytes = min(MAX_CHUNK_BYTES, self._chunk_bytes + body_bytes)
        elif code == wire.OUTCOME:
            self._outcome(header[1], header[3], header[4], now)
        elif code in (wire.READY, wire.COUNT) or (code == wire.FRAGS and items):
            self._progress(now)
        elif code in (wire.SPLIT_END, wire.MERGED, wire.FAILED):
            self._is_owing = False
            self._runs.clear()

    def waited_s(self, *, now: float) -> float:
        """How long the daemon has waited for the next step; 0 while the child owes none."""
        if not (self._is_owing or self._runs or self._sending):
            return 0.0
        return self._waited_s + (0.0 if self._waiting_since is None else max(0.0, now - self._waiting_since))

    def allowed_s(self, limit_s: float) -> float:
        """How long an honest child may need when one fragment, or one step, may take ``limit_s``."""
        steps = self._steps if self._role == "merge" else 1
        return limit_s * steps + self._flush_s + GRACE_S + self._chunk_bytes / CHUNK_BYTES_PER_S

    def _outcome(self, token: int, count: int, last: bool, now: float) -> None:
        if not self._runs or token != self._runs[0][0]:
            return
        head = self._runs[0]
        if last:
            self._runs.popleft()
        elif not 0 < count <= head[1]:
            return  # words without a fragment in them, or more of them than were asked for
        head[1] -= count
        self._progress(now)

    def _progress(self, now: float) -> None:
        self._waited_s, self._chunk_bytes, self._away_since = 0.0, 0, now
        if self._waiting_since is not None:
            self._waiting_since = now
