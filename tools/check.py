"""Everything that `make test` runs, fast things first: style, types, import directions, then the tests.

The tests' own closing line comes last, so that whoever reads the end of the output sees it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LINTS = (
    ("ruff", [str(BIN / "ruff"), "check", "--quiet", "."]),
    ("ruff format", [str(BIN / "ruff"), "format", "--check", "--quiet", "."]),
    ("mypy", [str(BIN / "mypy"), "--no-error-summary"]),
    ("import-linter", [str(BIN / "lint-imports"), "--no-cache"]),
)


def run(name: str, command: list[str], *, quiet: bool) -> bool:
    """Run one check; its output is shown when it fails, or always when not ``quiet``."""
    print(f"{name} ...", flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE if quiet else None, stderr=subprocess.STDOUT if quiet else None, text=True)
    if done.returncode and quiet:
        print(done.stdout, flush=True)
    return done.returncode == 0


def main(arguments: list[str]) -> int:
    """Run all; stop at the first thing that fails."""
    for name, command in LINTS:
        if not run(name, command, quiet=True):
            return 1
    if "--lint-only" in arguments:
        return 0
    pytest = [sys.executable, "-m", "pytest", "-q", *[a for a in arguments if a.startswith("-")]]
    return 0 if run("tests", pytest, quiet=False) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
