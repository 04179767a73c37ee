"""Routing tables of a million nodes that are never stored: bucket c of node v is computed from (v, c) when somebody asks (pure).

Ids are 56 random bits and 8 zeros (lookups keep notes there), sorted. Bucket c of v holds nodes that share exactly c leading bits with
v: one interval of the sorted ids. Where it has at most k nodes the bucket is all of them; else it is a random k-subset, keyed by
(seed, v, c) and drawn by Floyd's algorithm, so that the same node always has the same table. A node stands for itself by its distance
to the target: no index, no table, 8 bytes per node.

Source: Maymounkov, Mazières 2002 (buckets); Bentley, Floyd 1987, "A sample of brilliance" (k of n without repetition).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from p2p.base.errors import UsageError
from simulator.chance import GOLDEN, Words, mix, seed_word, words

Ints = npt.NDArray[np.int64]
NONE: Final = np.uint64(0xFFFFFFFFFFFFFFFF)  # no contact: farther than every other
MAX_NODES: Final = 1 << 24
LOW: Final = np.uint64(0xFF)  # the bits of a distance that say nothing
_HALF: Final = np.uint64(32)
_M: Final = np.uint64(0xBF58476D1CE4E5B9)


class Tables:
    """A stabilised network of ``nodes`` ids with buckets of ``k``, and who knows whom in it."""

    def __init__(self, nodes: int, k: int, seed: int) -> None:
        """Raises `UsageError` outside 2..2^24 nodes or k < 1."""
        if not 2 <= nodes <= MAX_NODES or k < 1:
            raise UsageError("simulation-parameters", f"a network has 2 to {MAX_NODES} nodes and k of at least 1, got {nodes} and {k}")
        self.k = k
        self.key = seed_word(seed, "buckets")
        self.ids = np.sort(words(seed_word(seed, "ids"), np.arange(nodes)) & ~LOW)
        if nodes > 1 and bool((self.ids[1:] == self.ids[:-1]).any()):
            raise UsageError("simulation-parameters", f"two nodes got the same id with seed {seed}; take another seed")
        self.bits = min(24, max(4, int(nodes - 1).bit_length() + 2))
        edges = np.arange(1 << self.bits, dtype=np.uint64) << np.uint64(64 - self.bits)
        self.index = np.append(np.searchsorted(self.ids, edges), nodes).astype(np.int32)
        # deeper than `bits` every interval lies in one cell: if the fullest cell fits into a bucket, its neighbourhood is known completely
        self.fullest_cell = int(np.diff(self.index).max())

    @property
    def size_bytes(self) -> int:
        """Memory of the whole network."""
        return self.ids.nbytes + self.index.nbytes

    def bucket(self, distance: Words, target: Words) -> tuple[Ints, Ints, Ints]:
        """Where in `ids` the bucket lies that the node at ``distance`` from ``target`` has for it: first, size, number of shared bits."""
        shared = shared_bits(distance)
        depth = shared + 1
        deep = depth > self.bits
        cut = np.minimum(depth, self.bits)
        shift = (64 - cut).astype(np.uint64)
        prefix = (target >> shift).astype(np.int64)
        low = prefix << (self.bits - cut)
        first = self.index[low].astype(np.int64)
        size = self.index[low + (np.int64(1) << (self.bits - cut))] - first
        if deep.any():  # inside one cell: few nodes, found by bisection
            shift = (64 - np.minimum(depth[deep], 64)).astype(np.uint64)
            start = (target[deep] >> shift) << shift
            end = start + ((np.uint64(1) << shift) - np.uint64(1))
            first[deep] = np.searchsorted(self.ids, start)
            size[deep] = np.searchsorted(self.ids, end, side="right") - first[deep]
        return first, size, shared

    def contacts(self, distance: Words, target: Words) -> Words:
        """Distances to ``target`` of the contacts in that bucket, shape (k, queries), unordered; `NONE` where there are fewer."""
        first, size, shared = self.bucket(distance, target)
        key = mix(((distance ^ target) + np.uint64(self.key)) ^ (shared.astype(np.uint64) * np.uint64(GOLDEN)))
        large = size > self.k
        if large.all():
            return self._subset(first, size, key, target)
        out = np.full((self.k, len(distance)), NONE)
        out[:, large] = self._subset(first[large], size[large], key[large], target[large])
        small = np.flatnonzero(~large)
        for slot in range(int(size[small].max(initial=0))):
            here = small[size[small] > slot]
            out[slot, here] = self.ids[first[here] + slot] ^ target[here]
        return out

    def _subset(self, first: Ints, size: Ints, key: Words, target: Words) -> Words:
        """A keyed k-subset of each interval, all larger than k."""
        k = self.k
        place = np.empty((k, len(size)), dtype=np.uint32)
        room = (size - k).astype(np.uint64)
        for slot in range(k):
            x = key + np.uint64(((slot + 1) * GOLDEN) & 0xFFFFFFFFFFFFFFFF)
            x ^= x >> _HALF
            x *= _M
            x ^= x >> np.uint64(29)
            x *= _M
            x >>= _HALF
            x *= room + np.uint64(slot + 1)
            x >>= _HALF
            row = x.astype(np.uint32)
            if slot:
                taken = (place[:slot] == row).any(axis=0)
                if taken.any():
                    row[taken] = room[taken].astype(np.uint32) + np.uint32(slot)
            place[slot] = row
        found = np.take(self.ids, place.astype(np.int64) + first)
        found ^= target
        return found


def shared_bits(distance: Words) -> Ints:
    """Number of leading zero bits, 64 for 0."""
    # 53 bits convert exactly; distances below 2^11 count as equal in all but the last bits, which no two of 2^24 random ids ever are
    exponent = ((distance >> np.uint64(11)).astype(np.float64).view(np.uint64) >> np.uint64(52)).astype(np.int64)
    return np.where(exponent == 0, np.where(distance == 0, 64, 53), 1075 - exponent)
