"""Fragment path 6/9, inside - run the fragments of a batch and give their outcomes in bulk (I/O).

The loop of `Runner._stretch` does nothing per fragment but decode, call, encode, write the index to the page and look at the
clock. It reads the run of bytes as one stream of values and looks at the sizes only after a failure: bytes that are not what
their sender's codec made harm the sender's own job. The rest happens per millisecond, or per part of a batch: every 250 ms,
every MiB, at its end. Fragments that ended within one millisecond share its time equally.

Where more than `QUICK_COUNT` of them do, index and clock cost as much as all the rest: then a few hundred at a time are one call
that stays in C, and the page tells that span. If the child dies within it, its owner runs what has no answer again with each
fragment named (``quick`` of RUN).
"""

from __future__ import annotations

import resource
import time
from array import array
from itertools import accumulate, islice

import msgpack

from company.sandbox import wire
from company.sandbox.inside import package, reserve
from company.sandbox.inside.logs import Logs
from company.sandbox.inside.pipe import MAX_U32, Pipe, sizes_of
from company.sandbox.page_slots import PAGE_SPAN
from p2p.base import codec

TYPE_CHECKING = False  # for type checkers: `typing` and what it imports would cost a blank sandbox a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

LOOK_NS = 1_000_000  # the page's start may be this much too early: writing it for each of thousands costs 50 ns of 400
SMALL_BYTES = 4 << 10  # a result below it can hardly fill a frame within LOOK_NS
MAX_BYTES = 4 << 20  # of results in one OUTCOME; a frame's body may have 16 MiB
QUICK_COUNT, MAX_SPAN = 512, 1024  # so many within LOOK_NS are tiny: those of half that time make a span, up to so many
_pack: Callable[[Any], bytes] = codec._pack_hot  # encode_value's own frame would cost 60 ns more
_ext_hook = codec._hook_at(0)


