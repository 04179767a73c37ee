"""What users have used, kept over restarts, so that nobody's share begins anew because the chief did (I/O: one row of `meta`).

The row is written at most every `SAVE_EVERY_S` seconds while usage grows, and when the chief stops in order; a kill forgets no more.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

import trio
from sqlalchemy import Connection

from company.chief.queue import HALF_LIFE_S
from company.chief.store import meta

USAGE = "usage"
SAVE_EVERY_S = 30.0
MAX_USERS = 1024  # in the row
_log = logging.getLogger("company.chief")


def load_usage(conn: Connection, now: float | None = None) -> dict[str, float]:
    """Slot-seconds per user, decayed to ``now`` (Unix seconds; else this moment); empty where no row is or can be read."""
    row = meta.get(conn, USAGE)
    if row is None:
        return {}
    try:
        at, users = json.loads(row)
        age_s = max(0.0, (time.time() if now is None else now) - float(at))
        return {str(user): float(seconds) * 0.5 ** (age_s / HALF_LIFE_S) for user, seconds in users.items()}
    except (ValueError, TypeError, AttributeError) as error:
        _log.warning("the row of users' usage cannot be read, shares begin anew: %s", error)
        return {}


def save_usage(conn: Connection, usage: dict[str, float], now: float) -> None:
    """Write it; the heaviest users where there are too many."""
    kept = sorted(usage.items(), key=lambda item: (-item[1], item[0]))[:MAX_USERS]
    meta.put(conn, USAGE, json.dumps([int(now), {user: round(seconds, 3) for user, seconds in kept}]).encode())


class UsageKeeper:
    """Writes the row when what it says has changed."""

    def __init__(self, usage: Callable[[], dict[str, float]], add: Callable[[Callable[[Connection], None]], None]) -> None:
        """``usage``: of now; ``add``: queue a write for the next group commit."""
        self._usage = usage
        self._add = add
        self._saved: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(SAVE_EVERY_S)
            self.save()

    def save(self) -> None:
        """Now, if anybody has used anything since."""
        found = self._usage()
        # decay alone is no news: the row carries its time
        if any(seconds > self._saved.get(user, 0.0) for user, seconds in found.items()):
            self._saved = found
            self._add(lambda conn: save_usage(conn, found, time.time()))
