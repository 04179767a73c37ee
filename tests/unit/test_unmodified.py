"""What run-script puts in the place of a program's pools leaves the libraries whole."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from company.client.unmodified import Front, Pool, PoolExecutor

PROGRAM = """
import sys
from types import SimpleNamespace
from company.client.unmodified import _WhenJoblibComes
hook = _WhenJoblibComes(SimpleNamespace(executor=SimpleNamespace(client=None), unopened=None))
sys.meta_path.insert(0, hook)
import joblib
assert hook not in sys.meta_path
assert sys.modules["joblib"] is joblib and joblib.parallel.Parallel is joblib.Parallel and joblib.memory
assert joblib.Parallel().n_jobs == 1, "what is sequential stays so"
print(joblib.parallel.DEFAULT_BACKEND, "company" in joblib.parallel.BACKENDS, joblib.parallel.get_active_backend()[0].__class__.__name__)
"""


def test_joblib_is_executed_once_and_has_the_company_as_its_default() -> None:
    pytest.importorskip("joblib")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["True", "CompanyBackend"], done.stdout


THREADS = """
from types import SimpleNamespace
from company.client.unmodified import Pool, put_in_place
put_in_place(SimpleNamespace(executor=SimpleNamespace(slots=3)))
import multiprocessing, multiprocessing.pool
assert multiprocessing.Pool is Pool
here = []
with multiprocessing.pool.ThreadPool(2, here.append, (1,)) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
with multiprocessing.get_context("spawn").Pool(3) as pool:
    assert type(pool) is Pool
from multiprocessing.dummy import Pool as threads
with threads(2) as pool:
    assert pool.apply(abs, (-3,)) == 3
assert here == [1, 1]
"""


def test_pools_of_threads_stay_what_they_are() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@dataclass
class There:
    """An executor in whose place nothing runs: it notes what comes."""

    calls: list[Any] = field(default_factory=list)

    def _portable(self, fn: Any) -> None: ...

    def submit(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(args)
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result("there")
        return future

    def map(self, fn: Any, *iterables: Any, **options: Any) -> Any:
        return ["there" for _ in zip(*iterables, strict=False)]


@pytest.mark.parametrize("how", ["submit", "executor map", "apply", "map", "starmap", "imap", "partial", "initializer"])
def test_calls_that_name_a_file_of_this_machine_are_run_here(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    front = Front.__new__(Front)
    front.executor, front.said = There(), set()  # type: ignore[assignment]
    for pool in (Pool, PoolExecutor):
        monkeypatch.setattr(pool, "front", front, raising=False)
    (tmp_path / "here").write_text("x" * 5)

    def run(path: Any) -> Any:
        match how:
            case "submit":
                return PoolExecutor().submit(size, path).result()
            case "executor map":
                return list(PoolExecutor().map(size, ["no such file", path]))[1]
            case "apply":
                return Pool(2).apply(size, kwds={"path": path})
            case "map":
                return Pool(2).map(size, [path, path])[1]
            case "starmap":
                return Pool(2).starmap(size, [(path,)])[0]
            case "imap":
                return next(Pool(2).imap(size, iter([path])))
            case "partial":
                return Pool(2).map(partial(twice, path), [1])[0]
            case _:
                return Pool(2, initializer=size, initargs=(path,)).map(size, [path])[0]

    assert run(str(tmp_path / "here")) == 5
    assert run(tmp_path / "here") == 5
    assert "names a file" in capsys.readouterr().err
    assert front.executor.calls == []  # type: ignore[attr-defined]
    assert run("no such file") == "there"


def size(path: str | Path) -> int:
    return len(Path(path).read_text()) if Path(path).exists() else -1


def twice(path: str | Path, times: int) -> int:
    return size(path) * times
