"""`company run-script`: an unmodified program whose pools of processes are a company (I/O: it runs the program in this process).

Before the program starts, `multiprocessing.Pool`, `concurrent.futures.ProcessPoolExecutor` and joblib's default backend are replaced by
front ends of one executor; nothing else of the program changes: its own file, arguments, standard input and output, exit code. What needs
more than calls (`Process`, `Queue`, shared memory, managers, an initializer that leaves state behind) stays on this machine, and is said.
"""

from __future__ import annotations

import builtins
import concurrent.futures
import concurrent.futures.process
import importlib
import importlib.util
import itertools
import multiprocessing
import multiprocessing.pool
import reprlib
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from company.client.client import Client
from company.client.executor import Executor
from company.client.functions import NotPortable
from company.client.named_files import names_a_file


class Front:
    """The executor that all pools of the program share, and what could not go to it."""

    def __init__(self, client: Client) -> None:
        self.said: set[str] = set()
        self.executor = Executor(client, name="run-script", echo=True, memory="2GiB", progress=False, on_unopened=self.unopened)

    def say(self, text: str) -> None:
        """Once, to standard error."""
        if text not in self.said:
            self.said.add(text)
            print(f"company: {text}", file=sys.stderr)

    def unopened(self, words: str) -> None:
        """A worker could not open a call: classes that the program makes while it runs are on this machine only."""
        self.say(f"runs on this machine, since no worker could: {words}")

    def is_portable(self, fn: Callable[..., Any]) -> bool:
        """Whether ``fn`` can go to the company; says so where it cannot."""
        try:
            self.executor._portable(fn)
        except NotPortable as error:
            self.say(f"runs on this machine: {error.text}")
            return False
        return True

    def goes(self, fn: Callable[..., Any], *arguments: Any) -> bool:
        """Whether ``fn`` can be called elsewhere with these: a portion sees no files, and may take a missing one for nothing to do."""
        if not self.is_portable(fn):
            return False
        named = next((a for a in arguments if names_a_file(a)), None)
        if named is not None:
            self.say(f"runs on this machine: an argument names a file, {reprlib.repr(named)}, and portions see none")
        return named is None


def initialized(fn: Callable[..., Any], initializer: Callable[..., Any], initargs: tuple[Any, ...]) -> Callable[..., Any]:
    """``fn`` with a pool's initializer before its first call in each process. A closure, since it travels by value: this file does not."""
    done: list[bool] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        if not done:
            initializer(*initargs)
            done.append(True)
        return fn(*args, **kwargs)

    return call


def starred(fn: Callable[..., Any]) -> Callable[[Any], Any]:
    """``fn`` with its arguments as one tuple."""
    return lambda args: fn(*args)


