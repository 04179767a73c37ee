"""Large results on their way through a daemon: CHUNK frames to files, never a whole one in memory (I/O)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from company.sandbox import wire
from p2p.base.errors import MalformedMessage
from p2p.base.frames import Frame
from p2p.base.record import record

MAX_BLOB_BYTES = (1 << 32) - 1
MAX_BLOBS = 1024


@record
class SpooledBlob:
    """A large item in a file, which belongs to who took it."""

    path: Path
    size: int


class BlobSpool:
    """Gathers the CHUNKs of one child in ``folder``. Feed every CHUNK to `add_untrusted`, then `take` at the message that names them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs: dict[int, SpooledBlob] = {}
        self._open: tuple[int, int] | None = None  # blob, descriptor

    def add_untrusted(self, frame: Frame) -> None:
        """Write one CHUNK's bytes. Raises only `MalformedMessage`, and `OSError` of our own disk."""
        header = frame.header
        if len(header) != 3 or header[0] != wire.CHUNK or type(header[1]) is not int or type(header[2]) is not bool:
            raise MalformedMessage("CHUNK must be [code, blob, last]")
        _, number, last = header
        if self._open is None:
            if number != len(self._blobs) or number >= MAX_BLOBS:
                raise MalformedMessage(f"blob {number} where {len(self._blobs)} was due")
            fd, name = tempfile.mkstemp(prefix="blob-", dir=self._folder)
            self._open = (number, fd)
            self._blobs[number] = SpooledBlob(Path(name), 0)
        blob, fd = self._open
        so_far = self._blobs[blob]
        size = so_far.size + len(frame.body)
        if number != blob or size > MAX_BLOB_BYTES:
            raise MalformedMessage(f"blob {number} of {size} bytes, while blob {blob} is open")
        self._blobs[blob] = SpooledBlob(so_far.path, size)
        view = frame.body
        while view:
            view = view[os.write(fd, view) :]
        if last:
            os.close(fd)
            self._open = None

    def take(self, named: object) -> dict[int, SpooledBlob]:
        """The blobs by offset in the message whose ``blobs`` field is ``named``. Raises `MalformedMessage` when they disagree."""
        if type(named) is not list or self._open is not None or len(named) != len(self._blobs):
            raise MalformedMessage("a message names other blobs than were sent")
        taken: dict[int, SpooledBlob] = {}
        for number, pair in enumerate(named):
            if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not int or pair[1] != self._blobs[number].size:
                raise MalformedMessage("a blob must be [offset, size]")
            taken[pair[0]] = self._blobs[number]
        if len(taken) != len(named):
            raise MalformedMessage("two blobs at one offset")
        self._blobs = {}
        return taken

    def discard(self) -> None:
        """Forget and delete what was not taken."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None
        for blob in self._blobs.values():
            blob.path.unlink(missing_ok=True)
        self._blobs = {}
