"""Blank, pre-started sandboxes for the slots: one job each (I/O).

Limits are fixed when a sandbox starts, before it knows its job, so children wait ready for the usual memory limit and the others
are started when they are wanted (some 45 ms).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from company.package import DEFAULT_MEMORY_BYTES
from company.sandbox import Child, ChildPool, Profile, Sandbox
from company.worker.batch import JobSpec
from p2p.base.errors import ParallelError

MAX_READY = 2
REFILL_S = 2.0
log = logging.getLogger(__name__)


class ChildSource(Protocol):
    """Where a slot gets its children from."""

    async def take(self, spec: JobSpec) -> Child:
        """A blank child that has the job's limits. Raises `ParallelError`, `OSError`."""

    def gave_up(self) -> None:
        """A slot is done with its child."""


class Children:
    """Children of one sandbox. Made by `open`."""

    def __init__(self, pool: ChildPool) -> None:
        self._pool = pool
        self._taken = trio.Event()
        self._quiet = trio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls, sandbox: Sandbox, slots: int) -> AsyncIterator[Children]:
        """Start the blank ones; end them afterwards."""
        async with ChildPool(sandbox, Profile(role="process", memory_bytes=DEFAULT_MEMORY_BYTES), min(slots, MAX_READY)) as pool:
            children = cls(pool)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(children._refill)
                yield children
                nursery.cancel_scope.cancel()

    async def take(self, spec: JobSpec) -> Child:
        """A blank child that has the job's limits."""
        self._taken.set()
        memory_bytes = spec.memory_bytes or DEFAULT_MEMORY_BYTES
        profile = Profile(role="process", memory_bytes=memory_bytes, site=spec.site, processes=spec.processes)
        return await self._pool.take(profile, refill=False)

    def gave_up(self) -> None:
        """A slot is done with its child."""
        self._quiet.set()

    async def _refill(self) -> None:
        """Replace what was taken when a job is over, or after a moment: not while a short job wants the cores."""
        while True:
            await self._taken.wait()
            self._taken, self._quiet = trio.Event(), trio.Event()
            with trio.move_on_after(REFILL_S):
                await self._quiet.wait()
            try:
                await self._pool.refill()
            except (ParallelError, OSError) as error:  # the next batch will meet it, and say so to the chief
                log.warning("no blank child: %s", error)
