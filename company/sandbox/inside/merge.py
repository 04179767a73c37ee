"""Fragment path 8/9, inside - stream the results through the package's ``merge`` (I/O).

Results are read from the pipe when ``merge`` asks for the next one, so a part of them is in memory at a time.
"""

from __future__ import annotations

import time
from itertools import accumulate, chain, islice, pairwise

import msgpack

from company.sandbox import wire
from company.sandbox.inside import package
from company.sandbox.inside.pipe import Pipe
from p2p.base import codec

TYPE_CHECKING = False  # for type checkers: `typing` and what it imports would cost a blank sandbox a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

MAX_VALUE_BYTES = 8 << 20
CHUNK = 256
SMALL_BYTES = 4 << 20


def _stream(body: memoryview) -> Iterator[Any]:
    """The values of a run of bytes, decoded one after the other; each result is exactly one value."""
    hook, bound = codec._hook_at(0), max(1, len(body))
    unpacker = msgpack.Unpacker(ext_hook=hook, strict_map_key=False, raw=False, use_list=True, max_buffer_size=bound)
    unpacker.feed(body)
    return iter(unpacker)


def _cut(sizes: Sequence[int], body: memoryview, large: dict[int, memoryview]) -> Iterator[memoryview]:
    """The byte strings of a frame some of whose items came as CHUNKs."""
    for at, (low, high) in enumerate(pairwise(accumulate(sizes, initial=0))):
        yield large.pop(at) if at in large else body[low:high]


class Results:
    """The iterator that ``merge`` gets."""

    def __init__(self, pipe: Pipe, page: Any) -> None:
        self._pipe = pipe
        self._page = page
        self._over = False

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self._chunks())  # passing a result on costs no step of a generator of ours

    def _chunks(self) -> Iterator[list[Any]]:
        page, clock = self._page, time.monotonic_ns
        done = 0
        while not self._over:
            page[wire.PAGE_IN_USER] = 0  # waiting for results is not merge's time
            frame = self._pipe.read()
            if frame is None:
                raise SystemExit(0)
            header, sizes, body = frame
            if header[0] == wire.END:
                self._over = True
            page[wire.PAGE_STARTED_NS] = clock()
            page[wire.PAGE_IN_USER] = 1
            if self._over:
                return
            blobs = self._pipe.take_blobs()
            if header[2]:
                large = {offset: memoryview(blobs[number]) for number, (offset, _) in enumerate(header[2])}
                values: Iterator[Any] = map(codec.decode_value, _cut(sizes, body, large))
            else:
                values = _stream(body)
            # A few hundred at a time, so that the page tells of progress.
            while chunk := list(islice(values, 1 if len(body) > SMALL_BYTES else CHUNK)):
                done += len(chunk)
                page[wire.PAGE_INDEX] = done
                page[wire.PAGE_STARTED_NS] = clock()
                yield chunk

    def drain(self) -> None:
        """Read on to END when ``merge`` stopped early, so that the parent's writing does not break."""
        while not self._over:
            frame = self._pipe.read()
            self._over = frame is None or frame[0][0] == wire.END
            self._pipe.take_blobs()


def run(function: Callable[..., Any], pipe: Pipe, page: Any, output: Path) -> None:
    """Call ``merge`` and send MERGED."""
    results = Results(pipe, page)
    page[wire.PAGE_STARTED_NS] = time.monotonic_ns()
    page[wire.PAGE_IN_USER] = 1
    stream = iter(results)
    value = function(stream, output) if package.positional_count(getattr(function, "func", function)) >= 2 else function(stream)
    packed = codec.encode_value(value)
    if len(packed) > MAX_VALUE_BYTES:
        raise package.PackageError(f"merge returned {len(packed)} bytes; more than {MAX_VALUE_BYTES} belong in a file under output")
    page[wire.PAGE_IN_USER] = 0
    results.drain()
    pipe.write([wire.MERGED, value is not None], [packed])
