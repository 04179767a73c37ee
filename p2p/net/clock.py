"""The one place outside drivers' own loops that reads the machine's clocks (I/O)."""

import time

from p2p.base.clock import Monotonic, UnixTime


def read_monotonic() -> Monotonic:
    """Seconds that never go back; comparable inside this process only."""
    return Monotonic(time.monotonic())


def read_unix() -> UnixTime:
    """Whole seconds since 1970, as this machine believes."""
    return UnixTime(int(time.time()))
