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
from collections.abc import Mapping
from typing import Any

import psutil
import trio

from company.home_lock import holder_pid
from company.paths import Home

NAME = "local"
RESTART_S = 2.0
LEAVE_S = 0.5  # between the two signals: the first says leave, the second at once, because a chief that stops takes no more results
KILL_S = 1.5
POLL_S = 1.0  # where the system has no pidfd
_log = logging.getLogger("company.node")


async def keep_own_worker(home: Home, token: str, slots: int, options: Mapping[str, Any]) -> None:
    """Keep one worker of this home alive until cancelled, then end it."""
    while True:
        pid = holder_pid(home.worker(NAME).root)
        if pid is not None:
            _log.info("taking over the worker of before (process %d)", pid)
            await _watch(pid, None)
        else:
            process = _start(home, token, slots, options)
            await _watch(process.pid, process)
            _log.warning("the chief's own worker ended with %s; starting it again", process.wait())
        await trio.sleep(RESTART_S)


def _start(home: Home, token: str, slots: int, options: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "company", "worker", "join", "--home", str(home.root), "--name", NAME, "--slots", str(slots)]
    arguments += ["--token-file", "-"]
    if options.get("sandbox") == "none":
        arguments += ["--sandbox", "none", "--i-understand"]
    # a session of its own, so that Ctrl-C reaches the chief alone, which then ends its worker in order
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(token.encode() + b"\n")
        process.stdin.close()
    return process


async def _watch(pid: int, process: subprocess.Popen[bytes] | None) -> None:
    """Return when it has ended; when cancelled, end it."""
    try:
        descriptor: int | None = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):
        descriptor = None
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


async def _wait_ended(pid: int, descriptor: int | None) -> None:
    if descriptor is not None:
        await trio.lowlevel.wait_readable(descriptor)
        return
    while True:
        await trio.sleep(POLL_S)
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return


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
