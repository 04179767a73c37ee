"""Blank children, started before they are wanted: 45 ms that a job does not wait (I/O)."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Self

from company.sandbox.child import Child
from company.sandbox.profile import Profile
from company.sandbox.sandbox import Sandbox


class ChildPool:
    """Keeps ``size`` blank children of one profile; each is given away once and never comes back."""

    def __init__(self, sandbox: Sandbox, profile: Profile, size: int) -> None:
        self._sandbox = sandbox
        self._profile = profile
        self._size = size
        self._blank: deque[Child] = deque()

    async def __aenter__(self) -> Self:
        await self.refill()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def refill(self) -> None:
        """Start what is missing; 1 ms of the daemon each."""
        while len(self._blank) < self._size:
            self._blank.append(await self._sandbox.start(self._profile))

    async def take(self, profile: Profile | None = None, *, refill: bool = True) -> Child:
        """A blank child, the caller's to close; a fresh one when ``profile`` is not the pool's. ``refill``: replace it at once."""
        if profile is not None and profile != self._profile:
            return await self._sandbox.start(profile)
        while self._blank:
            child = self._blank.popleft()
            if child.is_alive:
                break
            await child.aclose()
        else:
            child = await self._sandbox.start(self._profile)
        if refill:
            await self.refill()
        return child

    async def aclose(self) -> None:
        """End the blank ones."""
        while self._blank:
            await self._blank.popleft().aclose()
