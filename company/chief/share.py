"""Room for what is coming: a stream, an upload, what an archive unpacks to, each held to its user's quota (I/O: waits for its turn).

The numbers are those of `company.chief.quota`; here is when they count. An archive and what comes out of it lie on the disk together for
a moment; only the larger of the two counts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from company.chief.facade import Principal, StorageFull, TooLarge
from company.chief.quota import UNLIMITED, Key, Quota


class Shares:
    """Makes them for one chief."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self._locks: dict[str, trio.Lock] = {}  # by user: as many as there are names of tokens
        self._streams = 0

    def of(self, by: Principal, key: Key | None = None) -> Share:
        """``key``: what it counts as already; else it counts as a stream, as long as the share is open."""
        if key is None:
            self._streams += 1
            key = Key("stream", str(self._streams))
        return Share(self.quota, by, key, self._locks.setdefault(by.name, trio.Lock()))


class Share:
    """The room of one thing while it comes. What stays is put under a key of its own; leaving the context ends what counts as a stream."""

    def __init__(self, quota: Quota, by: Principal, key: Key, lock: trio.Lock) -> None:
        self._quota = quota
        self._by = by
        self._key = key
        self.unpacking = lock  # one archive of a user at a time, or each would be given the same room

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        if self._key.kind == "stream":
            self._quota.drop(self._key)

    def resize(self, size_bytes: int) -> None:
        """It takes so much. Raises `StorageFull`."""
        self._quota.take(self._by, self._key, size_bytes)

    def counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same chunks, which count while they come; the iterator raises `StorageFull` where they do not fit any more."""
        return _Counted(chunks, self)

    def grow(self, more_bytes: int) -> None:
        """It takes so much more. Raises `StorageFull`."""
        self.resize(self._quota.size_of(self._key) + more_bytes)

    def keep(self, size_bytes: int) -> None:
        """It is there and takes so much: counted whether it fits or not."""
        self._quota.put(self._key, self._by.name, size_bytes)

    def room_for_unpacked(self) -> int:
        """How much may come out of the archive, which is deleted then and so makes room itself."""
        return min(UNLIMITED, self._quota.room(self._by) + self._quota.size_of(self._key))

    def refused(self, error: TooLarge, room: int) -> TooLarge | StorageFull:
        """What to raise for an archive that grew too large: the user's own limit, if it was that."""
        if error.facts.get("limit") != room:
            return error
        return self._quota.exceeded(self._by, int(error.facts.get("actual", room)) - self._quota.size_of(self._key))


class _Counted:
    """An iterator and no generator: nothing is left to be closed when it is abandoned."""

    def __init__(self, chunks: AsyncIterator[bytes], share: Share) -> None:
        self._chunks = chunks
        self._share = share

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._chunks.__anext__()
        self._share.grow(len(chunk))
        return chunk
