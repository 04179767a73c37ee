"""What all rungs share: the stage, the interpreter a child can reach, its mounts, its settings (I/O)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack

from company.sandbox import host, staging
from company.sandbox.child import Child
from company.sandbox.profile import Mount, Profile
from company.sandbox.site import BOUND
from company.sandbox.spawn import Ends
from p2p.base.errors import UsageError
from p2p.base.record import record


@record
class Rung:
    """A way of starting children, and how to let go of it."""

    name: str
    start: Callable[[Profile], Child]
    close: Callable[[], None]


def open_stage(interpreter: host.Interpreter, site: Path, stage_dirs: Sequence[Path], bwrap_site: Path | None) -> staging.Stage:
    """Stage what children need; where a root daemon may not mount, they see what everybody sees."""
    read_only = [p for p in (interpreter.prefix, site, bwrap_site, *host.numpy_folders()) if p is not None and not host.is_system(p)]
    try:
        return staging.open_stage(read_only=read_only, writable=stage_dirs)
    except OSError:
        return staging.drop_only()


def reachable_interpreter(interpreter: host.Interpreter, stage: staging.Stage) -> host.Interpreter:
    """``interpreter``, or the system's of the same ABI where a child cannot get to it."""
    try:
        stage.path(interpreter.prefix or interpreter.executable)
    except UsageError:
        other = host.system_interpreter()
        if other is None:
            raise UsageError(
                "interpreter-unreachable",
                f"{interpreter.prefix} cannot be read by an unprivileged child, and there is no other Python of the same version",
                hint="install this version of Python in /usr, or run as an ordinary user",
            ) from None
        return other
    return interpreter


def reachable_numpy(stage: staging.Stage) -> dict[str, Path]:
    """numpy's folders by name, as a child finds them; empty where it cannot."""
    try:
        return {folder.name: stage.path(folder) for folder in host.numpy_folders() if folder.name in BOUND}
    except UsageError:
        return {}


def all_mounts(profile: Profile) -> list[Mount]:
    """The profile's mounts with its output and its requirements among them."""
    mounts = list(profile.mounts)
    if profile.output is not None:
        mounts.append(Mount(profile.output, "/output", writable=True))
    if profile.site is not None:
        mounts.append(Mount(profile.site, "/packages"))
    return mounts


def check_readable(profile: Profile, uid: int | None) -> None:
    """Raise `UsageError` for a mount that a child of another uid could not open, and hand writable ones over to it."""
    if uid is None:
        return
    for mount in all_mounts(profile):
        if mount.writable:
            os.chown(mount.host, uid, uid)
        elif not mount.host.stat().st_mode & 0o004:
            raise UsageError(
                "mount-unreadable", f"{mount.host} must be readable by all, since children run as another user", hint="chmod o+r"
            )


def settings_hex(ends: Ends, profile: Profile, *, package: str, paths: Sequence[str], confine: dict[str, Any] | None) -> str:
    """What `company.sandbox.inside.main` is told."""
    settings = {
        "fds": list(ends.fds), "package": package, "path": list(paths), "role": profile.role,
        "limits": profile.rlimits(), "niceness": profile.cpu_niceness,
        "confine": confine,
    }  # fmt: skip
    return bytes(msgpack.packb(settings)).hex()
