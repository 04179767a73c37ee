"""What this machine is, in the words of a Machine message (I/O: reads the system once)."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from company.messages import Machine

DISTRIBUTION = "company-compute"


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def memory_bytes() -> int:
    """Physical memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        import psutil

        return int(psutil.virtual_memory().total)


def version() -> str:
    """The installed release of this project."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0"


def machine(
    *, name: str, slots: int, memory: int, isolation: str, requirements_allowed: bool, http: str | None, rpc: str | None
) -> Machine:
    """The Machine message of this worker."""
    return Machine(
        name=name, slots=slots, cores=cores(), memory_bytes=memory or memory_bytes(), python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}"[:64], isolation=isolation[:64], requirements_allowed=requirements_allowed,
        http=http, rpc=rpc, version=version()[:64],
    )  # fmt: skip
