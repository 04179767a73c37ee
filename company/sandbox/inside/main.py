"""The program of a sandboxed child: wait for LOAD, then split, process or merge until the pipe ends (I/O).

Started as ``python -s -S -B -P -c … SETTINGS`` where SETTINGS is hex of a msgpack map: ``fds`` (in, out, page, log), ``package``
(where to put the package's files), ``role``, ``path`` (further import folders), ``limits`` (rlimits), ``confine`` (None, or what
`company.sandbox.inside.confine` needs where no bubblewrap stands around).
"""

from __future__ import annotations

import faulthandler
import fcntl
import mmap
import os
import resource
import sys
import time

import msgpack

from company import fragment as _fragment  # noqa: F401 - loaded before a package can shadow it
from company import task
from company.sandbox import wire
from company.sandbox.inside import merge, package, process, reserve, split
from company.sandbox.inside.logs import STDERR, STDOUT, Logs, text_stream
from company.sandbox.inside.pipe import CHUNK_BYTES, Pipe
from company.sandbox.page_slots import PAGE_STAGE, STAGE_BOOTED, STAGE_LOADED
from p2p.base import codec

TYPE_CHECKING = False  # for type checkers: `typing` and what it imports would cost a blank sandbox a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

STATUS_EVERY_NS = 500_000_000
MAX_ARTIFACT_BYTES = 1 << 30


class Sink:
    """Where ``company.task`` sends what a module says."""

    def __init__(self, pipe: Pipe, page: Any) -> None:
        self._pipe = pipe
        self._page = page
        self._next_at = 0
        self._held: list[Any] | None = None
        self.index: Callable[[], int] = lambda: int(page[wire.PAGE_INDEX])  # of the fragment that runs

    def status(self, text: str, fraction: float | None) -> None:
        """Send at most two a second; the last of a batch is not lost."""
        message = [wire.STATUS, self._page[wire.PAGE_TOKEN], self.index(), text, fraction]
        now = time.monotonic_ns()
        if now < self._next_at:
            self._held = message
            return
        self._next_at = now + STATUS_EVERY_NS
        self._held = None
        self._write(message)

    def artifact(self, name: str, data: bytes) -> None:
        """Send it in pieces; waits while the parent does not read."""
        if len(data) > MAX_ARTIFACT_BYTES:
            raise ValueError(f"an artifact may have {MAX_ARTIFACT_BYTES} bytes, this one has {len(data)}")
        token, index = self._page[wire.PAGE_TOKEN], self.index()
        with self._pipe.lock:
            for start in range(0, max(1, len(data)), CHUNK_BYTES):
                last = start + CHUNK_BYTES >= len(data)
                self._write([wire.ARTIFACT, token, index, name, last], [data[start : start + CHUNK_BYTES]])

    def _write(self, header: list[Any], items: Sequence[bytes] = ()) -> None:
        """Waiting for a parent that does not read is not the fragment's time."""
        page, before = self._page, time.monotonic_ns()
        in_user = page[wire.PAGE_IN_USER]
        page[wire.PAGE_IN_USER] = 0
        self._pipe.write(header, items)
        page[wire.PAGE_STARTED_NS] += time.monotonic_ns() - before
        page[wire.PAGE_IN_USER] = in_user

    def flush(self) -> None:
        """Send the status that was held back."""
        held, self._held = self._held, None
        if held is not None:
            self._pipe.write(held)


