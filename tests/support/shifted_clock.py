"""`company` on a machine whose calendar is off: ``python -m tests.support.shifted_clock start …`` (I/O).

$CLOCK_SHIFT names a file with the seconds that the calendar is ahead; the calendar leaps when the file changes.
The monotonic clock goes on as it is, as a machine's does.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

LOOK_S = 0.2  # how long after the file changed the leap is there, at most
_real = time.time


class ShiftedClock:
    """Takes the place of `time.time`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shift_s = 0.0
        self.looked = -1.0

    def __call__(self) -> float:
        now = time.monotonic()
        if now - self.looked >= LOOK_S:
            self.looked = now
            self.shift_s = float(self.path.read_text()) if self.path.exists() else 0.0
        return _real() + self.shift_s


def main() -> None:
    time.time = ShiftedClock(Path(os.environ["CLOCK_SHIFT"]))
    from company.cli import main as command_line

    sys.argv[0] = "company"
    command_line()


if __name__ == "__main__":
    main()
