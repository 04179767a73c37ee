"""What changes, as a numbered stream for live pages and `company job watch` (I/O: it only waits; a ring of the newest, in memory)."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio

KEPT = 2048
COALESCE_S = 0.25  # the same object changes at most so often in the stream


class Feed:
    """One ring; any number of readers, none of which can hold it up."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ring: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._serial = 0
        self._news = trio.Event()
        self._last: dict[tuple[str, str], float] = {}
        self._is_closed = False
        self.listeners: list[Callable[[str, str], None]] = []  # told of every change at once; must not wait

    def put(self, kind: str, name: str, data: Callable[[], dict[str, Any]] | None = None) -> None:
        """Note that ``name`` of ``kind`` (job, worker) changed."""
        for listener in self.listeners:
            listener(kind, name)
        now = self._clock()
        if now - self._last.get((kind, name), -1e9) < COALESCE_S:
            return
        if len(self._last) > 4 * KEPT:
            self._last.clear()
        self._last[(kind, name)] = now
        self._serial += 1
        self._ring.append({"id": self._serial, "type": f"{kind}.changed", "object": name, "data": data() if data is not None else {}})
        self._news.set()
        self._news = trio.Event()

    def close(self) -> None:
        """The chief ends: every reader's stream ends."""
        self._is_closed = True
        self._news.set()

    async def read(self, after: int) -> AsyncIterator[dict[str, Any]]:
        """Events numbered above ``after``, then new ones as they come."""
        if after > self._serial:
            after = 0
        while not self._is_closed:
            for event in [e for e in self._ring if e["id"] > after]:
                after = event["id"]
                yield event
            if after >= self._serial:
                await self._news.wait()
