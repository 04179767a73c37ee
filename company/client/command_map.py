"""`company map`: one command per line on the workers of a company, outputs apart and in order (I/O: through an executor).

Lines are read as far ahead as keeps the workers busy and no further, so that they may come from a pipe that never ends. A command runs in
the sandbox of calls, which lets it start processes, in an empty folder of its own.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from company.client.command_lines import ENDED_BY_US, CommandResult, command_of
from p2p.base.errors import ParallelError
from p2p.base.record import record

if TYPE_CHECKING:
    from company.client.executor import Executor

PROCESSES = 128  # that one command may start
AHEAD_PER_SLOT = 64  # lines read and not given on: short commands travel in groups
SPARE_S = 30.0  # beyond the time that a command may take: for the call around it


@record
class Line:
    """One line on its way. ``files``: what goes along, by path; ``wanted``: files that come back."""

    number: int
    text: str
    command: str
    files: Mapping[str, bytes]
    wanted: tuple[str, ...]

    @property
    def sent_bytes(self) -> int:
        """What goes along."""
        return sum(map(len, self.files.values()))


def runner(base_files: Mapping[str, bytes], time_limit_s: float) -> Callable[..., Any]:
    """The call. A closure, so that it travels by value, with what every command gets; it runs where this package is not."""
    base = dict(base_files)

    def run(command: str, files: dict[str, bytes], wanted: tuple[str, ...]) -> tuple[Any, ...]:
        import os
        import shutil
        import signal
        import subprocess
        import tempfile
        import time

        folder = tempfile.mkdtemp(prefix="map-")
        work, outputs = os.path.join(folder, "work"), [os.path.join(folder, name) for name in ("out", "err")]
        trouble, code, ended_by_us = "", 0, -1
        started, begun = time.time(), time.monotonic()
        environ = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "PYTHONHASHSEED")}
        try:
            os.mkdir(work)
            for path, content in [*base.items(), *files.items()]:
                os.makedirs(os.path.dirname(os.path.join(work, path)), exist_ok=True)
                with open(os.path.join(work, path), "wb") as file:
                    file.write(content)
            for path in wanted:
                os.makedirs(os.path.dirname(os.path.join(work, path)), exist_ok=True)
            with open(outputs[0], "wb") as out, open(outputs[1], "wb") as err:
                try:
                    process = subprocess.Popen(
                        ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=work, env=environ,
                        start_new_session=True,
                    )  # fmt: skip
                except (OSError, ValueError) as error:
                    refused = isinstance(error, PermissionError)
                    trouble = f"it cannot be started: {error}" + (" (this worker's sandbox lets nothing be started)" if refused else "")
                    code = ended_by_us
                else:
                    try:
                        code = process.wait(time_limit_s)
                    except subprocess.TimeoutExpired:
                        trouble, code = f"it took longer than {time_limit_s:g} s", ended_by_us
                    try:
                        os.killpg(process.pid, signal.SIGKILL)  # what it left behind in the background, too
                    except (ProcessLookupError, PermissionError):
                        pass
                    process.wait()
            seconds = time.monotonic() - begun
            said = []
            for name in outputs:
                with open(name, "rb") as file:
                    said.append(file.read())
            found: dict[str, bytes] = {}
            for path in wanted:
                try:
                    with open(os.path.join(work, path), "rb") as file:
                        found[path] = file.read()
                except OSError:
                    if not trouble:
                        trouble, code = f"it made no file {path}", code or ended_by_us
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        is_signal = code < 0 and not trouble
        return (0, -code) if is_signal else (code, 0), said[0], said[1], started, seconds, found, trouble

    return run


def map_lines(
    ex: Executor, lines: Iterable[str], template: str, *, base_files: Mapping[str, bytes],
    files_of: Callable[[int, str], Mapping[str, bytes]],
    wanted_of: Callable[[int, str], tuple[str, ...]], time_limit_s: float, tries: int, ordered: bool, jobs: int | None, skip: set[int],
    on_done: Callable[[Line, CommandResult], None],
) -> Iterator[tuple[Line, CommandResult]]:  # fmt: skip
    """Results of the commands, in the order of their lines or as they come. ``on_done``: told of each at once, whatever the order."""
    call = runner(base_files, time_limit_s)
    room = threading.Semaphore(AHEAD_PER_SLOT * ex.slots)
    events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    is_over = threading.Event()

    def read() -> None:
        try:
            for number, text in enumerate(lines, 1):
                if number in skip:
                    continue
                room.acquire()
                if is_over.is_set():
                    return
                events.put(
                    ("line", Line(number, text, command_of(template, text, number), files_of(number, text), wanted_of(number, text)))
                )
            events.put(("end", None))
        except BaseException as error:  # noqa: BLE001 - raised where results are asked for
            events.put(("error", error))

    tried: dict[int, int] = {}
    held: dict[int, tuple[Line, CommandResult]] = {}
    order: list[int] = []  # numbers under way, as they were read
    waiting: deque[Line] = deque()
    flying, is_read = 0, False

    def send(line: Line) -> None:
        tried[line.number] = tried.get(line.number, 0) + 1
        future = ex.submit(call, line.command, dict(line.files), line.wanted)
        future.add_done_callback(lambda done: events.put(("done", (line, done))))

    reader = threading.Thread(target=read, name="company-map-lines", daemon=True)  # it may wait for a line for ever
    reader.start()
    try:
        while not is_read or order:
            kind, what = events.get()
            ended: Line | None = None
            if kind == "error":
                raise what
            if kind == "end":
                is_read = True
            elif kind == "line":
                order.append(what.number)
                waiting.append(what)
            else:
                flying -= 1
                line, result = what[0], _result_of(what[1])
                if result.is_ok or tried[line.number] >= tries:
                    ended = line
                    held[line.number] = (line, result)
                    del tried[line.number]
                    on_done(line, result)
                else:
                    waiting.append(line)
            while waiting and (jobs is None or flying < jobs):
                flying += 1
                send(waiting.popleft())
            while ended is not None and order and (found := order[0] if ordered else ended.number) in held:
                order.remove(found)
                room.release()
                yield held.pop(found)
    finally:
        is_over.set()
        room.release()  # the reader may wait for it


def _result_of(future: Future[tuple[Any, ...]]) -> CommandResult:
    worker = str(getattr(future, "worker", ""))
    try:
        (code, signal_number), stdout, stderr, started, seconds, files, trouble = future.result()
    except ParallelError as error:  # its sandbox ended: memory, time, a worker that died
        return CommandResult(ENDED_BY_US, worker=str(error.facts.get("worker", "")) or worker, trouble=error.text)
    return CommandResult(code, signal_number, stdout, stderr, started, seconds, files, worker, trouble)
