"""One large fragment on its way from a chief that speaks REST into a file: hashed, and never whole in memory (I/O).

The answer is a Run frame with one item. Its head is gathered, its body goes to the file as it comes.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from types import TracebackType

from p2p.base.errors import MalformedMessage
from p2p.base.frames import MAX_HEADER_BYTES, PREAMBLE

MAX_HEAD_BYTES = PREAMBLE.size + MAX_HEADER_BYTES + 4


class BlobSink:
    """Writes the item of a frame into ``path``. ``size``: what was announced; anything else is refused."""

    def __init__(self, path: Path, size: int) -> None:
        self._size = size
        self._file = path.open("wb")
        self._head = bytearray()
        self._is_body = False
        self._hashed = hashlib.blake2b(digest_size=32)
        self._got = 0

    def feed_untrusted(self, data: bytes) -> None:
        """Take the next bytes of the answer. Raises `MalformedMessage` for a frame of another kind or size, and `OSError`."""
        if not self._is_body:
            self._head += data
            rest = self._after_head()
            if rest is None:
                return
            data, self._is_body = rest, True
        self._got += len(data)
        if self._got > self._size:
            raise MalformedMessage(f"a fragment of {self._size} bytes was announced, more came")
        self._hashed.update(data)
        self._file.write(data)

    def _after_head(self) -> bytes | None:
        """What came behind the head, nil while it is not whole."""
        if len(self._head) < PREAMBLE.size:
            return None
        header_len, count, body_len = PREAMBLE.unpack_from(self._head)
        if not 1 <= header_len <= MAX_HEADER_BYTES or count != 1 or body_len != self._size:
            raise MalformedMessage(f"one fragment of {self._size} bytes was announced, {count} of {body_len} bytes come")
        end = PREAMBLE.size + header_len + 4
        if len(self._head) < end:
            return None
        (item,) = struct.unpack_from("<I", self._head, end - 4)
        if item != body_len:
            raise MalformedMessage(f"frame sizes add up to {item} bytes, body has {body_len}")
        return bytes(self._head[end:])

    def digest(self) -> bytes:
        """BLAKE2b-256 of what came; nothing when it is not whole."""
        return self._hashed.digest() if self._got == self._size and self._is_body else b""

    def __enter__(self) -> BlobSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._file.close()
