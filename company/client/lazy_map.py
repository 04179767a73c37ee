"""`Executor.map`: chunks sent as far ahead as keeps the workers busy, results given on in order or not (I/O: by the executor).

The iterable is read in the thread that asks for results, never in another, and never further than the chunks under way hold. What a
chunk holds follows what the last ones took; towards a known end chunks become smaller, so that no worker is left with a long last one.
"""

from __future__ import annotations

import concurrent.futures
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from company.client.call_errors import FragmentError, opened_error
from company.client.calls_entry import SLICED
from company.client.chunks import Opened, opened
from company.client.functions import NotPortable, Portable
from company.client.session import Chunk
from p2p.base.errors import ParallelError

if TYPE_CHECKING:
    from company.client.executor import Executor
    from company.client.progress import Bar

AHEAD_PER_SLOT = 4  # chunks on their way
KEPT_PER_SLOT = 32  # chunks read and not given on, most of them done: one that takes long must not stop the others
TAIL_PARTS = 3  # a chunk is at most this part of what each slot still gets


class _Sent:
    """One chunk in its place among the results, sent or, where it is to be sent again in parts, not yet."""

    __slots__ = ("calls", "chunk", "error", "is_alone", "is_done", "is_sent", "result")

    def __init__(self, calls: list[Any], *, is_sent: bool = True, is_alone: bool = False) -> None:
        self.calls, self.is_sent = calls, is_sent
        self.is_alone = is_alone  # one call at a time
        self.chunk: Chunk | None = None
        self.result: Opened | None = None
        self.error: BaseException | dict[str, Any] | None = None
        self.is_done = False


