"""The command line that puts a child into bubblewrap (pure, but for asking which system folders exist).

Order matters: binds first, then the remounts that take writing away from what bwrap itself made (its root and /dev are
tmpfs without a bound). /proc/sys is bound read-only as well, although the child is never uid 0.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from company.sandbox.host import ETC_FILES, SYSTEM_DIRS
from company.sandbox.profile import Profile
from p2p.base.record import record

PACKAGE_BYTES = 64 << 20
INSIDE_UID = 1000
PYTHON_FLAGS = ("-s", "-S", "-B", "-P", "-X", "utf8")  # not -I: it would ignore PYTHONHASHSEED
BOOT = "import sys; sys.path.insert(0, {site!r}); from company.sandbox.inside.main import main; main(sys.argv[1])"


@record
class Layout:
    """Where things lie for a child, as host paths it can reach."""

    bwrap: Path
    python: Path  # as seen inside
    prefix: Path | None  # bound at /python
    library_dir: str | None  # inside
    site: Path
    bound: tuple[tuple[Path, str], ...]  # numpy and the like
    has_proc: bool = True


def environment(*, tmp: str, library_dir: str | None) -> dict[str, str]:
    """All that a child sees of an environment."""
    env = {
        "PATH": "/usr/bin:/bin", "HOME": tmp, "TMPDIR": tmp, "LANG": "C.UTF-8", "TZ": "UTC",
        # A fixed seed, so that split and process give the same again after a crash.
        "PYTHONHASHSEED": "0",
        # One slot is one core, and every thread's stack and arena counts against the memory limit.
        "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
        # What glibc comes to by itself after a block of 32 MiB was freed (mallopt(3)). Before, each fragment of a MiB gives its pages
        # back to the kernel and takes hundreds of new ones (docs/performance.md).
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    }  # fmt: skip
    return env | ({"LD_LIBRARY_PATH": library_dir} if library_dir else {})


def command(layout: Layout, profile: Profile, mounts: Sequence[tuple[Path, str, bool]], *, seccomp_fd: int, settings_hex: str) -> list[str]:
    """The argv. mounts: (reachable host path, path inside, writable)."""
    argv = [str(layout.bwrap), "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
    argv += ["--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID), "--hostname", "sandbox", "--cap-drop", "ALL", "--clearenv"]
    for name, value in environment(tmp="/tmp", library_dir=layout.library_dir).items():
        argv += ["--setenv", name, value]
    argv += _system()
    if layout.prefix is not None:
        argv += ["--ro-bind", str(layout.prefix), "/python"]
    argv += ["--ro-bind", str(layout.site), "/site"]
    for source, inside in layout.bound:
        argv += ["--ro-bind", str(source), inside]
    if layout.has_proc:
        argv += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys"]
    argv += ["--dev", "/dev", "--perms", "0555", "--size", "4096", "--tmpfs", "/dev/shm"]
    argv += ["--size", str(profile.tmp_bytes), "--tmpfs", "/tmp", "--size", str(PACKAGE_BYTES), "--tmpfs", "/package"]
    for source, inside, is_writable in mounts:
        argv += ["--bind" if is_writable else "--ro-bind", str(source), inside]
    argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--seccomp", str(seccomp_fd), "--"]
    return [*argv, str(layout.python), *PYTHON_FLAGS, "-c", BOOT.format(site="/site"), settings_hex]


def _system() -> list[str]:
    argv: list[str] = []
    for folder in SYSTEM_DIRS:
        if os.path.islink(folder):
            argv += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            argv += ["--ro-bind", folder, folder]
    for file in ETC_FILES:
        argv += ["--ro-bind-try", file, file]
    return argv
