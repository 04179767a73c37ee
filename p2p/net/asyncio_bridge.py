"""The asyncio loop inside trio, for the libraries that need one (I/O).

Opened once per process, before anything listens. trio-asyncio's own exception handler ends the whole process on any stray
callback error; ours logs it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio_asyncio

_log = logging.getLogger("parallel.asyncio")


@asynccontextmanager
async def open_bridge() -> AsyncIterator[asyncio.AbstractEventLoop]:
    """Run an asyncio loop for the length of the block; one that already runs in this task is used and left running."""
    running = trio_asyncio.current_loop.get()
    if running is not None:
        yield running
        return
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_log_exception)
        yield loop


def _log_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    _log.error("in the asyncio loop: %s", context.get("message", "an error"), exc_info=error if isinstance(error, Exception) else None)
