"""The door in front of every handler: Host, who asks, role, errors as answers, security headers, counters (I/O: reads the clock).

An `Endpoint` is what a handler is and who may call it; `Gate.route` makes it a route of the server. The page and the REST interface use
the same door and differ in how they show a refusal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from company.chief.api.auth import Auth, Csrf, Need
from company.chief.api.bodies import MAX_JSON_BYTES
from company.chief.api.idempotency import IdempotencyCache
from company.chief.api.metrics import Metrics
from company.chief.api.problem import Problem, problem_of
from company.chief.api.refusals import RefusalLog
from company.chief.facade import Chief, Principal
from p2p.base.errors import ParallelError
from p2p.base.record import record
from p2p.net.http_types import BodyTooLarge, Request, Response, Route

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",  # data: for the icons inside Pico's style sheet
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # not no-referrer: that makes browsers send "Origin: null" with our own forms
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@record
class Call:
    """One admitted request."""

    request: Request
    by: Principal
    chief: Chief
    auth: Auth
    raw: bytes | None = None  # the body, where the door had to read it already

    def arg(self, name: str) -> str:
        """A named part of the path."""
        return self.request.match[name]


Handler = Callable[[Call], Awaitable[Response]]
Refuse = Callable[[Request, Problem], Response]


@record(kw_only=True)
class Endpoint:
    """A handler, who may call it, and what the OpenAPI document says of it."""

    method: str
    pattern: str
    handler: Handler
    need: Need
    summary: str
    tag: str = "system"
    csrf: Csrf = "header"
    query: tuple[str, ...] = ()
    body: Any = None  # a struct, or a media type
    answer: Any = None  # a struct, or a media type
    is_list: bool = False
    status: int = 200
    is_hidden: bool = False  # pages: not part of the REST document
    repeatable: bool = False  # honours Idempotency-Key


def problem_reply(request: Request, problem: Problem) -> Response:
    """How REST shows a refusal."""
    return problem.response()


class Gate:
    """Makes routes of endpoints, all behind the same fences."""

    def __init__(self, chief: Chief, auth: Auth, metrics: Metrics) -> None:
        self.chief = chief
        self.auth = auth
        self.metrics = metrics
        self.answers = IdempotencyCache()
        self._refusals = RefusalLog()

    def route(self, endpoint: Endpoint, refuse: Refuse = problem_reply) -> Route:
        """The endpoint as a route; refusals are shown by ``refuse``."""

        async def handle(request: Request) -> Response:
            started = self.auth.monotonic()
            try:
                answer = await self._admitted(endpoint, request)
            except (ParallelError, BodyTooLarge) as error:
                problem = problem_of(error, request.path)
                self._refusals.note(problem.status, problem.code, request.method, request.path, request.remote, started)
                answer = refuse(request, problem)
            if "tus-resumable" in request.headers:
                answer = replace(answer, headers={**answer.headers, "Tus-Resumable": "1.0.0"})
            self.metrics.count(endpoint.pattern, endpoint.method, answer.status, self.auth.monotonic() - started)
            return replace(answer, headers={**SECURITY_HEADERS, **answer.headers})

        return Route(endpoint.method, endpoint.pattern, handle, {} if endpoint.is_hidden else {"endpoint": endpoint})

    async def _admitted(self, endpoint: Endpoint, request: Request) -> Response:
        self.auth.check_host(request)
        by = await self.auth.admit(request, endpoint.need, csrf=endpoint.csrf)
        call = Call(request, by, self.chief, self.auth)
        key = request.headers.get("Idempotency-Key")
        if key is None or not endpoint.repeatable:
            return await endpoint.handler(call)
        return await self._once(endpoint, call, key)

    async def _once(self, endpoint: Endpoint, call: Call, key: str) -> Response:
        body = await call.request.body(MAX_JSON_BYTES)
        who = call.by.id
        earlier = self.answers.begin(who, endpoint.pattern, key, body, self.auth.monotonic())
        if earlier is not None:
            return earlier
        try:
            answer = await endpoint.handler(replace(call, raw=body))
        except BaseException:
            self.answers.abandon(who, endpoint.pattern, key)
            raise
        self.answers.finish(who, endpoint.pattern, key, answer, self.auth.monotonic())
        return answer
