"""Calls of an executor over REST: frames in, outcomes out (I/O: through the chief).

One frame per POST, acknowledged when it is on disk; outcomes by long poll, each answer a stream of frames (docs/protocol.md).
"""

from __future__ import annotations

from typing import Final

from company.chief.api.bodies import number
from company.chief.api.gate import Call, Endpoint, Handler
from company.chief.api.replies import json_reply
from p2p.net.body_budget import BodyBudget
from p2p.net.http_types import Response

MAX_BODY_BYTES: Final = (256 << 20) + (8 << 20)
MAX_BODIES_AT_ONCE_BYTES: Final = 2 * MAX_BODY_BYTES  # of all callers together
MAX_WAIT_S: Final = 60
_BYTES: Final = "application/octet-stream"


def append(budget: BodyBudget) -> Handler:
    """The handler that adds one frame of calls; no more of them at once than ``budget`` has room for."""

    async def take(call: Call) -> Response:
        first = number(call.request, "first", 0, 0, 1 << 40)
        call.chief.calls.check_own(call.arg("id"), call.by)
        with budget.reserve(call.request.content_length):
            data = await call.request.body(budget.max_body_bytes)
            return json_reply({"end": await call.chief.calls.append(call.arg("id"), first, data)})

    return take


async def finish(call: Call) -> Response:
    """No more calls will come."""
    call.chief.calls.check_own(call.arg("id"), call.by)
    await call.chief.calls.finish(call.arg("id"))
    return Response(204)


async def outcomes(call: Call) -> Response:
    """What was committed after a place."""
    request = call.request
    after = (number(request, "segment", -1, -1, 1 << 40), number(request, "offset", -1, -1, 1 << 50))
    failed, wait_s = number(request, "failed", 0, 0, 1 << 40), number(request, "wait", 0, 0, MAX_WAIT_S)
    job = call.chief.job(call.arg("id")).id  # an unknown job is a 404, not a stream that breaks off
    found = call.chief.calls.outcomes(job, after=after, failed=failed, wait_s=wait_s)
    return Response(200, {"Cache-Control": "no-store"}, found, _BYTES)


def call_endpoints() -> list[Endpoint]:
    """Everything about calls."""
    one = "/api/v1/jobs/{id}"
    budget = BodyBudget(max_body_bytes=MAX_BODY_BYTES, total_bytes=MAX_BODIES_AT_ONCE_BYTES)
    return [
        Endpoint(
            method="POST", pattern=f"{one}/calls", handler=append(budget), need="submitter", tag="jobs",
            summary="Add calls to a stream (one frame)", query=("first",), body=_BYTES,
        ),
        Endpoint(
            method="POST", pattern=one + "/calls/end", handler=finish, need="submitter", tag="jobs",
            summary="End a stream of calls", status=204,
        ),
        Endpoint(
            method="GET", pattern=f"{one}/outcomes", handler=outcomes, need="submitter", tag="results",
            summary="Outcomes in the order of committing (frames)", query=("segment", "offset", "failed", "wait"), answer=_BYTES,
        ),
    ]  # fmt: skip
