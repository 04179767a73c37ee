"""Large pieces that are on the disk leave the page cache, where the disk is fast (I/O).

On a virtual machine a page that the host must find first costs ten times as much as the write to it, and a chief that lets its cache grow
takes such pages all the time; one that lets go what is synced takes the same few again and again (docs/performance.md). What is
read once more later comes from the disk then, so a slow one keeps its cache.
"""

from __future__ import annotations

import os
import time

LET_GO_BYTES = 1 << 20
FAST_BYTES_PER_S = 200e6


def sync_and_let_go(fd: int, at: int, size: int) -> bool:
    """Make ``size`` bytes at ``at`` durable; return whether they left the cache. Blocks. Raises OSError."""
    began = time.perf_counter()
    os.fdatasync(fd)
    leaves = is_worth_it(size, time.perf_counter() - began)
    if leaves:
        let_go(fd, at, size)
    return leaves


def is_worth_it(size: int, took_s: float) -> bool:
    """Whether ``size`` bytes that took so long to sync are better read once more than kept."""
    return size >= LET_GO_BYTES and size >= took_s * FAST_BYTES_PER_S


def let_go(fd: int, at: int, size: int) -> None:
    """Drop clean pages from the cache."""
    os.posix_fadvise(fd, at, size, os.POSIX_FADV_DONTNEED)
