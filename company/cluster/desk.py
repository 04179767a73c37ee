"""Questions to somebody's cluster, each with a deadline, and signals that are never lost (I/O: threads, signals).

The libraries of Dask and Ray are called in threads of their own. A `KeyboardInterrupt` that Python raises while the main thread is inside
Dask's client is lost where a weak reference's callback runs there (five of some hundred, at random moments of its calls), or leaves a
lock half taken; and not every call has a time limit. So the main thread only waits here: for an answer, a signal or the deadline.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from p2p.base.errors import Unavailable


class Leave(Exception):
    """A signal came. Raised by the desk's own waiting, nowhere else."""


class Desk:
    """Asks and waits for one command. Only the thread that made it may call it."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()  # the one queue that a signal's handler may put into
        self._out: dict[Any, threading.Thread] = {}  # what was asked and has not been answered, by whom it was asked
        self.signals = 0

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM are for the desk."""

        def heard(number: int, frame: object) -> None:
            self.signals += 1
            self._events.put((None, None))

        before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def all(self, calls: Mapping[Any, Callable[[], Any]], within_s: float, *, until_signals: int = 1) -> dict[Any, Any]:
        """The answers, or exceptions, by key; what has not answered by the deadline is left out, and asked again when it has.

        Raises `Leave` when that many signals have come.
        """
        for key, call in calls.items():
            if key not in self._out:
                thread = threading.Thread(target=self._run, args=(key, call), name=f"company-ask-{key}", daemon=True)
                self._out[key] = thread
                thread.start()
        found: dict[Any, Any] = {}
        until = time.monotonic() + within_s
        while calls.keys() - found.keys():
            if self.signals >= until_signals:
                raise Leave
            try:
                key, answer = self._events.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            self._out.pop(key, None)
            if key in calls:
                found[key] = answer
        return found

    def ask(self, what: str, call: Callable[[], Any], within_s: float, *, until_signals: int = 1) -> Any:
        """The answer. Raises what the call raises, `Unavailable` after the deadline, and `Leave`."""
        found = self.all({what: call}, within_s, until_signals=until_signals)
        if what not in found:
            raise Unavailable("cluster-silent", f"the cluster did not answer within {within_s:g} s: {what}")
        if isinstance(found[what], BaseException):
            raise found[what]
        return found[what]

    def sleep(self, seconds: float, *, until_signals: int = 1) -> None:
        """Nothing to do for so long. Raises `Leave`."""
        until = time.monotonic() + seconds
        while self.signals < until_signals:
            try:
                key, _ = self._events.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return
            self._out.pop(key, None)
        raise Leave

    def _run(self, key: Any, call: Callable[[], Any]) -> None:
        try:
            answer = call()
        except BaseException as error:  # noqa: BLE001 - it is the answer
            answer = error
        self._events.put((key, answer))


def in_time(call: Callable[[], Any], within_s: float) -> bool:
    """Run ``call`` in a thread of its own; whether it was over by then. What it raises is lost: for endings."""
    thread = threading.Thread(target=_quietly, args=(call,), name="company-ending", daemon=True)
    thread.start()
    thread.join(within_s)
    return not thread.is_alive()


def _quietly(call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - the end of a connection that nobody uses any more
        print(f"company: the cluster's connection did not end well: {error}", file=sys.stderr)


def end_by(seconds: float, code: int, words: str) -> None:
    """Whatever a library's own ending waits for: after so long this process is over, with these words."""

    def run() -> None:
        time.sleep(seconds)
        os.write(2, f"company: {words}\n".encode())
        os._exit(code)

    threading.Thread(target=run, name="company-end", daemon=True).start()