def main(settings_hex: str) -> None:
    """Run the child; does not return."""
    settings = msgpack.unpackb(bytes.fromhex(settings_hex))
    _place_descriptors(settings["fds"])
    for name, value in settings["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if settings["niceness"]:
        os.nice(settings["niceness"])
    _be_first_for_the_oom_killer()
    memory = mmap.mmap(wire.FD_PAGE, wire.PAGE_BYTES)
    page = memoryview(memory).cast("Q")
    faulthandler.enable(2, all_threads=False)
    if settings["confine"] is not None:
        from company.sandbox.inside import confine

        confine.apply(settings["confine"])
    logs = Logs(wire.FD_LOG, page)
    sys.stdout, sys.stderr = text_stream(logs, STDOUT), text_stream(logs, STDERR)
    pipe = Pipe(wire.FD_IN, wire.FD_OUT)
    for name in [n for n in sys.modules if n == "p2p" or n.startswith("p2p.")]:
        del sys.modules[name]  # a package of theirs may be called so
    if settings["role"] in ("split", "merge"):
        import pathlib  # noqa: F401 - here, where no package can shadow it; children for process do without
    reserve.keep()
    sys.path += settings["path"]
    page[PAGE_STAGE] = STAGE_BOOTED
    code = 1
    try:
        code = _serve(pipe, page, logs, settings["package"])
    finally:
        # No clean-up of the module's: threads and atexit handlers of a stranger do not delay us.
        os._exit(code)


def _place_descriptors(fds: list[int]) -> None:
    """Put pipes, page and log on their agreed numbers, the log also on 1 and 2."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in fds]
    for fd in fds:
        os.close(fd)
    for fd, target in zip(high, (wire.FD_IN, wire.FD_OUT, wire.FD_PAGE, wire.FD_LOG), strict=True):
        os.dup2(fd, target, inheritable=False)
        os.close(fd)
    os.dup2(wire.FD_LOG, 1)
    os.dup2(wire.FD_LOG, 2)


def _be_first_for_the_oom_killer() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:  # no /proc here
        return


def _serve(pipe: Pipe, page: Any, logs: Logs, root: str) -> int:
    frame = pipe.read()
    if frame is None or frame[0][0] != wire.LOAD:
        return 0
    header, sizes, body = frame
    where = "load"
    try:
        _, role, options = header
        items = _cut(sizes, body)
        params = codec.decode_value(items[0])
        package.write_files(root, items[1:])
        page[wire.PAGE_IN_USER], page[wire.PAGE_STARTED_NS] = 1, time.monotonic_ns()
        module = package.import_module(root, role, options.get("entry", "main.py"))
        page[wire.PAGE_IN_USER] = 0
        function = package.function(module, role)
        sink = Sink(pipe, page)
        task.connect(sink)
        pipe.write([wire.READY, package.functions_of(module), sys.version])
        page[PAGE_STAGE] = STAGE_LOADED
        where = role
        if role in ("split", "merge"):
            from pathlib import Path
        if role == "split":
            splitter, data = split.Splitter(pipe, page), Path(options["data"])
            where = "count"
            counter = getattr(module, "count", None)
            splitter.count(package.bind(counter, params, positional=1) if callable(counter) else None, data)
            where = "split"
            splitter.run(package.bind(function, params, positional=1), data)
            pipe.read()
        elif role == "merge":
            merge.run(package.bind(function, params, positional=2), pipe, page, Path(options.get("output", "/output")))
            pipe.read()
        else:
            bound = package.bind(function, params, positional=1) if role == "process" else lambda pair: function(*pair)
            runner = process.Runner(bound, pipe=pipe, page=page, logs=logs, root=root, options=options)
            sink.index = logs.index = runner.index
            _process(runner, pipe, sink)
    except BaseException as error:  # noqa: BLE001 - the boundary of this process; all of it is told to the parent
        pipe.write([wire.FAILED, where, *package.describe(error, root)])
        pipe.read()
        return 1
    return 0


def _process(runner: process.Runner, pipe: Pipe, sink: Sink) -> None:
    while (frame := pipe.read()) is not None:
        header, sizes, body = frame
        if header[0] == wire.END:
            return
        if header[0] == wire.RUN:
            runner.run(header, sizes, body, before_end=sink.flush)


def _cut(sizes: Iterable[int], body: memoryview) -> list[bytes]:
    items, at = [], 0
    for size in sizes:
        items.append(bytes(body[at : at + size]))
        at += size
    return items
