"""The worker's own HTTP: health for everybody on this machine, and for a chief that speaks REST, processors and work (I/O).

A worker driven by REST takes calls that show its callback secret, which only its chief knows; one with a channel takes those that show a
pass of its chief (`company.http_pass`). So no client and no neighbour can address a worker (P4). The bytes are described in
`company.worker.rest`.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from company import messages as m
from company.http_pass import check_pass_untrusted
from company.worker.processors import Processors
from company.worker.rest import messages_untrusted
from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage, PeerError, Reason, Unavailable
from p2p.base.frames import Frame
from p2p.base.schema import Message
from p2p.net import problem as http_problem
from p2p.net.body_budget import BodyBudget
from p2p.net.http_types import BodyTooLarge, Request, Response, Route

MAX_BODY_BYTES = 40 << 20
MAX_BODIES_AT_ONCE_BYTES = 2 * MAX_BODY_BYTES
Messages = list[tuple[Message, Frame]]
IsChief = Callable[[str], bool]
FROM_CHIEF = (m.JobIs, m.Run, m.Cancel, m.Recall, m.JobOver, m.Drain, m.Undrain, m.Ack, m.Stale, m.Ping)


class ApiPort(Protocol):
    """What the handlers ask of the worker around them."""

    async def on_message(self, message: Message, frame: Frame) -> None: ...
    def is_started(self) -> bool: ...
    def health(self) -> dict[str, Any]: ...
    def held(self) -> tuple[m.Held, ...]: ...


def worker_routes(port: ApiPort, processors: Callable[[], Processors | None], is_chief: IsChief) -> list[Route]:
    """The routes of one worker. ``is_chief``: whether what a caller shows proves that the chief calls."""

    budget = BodyBudget(max_body_bytes=MAX_BODY_BYTES, total_bytes=MAX_BODIES_AT_ONCE_BYTES)

    async def health(_: Request) -> Response:
        return reply(200, port.health())

    async def processor(request: Request) -> Response:
        return await _bounded(budget, request, is_chief, take_processor)

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
        return await _bounded(budget, request, is_chief, take_work)

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

    return [
        Route("GET", "/health", health), Route("POST", "/processor", processor), Route("POST", "/activate/data-fragment", activate),
    ]  # fmt: skip


def by_callback(callback: str) -> IsChief:
    """The chief of a worker driven by REST shows the secret that the worker chose when it joined."""
    return lambda given: hmac.compare_digest(given.encode(), callback.encode())


def by_pass(chief_key: bytes, worker_key: bytes, now: Callable[[], UnixTime]) -> IsChief:
    """The chief of a worker with a channel shows a pass that it signed."""

    def is_chief(given: str) -> bool:
        try:
            check_pass_untrusted(given, chief_key=chief_key, worker_key=worker_key, now=now())
        except MalformedMessage:
            return False
        return True

    return is_chief


async def _bounded(budget: BodyBudget, request: Request, is_chief: IsChief, take: Callable[[Messages], Awaitable[Response]]) -> Response:
    """The answer to a call of the chief; any other caller, and a body for which there is no room, is refused before it is read."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer" or not is_chief(given):
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
