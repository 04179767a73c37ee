"""Files that fragments leave with task.artifact(): collected piece by piece, bounded, named safely (I/O)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from sqlalchemy import Connection

from company.chief.commit import Op
from company.chief.store import artifacts, jobs
from company.chief.store.artifacts import ArtifactRow
from company.messages import Artifact
from company.paths import is_plain_file_name
from p2p.base.errors import MalformedMessage
from p2p.base.frames import Frame

MAX_ARTIFACT_BYTES = 1 << 30
MAX_OPEN = 256
MAX_PER_JOB = 100_000


@dataclass(slots=True)
class _Open:
    path: Path
    offset: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


class ArtifactSink:
    """``directory``: job id to its artifacts directory; ``write``: queues row changes."""

    def __init__(self, directory: Callable[[str], Path], write: Callable[[list[Op]], None]) -> None:
        self._directory = directory
        self._write = write
        self._open: dict[tuple[int, int, str], _Open] = {}
        self._counts: dict[str, int] = {}

    async def take(self, message: Artifact, frame: Frame) -> None:
        """Add one piece. Raises `MalformedMessage` for names, orders and sizes that no honest worker sends."""
        if not is_plain_file_name(message.name):
            raise MalformedMessage(f"artifact name {message.name[:40]!r} is refused")
        key = (message.token, message.index, message.name)
        state = self._open.get(key)
        if state is None:
            if message.offset or len(self._open) >= MAX_OPEN:
                return  # the rest of one whose beginning was lost with a channel; the fragment's next attempt sends it again
            if self._counts.get(message.job, 0) >= MAX_PER_JOB:
                return
            self._counts[message.job] = self._counts.get(message.job, 0) + 1
            folder = self._directory(message.job) / str(message.index)
            folder.mkdir(parents=True, exist_ok=True)
            state = self._open[key] = _Open(folder / f".{message.token}-{message.name}")
        if message.offset != state.offset or state.offset + len(frame.body) > MAX_ARTIFACT_BYTES:
            del self._open[key]
            state.path.unlink(missing_ok=True)
            raise MalformedMessage(f"artifact {message.name[:40]!r} came out of order or is larger than {MAX_ARTIFACT_BYTES} bytes")
        await trio.to_thread.run_sync(_append, state, frame.body)
        if message.last:
            del self._open[key]
            final = state.path.with_name(message.name)
            os.replace(state.path, final)
            row = ArtifactRow(message.job, message.index, message.name, state.offset, state.digest.digest())
            self._write([lambda conn: _save(conn, row)])

    def forget(self, job: str) -> None:
        """The job is over."""
        self._counts.pop(job, None)


def _save(conn: Connection, row: ArtifactRow) -> None:
    """Add it, unless its job was removed while the last piece was on its way."""
    if jobs.load(conn, row.job) is not None:
        artifacts.save(conn, [row])


def _append(state: _Open, body: memoryview) -> None:
    with state.path.open("ab" if state.offset else "wb") as file:
        file.write(body)
    state.digest.update(body)
    state.offset += len(body)
