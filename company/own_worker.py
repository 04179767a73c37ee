"""The worker that a chief runs itself: started, watched, started again, and gone when the chief stops (I/O).

One that outlived a chief that was killed holds finished results: the next chief takes it over instead of starting another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import trio

from company.home_lock import holder_pid
from company.paths import OWN_NAME, Home
from p2p.base.errors import Unavailable
from p2p.base.record import record

if TYPE_CHECKING:
    from p2p.base.keys import Identity
    from p2p.net.channel import Registry
    from p2p.net.rpc import OnChannel

NAME = OWN_NAME
RESTART_S = 2.0
LEAVE_S = 0.5  # between the two signals: the first says leave, the second at once, because a chief that stops takes no more results
KILL_S = 1.5
POLL_S = 1.0  # where the system has no pidfd
_log = logging.getLogger("company.node")


@record
class Memory:
    """Where a worker that has joined looks for its chief. ``write``: tell it that the chief listens elsewhere now."""

    read: Callable[[], tuple[str, ...]]
    write: Callable[[tuple[str, ...]], None]


@contextlib.contextmanager
def begun_early(home: Home, command: Sequence[str] | None) -> Iterator[subprocess.Popen[bytes] | None]:
    """Start the worker's process while its chief still starts: it loads meanwhile, then waits for its token on its input.

    None without a command, and where a worker of before is there. One that was given no token ends with the block.
    """
    if command is None or holder_pid(home.worker(NAME).root) is not None:
        yield None
        return
    process = _spawn(command)
    try:
        yield process
    finally:
        if process.stdin is not None and not process.stdin.closed:
            process.kill()
            process.communicate()


async def serve_own_worker(
    path: Path, identity: Identity, registry: Registry, on_channel: OnChannel, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Let it reach its chief without TLS, where the system can; else it dials the port as any other worker does."""
    from p2p.net.local import serve_local

    try:
        await serve_local(identity=identity, path=path, registry=registry, on_channel=on_channel, task_status=task_status)
    except Unavailable as error:
        _log.warning("the chief's own worker uses the port: %s", error.text)
        task_status.started()


async def keep_own_worker(
    home: Home, command: Sequence[str], token: str, addresses: tuple[str, ...], memory: Memory, tell: Callable[[int | None], None],
    begun: subprocess.Popen[bytes] | None = None,
) -> None:  # fmt: skip
    """Keep one worker of this home alive until cancelled, then end it. ``addresses``: where this chief is dialled now.

    ``tell``: hears a nil whenever one is started, and its status when it has ended. ``begun``: its process, where it was begun early and
    still waits for its token.
    """
    while True:
        tell(None)
        pid = holder_pid(home.worker(NAME).root) if begun is None else None
        if pid is not None and _command_line(pid) == list(command) and memory.read() == addresses:
            _log.info("taking over the worker of before (process %d)", pid)
            await _watch(pid, None)
        else:
            if pid is not None:  # it was started with other options, or waits at an address that is none any more
                await _end_other(pid)
            memory.write(addresses)
            process, begun = begun or _spawn(command), None
            _give(process, token)
            await _watch(process.pid, process)
            tell(process.wait())
            _log.warning("the chief's own worker ended with %s; starting it again", process.returncode)
        await trio.sleep(RESTART_S)


async def _end_other(pid: int) -> None:
    descriptor = _open(pid)
    try:
        await _end(pid, descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def command_of(home: Home, slots: int, options: Mapping[str, Any]) -> list[str]:
    """The command line of a chief's own worker."""
    arguments = [sys.executable, "-P", "-m", "company", "worker", "join", "--home", str(home.root), "--name", NAME, "--slots", str(slots)]
    arguments += ["--token-file", "-"]
    if options.get("sandbox") == "none":
        arguments += ["--sandbox", "none", "--i-understand"]
    return arguments


def _command_line(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def _spawn(command: Sequence[str]) -> subprocess.Popen[bytes]:
    # a session of its own, so that Ctrl-C reaches the chief alone, which then ends its worker in order
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)


def _give(process: subprocess.Popen[bytes], token: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(token.encode() + b"\n")
        process.stdin.close()


async def _watch(pid: int, process: subprocess.Popen[bytes] | None) -> None:
    """Return when it has ended; when cancelled, end it."""
    descriptor = _open(pid)
    try:
        await _wait_ended(pid, descriptor)
    except BaseException:
        with trio.CancelScope(shield=True):
            await _end(pid, descriptor)
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
        if process is not None:
            process.wait()


def _open(pid: int) -> int | None:
    """A handle that stays this process's whoever gets its number later; nil where the system has none, or the process ended."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


async def _wait_ended(pid: int, descriptor: int | None) -> None:
    if descriptor is not None:
        await trio.lowlevel.wait_readable(descriptor)
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        while True:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
            await trio.sleep(POLL_S)


async def _end(pid: int, descriptor: int | None) -> None:
    """Ask twice, then kill."""
    for number, patience_s in ((signal.SIGTERM, LEAVE_S), (signal.SIGTERM, KILL_S), (signal.SIGKILL, KILL_S)):
        try:
            if descriptor is not None:
                signal.pidfd_send_signal(descriptor, number)  # cannot hit a stranger that got the number later
            else:
                os.kill(pid, number)
        except ProcessLookupError:
            return
        with trio.move_on_after(patience_s):
            await _wait_ended(pid, descriptor)
            return
