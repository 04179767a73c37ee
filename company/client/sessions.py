"""The jobs that hold one executor's calls: which of them has what a call needs, and when another is opened (I/O: through `Session`).

A job is a package, and another job is another child on every slot, which imports everything again. So functions and arguments that the
packages of open jobs cover go to these; a large function goes into a package only when it is called again and again.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from company.client.chunks import chunk_body
from company.client.functions import Needs, Portable, needs_of, package_files
from company.client.session import Chunk, Session, why_no_worker
from p2p.base.errors import ParallelError

if TYPE_CHECKING:
    from company.client.client import Client

INLINE_FUNCTION_BYTES = 64 << 10  # a larger one goes into the package once it is used often, and not with each chunk
SENT_INLINE = 4  # chunks of a large function
MAX_SESSIONS = 8  # jobs that take calls at a time: each is two threads here and a package there
MAX_TOLD_JOBS = 1000
MAX_KNOWN = 1000


@dataclass(slots=True, eq=False)
class _Open:
    needs: Needs
    carried: frozenset[bytes]  # functions in its package
    session: Session


class Sessions:
    """Those of one executor. Thread-safe."""

    def __init__(self, client: Client, *, name: str, limits: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self._client, self._name, self._limits, self._options = client, name, limits, options
        self._lock = threading.RLock()
        self._open: list[_Open] = []
        self._ended: deque[str] = deque(maxlen=MAX_TOLD_JOBS)  # jobs that made room for others
        self._needs: dict[frozenset[str], Needs] = {}  # of arguments, by the modules that they come from
        self._inline: Counter[bytes] = Counter()  # chunks of large functions that took them along

    @property
    def jobs(self) -> list[str]:
        """Of all that were opened, oldest first."""
        with self._lock:
            return [*self._ended, *(one.session.job for one in self._open)]

    @property
    def slots(self) -> int:
        """How many calls the company runs at once, 0 while no job is open."""
        with self._lock:
            return max((one.session.slots for one in self._open), default=0)

    def send(
        self, made: Portable, kind: int, payload: Any, modules: frozenset[str], calls: int, done: Callable[[Chunk, Any, Any], None]
    ) -> Chunk:
        """Send one chunk to the job that has what it needs. Raises what opening one raises, and what ended it."""
        with self._lock:  # or the job makes room for another before it has got the chunk
            one = self._for(made, self._wanted(made, modules))
            source = None if made.key in one.carried else made.source
            chunk = Chunk(chunk_body(made.key, source, kind, payload), calls, done)
            chunk.job = one.session.job
            one.session.put(chunk)
            return chunk

    def end(self, *, wait: bool) -> None:
        """No more calls will come."""
        with self._lock:
            found = [one.session for one in self._open]
        for session in found:
            session.end(wait=wait)

    def leave(self) -> None:
        """The company is about to end."""
        with self._lock:
            found = [one.session for one in self._open]
        for session in found:
            is_busy = bool(session.waiting)
            session.leave()
            if is_busy:
                with contextlib.suppress(ParallelError):  # or its slots would finish what runs before they end
                    self._client.job(session.job).cancel()

    def _wanted(self, made: Portable, modules: frozenset[str]) -> Needs:
        """What ``made`` needs with arguments of classes and functions of ``modules``."""
        if not modules:
            return made.needs
        found = self._needs.get(modules)
        if found is None:
            if len(self._needs) >= MAX_KNOWN:
                self._needs.clear()
            found = self._needs[modules] = needs_of(modules)
        if made.needs.covers(found):
            return made.needs
        return Needs(found.files | made.needs.files, found.requirements | made.needs.requirements)

    def _for(self, made: Portable, wanted: Needs) -> _Open:
        covering = [one for one in self._open if one.needs.covers(wanted)]
        is_large = len(made.source) > INLINE_FUNCTION_BYTES
        if covering and not is_large:
            return covering[0]
        carrying = next((one for one in covering if made.key in one.carried), None)
        if carrying is not None:
            return carrying
        if covering and self._inline[made.key] < SENT_INLINE:
            if len(self._inline) >= MAX_KNOWN:
                self._inline.clear()
            self._inline[made.key] += 1
            return covering[0]
        return self._opened(made, wanted, carries=is_large and isinstance(made.source, bytes))

    def _opened(self, made: Portable, wanted: Needs, *, carries: bool) -> _Open:
        if not self._open or wanted.requirements:
            conflict = why_no_worker(self._client, wanted.requirements)
            if conflict is not None:
                raise conflict
        functions = {made.key: made.source} if carries and isinstance(made.source, bytes) else {}
        needs = Needs(dict(wanted.files), set(wanted.requirements))
        files = package_files(needs, functions, name=self._name, **self._limits)
        if len(self._open) >= MAX_SESSIONS:
            oldest = self._open.pop(0).session
            oldest.end(wait=False)  # what was sent to it comes back all the same
            self._ended.append(oldest.job)
        one = _Open(needs, frozenset(functions), Session(self._client, files, name=self._name, options=self._options))
        self._open.append(one)
        return one
