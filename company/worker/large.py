"""Fragment path 6/9 - results too large to inline, as a child sends them: CHUNKs before the OUTCOME that names them (I/O).

Spooled as they come, hashed on the way, bounded by what one result may have; the OUTCOME must name exactly what came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from company.worker.frames import MAX_BLOB_BYTES, ChildOutcome, words_untrusted
from company.worker.results import HeldBlob
from p2p.base.errors import MalformedMessage
from p2p.base.frames import Frame

MAX_BLOBS = 256


@dataclass(slots=True)
class _Spool:
    path: Path
    size: int = 0
    is_whole: bool = False
    digest: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=32))


class LargeResults:
    """The blobs that came since the last OUTCOME. ``new_path``: a fresh file name in scratch."""

    def __init__(self, new_path: Callable[[], Path]) -> None:
        self._new_path = new_path
        self._spools: list[_Spool] = []

    async def on_chunk_untrusted(self, frame: Frame) -> None:
        """Append one CHUNK. Raises only `MalformedMessage` for what the child did; `OSError` when the disk is full."""
        number, last = words_untrusted(frame, (int, bool), 1)
        if number == len(self._spools) and number < MAX_BLOBS and (not self._spools or self._spools[-1].is_whole):
            self._spools.append(_Spool(self._new_path()))
        if number != len(self._spools) - 1 or self._spools[number].is_whole:
            raise MalformedMessage(f"CHUNK of blob {number} is out of order")
        spool = self._spools[number]
        spool.size += len(frame.body)
        if spool.size > MAX_BLOB_BYTES:
            raise MalformedMessage(f"a result may have {MAX_BLOB_BYTES} bytes")
        spool.digest.update(frame.body)
        async with await trio.open_file(spool.path, "ab") as file:
            await file.write(frame.body)
        spool.is_whole = last

    def take_untrusted(self, outcome: ChildOutcome) -> tuple[HeldBlob, ...]:
        """The blobs of this OUTCOME, which must be exactly those that came. Raises only `MalformedMessage`."""
        named = [size for _, size in outcome.blobs]
        if named != [spool.size for spool in self._spools] or not all(spool.is_whole for spool in self._spools):
            raise MalformedMessage(f"OUTCOME names blobs of {named[:4]} bytes, others came")
        spools, self._spools = self._spools, []
        return tuple(
            HeldBlob(outcome.first + offset, spool.size, spool.digest.digest(), spool.path)
            for (offset, _), spool in zip(outcome.blobs, spools, strict=True)
        )

    def drop(self) -> None:
        """Forget what came."""
        for spool in self._spools:
            spool.path.unlink(missing_ok=True)
        self._spools = []
