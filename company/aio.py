"""The client for asynchronous programs, on anyio, so for trio and asyncio alike (I/O: through an executor and worker threads).

Structured: what is started in a block is over, or cancelled, when the block is left, whether by its end, an exception or a cancellation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from company.client.client import Client, connect

if TYPE_CHECKING:
    import concurrent.futures

    from company.client import executor as _executor

T = TypeVar("T")
__all__ = ["Client", "Executor", "connect", "executor"]


class Executor:
    """An executor's calls as coroutines. Made by `executor`."""

    def __init__(self, inner: _executor.Executor) -> None:
        self._inner = inner

    async def run(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Run one call; being cancelled cancels it where it has not begun."""
        future: concurrent.futures.Future[T] = await anyio.to_thread.run_sync(lambda: self._inner.submit(fn, *args, **kwargs))
        done = anyio.Event()
        async with anyio.from_thread.BlockingPortal() as portal:

            def tell(_: object) -> None:
                portal.start_task_soon(_set, done)

            future.add_done_callback(tell)
            try:
                await done.wait()
            except BaseException:
                future.cancel()
                raise
        return future.result()

    async def map(self, fn: Callable[..., T], /, *iterables: Iterable[Any], **options: Any) -> AsyncIterator[T]:
        """Results of ``fn`` over the iterables, as `company.Executor.map`. Use it in `contextlib.aclosing` when you may leave early."""
        found = await anyio.to_thread.run_sync(lambda: self._inner.map(fn, *iterables, **options))
        end = object()
        try:
            while True:
                value: Any = await anyio.to_thread.run_sync(lambda: next(found, end), abandon_on_cancel=True)
                if value is end:
                    return
                yield value
        finally:
            found.close()  # type: ignore[attr-defined]


async def _set(event: anyio.Event) -> None:
    event.set()


@asynccontextmanager
async def executor(client: Client | None = None, **options: Any) -> AsyncIterator[Executor]:
    """An executor for the block; what is under way at its end is waited for, after an exception or a cancellation it is dropped.

    >>> import anyio, company, company.aio
    >>> async def main(client):
    ...     async with company.aio.executor(client) as ex:
    ...         print(await ex.run(pow, 2, 5))
    >>> with company.local(workers=1) as client:
    ...     anyio.run(main, client)
    32
    """
    from company.client.executor import Executor as Inner

    inner = await anyio.to_thread.run_sync(lambda: Inner(client, **options))
    try:
        yield Executor(inner)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: inner.shutdown(wait=False, cancel_futures=True))
        raise
    await anyio.to_thread.run_sync(inner.shutdown)
