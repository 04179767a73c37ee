"""Break the code in the one place that makes a promise true, run the test of that promise, and see it go red (I/O).

``python -m tests.faults.breaks [--only WORD] [--page docs/testing.md]``. Works on a copy of the tree. A test that stays green although the
code is broken shows nothing; this program finds it. The list is kept current by `test_breaks`: each text must occur exactly once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.break_list import BREAKS, Break

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("company", "p2p", "simulator", "tests", "tools", "docs", "pyproject.toml")
LIMIT_S = 240.0
STOP_S = 60.0
HEAD = """# Tests seen red

Each promise of the table of faults and each layer of the sandbox is broken in one place of the code, and the test named is run: it must
go red. Made by `python -m tests.faults.breaks --page docs/testing.md`; `tests/faults/break_list.py` holds the texts, and a test keeps them
current. A killed process counts as red too: what waits for ever is ended after {limit:g} s.

| promise | what was broken | in | test | seen |
|---|---|---|---|---|
"""


def copy_tree(target: Path) -> None:
    """The parts that tests need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target / name)


def run_broken(folder: Path, one: Break, *, limit_s: float = LIMIT_S) -> tuple[str, float]:
    """("red" | "green" | what went wrong, seconds). ``folder``: a copy of the tree, whole again afterwards."""
    path = folder / one.file
    whole = path.read_text()
    if whole.count(one.old) != 1:
        return f"the text occurs {whole.count(one.old)} times in {one.file}", 0.0
    path.write_text(whole.replace(one.old, one.new))
    began = time.monotonic()
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *one.tests]
    process = subprocess.Popen(
        argv,
        cwd=folder,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | dict(one.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=limit_s)
        last = (said.strip().splitlines() or [""])[-1]
        verdict = {0: "green", 1: "red"}.get(process.returncode, f"pytest ended with {process.returncode}")
        verdict = "skipped" if verdict == "green" and "passed" not in last else verdict
    except subprocess.TimeoutExpired:
        verdict = "red"
        process.send_signal(signal.SIGINT)  # so that it stops the companies that it has started
        try:
            process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    finally:
        path.write_text(whole)
    return verdict, time.monotonic() - began


def page(rows: list[tuple[Break, str]]) -> str:
    """The list as a page."""
    lines = [f"| {b.promise} | {b.what} | {b.file} | {', '.join(b.tests).replace('tests/', '')} | {seen} |" for b, seen in rows]
    return HEAD.format(limit=LIMIT_S) + "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.breaks", description=__doc__)
    parser.add_argument("--only", default="", help="those whose promise, file or test has this word")
    parser.add_argument("--from", dest="first", type=int, default=0, help="leave out so many at the beginning")
    parser.add_argument("--count", type=int, default=len(BREAKS), help="run so many")
    parser.add_argument("--page", type=Path, help="write the table there")
    given = parser.parse_args()
    chosen = [b for b in BREAKS if given.only in f"{b.promise} {b.file} {' '.join(b.tests)}"]
    chosen = chosen[given.first : given.first + given.count]
    rows: list[tuple[Break, str]] = []
    with tempfile.TemporaryDirectory(prefix="breaks-") as name:
        folder = Path(name)
        copy_tree(folder)
        folder.chmod(0o755)  # some of it is tested as an ordinary user
        for one in chosen:
            seen, took_s = run_broken(folder, one)
            rows.append((one, seen))
            print(f"{seen:<8} {took_s:6.1f} s  {one.promise}: {one.what}", flush=True)
    if given.page:
        given.page.write_text(page(rows))
    stayed = [b for b, seen in rows if seen != "red"]
    print(f"{len(rows)} breaks, {len(rows) - len(stayed)} seen red")
    return 1 if stayed else 0


if __name__ == "__main__":
    raise SystemExit(main())
