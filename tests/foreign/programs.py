"""Which programs, where they come from, and how they are run. None of their code is kept here."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LIB = Path(sysconfig.get_paths()["stdlib"])
SITE = Path(sysconfig.get_paths()["purelib"])
OLD = "def f(d):\n    print d.has_key(1)\n    for k, v in d.iteritems(): print k, v\n"


class Missing(Exception):
    """The program is not to be had here."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program. ``script``: given the folder for what is fetched, where it lies; ``path``: further import folders below that."""

    name: str
    uses: str
    script: Callable[[Path], Path]
    arguments: tuple[str, ...] = ()
    path: str = ""
    files: tuple[tuple[str, str], ...] = ()  # in its folder before it starts


def library(name: str) -> Callable[[Path], Path]:
    """Of the standard library."""
    return lambda _: LIB / name


def distribution(requirement: str, name: str, *, is_wheel: bool = False) -> Callable[[Path], Path]:
    """Of a distribution, fetched with pip."""

    def find(folder: Path) -> Path:
        target = folder / requirement.partition("=")[0]
        if not target.exists():
            fetched = folder / "fetched"
            kind = ["--only-binary", ":all:"] if is_wheel else ["--no-binary", ":all:"]
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *kind, "-d", str(fetched / target.name), requirement]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            archive = next((fetched / target.name).glob("*"), None) if done.returncode == 0 else None
            if archive is None:
                raise Missing(f"{requirement} could not be fetched")
            if archive.suffix in (".whl", ".zip"):
                with zipfile.ZipFile(archive) as wheel:
                    wheel.extractall(target)
            else:
                with tarfile.open(archive) as tar:
                    tar.extractall(target, filter="data")
                (inside,) = target.iterdir()
                for path in inside.iterdir():
                    path.rename(target / path.name)
        return target / name

    return find


def tests_of(name: str, choice: str) -> tuple[Callable[[Path], Path], tuple[str, ...]]:
    """Some tests of an installed package, by pytest's own script."""
    arguments = ("-q", "-p", "no:cacheprovider", "-c", os.devnull, "-W", "ignore", str(SITE / name), "-k", choice)
    return (lambda _: Path(sys.executable).parent / "pytest"), arguments


def _tests(label: str, uses: str, name: str, choice: str) -> Program:
    script, arguments = tests_of(name, choice)
    return Program(label, uses, script, arguments)


PROGRAMS = (
    Program(
        "CPython Tools: 2to3 -j 2",
        "Process, JoinableQueue",
        (lambda _: Path(sys.base_prefix) / "bin" / "2to3"),
        ("-j", "2", "-w", "-n", "old"),
        files=(("old/a.py", OLD), ("old/b.py", OLD)),
    ),
    Program(
        "CPython Lib/compileall.py -j 2",
        "ProcessPoolExecutor",
        library("compileall.py"),
        ("-q", "-j", "2", "src"),  # what it lists comes in any order
        files=(("src/a.py", "x = 1\n"), ("src/b.py", "y = 2\n")),
    ),
    Program("CPython Lib/test/_test_venv_multiprocessing.py", "Process, Queue", library("test/_test_venv_multiprocessing.py")),
    Program("CPython Lib/test/mp_fork_bomb.py", "Process, set_start_method", library("test/mp_fork_bomb.py"), ("fork",)),
    Program(
        "CPython Lib/test/test_multiprocessing_main_handling.py",
        "Pool in child programs",
        library("test/test_multiprocessing_main_handling.py"),
        ("-k", "basic_script"),
    ),
    Program("deap onemax_mp", "Pool.map", distribution("deap==1.4.1", "examples/ga/onemax_mp.py"), path="deap"),
    Program(
        "deap onemax_island",
        "Process, Pipe, Event",
        distribution("deap==1.4.1", "examples/ga/onemax_island.py"),
        path="deap",
    ),
    Program(
        "mpmath torture tests",
        "Pool.map",
        distribution("mpmath==1.3.0", "mpmath/tests/torture.py", is_wheel=True),
        ("fibonacci",),
        path="mpmath",
    ),
    _tests("scipy differential evolution", "Pool.map", "scipy/optimize/tests/test__differential_evolution.py", "test_parallel"),
    _tests("scipy brute force", "Pool.map", "scipy/optimize/tests/test_optimize.py", "test_workers"),
    _tests("scipy quad_vec", "Pool.map", "scipy/integrate/tests/test__quad_vec.py", "test_quad_vec_pool"),
    _tests("scikit-learn forests", "joblib", "sklearn/ensemble/tests/test_forest.py", "test_parallel"),
    _tests("scikit-learn permutation scores", "joblib", "sklearn/model_selection/tests/test_validation.py", "test_permutation_score"),
    _tests("joblib exceptions", "joblib", "joblib/test/test_parallel.py", "test_nested_exception_dispatch"),
)
