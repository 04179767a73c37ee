"""The worker's own HTTP: health for everybody on this machine, and for a chief that speaks REST, processors and work (I/O).

Only the chief knows the callback secret, so no client and no neighbour can address a worker (P4). The bytes are described in
`company.worker.rest`.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from company import messages as m
from company.worker.processors import Processors
from company.worker.rest import messages_untrusted
from p2p.base.errors import MalformedMessage, PeerError, Reason, Unavailable
from p2p.base.frames import Frame
from p2p.base.schema import Message
from p2p.net import problem as http_problem
from p2p.net.body_budget import BodyBudget
from p2p.net.http_types import BodyTooLarge, Request, Response, Route

MAX_BODY_BYTES = 40 << 20
MAX_BODIES_AT_ONCE_BYTES = 2 * MAX_BODY_BYTES
Messages = list[tuple[Message, Frame]]
FROM_CHIEF = (m.JobIs, m.Run, m.Cancel, m.Recall, m.JobOver, m.Drain, m.Undrain, m.Ack, m.Stale, m.Ping)


class ApiPort(Protocol):
    """What the handlers ask of the worker around them."""

    async def on_message(self, message: Message, frame: Frame) -> None: ...
    def is_started(self) -> bool: ...
    def health(self) -> dict[str, Any]: ...
    def held(self) -> tuple[m.Held, ...]: ...


def worker_routes(port: ApiPort, processors: Callable[[], Processors | None], callback: str | None) -> list[Route]:
    """The routes of one worker. ``callback``: nil for a worker that has a channel, which then takes no work here."""

    budget = BodyBudget(max_body_bytes=MAX_BODY_BYTES, total_bytes=MAX_BODIES_AT_ONCE_BYTES)

    async def health(_: Request) -> Response:
        return reply(200, port.health())

    async def processor(request: Request) -> Response:
        return await _bounded(budget, request, callback, take_processor)

    async def take_processor(messages: Messages) -> Response:
        message, frame = messages[0] if len(messages) == 1 else (None, None)
        if not isinstance(message, m.ProcessorIs) or frame is None:
            return problem(400, "malformed-message", "one ProcessorIs frame was expected")
        cache = processors()
        if cache is None:
            return problem(503, "starting", "this worker is starting")
        if cache.has(message.processor):
            return Response(204)
        try:
            await cache.offer(message, bytes(frame.body))
        except PeerError as error:
            return problem(403, error.code, error.text)
        return reply(200, {"processor": message.processor.hex()})

    async def activate(request: Request) -> Response:
        return await _bounded(budget, request, callback, take_work)

    async def take_work(messages: Messages) -> Response:
        for message, _ in messages:
            if not isinstance(message, FROM_CHIEF):
                return problem(400, "malformed-message", f"{type(message).__name__} has no place here")
        if messages and not port.is_started():
            return problem(503, "starting", "this worker is starting")
        for message, frame in messages:
            if not isinstance(message, m.Ping):
                await port.on_message(message, frame)
        return reply(200, {"accepted": len(messages)} if messages else {"accepted": 0, "held": port.held()})

    routes = [Route("GET", "/health", health)]
    if callback is not None:
        routes += [Route("POST", "/processor", processor), Route("POST", "/activate/data-fragment", activate)]
    return routes


async def _bounded(budget: BodyBudget, request: Request, callback: str | None, take: Callable[[Messages], Awaitable[Response]]) -> Response:
    """The answer to a call of the chief; any other caller, and a body for which there is no room, is refused before it is read."""
    given = request.headers.get("Authorization", "")
    if callback is None or not hmac.compare_digest(given.encode(), f"Bearer {callback}".encode()):
        return problem(401, "not-the-chief", "only this worker's chief may call it")
    try:
        with budget.reserve(request.content_length):
            return await take(messages_untrusted(await request.body(MAX_BODY_BYTES)))
    except BodyTooLarge as error:
        return problem(413, "body-too-large", str(error))
    except MalformedMessage as error:
        return problem(400, error.code, error.text)
    except Unavailable as error:
        return problem(503, error.code, error.text)


def reply(status: int, body: dict[str, Any]) -> Response:
    """A JSON answer."""
    return Response(status, {"Cache-Control": "no-store"}, json.dumps(body).encode())


def problem(status: int, code: str, text: str) -> Response:
    """An answer of type problem+json."""
    return http_problem.problem(status, Reason(code, text))
