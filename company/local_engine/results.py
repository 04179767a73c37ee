"""What a local run keeps until its merge: results on disk, logs, artifacts (I/O, in the run's own temporary folder)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from company.chief.logs import STDERR, parse_log_untrusted
from company.messages import Artifact
from p2p.base.errors import MalformedMessage
from p2p.base.frames import Sizes
from p2p.base.record import record

MAX_LOG_BYTES = 64 << 20
MAX_PIECE_BYTES = 8 << 20
MAX_PIECE_COUNT = 100_000


@record
class _Piece:
    """Results ``first .. first+count`` at ``offset``: their sizes, then their bytes. ``path``: a single large one instead."""

    first: int
    count: int
    offset: int
    size: int
    path: Path | None = None


class ResultSpool:
    """Results in the order in which they came; read in fragment order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO = (folder / "results").open("w+b")
        self._pieces: list[_Piece] = []
        self._end = 0

    def add(self, first: int, sizes: Sizes, body: memoryview) -> None:
        """Keep consecutive results."""
        at = self._end
        self._end += self._file.write(np.ascontiguousarray(sizes, dtype="<u4").tobytes()) + self._file.write(body)
        self._pieces.append(_Piece(first, len(sizes), at, len(body)))

    def add_file(self, index: int, path: Path, size: int) -> None:
        """Take over the file of one large result."""
        kept = self._folder / f"large-{index}"
        os.replace(path, kept)
        self._pieces.append(_Piece(index, 1, 0, size, kept))

    async def feed(self) -> AsyncIterator[tuple[int, Sizes, bytes | memoryview]]:
        """Every result in fragment order, neighbours together."""
        self._file.flush()
        batch: list[_Piece] = []
        for piece in sorted(self._pieces, key=lambda p: p.first):
            joined = sum(p.count for p in batch) + piece.count, sum(p.size for p in batch) + piece.size
            follows = not batch or batch[-1].first + batch[-1].count == piece.first
            if batch and (piece.path or not follows or joined[0] > MAX_PIECE_COUNT or joined[1] > MAX_PIECE_BYTES):
                yield self._read(batch)
                batch = []
            if piece.path is not None:
                yield piece.first, np.array([piece.size], dtype="<u4"), piece.path.read_bytes()
            else:
                batch.append(piece)
        if batch:
            yield self._read(batch)

    def _read(self, pieces: list[_Piece]) -> tuple[int, Sizes, bytes]:
        sizes, bodies = [], []
        for piece in pieces:
            raw = os.pread(self._file.fileno(), 4 * piece.count, piece.offset)
            sizes.append(np.frombuffer(raw, dtype="<u4"))
            bodies.append(os.pread(self._file.fileno(), piece.size, piece.offset + 4 * piece.count))
        return pieces[0].first, np.concatenate(sizes), b"".join(bodies)

    def close(self) -> None:
        self._file.close()


class LogFile:
    """What fragments printed, a line each with its fragment in front; nothing is made while nobody prints."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._size = 0
        self._dropped = 0

    @property
    def path(self) -> Path | None:
        """Where it is, nil while it is empty."""
        return None if self._file is None else self._path

    def add_untrusted(self, block: memoryview | bytes) -> None:
        """Write a child's log block; one that cannot be read is noted, not raised."""
        if not len(block):
            return
        try:
            entries = parse_log_untrusted(bytes(block))
        except MalformedMessage as error:
            entries = [(-1, STDERR, error.text.encode())]
        for index, _, data in entries:
            self.say(index, data)

    def say(self, index: int, data: bytes) -> None:
        """Write some output of one fragment."""
        if self._file is None:
            self._file = self._path.open("wb")
        text = b"".join(b"[%d] %s\n" % (index, line) for line in data.splitlines())
        if self._size + len(text) > MAX_LOG_BYTES:
            self._dropped += len(text)
            return
        self._size += len(text)
        self._file.write(text)

    def close(self) -> None:
        if self._file is not None:
            if self._dropped:
                self._file.write(b"... %d bytes more were printed\n" % self._dropped)
            self._file.close()


class Artifacts:
    """Files that fragments left with ``task.artifact``: folder/<fragment>/<name>."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.count = 0

    def add(self, message: Artifact, data: memoryview | bytes) -> None:
        """Write one piece of a file; its name was checked by the slot. A second try replaces what the first has left."""
        target = self._folder / str(message.index) / message.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("r+b" if message.offset else "wb") as file:
            file.seek(message.offset)
            file.write(data)
        self.count += message.last
