"""Memory set aside for telling that memory is exhausted (I/O: the process's own memory).

A fragment may take all that its limit allows and keep it, in threads for example. The words about it, and its neighbours'
results, must still fit: msgpack's packer alone wants 256 KiB. The bytes are zero pages that nobody touches: address space, no memory.
"""

from __future__ import annotations

RESERVE_BYTES = 4 << 20  # a part's results once more, when they are joined: process.FLUSH_BYTES and some
_held: list[bytearray] = []


def keep() -> None:
    """Set it aside, where it can be had."""
    if not _held:
        try:
            _held.append(bytearray(RESERVE_BYTES))
        except MemoryError:
            return


def give_up() -> None:
    """Let whoever needs memory now have it."""
    _held.clear()