class LazyMap(Iterator[Any]):
    """An iterator over results. Closing it, or letting it go, sends nothing more."""

    def __init__(
        self, executor: Executor, made: Portable, calls: Iterator[Any], kind: int, *, fn: Callable[..., Any], timeout_s: float | None,
        chunksize: int | None, buffersize: int | None, ordered: bool, return_exceptions: bool, hint: int, bar: Bar | None = None,
    ) -> None:  # fmt: skip
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        self._executor, self._made, self._calls, self._kind, self._fn = executor, made, calls, kind, fn
        self._until = None if timeout_s is None else time.monotonic() + timeout_s
        self._chunksize, self._buffersize = chunksize, buffersize
        self._ordered, self._return_exceptions = ordered, return_exceptions
        self._left = hint
        self._bar = bar
        self._pace = executor._pace(made)
        self._lock = threading.Condition()
        self._under_way: deque[_Sent] = deque()
        self._held = 0  # calls read and not given on
        self._landed = 0  # chunks that came back
        self._ready: Iterator[Any] = iter(())
        self._is_read = self._is_over = False
        self._fill()

    def __iter__(self) -> LazyMap:
        return self

    def __next__(self) -> Any:
        for value in self._ready:
            self._held -= 1
            if self._bar is not None:
                self._bar.advance()
            if type(value) is _Raised:
                if self._return_exceptions:
                    return value.error
                self.close()
                raise value.error
            return value
        if self._is_over:
            raise StopIteration
        sent = self._next_done()
        if sent is None:
            self.close()
            raise StopIteration
        self._ready = self._values(sent)
        self._fill()
        return self.__next__()

    def close(self) -> None:
        """Read and send nothing more."""
        self._is_over = self._is_read = True
        self._ready = iter(())
        self._under_way.clear()
        if self._bar is not None:
            self._bar.close()

    # ---- reading and sending ----------------------------------------------------------------------------------------------
    def _fill(self) -> None:
        slots = self._executor.slots if self._under_way else 1  # the first chunk opens the job, which tells how many there are
        while not self._is_over:
            self._cut_short()
            if sum(s.is_sent and not s.is_done for s in self._under_way) >= AHEAD_PER_SLOT * slots:
                return
            waiting = next((s for s in self._under_way if not s.is_sent), None)
            if waiting is not None:
                self._send_part(waiting)
                continue
            if self._is_read or len(self._under_way) >= KEPT_PER_SLOT * slots:
                return
            count = self._chunksize or self._pace.count_of(self._left, TAIL_PARTS * slots)
            if self._buffersize is not None:
                count = min(count, self._buffersize - self._held)
                if count < 1:
                    return
            calls = list(islice(self._calls, count))
            if len(calls) < count:
                self._is_read = True
            if not calls:
                return
            self._left -= len(calls)
            self._held += len(calls)
            self._send(calls)
            slots = self._executor.slots

    def _cut_short(self) -> None:
        """Chunks whose calls took longer than was thought came back with their first results: the rest is sent again, in smaller ones."""
        for sent in [s for s in self._under_way if s.is_done and s.result is not None and len(s.result.values) < len(s.calls)]:
            assert sent.result is not None
            done = len(sent.result.values)
            self._under_way.insert(self._under_way.index(sent) + 1, _Sent(sent.calls[done:], is_sent=False))
            sent.calls = sent.calls[:done]

    def _send_part(self, waiting: _Sent) -> None:
        place = self._under_way.index(waiting)
        count = 1 if waiting.is_alone else self._pace.count()
        first, waiting.calls = waiting.calls[:count], waiting.calls[count:]
        if not waiting.calls:
            self._under_way.remove(waiting)
        self._send(first, place)

    def _apart(self, sent: _Sent) -> None:
        """One of its calls must not harm the others: each goes alone."""
        place = self._under_way.index(sent)
        self._under_way.remove(sent)
        self._under_way.insert(place, _Sent(sent.calls, is_sent=False, is_alone=True))

    def _send(self, calls: list[Any], at: int | None = None) -> None:
        """``at``: its place among those under way, else at their end."""
        sent = _Sent(calls)

        def done(chunk: Chunk, body: Any, trouble: Any) -> None:
            if body is not None:
                try:
                    found = opened(body, len(calls), is_sliced=self._chunksize is None)
                    if not found.unopened:
                        size_bytes = max(len(chunk.body) * len(found.values) // len(calls), len(body))
                        self._executor.observe(self._made, len(found.values), found.ns, size_bytes)
                    sent.result = found
                except BaseException as error:  # noqa: BLE001 - told to whoever asks for the result
                    sent.error = error
            else:
                sent.error = trouble
            with self._lock:
                sent.is_done = True
                self._landed += 1
                self._lock.notify_all()

        if at is None:
            self._under_way.append(sent)
        else:
            self._under_way.insert(at, sent)
        if self._executor.stays_here(self._made):
            sent.is_done = True
            return
        try:
            kind = self._kind if self._chunksize is not None else self._kind | SLICED
            sent.chunk = self._executor.send_chunk(self._made, kind, calls, done)
        except NotPortable as error:
            if len(calls) > 1:
                self._apart(sent)
                return
            sent.error, sent.is_done = error, True
        except ParallelError as error:
            if not self._executor.is_refused(self._made, error):
                raise
            sent.is_done = True

    # ---- results ----------------------------------------------------------------------------------------------------------
    def _next_done(self) -> _Sent | None:
        while True:
            landed = self._landed
            self._fill()
            if not self._under_way:
                return None
            sent = self._await(landed)
            if sent is None:
                continue  # another one came back: there is room for one more on its way
            if isinstance(sent.error, dict) and len(sent.calls) > 1:  # a worker died in one of these calls: find out in which
                self._apart(sent)
                continue
            self._cut_short()
            self._under_way.remove(sent)
            return sent

    def _await(self, landed: int) -> _Sent | None:
        """The next that can be given on; None when more than ``landed`` came back first. Raises `TimeoutError`."""
        with self._lock:
            left = None if self._until is None else self._until - time.monotonic()
            has_news = self._lock.wait_for(lambda: self._found() is not None or self._landed != landed, left)
            sent = self._found()
        if sent is None and not has_news:
            self.close()
            raise concurrent.futures.TimeoutError
        return sent

    def _found(self) -> _Sent | None:
        if self._ordered:
            return self._under_way[0] if self._under_way[0].is_done else None
        return next((s for s in self._under_way if s.is_done), None)

    def _values(self, sent: _Sent) -> Iterator[Any]:
        result, client = sent.result, self._executor.client
        if sent.chunk is None and sent.error is None:
            return self._here(sent.calls)
        if result is None:
            error = sent.error
            if isinstance(error, dict):
                assert sent.chunk is not None
                call = sent.calls[0]
                error = FragmentError.of_death(client, sent.chunk, error, (tuple(call) if self._kind & 3 else (call,), {}), made=self._made)
            assert error is not None
            return iter([_Raised(error)] * len(sent.calls))
        if self._executor.unopened(self._made, result):
            return self._here(sent.calls)
        if result.printed:
            sys.stdout.write(result.printed)
        if not result.failed:
            return iter(result.values)
        return self._with_errors(sent, result)

    def _here(self, calls: list[Any]) -> Iterator[Any]:
        """What could not be opened there: nothing of it has run."""
        for call in calls:
            try:
                with self._executor.here:
                    value = self._fn(*call) if self._kind & 3 else self._fn(call)
            except Exception as error:  # noqa: BLE001 - what the call raises is its result
                value = _Raised(error)
            yield value

    def _with_errors(self, sent: _Sent, result: Opened) -> Iterator[Any]:
        assert sent.chunk is not None
        for position, value in enumerate(result.values):
            if position in result.failed:
                call = sent.calls[position]
                args = tuple(call) if self._kind & 3 else (call,)
                yield _Raised(opened_error(value, self._executor.client, sent.chunk, position, self._made, (args, {})))
            else:
                yield value


class _Raised:
    """In the place of a result."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error
