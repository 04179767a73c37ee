"""Fragment path 7/9 - what an Outcome frame says, checked and cut with numpy (pure).

A worker is another machine: its arrays are compared with its header before anything is believed. A frame of twenty thousand
results costs a handful of numpy calls; only fragments that raised become Python objects.
"""

from __future__ import annotations

from dataclasses import field

import numpy as np
import numpy.typing as npt

from company.chief.events import Range
from company.messages import Outcome
from p2p.base.codec import decode_value_untrusted
from p2p.base.errors import MalformedMessage
from p2p.base.frames import Frame, Sizes
from p2p.base.record import record

MAX_LOG_BYTES = 4 << 20
MAX_RAISED_READ = 256  # details of more than this many failed fragments of one frame are summed up, not kept one by one
MAX_TEXT = 64 << 10


@record
class Raised:
    """What one fragment's process() raised."""

    index: int
    exc_type: str
    message: str
    traceback: str
    preview: str


@record
class Cut:
    """A checked Outcome. ``ok``: maximal runs without error; ``starts``: int64, where result k begins in ``results``."""

    ok: tuple[Range, ...]
    raised: tuple[int, ...]
    durations_us: npt.NDArray[np.uint32]
    sizes: Sizes
    starts: npt.NDArray[np.int64]
    results: memoryview
    logs: memoryview
    large: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # index -> (size, digest)

    @property
    def result_bytes(self) -> int:
        """Of all results, those in files of their own included."""
        return len(self.results) + sum(size for size, _ in self.large.values())

    def slice(self, outcome_first: int, first: int, count: int) -> tuple[Sizes, memoryview]:
        """Sizes and bytes of the results ``first .. first+count``."""
        a = first - outcome_first
        b = a + count
        return self.sizes[a:b], self.results[int(self.starts[a]) : int(self.starts[b])]

    def details(self, outcome_first: int) -> tuple[Raised, ...]:
        """What the failed fragments said, at most `MAX_RAISED_READ` of them. Never raises: a lie becomes an empty text."""
        out: list[Raised] = []
        for index in self.raised[:MAX_RAISED_READ]:
            _, body = self.slice(outcome_first, index, 1)
            out.append(_raised(index, body))
        return tuple(out)


def cut_outcome_untrusted(message: Outcome, frame: Frame) -> Cut:
    """Check the arrays of an Outcome against its header. Raises only `MalformedMessage`."""
    count = message.count
    sizes = frame.sizes
    if len(sizes) != 3 + count or int(sizes[0]) != count or int(sizes[1]) != 4 * count:
        raise MalformedMessage(f"Outcome of {count} fragments has {len(sizes)} items of which the first are {sizes[:2].tolist()} bytes")
    log_len = int(sizes[2])
    if log_len > MAX_LOG_BYTES:
        raise MalformedMessage(f"Outcome has {log_len} bytes of log; the limit is {MAX_LOG_BYTES}")
    status = np.frombuffer(frame.body[:count], dtype=np.uint8)
    durations = np.frombuffer(frame.body[count : 5 * count], dtype="<u4")
    bad = np.flatnonzero(status)
    if len(bad) and int(status.max()) > 1:
        raise MalformedMessage("Outcome status must be 0 or 1")
    starts = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(sizes[3:], out=starts[1:], dtype=np.int64)
    large: dict[int, tuple[int, bytes]] = {}
    for offset, size, digest in message.blobs:
        if offset >= count or int(sizes[3 + offset]) != 0:
            raise MalformedMessage(f"Outcome names a large result at {offset} of {count}")
        large[message.first + offset] = (size, digest)
    raised = tuple((bad + message.first).tolist())
    return Cut(
        ok=_runs(message.first, count, bad),
        raised=raised,
        durations_us=durations,
        sizes=sizes[3:],
        starts=starts,
        results=frame.body[5 * count + log_len :],
        logs=frame.body[5 * count : 5 * count + log_len],
        large=large,
    )


def _runs(first: int, count: int, bad: npt.NDArray[np.int64]) -> tuple[Range, ...]:
    """The maximal runs of ``first .. first+count`` without the offsets ``bad``, which are sorted."""
    runs: list[Range] = []
    at = 0
    for offset in bad.tolist():
        if offset > at:
            runs.append((first + at, offset - at))
        at = offset + 1
    if at < count:
        runs.append((first + at, count - at))
    return tuple(runs)


def _raised(index: int, body: memoryview) -> Raised:
    try:
        value = decode_value_untrusted(body)
    except MalformedMessage:
        value = None
    if type(value) is not dict:
        return Raised(index, "", "the worker sent no details", "", "")

    def text(name: str, limit: int) -> str:
        found = value.get(name, "")
        return found[:limit] if isinstance(found, str) else ""

    return Raised(index, text("type", 200), text("message", 4096), text("traceback", MAX_TEXT), text("preview", 4096))
