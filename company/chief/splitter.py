"""Fragment path 2/9 - run a job's split in its sandbox and take fragments as long as the window has room (I/O).

The pipe is the back-pressure: while the window is full nobody reads it, and the generator stands still inside ``yield``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from company.chief.window import Large
from company.sandbox import wire
from company.sandbox.child import Child, ChildDied, ChildFailed
from company.sandbox.profile import Mount, Profile
from company.sandbox.sandbox import Sandbox
from p2p.base.errors import MalformedMessage
from p2p.base.frames import Frame, Sizes
from p2p.base.record import record

SPLIT_SILENCE_S = 600.0  # between two yields (surfaces.md)


@record
class SplitPlan:
    """What a split run needs. ``data``: the dataset's file or directory on this machine."""

    job: str
    files: Mapping[str, bytes]
    params: bytes
    data: Path
    data_name: str
    memory_bytes: int
    spool: Path
    site: Path | None = None  # what the package requires


@record
class SplitError:
    """Why split stopped before its end."""

    cause: str
    exc_type: str
    message: str
    traceback: str


Produced = Callable[[int, Sizes, list[float] | None, memoryview, dict[int, Large]], Awaitable[None]]


async def run_split(
    sandbox: Sandbox, plan: SplitPlan, *, on_count: Callable[[int | None], None], on_fragments: Produced, blank: Child | None = None,
    leave: Callable[[Child], None] | None = None,
) -> int | SplitError:  # fmt: skip
    """Run split to its end and return the number of fragments, or why it stopped.

    ``on_fragments`` is awaited before the next frame is read: it returns when the window has room again. ``blank``: a child that
    sees the data where the plan says, closed when this returns; else one is started. ``leave``: takes over the closing of a child
    that has ended in its own time, for which nobody is to wait (its control groups alone take the kernel tens of milliseconds).
    """
    profile = Profile(
        role="split",
        memory_bytes=plan.memory_bytes,
        site=plan.site,
        mounts=(Mount(host=plan.data, inside=f"/data/{plan.data_name}", writable=False),),
    )
    child = blank or await sandbox.start(profile)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, child)
            ended = await _run_in(child, plan, on_count, on_fragments)
            nursery.cancel_scope.cancel()
    except BaseException:
        await child.aclose()  # which shields itself
        raise
    if leave is None:
        await child.aclose()
    else:
        leave(child)
    return ended


async def _run_in(child: Child, plan: SplitPlan, on_count: Callable[[int | None], None], on_fragments: Produced) -> int | SplitError:
    """What went wrong is returned: raised through a nursery it would come out as a group."""
    try:
        await child.load(role="split", params=plan.params, files=plan.files, options={"data": f"/data/{plan.data_name}"})
        return await _read(child, plan, on_count, on_fragments)
    except ChildFailed as failure:
        return SplitError(f"{failure.where}-raised", failure.type, failure.message, failure.traceback)
    except ChildDied as death:
        return SplitError(death.verdict.cause, "", death.verdict.text, death.verdict.log_tail.decode("utf-8", "replace"))
    except MalformedMessage as error:
        return SplitError("garbage-on-pipe", "", error.text, "")


async def _watch(child: Child) -> None:
    await child.watch(time_limit_s=SPLIT_SILENCE_S)


async def _read(child: Child, plan: SplitPlan, on_count: Callable[[int | None], None], on_fragments: Produced) -> int | SplitError:
    spooled = _Spool(plan.spool)
    while True:
        frame = await child.receive()
        match frame.header[0]:
            case wire.COUNT:
                on_count(_index(frame.header[1]) if frame.header[1] is not None else None)
            case wire.CHUNK:
                spooled.take(frame)
            case wire.FRAGS:
                _, first, costs, blobs = frame.header
                large = spooled.finish(_index(first), blobs, len(frame.sizes))
                await on_fragments(_index(first), frame.sizes, _costs(costs, len(frame.sizes)), frame.body, large)
            case wire.SPLIT_END:
                return _index(frame.header[1])
            case wire.FAILED:
                return SplitError(f"{frame.header[1]}-raised", *(str(x) for x in frame.header[2:5]))
            case _:
                raise MalformedMessage(f"split sent message {str(frame.header[0])[:20]}")


def _index(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise MalformedMessage(f"split sent a count of {str(value)[:20]!r}")
    return value


def _costs(value: Any, count: int) -> list[float] | None:
    if value is None:
        return None
    if type(value) is not list or len(value) != count or any(type(c) not in (int, float) for c in value):
        raise MalformedMessage("split sent costs that do not match its fragments")
    return value


class _Spool:
    """Fragments too large for one frame, on their way to files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._done: list[tuple[Path, int, bytes]] = []
        self._file: Any = None
        self._hash = hashlib.blake2b(digest_size=32)
        self._serial = 0

    def take(self, frame: Frame) -> None:
        if self._file is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._serial += 1
            self._file = (self._directory / f"large-{self._serial}").open("wb")
            self._hash = hashlib.blake2b(digest_size=32)
        self._file.write(frame.body)
        self._hash.update(frame.body)
        if frame.header[2]:
            size = self._file.tell()
            path = Path(self._file.name)
            self._file.close()
            self._file = None
            if size >= 1 << 32:
                raise MalformedMessage("a fragment may have 4 GiB")
            self._done.append((path, size, self._hash.digest()))

    def finish(self, first: int, blobs: Any, count: int) -> dict[int, Large]:
        if len(blobs) != len(self._done):
            raise MalformedMessage("split announced other large fragments than it sent")
        large: dict[int, Large] = {}
        for (offset, _size), (path, size, digest) in zip(blobs, self._done, strict=True):
            if not 0 <= offset < count:
                raise MalformedMessage("split named a fragment outside its frame")
            large[first + offset] = Large(path, size, digest)
        self._done.clear()
        return large
