"""``python -m simulator`` (I/O)."""

from __future__ import annotations

import signal
import sys

INTERRUPTED = 130  # `company.errors` has it too; it is needed before anything else is loaded


def main() -> int:
    """Load and run. Ctrl-C waits until all is loaded: where import calls back, an interrupt is printed and forgotten."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        try:
            from simulator import registry  # noqa: F401  # loads numpy
            from simulator.cli import main as run
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return run()
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped before it began\n")
        return INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
