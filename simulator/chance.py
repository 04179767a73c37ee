"""Counter-based random numbers: a number is a function of (seed, node, event), never of what was drawn before (pure).

So results depend neither on the size of a batch nor on the number of threads nor on the order of drawing, and one node's history can
be drawn again alone. Vectorised over numpy arrays; scalars give the same numbers. Not for keys, nonces or secrets.

Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (the idea); the mixing function is the finaliser
of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", variant 13 of Stafford).
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

GOLDEN: Final = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd
_M1: Final = 0xBF58476D1CE4E5B9
_M2: Final = 0x94D049BB133111EB
_MASK: Final = (1 << 64) - 1
_TO_UNIT: Final = 2.0**-53


def seed_word(seed: int, purpose: str) -> int:
    """The 64-bit key of one purpose ("latency", "liveness" …) under one seed; purposes never share numbers."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8, person=b"parallel-sim").digest(), "big")


def mix(x: Words) -> Words:
    """Scramble words, one to one; a fresh array."""
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(_M1)
    x ^= x >> np.uint64(27)
    x *= np.uint64(_M2)
    x ^= x >> np.uint64(31)
    return x


def words(key: int, node: npt.NDArray[Any], event: npt.NDArray[Any] | int = 0) -> Words:
    """One random word for each (node, event) under ``key``; arguments broadcast."""
    first = mix(np.asarray(node, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(key))
    return mix(first + np.asarray(event, dtype=np.uint64) * np.uint64(_M2 | 1) + np.uint64(GOLDEN))


def uniform(key: int, node: npt.NDArray[Any], event: npt.NDArray[Any] | int = 0) -> Floats:
    """Numbers in [0, 1), 53 bits."""
    return (words(key, node, event) >> np.uint64(11)).astype(np.float64) * _TO_UNIT


def normal(key: int, node: npt.NDArray[Any], event: npt.NDArray[Any] | int = 0) -> Floats:
    """Standard normal numbers (Box, Muller 1958)."""
    u = 1.0 - uniform(key, node, event)
    v = uniform(key ^ 0x5DEECE66D, node, event)
    return np.asarray(np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * np.pi * v))


def exponential(key: int, node: npt.NDArray[Any], event: npt.NDArray[Any] | int = 0) -> Floats:
    """Exponential numbers of mean 1."""
    return np.asarray(-np.log1p(-uniform(key, node, event)))


def word(key: int, node: int, event: int = 0) -> int:
    """The same number as `words` gives, for one node and event, without an array."""
    x = (node * GOLDEN + key) & _MASK  # `mix` twice, written out: calls would cost more than the arithmetic
    x = ((x ^ (x >> 30)) * _M1) & _MASK
    x = ((x ^ (x >> 27)) * _M2) & _MASK
    x = ((x ^ (x >> 31)) + event * (_M2 | 1) + GOLDEN) & _MASK
    x = ((x ^ (x >> 30)) * _M1) & _MASK
    x = ((x ^ (x >> 27)) * _M2) & _MASK
    return x ^ (x >> 31)


def unit(key: int, node: int, event: int = 0) -> float:
    """The same number as `uniform` gives, for one node and event."""
    return (word(key, node, event) >> 11) * _TO_UNIT


def exponential_one(key: int, node: int, event: int = 0) -> float:
    """One of `exponential`, to nine decimals: another library's last bits of a logarithm are not to make another history."""
    return round(-math.log1p(-unit(key, node, event)), 9)
