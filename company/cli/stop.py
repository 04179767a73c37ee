"""company stop: end the chief of this home, and nothing else (I/O).

The pid is believed only where the home's lock names it together with its start time, so that a number used again by the system never
costs a stranger's process its life.
"""

from __future__ import annotations

import os
import select
import signal
import time

import click

from company.cli.framework import DURATION, Command, Session, pass_session
from company.cli.output import print_json, say
from company.errors import ChiefUnreachable, WaitTimedOut


@click.command(cls=Command)
@click.option("--timeout", type=DURATION, default="60s", help="How long to wait for its end.")
@click.option("--force", is_flag=True, help="Kill it when the time is over; jobs go on at the next start all the same.")
@pass_session
def stop(session: Session, timeout: float, force: bool) -> None:
    """Stop the chief of this home and wait for its end. Its jobs are saved and go on at the next start."""
    from company.home_lock import holder_pid

    pid = None if session.url else holder_pid(session.home / "chief")
    if pid is None and not session.url:
        _tell(session, False, f"no chief runs in {session.home}")
        return
    try:
        session.client().stop()
    except ChiefUnreachable:
        if pid is None:
            raise
        os.kill(pid, signal.SIGTERM)  # it does not answer (or has no address yet); the lock proves that it is ours
    if pid is None:
        _tell(session, True, "the chief has been asked to stop")
        return
    if not wait_for_end(pid, timeout):
        if not force:
            raise WaitTimedOut("stop-timed-out", f"the chief (process {pid}) still runs after {timeout:g} s", hint="company stop --force")
        if holder_pid(session.home / "chief") == pid:
            os.kill(pid, signal.SIGKILL)
            wait_for_end(pid, 10.0)
    _tell(session, True, f"the chief (process {pid}) has stopped")


def wait_for_end(pid: int, timeout_s: float) -> bool:
    """Whether the process ended within the time; it need not be a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except (AttributeError, OSError):
        return _poll_for_end(pid, timeout_s)
    try:
        ready, _, _ = select.select([descriptor], [], [], timeout_s)
        return bool(ready)
    finally:
        os.close(descriptor)


def _poll_for_end(pid: int, timeout_s: float) -> bool:
    """The same where the system has no pidfd."""
    from company.home_lock import process_start

    end = time.monotonic() + timeout_s
    while process_start(pid) is not None:
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True


def _tell(session: Session, stopped: bool, text: str) -> None:
    if session.as_json:
        print_json("stop/1", {"stopped": stopped, "text": text})
    else:
        say(text)
