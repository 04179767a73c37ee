"""The one place outside drivers' own loops that reads the machine's clocks (I/O)."""

import time
from pathlib import Path

from p2p.base.clock import Monotonic, UnixTime


def read_monotonic() -> Monotonic:
    """Seconds that never go back; comparable inside this process only."""
    return Monotonic(time.monotonic())


def read_unix() -> UnixTime:
    """Whole seconds since 1970, as this machine believes."""
    return UnixTime(int(time.time()))


def read_uptime() -> tuple[str, float]:
    """Which start of this machine it is, and the seconds since: no calendar's leap changes them, and they outlive this process.

    An empty name where the machine does not tell.
    """
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return name, time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError, UnicodeDecodeError):
        return "", 0.0
