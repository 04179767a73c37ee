"""What happened to a job, line by line: kept in memory while it lives, on disk for ever (I/O through the store)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import msgpack
from sqlalchemy import Connection

from company.chief.store import stories
from company.chief.store.stories import StoryRow

RECENT = 200
MAX_TEXT = 2000


class Storybook:
    """One sequence of lines for all jobs. ``write``: queues row changes (the committer's)."""

    def __init__(self, write: Callable[[list[Callable[[Connection], None]]], None], *, last_seq: int) -> None:
        self._write = write
        self._recent: dict[str, deque[StoryRow]] = {}
        self._seq = last_seq

    def tell(self, job: str, kind: str, text: str, cause: int | None = None) -> int:
        """Add a line; return its number."""
        self._seq += 1
        seq = self._seq
        row = StoryRow(job=job, seq=seq, at=time.time(), kind=kind, cause_seq=cause, body=msgpack.packb({"text": text[:MAX_TEXT]}))
        self._recent.setdefault(job, deque(maxlen=RECENT)).append(row)
        self._write([lambda conn: stories.append(conn, [row])])
        return seq

    def close(self, job: str) -> None:
        """The job is over; its lines are on disk."""
        self._recent.pop(job, None)
