"""An unmodified program with pools runs on a company as it does alone: same output, same exit code."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from company.divide import plan
from tests.support.company_processes import RunningCompany
from tests.unit.test_divide import SAFE, TRAPS

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


class Numbered(ast.NodeTransformer):
    """Names of one sample, made its own, so that twenty of them can be one program."""

    def __init__(self, number: int) -> None:
        self._number = number

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._of(node.id), node.ctx)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.name = self._of(node.name)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self._of(node.arg))

    def visit_Global(self, node: ast.Global) -> ast.Global:
        return ast.Global([self._of(name) for name in node.names])

    def _of(self, name: str) -> str:
        return f"{name}_{self._number}" if name in ("k", "f", "r", "y", "it", "total", "n") else name


def twenty_loops() -> str:
    """The ten safe ones and the ten traps as one program, which prints what each has made."""
    lines = ["import random", "random.seed(5)"]
    for number, (name, source) in enumerate([*SAFE.items(), *((name, source) for name, (source, _) in TRAPS.items())]):
        lines.append(ast.unparse(Numbered(number).visit(ast.parse(source))))
        lines.append(f"print({name!r}, " + (f"len(r_{number}))" if name == "the clock" else f"r_{number})"))
    return "\n".join(lines) + "\n"


def test_twenty_loops_divided_give_what_they_give_in_order(company: RunningCompany, tmp_path: Path) -> None:
    script = tmp_path / "loops.py"
    script.write_text(twenty_loops())

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        environ = company.environ
        return subprocess.run([*command, str(script)], capture_output=True, text=True, timeout=120, env=environ, check=False)

    alone = run(sys.executable)
    assert alone.returncode == 0 and len(alone.stdout.splitlines()) >= 20, alone.stderr
    divided = run(sys.executable, "-m", "company", "run-script", "--divide", "--divide-after", "0s")
    assert (divided.stdout, divided.returncode) == (alone.stdout, 0), divided.stderr
    safe = {verdict.line for verdict in plan(script.read_text()) if verdict.is_safe}
    told = [line.split(":") for line in divided.stderr.splitlines() if line.startswith("company: line ")]
    assert {int(parts[1].split()[1].rstrip(",")) for parts in told} <= safe
    assert len(told) == 10 and all(" 0 of " not in parts[2] for parts in told), divided.stderr


CYCLE = """
import gc

class Node:
    def __init__(self):
        self.me = self

    def __del__(self):
        print("closed")

print(gc.get_threshold())
Node()
"""


def test_what_a_program_leaves_behind_is_closed_as_it_is_alone(company: RunningCompany, tmp_path: Path) -> None:
    script = tmp_path / "cycle.py"
    script.write_text(CYCLE)
    outputs = [
        subprocess.run([*command, str(script)], capture_output=True, text=True, timeout=120, env=company.environ, check=True).stdout
        for command in ((sys.executable,), (sys.executable, "-m", "company", "run-script"))
    ]
    assert outputs[0] == outputs[1]
    assert "closed" in outputs[0]
