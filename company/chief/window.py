"""Fragment path 2/9 - keep the fragments that split made until their results are on disk (pure, memory only).

A job's window is a list of chunks as they came out of the sandbox: one size array and one run of bytes each. Batches are cut
from them without copying where they lie in one chunk. The window's bytes are what holds the generator back.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from company.chief.ranges import RangeSet
from p2p.base.errors import InvariantBroken
from p2p.base.frames import Sizes
from p2p.base.record import record

WINDOW_BYTES = 64 << 20  # of all jobs together
MIN_WINDOW_BYTES = 4 << 20


def window_limit(slots: int, jobs: int) -> int:
    """How many bytes one of ``jobs`` may hold: a slot has a batch and the next one, of a fragment each where those are large."""
    wanted = min(WINDOW_BYTES, MIN_WINDOW_BYTES * (2 + slots))
    return max(MIN_WINDOW_BYTES, wanted // max(1, jobs))


@record
class Large:
    """A fragment too large to inline, spooled to a file of its own."""

    path: Path
    size: int
    digest: bytes


@dataclass(slots=True)
class Chunk:
    """Fragments ``first .. first+len(sizes)``; ``ends``: int64, cumulative sizes."""

    first: int
    sizes: Sizes
    ends: npt.NDArray[np.int64]
    body: memoryview
    large: dict[int, Large] = field(default_factory=dict)
    free: RangeSet = field(default_factory=RangeSet)  # fragments whose result is on disk, or that failed for good

    @property
    def cost_bytes(self) -> int:
        return len(self.body) + 12 * len(self.sizes)


class FragmentWindow:
    """The fragments of one job that may still be needed."""

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._firsts: list[int] = []
        self.held_bytes = 0
        self.end = 0  # one past the last fragment that split has made

    def add(self, first: int, sizes: Sizes, body: memoryview, large: dict[int, Large] | None = None) -> None:
        """Append a chunk. Raises `InvariantBroken` when it does not follow the one before."""
        if first != self.end:
            raise InvariantBroken(f"fragments must follow each other: expected {self.end}, got {first}")
        if not len(sizes):
            return
        chunk = Chunk(first, sizes, np.cumsum(sizes, dtype=np.int64), body, large or {})
        self._chunks.append(chunk)
        self._firsts.append(first)
        self.end = first + len(sizes)
        self.held_bytes += chunk.cost_bytes

    def cut(self, first: int, count: int) -> tuple[Sizes, list[memoryview], dict[int, Large]]:
        """Sizes, buffers and spooled fragments (by index) of ``count`` fragments. Raises `InvariantBroken` if they are gone."""
        sizes: list[Sizes] = []
        bodies: list[memoryview] = []
        large: dict[int, Large] = {}
        at, stop = first, first + count
        position = bisect_right(self._firsts, first) - 1
        while at < stop:
            chunk = self._chunks[position] if 0 <= position < len(self._chunks) else None
            if chunk is None or not chunk.first <= at < chunk.first + len(chunk.sizes):
                raise InvariantBroken(f"fragment {at} is not in the window")
            a = at - chunk.first
            b = min(stop - chunk.first, len(chunk.sizes))
            sizes.append(chunk.sizes[a:b])
            bodies.append(chunk.body[(int(chunk.ends[a - 1]) if a else 0) : int(chunk.ends[b - 1])])
            large.update((i, f) for i, f in chunk.large.items() if at <= i < chunk.first + b)
            at = chunk.first + b
            position += 1
        return (sizes[0] if len(sizes) == 1 else np.concatenate(sizes)), bodies, large

    def first_held(self) -> int | None:
        """A fragment whose bytes are here, None when there is none."""
        return self._firsts[0] if self._firsts else None

    def has(self, first: int, count: int) -> bool:
        """Whether all of the range is here."""
        position = bisect_right(self._firsts, first) - 1
        at = first
        while at < first + count:
            if not 0 <= position < len(self._chunks):
                return False
            chunk = self._chunks[position]
            if not chunk.first <= at < chunk.first + len(chunk.sizes):
                return False
            at = chunk.first + len(chunk.sizes)
            position += 1
        return True

    def release(self, first: int, count: int) -> None:
        """These fragments have a result on disk or failed for good.

        Saying so twice does no harm: a result of before a restart is compared when split makes its fragment again, and is on disk by then
        or shortly after.
        """
        stop = first + count
        position = max(0, bisect_right(self._firsts, first) - 1)
        while position < len(self._chunks) and self._chunks[position].first < stop:
            chunk = self._chunks[position]
            begin, end = max(first, chunk.first), min(stop, chunk.first + len(chunk.sizes))
            if begin < end:
                chunk.free.add(begin, end - begin)
            if chunk.free.total == len(chunk.sizes):
                self.held_bytes -= chunk.cost_bytes
                del self._chunks[position], self._firsts[position]
                for spooled in chunk.large.values():
                    spooled.path.unlink(missing_ok=True)
            else:
                position += 1

    def clear(self) -> None:
        """Forget everything, spool files included."""
        for chunk in self._chunks:
            for spooled in chunk.large.values():
                spooled.path.unlink(missing_ok=True)
        self._chunks.clear()
        self._firsts.clear()
        self.held_bytes = 0
        self.end = 0
