"""Take over what a merge has left in its output folder (I/O).

Only plain files and folders stay: a link could point anywhere once the daemon reads it, a FIFO would hang it. Call it when
the child is dead, so that nobody changes the folder meanwhile.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def take_output(folder: Path) -> list[tuple[str, int]]:
    """Make everything under ``folder`` the daemon's own, delete what is no file, return [(relative path, bytes)] sorted."""
    found: list[tuple[str, int]] = []
    _own(folder, 0o700)
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISDIR(mode):
                _own(path, 0o700)
            elif stat.S_ISREG(mode) and os.lstat(path).st_nlink == 1:
                _own(path, 0o600)
                found.append((str(path.relative_to(folder)), path.stat().st_size))
            else:
                path.unlink()
    return sorted(found)


def _own(path: Path, least: int) -> None:
    """Ours, readable by us, and neither set-uid nor writable by others."""
    if os.geteuid() == 0:
        os.chown(path, 0, 0)
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    path.chmod((mode & 0o755) | least)
