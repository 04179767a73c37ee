"""`company` on a machine whose system call filter stops nothing (I/O): python -m tests.support.unconfined ARGUMENTS."""

from __future__ import annotations

import sys

from company.sandbox import seccomp
from tests.support.sandbox_layers import ALLOW_ALL


def main() -> None:
    seccomp.program = lambda *_, **__: ALLOW_ALL
    from company.cli import main as command_line

    sys.argv[0] = "company"
    raise SystemExit(command_line())


if __name__ == "__main__":
    main()
