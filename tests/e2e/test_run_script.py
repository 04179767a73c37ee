"""An unmodified program with pools runs on a company as it does alone: same output, same exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import math, sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import Pool

scale = None

def init(value):
    global scale
    scale = value

def work(x):
    return math.factorial(x) % 97

def scaled(x):
    return scale * x

def pair(a, b=0):
    return a + b

def fails(x):
    raise KeyError(x)

if __name__ == "__main__":
    word = sys.stdin.readline().strip()
    with Pool(2) as pool:
        print(word, sys.argv[1:], sum(pool.map(work, range(int(sys.argv[1])))))
        print(list(pool.imap(work, range(5))), sorted(pool.imap_unordered(work, range(5))), pool.starmap(pair, [(1, 2), (3, 4)]))
        print(pool.apply(pair, (1,), {"b": 5}), pool.apply_async(work, (5,)).get(timeout=60))
        try:
            pool.map(fails, [1])
        except KeyError as error:
            print("KeyError", error)
    with Pool(2, initializer=init, initargs=(10,)) as pool:
        print(pool.map(scaled, [1, 2, 3]))
    with ProcessPoolExecutor(2) as ex:
        futures = [ex.submit(work, i) for i in range(5)]
        print(sorted(f.result() for f in as_completed(futures)), list(ex.map(pair, [1, 2], [3, 4])))
    sys.exit(7)
"""


def test_pools_give_what_they_give_alone(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("COMPANY_")} | {"COMPANY_HOME": str(tmp_path / "home")}

    def run(*command: str) -> tuple[str, int]:
        done = subprocess.run(
            [*command, str(script), "50", "--flag"], input="hello\n", capture_output=True, text=True, timeout=120, env=environ, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout, done.returncode

    alone = run(sys.executable)
    assert alone[1] == 7
    assert run(sys.executable, "-m", "company", "run-script", "--local", "--workers", "2") == alone
