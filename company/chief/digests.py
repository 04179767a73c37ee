"""Which inputs a result belongs to: digests of ranges of fragments, and the check of a split that runs again (pure).

After a crash split runs once more. Every outcome on disk carries the digest of the fragments it was computed from; the new
run is compared range by range, so that a split that yields something else is noticed before its results are merged.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

import xxhash

from p2p.base.frames import Sizes


def range_digest(sizes: Sizes, bodies: Sequence[bytes | memoryview]) -> bytes:
    """xxh3-128 over the sizes (u32le) and the bytes of a range of fragments: 16 bytes."""
    state = xxhash.xxh3_128(sizes.tobytes())
    for body in bodies:
        state.update(body)
    return state.digest()


class SplitCheck:
    """The ranges whose digests a new run of split must reproduce, in order."""

    def __init__(self, rows: Sequence[tuple[int, int, bytes]] = ()) -> None:
        self._rows = sorted(rows)
        self._at = 0

    def expect(self, first: int, count: int, digest: bytes) -> None:
        """A result accepted while split has not yet come as far as its range."""
        insort(self._rows, (first, count, digest))

    def due(self, end: int) -> tuple[tuple[int, int, bytes], ...]:
        """The ranges that lie wholly before ``end`` and have not been asked for yet."""
        start = self._at
        while self._at < len(self._rows) and self._rows[self._at][0] + self._rows[self._at][1] <= end:
            self._at += 1
        return tuple(self._rows[start : self._at])

    @property
    def is_over(self) -> bool:
        """Whether every range has been compared."""
        return self._at >= len(self._rows)
