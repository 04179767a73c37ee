"""joblib on a company: `register()`, then ``Parallel(backend="company")``; scikit-learn's ``n_jobs`` with it (I/O: through an executor).

joblib sizes its batches itself, so each goes as one call. Nested `Parallel` calls run in threads where they are, as with joblib's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, SequentialBackend, register_parallel_backend

if TYPE_CHECKING:
    from concurrent.futures import Future

    from company.client.client import Client
    from company.client.executor import Executor


def register(
    client: Client | None = None, *, make_default: bool = False, on_unopened: Callable[[str], object] | None = None
) -> None:  # fmt: skip
    """Make the backend "company" known to joblib. ``client``: default `company.connect()` when it is first used.

    ``make_default``: also for programs that name no backend; where they say nothing of ``n_jobs``, they run alone as ever.
    ``on_unopened``: as of `company.Executor`.

    >>> import company, joblib
    >>> from company.joblib import register
    >>> with company.local(workers=2) as client:
    ...     register(client)
    ...     print(joblib.Parallel(backend="company", n_jobs=-1)(joblib.delayed(abs)(i) for i in (-1, -2)))
    [1, 2]
    """

    def make(**options: Any) -> CompanyBackend:
        backend = CompanyBackend(client=options.pop("client", client), on_unopened=on_unopened, **options)
        backend.default_n_jobs = 1 if make_default else -1
        return backend

    register_parallel_backend("company", make, make_default=make_default)


class CompanyBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """One executor for as long as a `Parallel` is configured."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = False
    default_n_jobs = -1

    def __init__(
        self, client: Client | None = None, nesting_level: int | None = None, memory: str | None = "2GiB",
        on_unopened: Callable[[str], object] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=None, **options)
        self._client, self._memory, self._on_unopened = client, memory, on_unopened
        self._executor: Executor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many calls run at once: the company's slots, or fewer when asked for fewer."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        slots = self._open().slots
        if n_jobs is None:
            return 1
        return slots if n_jobs < 0 else n_jobs

    def _open(self) -> Executor:
        if self._executor is None:
            from company.client.executor import Executor

            self._executor = Executor(self._client, memory=self._memory, name="joblib", on_unopened=self._on_unopened)
        return self._executor

    def submit(self, func: Callable[[], Any], callback: Callable[[Future[Any]], None] | None = None) -> Future[Any]:
        """Run one batch."""
        future = self._open().submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """The results of a batch that is done, or what it raised."""
        return out.result()

    def retrieve_result(self, out: Future[Any], timeout: float | None = None) -> Any:
        """Wait for a batch."""
        return out.result(timeout)

    def terminate(self) -> None:
        """The `Parallel` is over."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Send nothing more."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Inside a call everything runs where it is."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None
