"""Fragment path 6/9 - fragments and results too large to inline, over a second channel, through files (I/O).

One request at a time; never more than a megabyte of a blob in memory. What came is compared with the digest that the Run or the
chief's answer names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import trio

from company import messages as m
from company.worker.results import HeldBlob
from p2p.base.clock import Monotonic
from p2p.base.errors import PeerError, Unavailable
from p2p.base.frames import Frame
from p2p.base.schema import Message
from p2p.net.channel import Channel

CHUNK_BYTES = 1 << 20
IDLE_CLOSE_S = 10.0
STALE = "stale-token"
PART_DEADLINE_S = 60.0


class BulkChannel:
    """A channel of purpose "bulk", opened when first needed and closed when idle."""

    def __init__(self, open_channel: Callable[[], Awaitable[Channel]]) -> None:
        self._open = open_channel
        self._lock = trio.Lock()
        self._channel: Channel | None = None
        self._used = Monotonic(0.0)

    async def get(self, token: int, job: str, index: int, *, size: int, digest: bytes, path: Path) -> None:
        """Fetch one fragment into ``path``. Raises `Unavailable`, `PeerError` when it is not what was announced."""
        async with self._lock:
            try:
                await self._get(token, job, index, size=size, digest=digest, path=path)
            except BaseException:
                path.unlink(missing_ok=True)
                await self._drop()
                raise

    async def _get(self, token: int, job: str, index: int, *, size: int, digest: bytes, path: Path) -> None:
        channel = await self._ready()
        await channel.send(m.BlobGet(token, job, index))
        found = hashlib.blake2b(digest_size=32)
        got, last = 0, False
        async with await trio.open_file(path, "wb") as file:
            while not last:
                message, frame = await self._receive(channel)
                if not isinstance(message, m.BlobPart):
                    raise _unexpected(message)
                got += len(frame.body)
                if got > size:
                    raise PeerError("blob-wrong-size", f"fragment {index} is larger than the {size} bytes announced")
                found.update(frame.body)
                await file.write(frame.body)
                last = message.last
        if got != size or found.digest() != digest:
            raise PeerError("blob-wrong-digest", f"fragment {index} is not what was announced")

    async def put(self, token: int, job: str, blob: HeldBlob) -> None:
        """Give one result to the chief. Raises `Unavailable`, `PeerError`, `OSError`."""
        async with self._lock:
            try:
                channel = await self._ready()
                await channel.send(m.BlobPut(token, job, blob.index, blob.size))
                async with await trio.open_file(blob.path, "rb") as file:
                    left = blob.size
                    while True:
                        data = await file.read(CHUNK_BYTES)
                        left -= len(data)
                        await channel.send(m.BlobPart(left <= 0 or not data), np.array([len(data)], dtype="<u4"), data)
                        if left <= 0 or not data:
                            break
                message, _ = await self._receive(channel)
                if not isinstance(message, m.BlobKept):
                    raise _unexpected(message)
                if message.digest != blob.digest:
                    raise PeerError("blob-wrong-digest", f"the chief kept other bytes for result {blob.index}")
            except BaseException:
                await self._drop()
                raise

    async def wheel_list(self, job: str) -> tuple[bytes, bytes]:
        """The signed list of the wheels that a job requires: (body, signature). Raises `Unavailable` with the chief's code, `PeerError`."""
        async with self._lock:
            try:
                channel = await self._ready()
                await channel.send(m.WheelsGet(job))
                message, frame = await self._receive(channel)
                if isinstance(message, m.Refused):
                    raise Unavailable(message.code_word, message.text)
                if not isinstance(message, m.WheelsAre):
                    raise _unexpected(message)
                return bytes(frame.body), message.signature
            except BaseException:
                await self._drop()
                raise

    async def wheel(self, job: str, sha256: bytes, size: int, path: Path) -> None:
        """Write one wheel into ``path``; the caller checks its digest. Raises `Unavailable`, `PeerError`, `OSError`."""
        async with self._lock:
            try:
                channel = await self._ready()
                await channel.send(m.WheelGet(job, sha256))
                got, last = 0, False
                async with await trio.open_file(path, "wb") as file:
                    while not last:
                        message, frame = await self._receive(channel)
                        if not isinstance(message, m.BlobPart):
                            raise _unexpected(message)
                        got += len(frame.body)
                        if got > size:
                            raise PeerError("wheel-damaged", f"{path.name} is larger than the {size} bytes announced")
                        await file.write(frame.body)
                        last = message.last
            except BaseException:
                await self._drop()
                raise

    async def _receive(self, channel: Channel) -> tuple[Message, Frame]:
        with trio.move_on_after(PART_DEADLINE_S):
            return await channel.receive()
        raise Unavailable("bulk-timeout", f"the chief sent nothing for {PART_DEADLINE_S:g} s")

    async def _ready(self) -> Channel:
        self._used = Monotonic(trio.current_time())
        if self._channel is None or not self._channel.is_open:
            self._channel = await self._open()
        return self._channel

    async def close_if_idle(self, now: Monotonic) -> None:
        """Close after a while without use."""
        if self._channel is not None and not self._lock.locked() and now - self._used > IDLE_CLOSE_S:
            await self._drop()

    async def aclose(self) -> None:
        await self._drop()

    async def _drop(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await channel.aclose()


def _unexpected(message: Message) -> Unavailable | PeerError:
    if isinstance(message, m.Refused):
        if message.code_word == STALE:
            return PeerError(STALE, "the chief says that this lease is over")
        return Unavailable("blob-refused", f"the chief refused: {message.text}")
    return PeerError("bulk-confused", f"{type(message).__name__} has no place on a bulk channel")
