"""Blank, pre-started sandboxes for the slots: one job each (I/O).

Limits are fixed when a sandbox starts, before it knows its job, so children wait ready for the usual memory limit and the others
are started when they are wanted (some 45 ms).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from company.package import DEFAULT_MEMORY_BYTES
from company.sandbox import Child, ChildPool, Profile, Sandbox
from company.worker.batch import JobSpec

MAX_READY = 2


class ChildSource(Protocol):
    """Where a slot gets its children from."""

    async def take(self, spec: JobSpec) -> Child:
        """A blank child that has the job's limits. Raises `ParallelError`, `OSError`."""


class Children:
    """Children of one sandbox. Made by `open`."""

    def __init__(self, pool: ChildPool) -> None:
        self._pool = pool

    @classmethod
    @asynccontextmanager
    async def open(cls, sandbox: Sandbox, slots: int) -> AsyncIterator[Children]:
        """Start the blank ones; end them afterwards."""
        async with ChildPool(sandbox, Profile(role="process", memory_bytes=DEFAULT_MEMORY_BYTES), min(slots, MAX_READY)) as pool:
            yield cls(pool)

    async def take(self, spec: JobSpec) -> Child:
        """A blank child that has the job's limits."""
        return await self._pool.take(Profile(role="process", memory_bytes=spec.memory_bytes or DEFAULT_MEMORY_BYTES, site=spec.site))
