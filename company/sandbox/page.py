"""The parent's view of the page and the log that a child shares with it (I/O, by pread alone).

Both are memfds of fixed size, sealed against growing and shrinking; the parent never maps them, so that nothing a child
does to them can kill it. What stands in them is the child's word and used for messages and time limits only.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time

from company.sandbox import wire
from company.sandbox.page_slots import PAGE_LOG_END, PAGE_LOG_INDEX, PAGE_SLOTS, PAGE_SPAN, PAGE_STAGE
from p2p.base.record import record

_SLOTS = struct.Struct(f"={PAGE_SLOTS}Q")
_F_ADD_SEALS, _SEALS = 1033, 0x1 | 0x2 | 0x4  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW


@record
class Page:
    """Where a child stands."""

    index: int
    token: int
    started_s_ago: float
    in_user: bool
    logged: int = 0
    log_index: int = 0
    log_end: int = 0
    stage: int = 0
    span: int = 0


def create_memory(name: str, size: int) -> int:
    """A sealed memfd of ``size`` zero bytes."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
    return fd


def create_data(name: str, data: bytes) -> int:
    """A memfd holding ``data``, at its beginning."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read_page(fd: int) -> Page:
    """Read the page."""
    slots = _SLOTS.unpack(os.pread(fd, _SLOTS.size, 0))
    started_ns = slots[wire.PAGE_STARTED_NS]
    ago = max(0.0, (time.monotonic_ns() - started_ns) / 1e9) if started_ns else 0.0
    return Page(
        slots[wire.PAGE_INDEX], slots[wire.PAGE_TOKEN], ago, bool(slots[wire.PAGE_IN_USER]),
        slots[wire.PAGE_LOGGED], slots[PAGE_LOG_INDEX], slots[PAGE_LOG_END], slots[PAGE_STAGE], slots[PAGE_SPAN],
    )  # fmt: skip


def read_log(fd: int, page: Page, max_bytes: int) -> bytes:
    """The last bytes that the fragment on the page printed."""
    end = min(os.lseek(fd, 0, os.SEEK_CUR), wire.LOG_BYTES)  # shared with the child: where the next byte would go
    start = page.logged if page.log_index == page.index else page.log_end
    start = max(min(start, end), end - max_bytes, 0)
    return os.pread(fd, end - start, start)
