"""What happens, as server-sent events (I/O: through the chief).

A client that lost the connection comes back with Last-Event-ID and misses nothing that the chief still keeps. A silent stream carries a
comment every 15 s, so that proxies and dead peers are noticed.
Source: HTML Living Standard §9.2, server-sent events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import trio

from company.chief.api.bodies import number
from company.chief.api.gate import Call, Endpoint
from company.chief.api.problem import BadRequest
from company.chief.api.replies import json_bytes
from company.chief.facade import Chief
from p2p.net.http_types import Response

HEARTBEAT_S: Final = 15.0
_RETRY_MS: Final = 2000


async def events(call: Call) -> Response:
    """Events after ``Last-Event-ID`` or ``?after=``; without either, those to come."""
    last = call.request.headers.get("Last-Event-ID")
    if last is None:
        after = number(call.request, "after", 0, 0, 1 << 62)
    elif last.isascii() and last.isdigit() and len(last) <= 18:
        after = int(last)
    else:
        raise BadRequest("event-id-malformed", f"Last-Event-ID must be a number, got {last[:40]!r}.")
    return Response(200, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}, stream(call.chief, after), "text/event-stream")


async def stream(chief: Chief, after: int, heartbeat_s: float = HEARTBEAT_S) -> AsyncIterator[bytes]:
    """The events as text. A heartbeat ends the chief's iterator; the next one goes on after the last id, so nothing is lost."""
    yield f"retry: {_RETRY_MS}\n\n".encode()
    while True:
        source = chief.events(after)
        while True:
            event: dict[str, Any] | None = None
            with trio.move_on_after(heartbeat_s) as scope:
                event = await anext(source, None)
            if scope.cancelled_caught:
                yield b": still here\n\n"
                break
            if event is None:
                return
            after = int(event["id"])
            yield event_bytes(event)


def event_bytes(event: dict[str, Any]) -> bytes:
    """One event in the wire form; JSON holds no line break, so one data line is enough."""
    kind = "".join(c for c in str(event.get("type", "message")) if c.isalnum() or c in "._-")
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (int(event["id"]), kind.encode(), json_bytes(event))


def event_endpoints() -> list[Endpoint]:
    """The stream of events."""
    return [
        Endpoint(
            method="GET",
            pattern="/api/v1/events",
            handler=events,
            need="viewer",
            tag="events",
            query=("after",),
            summary="Events as they happen (SSE, Last-Event-ID)",
            answer="text/event-stream",
        )
    ]
