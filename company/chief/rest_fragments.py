"""Fragments of a lease as the answer to a worker that speaks REST, sent piece by piece (I/O: reads spooled files).

What was inlined lies in the job's window already and is not copied; what was spooled is read a megabyte at a time. So a hundred workers
that fetch a hundred large fragments need a hundred megabytes at most.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import numpy as np
import trio

from company import messages as m
from company.chief.facade import Conflict, Invalid, Streamed, TooLarge
from company.chief.leases import Lease
from company.chief.rest_outbox import Said
from company.chief.runtime import JobRuntime
from company.chief.window import FragmentWindow, Large
from p2p.base.frames import PREAMBLE, encode_frame
from p2p.net.stream import Buffer

MAX_FRAGMENT_BYTES = 256 << 20  # of one answer
PIECE_BYTES = 1 << 20


def fragments_of(lease: Lease | None, runtime: JobRuntime | None, worker: str, job: str, first: int, count: int) -> Streamed:
    """One Run frame with fragments of a lease. Raises `Conflict` unless the worker holds it, `Invalid`, `TooLarge`."""
    if lease is None or runtime is None or (lease.worker, lease.job) != (worker, job):
        raise Conflict("stale-lease", "No lease of this worker has this number.")
    if not lease.first <= first < first + count <= lease.first + lease.count:
        text = f"The lease is of fragments {lease.first}..{lease.first + lease.count - 1}."
        raise Invalid("not-in-lease", text, errors=[{"path": "count", "detail": text}])
    if not runtime.window.has(first, count):
        raise Conflict("stale-lease", "These fragments have their results already.")
    sizes, _, large = runtime.window.cut(first, count)
    sizes = np.array(sizes, dtype="<u4")
    for index, spooled in large.items():
        sizes[index - first] = spooled.size
    total = int(sizes.sum(dtype=np.uint64))
    if total > MAX_FRAGMENT_BYTES:
        raise TooLarge("fragments-too-large", f"{total} bytes are too many for one answer.", limit=MAX_FRAGMENT_BYTES, actual=total)
    header = m.Run(lease.token, lease.slot[1], job, first, count, lease.attempt, ()).as_array()
    head = bytearray(encode_frame(header, sizes)[0])
    header_len, _, _ = PREAMBLE.unpack_from(head)
    PREAMBLE.pack_into(head, 0, header_len, count, total)
    return Streamed(len(head) + total, _pieces(bytes(head), _parts(runtime.window, first, count, large)))


def run_frame(lease: Lease, runtime: JobRuntime) -> Said:
    """The Run of a lease as it was sent first: spooled fragments are named, not inlined."""
    sizes, bodies, large = runtime.window.cut(lease.first, lease.count)
    blobs = tuple((i - lease.first, f.size, f.digest) for i, f in sorted(large.items()))
    run = m.Run(lease.token, lease.slot[1], lease.job, lease.first, lease.count, lease.attempt, blobs)
    head, body = encode_frame(run.as_array(), sizes, b"".join(bodies))
    return Said(head + bytes(body), lease.token, lease.job)


def _parts(window: FragmentWindow, first: int, count: int, large: dict[int, Large]) -> list[Buffer | Large]:
    """Buffers and spooled fragments in order."""
    parts: list[Buffer | Large] = []
    at = first
    for index in [*sorted(large), first + count]:
        if index > at:
            parts += window.cut(at, index - at)[1]
        if index < first + count:
            parts.append(large[index])
        at = index + 1
    return parts


async def _pieces(head: bytes, parts: list[Buffer | Large]) -> AsyncIterator[bytes]:
    yield head
    for part in parts:
        if isinstance(part, Large):
            async with await trio.open_file(part.path, "rb") as file:
                left = part.size
                while left:
                    piece = await file.read(min(PIECE_BYTES, left))
                    if not piece:
                        raise OSError(f"{part.path} is shorter than {part.size} bytes")
                    left -= len(piece)
                    yield piece
        else:
            for piece in map(partial(_slice, memoryview(part)), range(0, len(part), PIECE_BYTES)):
                yield piece


def _slice(view: memoryview, at: int) -> bytes:
    return bytes(view[at : at + PIECE_BYTES])
