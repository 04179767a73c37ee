"""One daemon per tree: a lock file that names its holder (I/O).

Two fences, because each has a hole: `flock` ends by itself with its holder, however it died, but some network file systems do
not carry it; the holder's pid with its start time (a pid alone is used again) is readable anywhere, but only means something
on the same boot of the same machine.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from p2p.base.errors import UsageError

LOCK_NAME = "lock"
_MAX_LOCK_BYTES = 4096


class HomeLock:
    """Held from `take` until `release`, or until this process dies."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self.path = path

    @classmethod
    def take(cls, tree: Path, what: str) -> HomeLock:
        """Lock ``tree`` (an existing directory) for ``what``, say "chief". Raises `UsageError` that names the holder's pid."""
        path = tree / LOCK_NAME
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy(tree, _holder(fd)) from None
            except OSError:
                pass  # this file system has no flock: the pid below is all there is
            holder = _holder(fd)
            if holder is not None and _is_alive(holder):
                raise _busy(tree, holder)
            mine = {"pid": os.getpid(), "started": process_start(os.getpid()), "boot": _boot_id(), "what": what}
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(mine).encode(), 0)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, path)

    def release(self) -> None:
        """Give the tree back; the file stays, empty. Doing it twice is harmless."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def holder_pid(tree: Path) -> int | None:
    """The pid of the live process that holds ``tree``, or None."""
    try:
        fd = os.open(tree / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        holder = _holder(fd)
    finally:
        os.close(fd)
    return _pid(holder) if holder is not None and _is_alive(holder) else None


def process_start(pid: int) -> str | None:
    """A text that differs between two processes with the same pid, or None when there is no such process.

    One that has ended and that nobody has reaped yet is none: where the init process reaps late, it may lie there for long.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
            return None if fields[0] in (b"Z", b"X") else fields[19].decode()  # fields 3 and 22: state, ticks since boot; no clock in it
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return None
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(round(process.create_time()))
    except psutil.NoSuchProcess:
        return None


def _holder(fd: int) -> dict[str, object] | None:
    """What the lock file says, or None when it is empty or torn (its writer died while writing)."""
    try:
        said = json.loads(os.pread(fd, _MAX_LOCK_BYTES, 0))
    except ValueError:
        return None
    return said if isinstance(said, dict) and isinstance(said.get("pid"), int) else None


def _is_alive(holder: dict[str, object]) -> bool:
    return holder.get("boot") == _boot_id() and holder.get("started") is not None and process_start(_pid(holder)) == holder["started"]


def _pid(holder: dict[str, object]) -> int:
    pid = holder["pid"]
    return pid if isinstance(pid, int) else -1


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _busy(tree: Path, holder: dict[str, object] | None) -> UsageError:
    pid = _pid(holder) if holder is not None else None
    who = f"process {pid} ({holder.get('what', 'unknown')})" if holder is not None else "another process"
    return UsageError(
        "home-in-use", f"{tree} is in use by {who}", hint="stop it first (company stop), or give another --home", pid=pid, tree=str(tree)
    )
