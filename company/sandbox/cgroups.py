"""Limits that the kernel keeps for a whole child: memory with its tmpfs and kernel parts, tasks, share of the cores (I/O).

One group per child, below the daemon's own, where the daemon may write: on version 2 in a subtree that was handed to it
(a systemd unit with Delegate=yes, a container), on version 1 as root. rlimits hold everywhere and stay; these come besides.

Source: Linux Documentation/admin-guide/cgroup-v2.rst ("No Internal Process Constraint", "Delegation") and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from company.sandbox.profile import MIB, Profile
from p2p.base.record import record

WANTED = ("memory", "pids", "cpu")
SLACK_BYTES = 96 * MIB  # interpreter, libraries touched, package folder, pipes, page tables
MAX_TASKS = 256
OWN_TASKS = 32  # the interpreter with its threads and what stands around it, where a package says how many processes it starts
PERIOD_US = 100_000
QUOTA_US = 110_000  # a tenth more than one core, so that one busy thread is never held up at the edge of a period
REMOVE_TRIES, REMOVE_PAUSE_S = 100, 0.01
_DAEMON = "company-daemon"  # leaf of the daemon and what it starts: on version 2 a group with limits below it may hold no process
_PREFIX = "company-"
_number = itertools.count()  # of this process: several sandboxes may be open
_JOIN = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 >"$1" || exit 125; shift; n=$((n-1)); done; exec "$@"'


@record
class Group:
    """The group of one child: a folder per hierarchy (one on version 2)."""

    folders: tuple[Path, ...]
    events: Path | None  # where the kernel counts the kills

    def joining(self) -> list[str]:
        """argv prefix: a shell that enters the group and becomes what follows, so that nothing is ever outside."""
        return ["/bin/sh", "-c", _JOIN, "join", str(len(self.folders)), *(str(folder / "cgroup.procs") for folder in self.folders)]

    def was_out_of_memory(self) -> bool:
        """Whether the kernel has killed in here because memory was used up."""
        return self.events is not None and _number_after("oom_kill", _read(self.events)) > 0

    def remove(self) -> None:
        """Take it away; its processes are dead, but may not be reaped for some milliseconds. What cannot go is swept by the next daemon."""
        for folder in self.folders:
            for _ in range(REMOVE_TRIES):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        break
                    time.sleep(REMOVE_PAUSE_S)
                    continue
                break


class Groups:
    """Makes groups below ``parents`` (controller to folder)."""

    def __init__(self, version: int, parents: Mapping[str, Path]) -> None:
        self.version = version
        self.controllers = tuple(name for name in WANTED if name in parents)
        self._parents = parents
        self._sweep()
        self.make(Profile(role="process")).remove()  # what fails here is said once, at the start

    def make(self, profile: Profile) -> Group:
        """A group with the limits of ``profile``. Raises `OSError`."""
        name = f"{_PREFIX}{os.getpid()}-{next(_number)}"
        folders = tuple(dict.fromkeys(parent / name for parent in self._parents.values()))
        made: list[Path] = []
        try:
            for folder in folders:
                folder.mkdir()
                made.append(folder)
            for controller, parent in self._parents.items():
                for file, value, is_needed in limits(self.version, controller, profile):
                    _write(parent / name / file, value, is_needed=is_needed)
        except OSError:
            Group(tuple(made), None).remove()
            raise
        memory = self._parents.get("memory")
        events = None if memory is None else memory / name / ("memory.events" if self.version == 2 else "memory.oom_control")
        return Group(folders, events)

    def _sweep(self) -> None:
        """Remove what daemons that were killed have left."""
        for parent in set(self._parents.values()):
            for folder in parent.glob(f"{_PREFIX}*-*"):
                pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
                if pid.isdigit() and not Path("/proc", pid).exists():
                    with contextlib.suppress(OSError):
                        folder.rmdir()


def limits(version: int, controller: str, profile: Profile) -> Iterator[tuple[str, str, bool]]:
    """Files of a group and what is written into them; the last: whether a kernel without that file is refused."""
    memory = str(profile.memory_bytes + profile.tmp_bytes + SLACK_BYTES)  # what lies in /tmp counts here as well
    if controller == "memory" and version == 2:
        yield from (("memory.max", memory, True), ("memory.swap.max", "0", False), ("memory.oom.group", "1", False))
    elif controller == "memory":
        yield from (("memory.limit_in_bytes", memory, True), ("memory.memsw.limit_in_bytes", memory, False))
    elif controller == "pids":
        yield "pids.max", str(min(MAX_TASKS, OWN_TASKS + profile.processes) if profile.processes else MAX_TASKS), True
    elif version == 2:
        yield "cpu.max", f"{QUOTA_US} {PERIOD_US}", True
    else:
        yield from (("cpu.cfs_period_us", str(PERIOD_US), True), ("cpu.cfs_quota_us", str(QUOTA_US), True))


def find_groups(proc: Path = Path("/proc")) -> tuple[Groups | None, str]:
    """What this process may use, and in words what that is or why it is nothing."""
    try:
        memberships = dict(_memberships(_read(proc / "self/cgroup")))
        mounts = dict(_mounts(_read(proc / "self/mountinfo")))
        found = _version_2(memberships, mounts, proc) or _version_1(memberships, mounts)
    except (OSError, ValueError) as error:
        return None, f"control groups cannot be used: {error}"
    if found is None:
        return None, "no control group on this machine is ours to divide"
    return found, f"control groups (version {found.version}) limit {', '.join(found.controllers)} of every child"


def _version_2(memberships: Mapping[str, str], mounts: Mapping[str, tuple[str, Path]], proc: Path) -> Groups | None:
    if "" not in memberships or "" not in mounts:
        return None
    own = _folder(memberships[""], mounts[""])
    base = own.parent if own.name == _DAEMON else own
    offered = set(_read(base / "cgroup.controllers").split())
    controllers = [name for name in WANTED if name in offered]
    if "memory" not in controllers or not os.access(base, os.W_OK):
        return None
    if not set(controllers) <= set(_read(base / "cgroup.subtree_control").split()):
        _step_down(base, proc)
        (base / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
    return Groups(2, dict.fromkeys(controllers, base))


def _step_down(base: Path, proc: Path) -> None:
    """Move ourselves and what we have started into a leaf. Raises `OSError` when others live in ``base``."""
    pids = [int(pid) for pid in _read(base / "cgroup.procs").split()]
    if strangers := [pid for pid in pids if not _is_ours(pid, proc)]:
        raise OSError(errno.EBUSY, f"{base} also holds process {strangers[0]}, which is not ours")
    leaf = base / _DAEMON
    leaf.mkdir(exist_ok=True)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(str(pid))


def _is_ours(pid: int, proc: Path) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            pid = int(_read(proc / str(pid) / "stat").rpartition(")")[2].split()[1])
        except FileNotFoundError:
            return True  # gone meanwhile
    return False


def _version_1(memberships: Mapping[str, str], mounts: Mapping[str, tuple[str, Path]]) -> Groups | None:
    parents = {}
    for controller in WANTED:
        if controller in memberships and controller in mounts:
            folder = _folder(memberships[controller], mounts[controller])
            if os.access(folder, os.W_OK):
                parents[controller] = folder
    return Groups(1, parents) if "memory" in parents else None


def _folder(membership: str, mount: tuple[str, Path]) -> Path:
    root, point = mount
    inside = membership.removeprefix(root) if root != "/" else membership
    return point / inside.lstrip("/")


def _memberships(text: str) -> Iterator[tuple[str, str]]:
    """Controller ("" for version 2) and our group in it."""
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            yield name, path


def _mounts(text: str) -> Iterator[tuple[str, tuple[str, Path]]]:
    """Controller ("" for version 2), root of the mount within the hierarchy, where it lies."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split(" ")[3:5]
        kind, _, options = after.split(" ", 2)
        names: Sequence[str] = [""] if kind == "cgroup2" else options.split(",") if kind == "cgroup" else ()
        for name in names:
            yield name, (root, Path(point))


def _number_after(name: str, text: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _read(path: Path) -> str:
    return path.read_text()


def _write(path: Path, value: str, *, is_needed: bool) -> None:
    try:
        path.write_text(value)
    except OSError:
        if is_needed or path.exists():
            raise
