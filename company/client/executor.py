"""`company.Executor`: a `concurrent.futures.Executor` whose calls run on a company (I/O: through `Session`).

Calls of one function travel in chunks, sized by what the last ones took, so that a call of a microsecond and one of an hour are both
served without a hint. `map` reads its iterable only as far ahead as keeps the workers busy.
"""

from __future__ import annotations

import concurrent.futures
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from company.client import calls_entry as entry
from company.client.call_errors import FragmentError, opened_error
from company.client.chunks import UNKNOWN_LENGTH, Opened, Pace, opened, packed_calls
from company.client.functions import NotPortable, Portable, portable
from company.client.future import Future
from company.client.open_executors import OPEN
from company.client.session import Chunk
from company.client.sessions import Sessions
from p2p.base.errors import UsageError

if TYPE_CHECKING:
    from company.client.client import Client

P = ParamSpec("P")
T = TypeVar("T")
AHEAD_PER_SLOT = 3  # chunks under way: one that runs, one in its pipe, one on the way
MAX_KNOWN_FUNCTIONS = 1000
MAX_UNOPENED = 3  # chunks of one function, one after the other
FIRST_REST, LAST_REST = 8, 1024  # chunks that stay here then, before another is tried: twice as many each time


@dataclass(slots=True)
class _Unopened:
    chunks: int = 0  # that workers could not open
    stayed: int = 0  # that were not sent since one was tried
    rest: int = FIRST_REST


