"""Workers over REST, and the calls of a worker that speaks nothing but REST (I/O: through the chief).

Such a worker joins with its token in the body, then asks for work and hands results in under its own bearer token: its id is whose
token it is, never what it claims. Frames are those of the RPC channel, so both doors lead to the same handlers.
"""

from __future__ import annotations

from typing import Any, Final

from company import views
from company.chief.api.bodies import number, read_object
from company.chief.api.gate import Call, Endpoint, Handler
from company.chief.api.problem import BadRequest
from company.chief.api.replies import json_reply, list_reply
from company.chief.api.results import fragment_of
from company.chief.facade import Refused
from p2p.base.frames import MAX_BODY_BYTES, MAX_HEADER_BYTES
from p2p.net.body_budget import BodyBudget
from p2p.net.http_types import FileSlice, Response

ACTIONS: Final = ("pause", "resume", "drain", "quarantine", "release")
MAX_WAIT_S: Final = 60
MAX_FRAME_BYTES: Final = MAX_BODY_BYTES + MAX_HEADER_BYTES + (4 << 20)  # body, header, sizes
MAX_FRAMES_AT_ONCE_BYTES: Final = 256 << 20  # of all callers together, until they are on disk
MAX_COUNT: Final = 1 << 20
_BYTES: Final = "application/octet-stream"


async def list_workers(call: Call) -> Response:
    """All workers."""
    return list_reply(call.chief.list_workers())


async def show(call: Call) -> Response:
    """One worker."""
    return json_reply(call.chief.worker(call.arg("id")))


def change(action: str) -> Handler:
    """The handler that does ``action`` to a worker."""

    async def do(call: Call) -> Response:
        return json_reply(await call.chief.change_worker(call.arg("id"), action, by=call.by), 202)

    return do


async def remove(call: Call) -> Response:
    """Forget a worker."""
    await call.chief.change_worker(call.arg("id"), "rm", by=call.by)
    return Response(204)


async def join(call: Call) -> Response:
    """Join with a token; answers the worker's own bearer token."""
    body = await read_object(call.request)
    try:
        return json_reply(await call.chief.rest_join(body, call.request.remote), 201)
    except Refused:
        call.auth.count_failure(call.request.remote)
        raise


def _frame_or_nothing(frame: bytes | None) -> Response:
    if frame is None:
        return Response(204, {"Retry-After": "1", "Cache-Control": "no-store"})
    return Response(200, {"Cache-Control": "no-store"}, frame, _BYTES)


async def next_batch(call: Call) -> Response:
    """The next batch as a frame, or 204 after ``wait`` seconds."""
    return _frame_or_nothing(await call.chief.rest_next(call.by.id, number(call.request, "wait", 20, 0, MAX_WAIT_S)))


def take_results(budget: BodyBudget) -> Handler:
    """The handler that takes an outcome frame and answers the next batch; no more of them at once than ``budget`` has room for."""

    async def take(call: Call) -> Response:
        wait_s = number(call.request, "wait", 0, 0, MAX_WAIT_S)
        with budget.reserve(call.request.content_length) as reserved:
            read = call.request.body
            return _frame_or_nothing(await call.chief.rest_result(call.by.id, await read(budget.max_body_bytes), wait_s, reserved.release))

    return take


async def data_fragment(call: Call) -> Response:
    """Fragments ``n`` to ``n+count-1`` of a job as a frame; the lease token is in Company-Lease or ?token=."""
    job = call.request.query.get("job", "")
    lease = call.request.headers.get("Company-Lease") or call.request.query.get("token", "")
    if not job or not (lease.isascii() and lease.isdigit() and len(lease) <= 20):
        raise BadRequest("lease-missing", "Say ?job=ID and the lease's number in Company-Lease or ?token=.")
    count = number(call.request, "count", 1, 1, MAX_COUNT)
    found = await call.chief.rest_fragments(call.by.id, int(lease), job, fragment_of(call), count)
    return Response(200, {"Cache-Control": "no-store", "Content-Length": str(found.size)}, found.pieces, _BYTES)


