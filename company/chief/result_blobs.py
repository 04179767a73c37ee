"""One large result on its way to disk: spooled under its attempt's token, taken over only when the outcome is accepted (I/O).

Two attempts at one fragment (a backup copy of a slow one) may arrive together; each has its own file.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from company.chief.store.writer import is_disk_full, storage_full
from p2p.base.errors import MalformedMessage

MAX_BLOB_BYTES = 4 << 30
DIGEST_BYTES = 32  # BLAKE2b-256, as in company.messages.Blob


def blob_name(index: int) -> str:
    """The file of the result of fragment ``index``."""
    return f"blob-{index}"


def spool_name(token: int, index: int) -> str:
    """The file of one attempt's result, until it is accepted."""
    return f"spool-{token}-{index}"


class BlobWriter:
    """Writes and hashes as it comes. Every method blocks: call them in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self.size = 0

    def write(self, chunk: bytes | memoryview) -> None:
        """Add the next bytes. Raises `Unavailable` ("storage-full"), and `MalformedMessage` past 4 GiB."""
        self.size += len(chunk)
        if self.size > MAX_BLOB_BYTES:
            raise MalformedMessage(f"one result may have {MAX_BLOB_BYTES} bytes, got {self.size}")
        self._hash.update(chunk)
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            if is_disk_full(error):
                raise storage_full(self._path) from error
            raise

    def finish(self) -> tuple[int, bytes]:
        """Make it durable; return its size and digest."""
        os.fdatasync(self._fd)
        self._close()
        return self.size, self._hash.digest()

    def abort(self) -> None:
        """Throw it away. After `finish` or a second time: harmless, unless it was adopted meanwhile."""
        self._close()
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
