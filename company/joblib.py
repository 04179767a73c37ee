"""joblib on a company: `register()`, then ``Parallel(backend="company")``; scikit-learn's ``n_jobs`` with it (I/O: through an executor).

joblib sizes its batches itself, so each goes as one call. Nested `Parallel` calls run where they are. All `Parallel` calls of a
registration share one executor, so that workers import what they need once and not at every search of scikit-learn.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, SequentialBackend, register_parallel_backend

if TYPE_CHECKING:
    from concurrent.futures import Future

    from company.client.client import Client
    from company.client.executor import Executor


def register(
    client: Client | None = None, *, make_default: bool = False, executor: Executor | None = None,
) -> None:  # fmt: skip
    """Make the backend "company" known to joblib. ``client``: default `company.connect()` when it is first used.

    ``make_default``: also for programs that name no backend; where they say nothing of ``n_jobs``, they run alone as ever.
    ``executor``: the one to use; default one of their own, which ends with the program or with ``client``.

    >>> import company, joblib
    >>> from company.joblib import register
    >>> with company.local(workers=2) as client:
    ...     register(client)
    ...     print(joblib.Parallel(backend="company", n_jobs=-1)(joblib.delayed(abs)(i) for i in (-1, -2)))
    [1, 2]
    """

    shared = Shared(client, executor)

    def make(**options: Any) -> CompanyBackend:
        own = {key: options.pop(key) for key in ("client", "memory") if key in options}
        backend = CompanyBackend(Shared(own.get("client", client), None, **own) if own else shared, **options)
        backend.default_n_jobs = 1 if make_default else -1
        return backend

    register_parallel_backend("company", make, make_default=make_default)


class Shared:
    """The executor of all `Parallel` calls of one registration, opened when it is first used."""

    def __init__(self, client: Client | None, executor: Executor | None, memory: str | None = "2GiB", **_: Any) -> None:
        self._client, self._memory, self._executor = client, memory, executor
        self._lock = threading.Lock()

    def open(self) -> Executor:
        """The executor; another one when it was shut down, as its client's end does."""
        from company.client.executor import Executor

        with self._lock:
            if self._executor is None or self._executor.is_closed:
                self._executor = Executor(self._client, memory=self._memory, name="joblib", progress=False)
            return self._executor


class CompanyBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """What one `Parallel` has under way."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = False
    default_n_jobs = -1

    def __init__(self, shared: Shared | None = None, nesting_level: int | None = None, **options: Any) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=None, **options)
        self._shared = shared if shared is not None else Shared(None, None)
        self._under_way: set[Future[Any]] = set()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many calls run at once: the company's slots, or fewer when asked for fewer."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return self._shared.open().slots if n_jobs < 0 else n_jobs

    def submit(self, func: Callable[[], Any], callback: Callable[[Future[Any]], None] | None = None) -> Future[Any]:
        """Run one batch."""
        future = self._shared.open().submit(operator.call, func)  # each batch is another object, with its data in it
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """The results of a batch that is done, or what it raised; a call that ended its worker raises what joblib's own backend raises."""
        return self.retrieve_result(out)

    def retrieve_result(self, out: Future[Any], timeout: float | None = None) -> Any:
        """Wait for a batch."""
        try:
            return out.result(timeout)
        except BrokenProcessPool as error:
            raise TerminatedWorkerError(str(error)) from error

    def terminate(self) -> None:
        """The `Parallel` is over."""
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Send nothing more."""
        for future in list(self._under_way):
            future.cancel()

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Inside a call everything runs where it is."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None
