"""The executors of this process that may still have calls under way: ended with the program, or with their client's company (I/O)."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from company.client.client import Client
    from company.client.executor import Executor

OPEN: weakref.WeakSet[Executor] = weakref.WeakSet()


def end_with(client: Client) -> None:
    """The company of ``client`` is about to end: what still uses it takes no more calls, and those under way fail."""
    for executor in list(OPEN):
        if executor.client is client:
            executor.abandon()


def _at_exit() -> None:
    for executor in list(OPEN):
        if not executor.is_closed:
            executor.shutdown(wait=True)


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # as concurrent.futures does: before threads are joined
