"""Find the primes of one range with a segmented sieve of Eratosthenes."""

from functools import lru_cache
from math import isqrt
from typing import Any


@lru_cache(maxsize=1)
def small_primes(limit: int) -> list[int]:
    """All primes <= ``limit``."""
    sieve = bytearray([1]) * (limit + 1)
    sieve[:2] = bytes(min(2, limit + 1))
    for number in range(2, isqrt(limit) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit + 1, number)))
    return [number for number in range(limit + 1) if sieve[number]]


def process(fragment: tuple[int, int]) -> dict[str, Any]:
    """Return the count, first and last prime, twins, and largest gap inside [first, end)."""
    first, end = fragment
    sieve = bytearray([1]) * (end - first)
    for number in range(first, min(2, end)):
        sieve[number - first] = 0
    root = isqrt(max(end - 1, 0))
    # one list for all ranges below the same power of two, because the cache holds one
    for prime in small_primes(max(2, 1 << root.bit_length())):
        if prime > root:
            break
        start = max(prime * prime, -(-first // prime) * prime) - first
        sieve[start::prime] = bytes(len(range(start, end - first, prime)))
    return summary(sieve, first)


def summary(sieve: bytearray, first: int) -> dict[str, Any]:
    """What the borders and the inside of a sieved range say."""
    at = sieve.find(1)
    result: dict[str, Any] = {"primes": sieve.count(1), "first": None, "last": None, "twins": 0, "gap": 0, "gap_after": None}
    if at < 0:
        return result
    result["first"] = previous = first + at
    while (at := sieve.find(1, at + 1)) >= 0:
        gap = first + at - previous
        if gap == 2:
            result["twins"] += 1
        if gap > result["gap"]:
            result["gap"], result["gap_after"] = gap, previous
        previous = first + at
    result["last"] = previous
    return result
