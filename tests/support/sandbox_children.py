"""Packages and batches for tests with real sandboxed children."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trio

from company.sandbox import BlobSpool, Child, Profile, Sandbox, wire
from p2p.base.codec import decode_value, encode_value
from p2p.base.frames import Sizes


@asynccontextmanager
async def process_child(
    sandbox: Sandbox, source: str, *, options: Mapping[str, Any] | None = None, params: Any = None, **profile: Any
) -> AsyncIterator[Child]:
    """A child with ``source`` as processor/main.py, loaded."""
    child = await sandbox.start(Profile(role="process", **profile))
    try:
        with trio.fail_after(30):
            files = {"processor/main.py": source.encode()}
            await child.load(role="process", params=encode_value(params or {}), files=files, options=options or {})
            yield child
    finally:
        await child.aclose()


def packed(values: list[Any]) -> tuple[Sizes, bytes]:
    items = [encode_value(value) for value in values]
    return np.fromiter(map(len, items), dtype="<u4", count=len(items)), b"".join(items)


async def send_batch(child: Child, values: list[Any], *, first: int = 0, token: int = 1) -> None:
    await child.send([wire.RUN, token, first, []], *packed(values))


@dataclass
class Outcomes:
    """A whole batch, put together."""

    results: list[Any]
    status: list[int]
    durations_us: list[int]
    logs: list[tuple[int, int, bytes]]
    dropped: int
    parts: int
    other: list[list[Any]]


async def outcomes(child: Child, spool_folder: Path | None = None) -> Outcomes:
    """Receive until the batch is over."""
    import msgpack

    whole = Outcomes([], [], [], [], 0, 0, [])
    spool = BlobSpool(spool_folder) if spool_folder else None
    while True:
        frame = await child.receive()
        if frame.header[0] == wire.CHUNK:
            assert spool is not None
            spool.add_untrusted(frame)
            continue
        if frame.header[0] != wire.OUTCOME:
            whole.other.append([*frame.header, *(map(bytes, frame.cut()) if len(frame.sizes) else ())])
            continue
        _, _, _first, count, last, _, _, _, dropped, blobs = frame.header
        status, durations, logs, *results = frame.cut()
        assert len(results) == count == len(status)
        large = spool.take(blobs) if spool else {}
        whole.results += [decode_value(large[i].path.read_bytes() if i in large else item) for i, item in enumerate(results)]
        whole.status += list(bytes(status))
        whole.durations_us += np.frombuffer(durations, "<u4").tolist()
        unpacker = msgpack.Unpacker()
        unpacker.feed(logs)
        whole.logs += [tuple(record) for record in unpacker]
        whole.dropped += dropped
        whole.parts += 1
        if last:
            return whole


async def run(child: Child, values: list[Any], *, first: int = 0) -> Outcomes:
    await send_batch(child, values, first=first)
    return await outcomes(child)


def below(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return found
    for line in children:
        found += below(int(line))
    return found
