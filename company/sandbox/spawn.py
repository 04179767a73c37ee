"""Start one child process and hand it its four descriptors (I/O).

Always from the main thread, which lives as long as the daemon: the parent-death signal follows the thread that forked.
No preexec_fn and no uid given to Popen, so that the daemon is never copied (vfork); `setpriv` changes the user.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from company.sandbox import wire
from company.sandbox.cgroups import Group, Groups
from company.sandbox.child import Child
from company.sandbox.page import create_data, create_memory
from company.sandbox.profile import Profile
from p2p.base.errors import InvariantBroken
from p2p.base.record import record

PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031


@record
class Ends:
    """Descriptor numbers as the child gets them."""

    fds: tuple[int, int, int, int]  # in, out, page, log
    seccomp_fd: int  # -1 without a filter


def spawn(
    argv_of: Callable[[Ends], Sequence[str]], *, profile: Profile, filter_program: bytes, uid: int | None, env: Mapping[str, str],
    reachable: Mapping[str, str], cleanup: Path | None = None, has_own_tmp: bool = False, groups: Groups | None = None,
) -> Child:  # fmt: skip
    """Start ``argv_of(ends)`` as ``uid`` (None: as ourselves). Raises `OSError`."""
    if threading.current_thread() is not threading.main_thread():
        raise InvariantBroken("a sandboxed child must be started from the main thread: its death signal follows the thread")
    opened: list[int] = []
    group: Group | None = None
    try:
        child_in, to_child = _pipe(opened)
        from_child, child_out = _pipe(opened)
        page_fd = _note(opened, create_memory("company-page", wire.PAGE_BYTES))
        log_fd = _note(opened, create_memory("company-log", wire.LOG_BYTES))
        # One per spawn: bwrap reads it to its end, and an offset is shared.
        filter_fds = (_note(opened, create_data("company-seccomp", filter_program)),) if filter_program else ()
        ends = Ends((child_in, child_out, page_fd, log_fd), filter_fds[0] if filter_fds else -1)
        if groups is not None and (uid is None or _setpriv()):
            group = groups.make(profile)
        argv = [*(group.joining() if group else ()), *_as_user(uid), *argv_of(ends)]
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log_fd, stderr=log_fd, close_fds=True, pass_fds=(*ends.fds, *filter_fds),
            env=dict(env), cwd="/", start_new_session=False,
            **({} if uid is None or _setpriv() else {"user": uid, "group": uid, "extra_groups": []}),  # type: ignore[call-overload]
        )  # fmt: skip
    except BaseException:
        for fd in opened:
            os.close(fd)
        if group is not None:
            group.remove()
        raise
    for fd in (child_in, child_out, *filter_fds):
        os.close(fd)
    return Child(
        process, to_child=to_child, from_child=from_child, page_fd=page_fd, log_fd=log_fd, profile=profile, reachable=reachable,
        cleanup=cleanup, has_own_tmp=has_own_tmp, group=group,
    )  # fmt: skip


def _as_user(uid: int | None) -> list[str]:
    setpriv = _setpriv()
    if uid is None or setpriv is None:
        return []
    return [setpriv, "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--no-new-privs", "--inh-caps=-all", "--"]


def _setpriv() -> str | None:
    return shutil.which("setpriv", path="/usr/bin:/bin:/usr/sbin:/sbin")


def _pipe(opened: list[int]) -> tuple[int, int]:
    ends = os.pipe2(os.O_CLOEXEC)
    opened.extend(ends)
    try:
        fcntl.fcntl(ends[0], _F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:  # an ordinary user may have so many large pipes; 64 KiB work, too
        pass
    return ends


def _note(opened: list[int], fd: int) -> int:
    opened.append(fd)
    return fd