async def processor(call: Call) -> Response:
    """A package's processor archive with its signature, as a frame."""
    digest = call.arg("digest")
    data = await call.chief.rest_processor(call.by.id, digest)
    return Response(200, {"Cache-Control": "private, max-age=31536000, immutable"}, data, _BYTES)


async def wheel_list(call: Call) -> Response:
    """The signed list of the wheels that a job requires, as a frame."""
    return Response(200, {"Cache-Control": "no-store"}, await call.chief.rest_wheels(call.by.id, call.arg("id")), _BYTES)


async def wheel(call: Call) -> Response:
    """One wheel of that list."""
    stored = await call.chief.rest_wheel(call.by.id, call.arg("id"), call.arg("digest"))
    headers = {"Cache-Control": "private, max-age=31536000, immutable", "Content-Length": str(stored.size)}
    return Response(200, headers, FileSlice(stored.path, 0, stored.size), _BYTES)


def worker_endpoints() -> list[Endpoint]:
    """What workers have, seen from outside, and what they call."""
    one = "/api/v1/workers/{id}"
    view: Any = views.WorkerView
    made = [
        Endpoint(
            method="GET",
            pattern="/api/v1/workers",
            handler=list_workers,
            need="viewer",
            tag="workers",
            summary="List workers",
            answer=view,
            is_list=True,
        ),
        Endpoint(method="GET", pattern=one, handler=show, need="viewer", tag="workers", summary="Show a worker", answer=view),
        Endpoint(method="DELETE", pattern=one, handler=remove, need="operator", tag="workers", summary="Forget a worker", status=204),
        Endpoint(
            method="POST",
            pattern="/api/v1/workers/join",
            handler=join,
            need="open",
            tag="fragments",
            summary="Join with a token (REST worker)",
            body="application/json",
            answer="application/json",
            status=201,
        ),
        Endpoint(
            method="POST",
            pattern="/api/v1/workers/next",
            handler=next_batch,
            need="worker",
            tag="fragments",
            query=("wait",),
            summary="Next batch (REST worker)",
            answer=_BYTES,
        ),
        Endpoint(
            method="POST",
            pattern="/upload/result-fragment",
            handler=take_results(BodyBudget(max_body_bytes=MAX_FRAME_BYTES, total_bytes=MAX_FRAMES_AT_ONCE_BYTES)),
            need="worker",
            tag="fragments",
            query=("wait",),
            summary="Hand in results, take the next batch",
            body=_BYTES,
            answer=_BYTES,
        ),
        Endpoint(
            method="GET",
            pattern="/data-fragment/{n}",
            handler=data_fragment,
            need="worker",
            tag="fragments",
            query=("job", "count", "token"),
            summary="Fragments of a leased range",
            answer=_BYTES,
        ),
        Endpoint(
            method="GET",
            pattern="/processor/{digest}",
            handler=processor,
            need="worker",
            tag="fragments",
            summary="Processor archive",
            answer=_BYTES,
        ),
        Endpoint(
            method="GET",
            pattern="/wheels/{id}",
            handler=wheel_list,
            need="worker",
            tag="fragments",
            summary="Signed list of the wheels that a job requires",
            answer=_BYTES,
        ),
        Endpoint(
            method="GET",
            pattern="/wheels/{id}/{digest}",
            handler=wheel,
            need="worker",
            tag="fragments",
            summary="One of these wheels",
            answer=_BYTES,
        ),
    ]
    for action in ACTIONS:
        made.append(
            Endpoint(
                method="POST",
                pattern=f"{one}/{action}",
                handler=change(action),
                need="operator",
                tag="workers",
                summary=f"{action.capitalize()} a worker",
                answer=view,
                status=202,
            )
        )
    return made
