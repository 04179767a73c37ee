"""What a live job owns outside the machine: its window, files, split and merge tasks, and what pages show of it (I/O owner)."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from company.chief.call_stream import CallStream
from company.chief.digests import SplitCheck
from company.chief.segments import LogStore, SegmentStore
from company.chief.store.jobs import JobRow
from company.chief.window import FragmentWindow
from company.paths import JobDirs

MAX_STATUS_LINES = 20


@dataclass(slots=True)
class JobRuntime:
    """The driver's side of one live job. ``row``: as it stands in the database."""

    row: JobRow
    dirs: JobDirs
    files: Mapping[str, bytes]
    processor: bytes
    requirements: tuple[str, ...]
    data: Path
    data_name: str
    memory_bytes: int
    time_limit_s: float
    segments: SegmentStore
    logs: LogStore
    check: SplitCheck
    done_before: int = 0  # fragments with a result when this start of the chief took the job over
    dead_before: frozenset[int] = frozenset()  # failed for good in an earlier run: nobody will ask for them
    window: FragmentWindow = field(default_factory=FragmentWindow)
    room: trio.Event = field(default_factory=trio.Event)
    stream: CallStream | None = None  # an executor's job: its fragments come from the client
    grown: trio.Event = field(default_factory=trio.Event)  # the stream has
    news: trio.Event = field(default_factory=trio.Event)  # results or final failures were committed
    split_scope: trio.CancelScope | None = None
    merge_scope: trio.CancelScope | None = None  # of the merge task, which may begin before the last result is there
    merge_go: trio.Event = field(default_factory=trio.Event)  # all results are there
    statuses: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_STATUS_LINES))
    failure_text: dict[int, Any] = field(default_factory=dict)
    guests: dict[str, str] = field(default_factory=dict)  # workers of other companies that computed for it -> contract (hex)
    cpu_us: int = 0
    peak_bytes: int = 0
    ended: trio.Event = field(default_factory=trio.Event)

    def make_room(self) -> None:
        """Wake the split task that waits for the window."""
        self.room.set()
        self.room = trio.Event()

    def tell_stream(self) -> None:
        """Wake the task that reads the stream."""
        self.grown.set()
        self.grown = trio.Event()

    def tell_news(self) -> None:
        """Wake those who wait for results."""
        self.news.set()
        self.news = trio.Event()

    def tell_end(self) -> None:
        """The job is over and its row on disk, and so is all that was appended before: three descriptors go back."""
        self.segments.close()
        self.logs.close()
        self.ended.set()
        self.tell_news()

    def close(self) -> None:
        """Stop what runs and give files back."""
        if self.split_scope is not None:
            self.split_scope.cancel()
        if self.merge_scope is not None and self.row.state != "done":
            self.merge_scope.cancel()
        self.window.clear()
        self.make_room()
        if self.stream is not None:
            self.stream.close()


def segment_id(job_id: str) -> bytes:
    """The 16 bytes that name a job in its segment files: BLAKE2b-128 of its id."""
    return hashlib.blake2b(job_id.encode(), digest_size=16).digest()