class Executor(concurrent.futures.Executor):
    """Runs calls on the workers of a company.

    ``client``: default `company.connect()`. ``where``: "own", or "trusted" and "any", which send no pickle. ``memory``, ``time_limit_s``,
    ``retries``: of one call that kills its worker; what a call raises is its result. ``echo``: show here what calls print.
    ``processes``: how many processes a call may start in its sandbox, none by default. ``progress``: bars of `map`, by default where
    standard error is a terminal. ``on_unopened``: called with the words when a function or its arguments could not be opened on a
    worker, so that nothing of them was run; such calls are run here then, one after the other, and after three chunks all of that function
    but one chunk now and then, by which is seen whether workers can open them again.

    >>> import company
    >>> with company.local(workers=2) as client, company.Executor(client) as ex:
    ...     print(ex.submit(pow, 2, 10).result(), list(ex.map(abs, [-1, -2])))
    1024 [1, 2]
    """

    def __init__(
        self, client: Client | None = None, *, where: str = "own", memory: str | None = None, time_limit_s: float | None = None,
        retries: int = 3, name: str = "calls", echo: bool = False, priority: int | None = None, processes: int = 0,
        progress: bool | None = None, on_unopened: Callable[[str], object] | None = None,
    ) -> None:  # fmt: skip
        from company.client.client import connect

        if where not in ("own", "trusted", "any"):
            raise UsageError("where-unknown", f"where must be own, trusted or any, got {where!r}")
        self.client = client if client is not None else connect()
        self._safe = where != "own"
        self._flags = (entry.SAFE if self._safe else 0) | (entry.ECHO if echo else 0)
        self._progress, self.on_unopened = progress, on_unopened
        self._unopened: dict[bytes, _Unopened] = {}  # by function
        self.here = threading.RLock()  # what is run here is written for processes, not for threads
        self._lock = threading.RLock()
        limits = {"memory": memory, "time_limit_s": time_limit_s, "processes": processes}
        options = {"where": where, "retries": retries, "priority": priority}
        self._sessions = Sessions(self.client, name=name, limits=limits, options=options)
        self._functions: dict[Any, Portable] = {}
        self._paces: dict[bytes, Pace] = {}
        self._pending: deque[tuple[Portable, Future[Any], tuple[Any, ...], dict[str, Any]]] = deque()
        self._flying = 0  # chunks of `submit`
        self._closed = False
        self._work = threading.Condition(self._lock)
        self._pump_thread: threading.Thread | None = None
        self._outstanding = 0  # futures without a result
        OPEN.add(self)

    # ---- concurrent.futures -----------------------------------------------------------------------------------------------
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run one call; returns its future, which has an ``id`` by which any process finds its result again."""
        with self._lock:
            self._check_open()
            made = self._portable(fn)
            future: Future[T] = Future()
            future.fn = fn if self.on_unopened is not None else None
            self._pending.append((made, future, args, kwargs))
            self._outstanding += 1
            if self._pump_thread is None:
                self._pump_thread = threading.Thread(target=self._pump, name="company-pump", daemon=True)
                self._pump_thread.start()
            self._work.notify_all()
        return future

    def map(
        self, fn: Callable[..., T], /, *iterables: Iterable[Any], timeout: float | None = None, chunksize: int | None = None,
        buffersize: int | None = None, ordered: bool = True, return_exceptions: bool = False,
    ) -> Iterator[T]:  # fmt: skip
        """Results of ``fn`` over the iterables, which may be endless: they are read as far ahead as keeps the workers busy.

        ``chunksize``: calls that travel together, default by what they take. ``buffersize``: calls read ahead at most. ``ordered=False``
        gives results as they come; ``return_exceptions`` gives what a call raised in the place of its result.
        """
        from company.client.lazy_map import LazyMap
        from company.client.progress import bar_of

        with self._lock:
            self._check_open()
            made = self._portable(fn)
        star = len(iterables) != 1
        calls: Iterator[Any] = zip(*iterables) if star else iter(iterables[0])  # noqa: B905 - ends with the shortest, as the builtin
        hint = min((_length(i) for i in iterables), default=0)
        bar = bar_of(getattr(fn, "__name__", "calls"), hint if hint < UNKNOWN_LENGTH else None, self._progress)
        return LazyMap(
            self, made, calls, entry.STAR if star else entry.ONE, fn=fn, timeout_s=timeout, chunksize=chunksize, buffersize=buffersize,
            ordered=ordered, return_exceptions=return_exceptions, hint=hint, bar=bar,
        )  # fmt: skip

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; ``wait`` for those under way. What was sent runs on either way, and its results stay at the chief."""
        with self._work:
            self._closed = True
            if cancel_futures:
                for _, future, _, _ in self._pending:
                    future.cancel()
                    future.set_running_or_notify_cancel()
                    self._outstanding -= 1
                self._pending.clear()
            self._work.notify_all()
            if wait:
                self._work.wait_for(lambda: self._outstanding == 0)
            pump = self._pump_thread
        if not wait and pump is not None and self._outstanding:
            return  # the pump ends the sessions when it has sent the last call
        self._sessions.end(wait=wait)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.detach()
            return None
        self.shutdown(wait=True, cancel_futures=kind is not None)
        return None

    def detach(self) -> list[str]:
        """Leave what was sent to the company and let go; returns the jobs in which the results wait."""
        self.shutdown(wait=False)
        jobs = self.jobs
        for job in jobs:
            print(
                f"Detached. The calls run on: company job show {job}; in Python client.future({job + '/FRAGMENT/CALL'!r})", file=sys.stderr
            )
        return jobs

    def abandon(self) -> None:
        """The company ends: take no more calls, and wait for none."""
        self.shutdown(wait=False, cancel_futures=True)
        self._sessions.leave()

    @property
    def jobs(self) -> list[str]:
        """The ids of the jobs that hold this executor's calls."""
        return self._sessions.jobs

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more calls."""
        return self._closed

    @property
    def slots(self) -> int:
        """How many calls the company runs at once, as far as is known."""
        return self._sessions.slots or max(1, int(self.client.company().get("slots", 1)))

    # ---- sending ----------------------------------------------------------------------------------------------------------
    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _portable(self, fn: Callable[..., Any]) -> Portable:
        """``fn`` ready to travel. Made once per function object, as long as that lives."""
        try:
            key: Any = weakref.ref(fn) if not self._safe else id(fn)
            found = self._functions.get(key)
        except TypeError:
            key = found = None
        if found is None:
            found = portable(fn, safe=self._safe)
            if key is not None and not getattr(fn, "__closure__", None):  # a closure may have changed meanwhile
                if len(self._functions) >= MAX_KNOWN_FUNCTIONS:
                    self._functions.clear()
                self._functions[key] = found
        return found

    def _pace(self, made: Portable) -> Pace:
        return self._paces.setdefault(made.key, Pace())

    def send_chunk(self, made: Portable, kind: int, calls: list[Any], done: Callable[[Chunk, Any, Any], None]) -> Chunk:
        """Send calls as one fragment. Raises `NotPortable` for a value that cannot travel."""
        payload, modules = packed_calls(kind | self._flags, calls)
        return self._sessions.send(made, kind | self._flags, payload, modules, len(calls), done)

    def _pump(self) -> None:
        """Gather pending calls into chunks while there is room for more on the way."""
        while True:
            with self._work:
                self._work.wait_for(lambda: (self._pending and self._flying < self._room()) or (self._closed and not self._pending))
                if not self._pending:
                    break
                made, group = self._gather()
                if not group:
                    continue
                self._flying += 1
            self._launch(made, group)
        self._sessions.end(wait=False)

    def _room(self) -> int:
        return AHEAD_PER_SLOT * max(1, self._sessions.slots)

    def _gather(self) -> tuple[Portable, list[tuple[Future[Any], tuple[Any, ...], dict[str, Any]]]]:
        made = self._pending[0][0]
        share = -(-len(self._pending) // max(1, self._room()))
        count = min(self._pace(made).count(), max(1, share))
        group: list[tuple[Future[Any], tuple[Any, ...], dict[str, Any]]] = []
        while self._pending and len(group) < count and self._pending[0][0] is made:
            _, future, args, kwargs = self._pending.popleft()
            if future.set_running_or_notify_cancel():
                group.append((future, args, kwargs))
            else:
                self._outstanding -= 1
                self._work.notify_all()
        return made, group

    def _launch(self, made: Portable, group: list[tuple[Future[Any], tuple[Any, ...], dict[str, Any]]]) -> None:
        if self.stays_here(made):
            threading.Thread(target=self._run_here, args=(group,), name="company-here", daemon=True).start()
            return
        futures = [future for future, _, _ in group]
        calls = [(args, kwargs) for _, args, kwargs in group]

        def done(chunk: Chunk, body: Any, trouble: Any) -> None:
            self._land(made, chunk, group, body, trouble)

        try:
            chunk = self.send_chunk(made, entry.FULL, calls, done)
        except NotPortable as error:
            if len(group) == 1:
                self._fail(futures, error)
            else:  # one of them cannot travel: the others must not suffer
                with self._lock:
                    self._flying += len(group) - 1
                for one in group:
                    self._launch(made, [one])
            return
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            if self.is_refused(made, error):
                threading.Thread(target=self._run_here, args=(group,), name="company-here", daemon=True).start()
            else:
                self._fail(futures, error)
            return
        for position, future in enumerate(futures):
            future.bind(chunk, position)

    def _land(
        self, made: Portable, chunk: Chunk, group: list[tuple[Future[Any], tuple[Any, ...], dict[str, Any]]], body: Any, trouble: Any
    ) -> None:
        if isinstance(trouble, dict) and len(group) > 1:  # the worker died in one of these calls: find out in which
            with self._work:
                self._flying += len(group) - 1
            for one in group:
                self._launch(made, [one])
            return
        try:
            if body is None:
                error = trouble
                if not isinstance(error, BaseException):
                    error = FragmentError.of_death(self.client, chunk, trouble, group[0][1:], made=made)
                self._fail([future for future, _, _ in group], error)
                return
            result = opened(body, chunk.calls)
            if self.unopened(made, result):
                threading.Thread(target=self._run_here, args=(group,), name="company-here", daemon=True).start()
                return
            self.observe(made, chunk.calls, result.ns, len(chunk.body))
            if result.printed:
                sys.stdout.write(result.printed)
            for position, (future, args, kwargs) in enumerate(group):
                if position in result.failed:
                    told = result.values[position]
                    future.set_exception(opened_error(told, self.client, chunk, position, made, (args, kwargs)))
                else:
                    future.set_result(result.values[position])
        except BaseException as error:  # noqa: BLE001 - a result that cannot be opened here
            self._fail([future for future, _, _ in group], error)
            return
        self._settled(len(group))

    def unopened(self, made: Portable, result: Opened) -> bool:
        """Whether a chunk is to be run here, since a worker could not open it; says so."""
        if not result.unopened or self.on_unopened is None:
            return False
        self._refused_one(made).chunks += 1
        self.on_unopened(result.unopened)
        return True

    def is_refused(self, made: Portable, error: BaseException) -> bool:
        """Whether no worker can run calls of this function, so that all of them are run here; says so."""
        if self.on_unopened is None or getattr(error, "code", "") not in ("requirements-not-allowed", "python-differs"):
            return False
        self._refused_one(made).chunks += MAX_UNOPENED
        self.on_unopened(str(getattr(error, "text", error)))
        return True

    def stays_here(self, made: Portable) -> bool:
        """Whether workers could not open calls of this function so often that this chunk is not sent; now and then one is."""
        with self._lock:
            known = self._unopened.get(made.key)
            if known is None or known.chunks < MAX_UNOPENED:
                return False
            known.stayed += 1
            if known.stayed <= known.rest:
                return True
            known.stayed, known.rest = 0, min(2 * known.rest, LAST_REST)
            return False

    def observe(self, made: Portable, calls: int, ns: int, size_bytes: int) -> None:
        """A chunk was run there: what it took, and that workers can open such calls."""
        self._pace(made).observe(calls, ns, size_bytes)
        if self._unopened:
            with self._lock:
                self._unopened.pop(made.key, None)

    def _refused_one(self, made: Portable) -> _Unopened:
        with self._lock:
            if len(self._unopened) >= MAX_KNOWN_FUNCTIONS:
                self._unopened.clear()
            return self._unopened.setdefault(made.key, _Unopened())

    def _run_here(self, group: list[tuple[Future[Any], tuple[Any, ...], dict[str, Any]]]) -> None:
        with self.here:
            for future, args, kwargs in group:
                try:
                    future.set_result(future.fn(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001 - what the call raises is its result
                    future.set_exception(error)
        self._settled(len(group))

    def _fail(self, futures: list[Future[Any]], error: BaseException) -> None:
        for future in futures:
            if not future.done():
                future.set_exception(error)
        self._settled(len(futures))

    def _settled(self, calls: int) -> None:
        with self._work:
            self._flying -= 1
            self._outstanding -= calls
            self._work.notify_all()


def _length(iterable: Any) -> int:
    """How long it says it is; a very large number where it does not."""
    try:
        return len(iterable)
    except TypeError:
        return UNKNOWN_LENGTH
