"""Everything that `make test` runs, fast things first: style, types, import directions, then the tests (I/O).

The tests' own closing line comes last, so that whoever reads the end of the output sees it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# Real processes wait more than they compute: three at a time keep two cores busy. A file stays whole, for its fixtures' sake.
PARALLEL = ("-n", "3", "--dist", "loadfile")
TYPED = ("p2p", "company", "simulator", "tools", "benchmarks")


def lints() -> list[tuple[str, list[str]]]:
    """Name and command of each check that reads the files without running them."""
    examples = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())  # each alone: their modules have the same names
    typed = [name for name in TYPED if any((ROOT / name).rglob("*.py"))]
    return [
        ("ruff check", [str(BIN / "ruff"), "check", "--quiet", "."]),
        ("ruff format", [str(BIN / "ruff"), "format", "--check", "--quiet", "."]),
        ("mypy --strict", [str(BIN / "mypy"), "--no-error-summary", *typed]),
        *((f"mypy {path.name}", [str(BIN / "mypy"), "--no-error-summary", "--strict", str(path)]) for path in examples),
        ("import-linter", [str(BIN / "lint-imports"), "--no-cache"]),
        ("docs/protocol.md", [sys.executable, "-m", "tools.protocol_doc", "--check"]),
    ]


def run_quietly(name: str, command: list[str]) -> bool:
    """Run one check; its output is shown only when it fails."""
    began = time.monotonic()
    print(f"{name:<18}", end="", flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(f"{'ok' if done.returncode == 0 else 'FAILED'}  {time.monotonic() - began:.1f} s", flush=True)
    if done.returncode:
        print(done.stdout, flush=True)
    return done.returncode == 0


def main(arguments: list[str]) -> int:
    """Run all lints, so that one run shows everything they find; then the tests, where the lints are content.

    ``--lint-only``: no tests; ``--no-lint``: only tests. Everything else goes to pytest.
    """
    if "--no-lint" not in arguments:
        results = [run_quietly(name, command) for name, command in lints()]
        if not all(results):
            return 1
    if "--lint-only" in arguments:
        return 0
    own = ("--lint-only", "--no-lint")
    chosen = [a for a in arguments if a not in own]
    return subprocess.run([sys.executable, "-m", "pytest", "-q", *PARALLEL, *chosen], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
