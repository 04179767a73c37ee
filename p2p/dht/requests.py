"""Requests that wait for answers: when one is late, sent again or given up (pure).

Waits its contact's RTO, says that it is slow, sends the same datagram once more, waits twice as long, gives up. An answer counts only when
message id, address and, where it is known, the key's node id are the ones that were asked.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from p2p.dht.directory import Address
from p2p.dht.packets import Reply


class Waiter(Protocol):
    """Who asked."""

    def on_reply(self, request: Waiting, reply: Reply, now: float) -> None:
        """One part of an answer; ``request.is_over`` after the last."""

    def on_slow(self, request: Waiting, now: float) -> None:
        """It is late."""

    def on_failure(self, request: Waiting, now: float) -> None:
        """There was none, twice."""


class Waiting:
    """One request on its way."""

    __slots__ = (
        "address",
        "args",
        "data",
        "due",
        "id",
        "is_over",
        "is_sent_again",
        "message_id",
        "method",
        "parts",
        "rto_s",
        "sent_at",
        "waiter",
    )

    def __init__(
        self,
        message_id: bytes,
        id_: int | None,
        address: Address,
        method: int,
        args: list[Any],
        data: bytes,
        waiter: Waiter,
        now: float,
        rto_s: float,
    ) -> None:
        self.message_id = message_id
        self.id = id_  # expected node id; None where only the address is known
        self.address = address
        self.method = method
        self.args = args
        self.data = data
        self.waiter = waiter
        self.sent_at = now
        self.rto_s = rto_s
        self.due = now + rto_s
        self.is_sent_again = False
        self.is_over = False
        self.parts: set[int] = set()


class InFlight:
    """All requests on their way, by message id."""

    def __init__(self, send: Callable[[bytes, Address], None]) -> None:
        self._send = send
        self._by_id: dict[bytes, Waiting] = {}
        self._heap: list[tuple[float, int, Waiting]] = []
        self._count = 0
        self.failed: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, message_id: bytes) -> Waiting | None:
        """The request that a message id belongs to."""
        return self._by_id.get(message_id)

    def add(self, request: Waiting) -> None:
        """Send it and wait."""
        self._by_id[request.message_id] = request
        self._push(request)
        self._send(request.data, request.address)

    def _push(self, request: Waiting) -> None:
        self._count += 1
        heapq.heappush(self._heap, (request.due, self._count, request))

    def take(self, request: Waiting, reply: Reply) -> bool:
        """Note a part of an answer; False for one that was there already."""
        if reply.part in request.parts:
            return False
        request.parts.add(reply.part)
        if len(request.parts) >= reply.parts:
            self.close(request)
        return True

    def close(self, request: Waiting) -> None:
        """Wait no longer."""
        request.is_over = True
        self._by_id.pop(request.message_id, None)

    def next_deadline(self) -> float | None:
        """When the next one is late."""
        while self._heap and self._heap[0][2].is_over:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def tick(self, now: float) -> None:
        """Send again or give up what is late."""
        while self._heap and self._heap[0][0] <= now:
            _, _, request = heapq.heappop(self._heap)
            if request.is_over:
                continue
            if request.parts:  # some parts came, the others are lost: what came is an answer
                self.close(request)
                request.waiter.on_slow(request, now)
            elif not request.is_sent_again:
                request.is_sent_again = True
                request.due = now + 2 * request.rto_s
                self._push(request)
                self._send(request.data, request.address)
                request.waiter.on_slow(request, now)
            else:
                self.close(request)
                self.failed[request.method] += 1
                request.waiter.on_failure(request, now)