class Runner:
    """Runs batches with one function. ``page``: the shared page as a memoryview of u64."""

    def __init__(self, fn: Callable[[Any], Any], *, pipe: Pipe, page: Any, logs: Logs, root: str, options: dict[str, Any]) -> None:
        self._fn = fn
        self._pipe = pipe
        self._page = page
        self._logs = logs
        self._root = root
        self._preview_bytes = int(options.get("preview_bytes", 200))
        self._flush_ns = int(options.get("flush_us", wire.FLUSH_US)) * 1000
        self._flush_bytes = int(options.get("flush_bytes", wire.FLUSH_BYTES))
        self._token = 0
        self._first = 0  # of the part being gathered
        self._begun_ns = 0
        self._cpu_ns = 0
        self._run_ns = 0
        self._size = 0  # of the results gathered
        self._results: list[bytes] = []
        self._sizes = array("I")  # theirs, as far as they are noted
        self._quick = False
        self._span: tuple[int, int, int] | None = None  # first, count, results before it
        self._micros = array("I")
        self._failed: list[int] = []

    def run(self, header: list[Any], sizes: array[int], body: memoryview, *, before_end: Callable[[], None] = lambda: None) -> None:
        """Run one batch (a RUN frame) and send its OUTCOMEs. ``before_end``: sends what still belongs to this batch."""
        _, self._token, self._first, blobs = header[:4]
        self._quick = len(header) > 4 and header[4]
        first = self._first
        large = self._pipe.take_blobs()
        page = self._page
        page[wire.PAGE_TOKEN], page[wire.PAGE_INDEX] = self._token, first
        self._logs.begin_batch()
        self._cpu_ns = time.process_time_ns()
        self._begun_ns = page[wire.PAGE_STARTED_NS] = time.monotonic_ns()
        page[wire.PAGE_IN_USER] = 1
        stop = first + len(sizes)
        at = position = 0
        for number, (offset, _) in enumerate(blobs):
            end = position + sum(sizes[at:offset])
            self._stretch(_Run(body[position:end], sizes[at:offset]), first + at, stop)
            data = memoryview(large.pop(number, bytearray()))
            self._stretch(_Run(data, array("I", (min(len(data), MAX_U32),))), first + offset, stop)
            at, position = offset + 1, end
        self._stretch(_Run(body[position:], sizes[at:]), first + at, stop)
        before_end()
        self._flush(last=True)
        page[wire.PAGE_IN_USER] = 0

    def _stretch(self, run: _Run, index: int, stop: int) -> None:
        """Run the consecutive fragments of ``run``, the first of which is ``index``; ``stop`` ends the batch."""
        page, fn, pack, clock, results = self._page, self._fn, _pack, time.monotonic_ns, self._results
        add = results.append
        begin, at, end = index, index, index + run.count
        page[2] = begun = clock()
        look_at = begun  # the first one is looked at alone: nobody knows yet how large results are
        span = 0
        while index < end:
            number, value = -1, None
            try:
                if span:
                    self._run_span(run.values, index, span)
                else:
                    for number, value in zip(range(index, end), run.values):  # noqa: B905 - the shorter one ends it
                        page[0] = number
                        add(pack(fn(value)))
                        if clock() > look_at:
                            break
                    else:
                        if self._first + len(results) < end:
                            raise codec.CodecError("the fragment's bytes are not one value")
                index = self._first + len(results)
            except BaseException as error:  # noqa: BLE001 - SystemExit and its kind are this fragment's failure, too
                index = self._first + len(results)
                if span:
                    page[PAGE_SPAN], page[0], self._span = 0, index, None
                    value, number = run.peek(index - begin), index
                add(self._failure(index, error, value if number == index else None))
                index += 1
                run.go_to(index - begin)
            before = begun
            begun, longest = self._note(begun, clock())
            if self._quick:
                span = self._next_span(index - at, begun - before, longest, end - index)
                at = index
            if index < stop and (begun > self._begun_ns + self._flush_ns or self._size > self._flush_bytes):
                begun = self._flush(last=False)
            page[2] = begun
            look_at = begun + (LOOK_NS if longest < SMALL_BYTES else 0)  # large results are counted one by one

    def _run_span(self, values: Iterator[Any], index: int, count: int) -> None:
        """Run the next ``count`` fragments in one go; what raises leaves the results before it."""
        page, results = self._page, self._results
        self._span = index, count, len(results)
        page[0], page[PAGE_SPAN] = index, count
        wanted = len(results) + count
        results.extend(map(_pack, map(self._fn, islice(values, count))))
        page[PAGE_SPAN], self._span = 0, None
        if len(results) < wanted:
            raise codec.CodecError("the fragment's bytes are not one value")

    @staticmethod
    def _next_span(ran: int, took_ns: int, longest: int, left: int) -> int:
        """How many to run in one go now, when ``ran`` took so long; 0: one by one."""
        is_tiny = ran * LOOK_NS >= QUICK_COUNT * took_ns and longest < SMALL_BYTES
        return min(MAX_SPAN, ran * LOOK_NS // (2 * max(1, took_ns)), left) if is_tiny else 0

    def index(self) -> int:
        """The fragment that runs, also within a span; threads of the module may ask at any moment."""
        span = self._span
        if span is None:
            return int(self._page[wire.PAGE_INDEX])
        first, count, before = span
        return first + max(0, min(count - 1, len(self._results) - before))

    def _note(self, begun: int, now: int) -> tuple[int, int]:
        """Share the time since ``begun`` among the results that came meanwhile; return ``now`` and the bytes of the longest of them."""
        new = sizes_of(self._results[len(self._micros) :])
        if not new:
            return now, 0
        size = sum(new)
        self._size += size
        self._sizes += new
        self._micros.extend(array("I", (min(MAX_U32, (now - begun) // (1000 * len(new))),)) * len(new))
        self._run_ns += now - begun
        return now, size if size < SMALL_BYTES else max(new)  # a bound is enough

    def _failure(self, index: int, error: BaseException, value: Any) -> bytes:
        """Note that ``index`` raised and return what is told about it."""
        self._failed.append(index)
        kind, message, text = package.describe(error, self._root)
        del error
        told = {"type": kind, "message": message, "traceback": text, "preview": package.preview(value, self._preview_bytes)}
        return codec.encode_value({k: v.encode("utf-8", "replace").decode() for k, v in told.items()})

    def _flush(self, *, last: bool) -> int:
        """Send what has been gathered and return the time after it; waiting for the parent is nobody's run time."""
        results, page = self._results, self._page
        page[wire.PAGE_IN_USER] = 0
        if self._size > MAX_BYTES:  # thousands within a millisecond, and then large ones
            for end in _cuts(results):
                self._send(end, last=False)
        self._send(len(results), last=last)
        self._begun_ns = time.monotonic_ns()
        page[wire.PAGE_STARTED_NS] = self._begun_ns
        page[wire.PAGE_IN_USER] = 0 if last else 1
        return self._begun_ns

    def _send(self, count: int, *, last: bool) -> None:
        """Send the first ``count`` of the results as an OUTCOME."""
        results, sizes = self._results[:count], self._sizes[:count]
        status = bytearray(count)
        for index in self._failed:
            if index < self._first + count:
                status[index - self._first] = 1
        cpu_ns = time.process_time_ns()
        run_us = self._run_ns // 1000
        logs, dropped = self._logs.take()
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        with self._pipe.lock:
            blobs = self._pipe.write_large(results, sizes)
            header = [
                wire.OUTCOME, self._token, self._first, count, last, run_us, (cpu_ns - self._cpu_ns) // 1000, peak_bytes, dropped, blobs,
            ]  # fmt: skip
            front = [bytes(status), self._micros[:count].tobytes(), logs]
            self._pipe.write(header, [*front, *results], sizes_of(front) + sizes)
        self._first += count
        del self._results[:count], self._micros[:count], self._sizes[:count]
        self._failed = [index for index in self._failed if index >= self._first]
        self._size = sum(self._sizes)
        self._cpu_ns, self._run_ns = cpu_ns, 0
        reserve.keep()


def _cuts(results: list[bytes]) -> list[int]:
    """How many to send at a time, all but the last time, so that no frame is longer than `MAX_BYTES` and one result."""
    counts: list[int] = []
    size = count = 0
    for result in results:
        if size > MAX_BYTES // 2:
            counts.append(count)
            size = count = 0
        size += len(result) if len(result) <= wire.INLINE_BYTES else 0
        count += 1
    return counts


class _Run:
    """Consecutive fragments in one run of bytes."""

    def __init__(self, body: memoryview, sizes: array[int]) -> None:
        self._body = body
        self._sizes = sizes
        self._offsets: list[int] | None = None  # wanted only after a failure
        self._base = 0
        self.count = len(sizes)
        self.values: Iterator[Any] = self._unpacker() if self.count > 1 else self._single()

    def go_to(self, position: int) -> None:
        """After a failure: stand before item ``position``. A value that was decoded leaves the unpacker in the right place."""
        if position >= self.count:
            return
        want = self._ends()[position]
        if self.values.tell() + self._base != want:  # type: ignore[attr-defined]
            self._base = want
            self.values = self._unpacker()

    def peek(self, position: int) -> Any:
        """The value of item ``position`` once more, for a failure's preview; None where its bytes are none."""
        offsets = self._ends()
        try:
            return codec.decode_value(self._body[offsets[position] : offsets[position + 1]])
        except Exception:  # noqa: BLE001 - whatever the codec says of such bytes has been said already
            return None

    def _ends(self) -> list[int]:
        """Where each item begins, and the end: added up once."""
        if self._offsets is None:
            self._offsets = list(accumulate(self._sizes, initial=0))
        return self._offsets

    def _unpacker(self) -> Iterator[Any]:
        view = self._body[self._base :]
        unpacker = msgpack.Unpacker(ext_hook=_ext_hook, strict_map_key=False, raw=False, use_list=True, max_buffer_size=max(1, len(view)))
        unpacker.feed(view)
        return unpacker  # type: ignore[no-any-return]

    def _single(self) -> Iterator[Any]:
        # Without the copy that feeding makes: a single fragment may be gigabytes.
        return map(codec.decode_value, (self._body,) if self.count else ())