class AsyncResult:
    """As `multiprocessing.pool.AsyncResult`."""

    def __init__(self, future: concurrent.futures.Future[Any], callback: Any = None, error_callback: Any = None) -> None:
        self._future = future

        def tell(done: concurrent.futures.Future[Any]) -> None:
            error = done.exception()
            if error is None and callback is not None:
                callback(done.result())
            elif error is not None and error_callback is not None:
                error_callback(error)

        future.add_done_callback(tell)

    def get(self, timeout: float | None = None) -> Any:
        """The result, or what the call raised. Raises `multiprocessing.TimeoutError`."""
        try:
            return self._future.result(timeout)
        except concurrent.futures.TimeoutError:
            if self._future.done():
                raise
            raise multiprocessing.TimeoutError from None

    def wait(self, timeout: float | None = None) -> None:
        """Return when it is there or time is over."""
        concurrent.futures.wait([self._future], timeout)

    def ready(self) -> bool:
        """Whether it is there."""
        return self._future.done()

    def successful(self) -> bool:
        """Whether it is there without an exception. Raises `ValueError` while it is not there."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._future.exception() is None


class Pool:
    """As `multiprocessing.Pool`, on a company."""

    front: Front

    def __init__(
        self, processes: int | None = None, initializer: Callable[..., Any] | None = None, initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None, context: Any = None,
    ) -> None:  # fmt: skip
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1")
        self._processes = processes or self.front.executor.slots
        self._init = (initializer, tuple(initargs))
        self._threads = concurrent.futures.ThreadPoolExecutor(8, thread_name_prefix="company-pool")
        self._state = "RUN"

    def _ready(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        if self._state != "RUN":
            raise ValueError("Pool not running")
        initializer, initargs = self._init
        return fn if initializer is None else initialized(fn, initializer, initargs)

    def apply(self, func: Callable[..., Any], args: Any = (), kwds: Any = None) -> Any:
        """One call."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self, func: Callable[..., Any], args: Any = (), kwds: Any = None, callback: Any = None, error_callback: Any = None
    ) -> AsyncResult:
        """One call, later."""
        fn = self._ready(func)
        goes = self.front.goes(fn, func, self._init[1], *args, *(kwds or {}).values())
        submit = self.front.executor.submit if goes else self._threads.submit
        return AsyncResult(submit(fn, *args, **(kwds or {})), callback, error_callback)

    def _map(
        self, fn: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None, inner: Any = None, *, ordered: bool = True
    ) -> Iterator[Any]:
        made = self._ready(fn)
        if not isinstance(iterable, list):  # read as late as the original does: the first call stands for all
            rest = iter(iterable)
            seen = list(itertools.islice(rest, 1))
            iterable = itertools.chain(seen, rest)
        else:
            seen = iterable
        if not self.front.goes(made, fn, inner, self._init[1], *seen):
            return map(made, iterable)
        return iter(self.front.executor.map(made, iterable, chunksize=chunksize, ordered=ordered))

    def map(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """All results, in order."""
        return list(self._map(func, list(iterable), chunksize))

    def starmap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """All results of calls with several arguments."""
        calls = list(iterable)
        return list(self._map(starred(func), calls, chunksize, func))

    def imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = 1) -> Results:
        """Results one after the other, in order."""
        return Results(self._map(func, iterable, None if chunksize == 1 else chunksize))

    def imap_unordered(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = 1) -> Results:
        """Results as they come."""
        return Results(self._map(func, iterable, None if chunksize == 1 else chunksize, ordered=False))

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> AsyncResult:
        """All results, later."""
        self._ready(func)
        return AsyncResult(self._threads.submit(self.map, func, list(iterable), chunksize), callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> AsyncResult:
        """All results of calls with several arguments, later."""
        self._ready(func)
        return AsyncResult(self._threads.submit(self.starmap, func, list(iterable), chunksize), callback, error_callback)

    def close(self) -> None:
        """Take no more calls."""
        self._state = "CLOSE"

    def terminate(self) -> None:
        """Take no more calls."""
        self._state = "TERMINATE"
        self._threads.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for what was begun."""
        if self._state == "RUN":
            raise ValueError("Pool is still running")
        self._threads.shutdown(wait=True)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.terminate()


class Results(Iterator[Any]):
    """As what `imap` gives: an iterator whose ``next`` takes a timeout."""

    def __init__(self, found: Iterator[Any]) -> None:
        self._found = found

    def __next__(self) -> Any:
        return next(self._found)

    def next(self, timeout: float | None = None) -> Any:
        """The next result; a time-out is not kept."""
        return next(self._found)


class PoolExecutor(concurrent.futures.Executor):
    """As `ProcessPoolExecutor`, on a company."""

    front: Front

    def __init__(
        self, max_workers: int | None = None, mp_context: Any = None, initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (), *, max_tasks_per_child: int | None = None,
    ) -> None:  # fmt: skip
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._init = (initializer, initargs)
        self._futures: set[concurrent.futures.Future[Any]] = set()
        self._closed = False

    def _ready(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        initializer, initargs = self._init
        return fn if initializer is None else initialized(fn, initializer, initargs)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """One call."""
        made = self._ready(fn)
        if self.front.goes(made, fn, self._init[1], *args, *kwargs.values()):
            future: concurrent.futures.Future[Any] = self.front.executor.submit(made, *args, **kwargs)
        else:
            future = concurrent.futures.Future()
            try:
                future.set_result(made(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - what the call raises is its result
                future.set_exception(error)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1) -> Iterator[Any]:
        """All results in order; the iterables are read at once, as the original does."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        made = self._ready(fn)
        lists = [list(iterable) for iterable in iterables]
        if not self.front.goes(made, fn, self._init[1], *itertools.chain(*lists)):
            return map(made, *lists)
        size = None if chunksize == 1 else chunksize
        return iter(self.front.executor.map(made, *lists, timeout=timeout, chunksize=size))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; ``wait`` for those under way."""
        self._closed = True
        for future in list(self._futures):
            if cancel_futures:
                future.cancel()
        if wait:
            concurrent.futures.wait(list(self._futures))


def put_in_place(front: Front) -> None:
    """From now on pools of this process are the company's."""
    Pool.front = PoolExecutor.front = front
    multiprocessing.Pool = Pool  # type: ignore[assignment]
    pools = ModuleType("multiprocessing.pool")  # another module of that name: pools of threads need what the original calls Pool
    pools.__dict__.update(multiprocessing.pool.__dict__)
    pools.Pool = Pool  # type: ignore[attr-defined]
    vars(multiprocessing)["pool"] = sys.modules["multiprocessing.pool"] = pools
    for method in ("spawn", "fork", "forkserver"):
        multiprocessing.get_context(method).Pool = Pool  # type: ignore[assignment,method-assign]
    concurrent.futures.ProcessPoolExecutor = PoolExecutor  # type: ignore[assignment,misc]
    concurrent.futures.process.ProcessPoolExecutor = PoolExecutor  # type: ignore[assignment,misc]
    sys.meta_path.insert(0, _WhenJoblibComes(front))


class _WhenJoblibComes:
    """Makes the company joblib's default once the program imports joblib, and costs nothing where it does not."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._busy = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """joblib's own, with the registration behind its execution: before it, joblib would be executed a second time, and half."""
        if name != "joblib" or self._busy:
            return None
        self._busy = True
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: Any) -> None:
            execute(module)
            importlib.import_module("company.joblib").register(make_default=True, executor=self._front.executor)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def run_divided(script: Path, front: Front, after_s: float) -> None:
    """Run ``script`` as `runpy.run_path` would, its safe loops divided. What is left alone is run as it stands."""
    from company.client.divided import Divider
    from company.divide_rewrite import HELPER, rewrite

    tree, parts, verdicts = rewrite(script.read_bytes().decode("utf-8-sig"), str(script))
    module = ModuleType("__main__")
    divider = Divider(front, parts, module, str(script), after_s=after_s)
    module.__dict__.update({"__file__": str(script), "__builtins__": builtins, "__cached__": None, HELPER: divider})
    before, sys.modules["__main__"] = sys.modules["__main__"], module
    try:
        exec(compile(tree, str(script), "exec", dont_inherit=True), module.__dict__)
    finally:
        sys.modules["__main__"] = before
        alone = sum(not verdict.is_safe for verdict in verdicts)
        for line in divider.report():
            front.say(line)
        front.say(f"{len(parts)} loops may be divided, {alone} are left alone: company divide {script}")


def run_script(script: Path, arguments: list[str], client: Client, *, divide_after_s: float | None = None) -> int:
    """Run ``script`` as ``python script arguments`` would; returns its exit code. ``divide_after_s``: divide loops that take longer."""
    front = Front(client)
    put_in_place(front)
    before = sys.argv, sys.path[0]
    sys.argv, sys.path[0] = [str(script), *arguments], str(script.resolve().parent)
    try:
        if divide_after_s is None:
            runpy.run_path(str(script), run_name="__main__")
        else:
            run_divided(script, front, divide_after_s)
        return 0
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        front.executor.detach()
        return 130
    except BaseException:  # noqa: BLE001 - the program's own, shown as Python shows it
        import traceback

        traceback.print_exc()
        return 1
    finally:
        sys.argv, sys.path[0] = before
        sys.stdout.flush()
        front.executor.shutdown(wait=True, cancel_futures=True)
