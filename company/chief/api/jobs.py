"""Jobs over REST: submit, list, show, change, and why they wait (I/O: through the chief)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

from company import views
from company.chief.api.bodies import flag, number, read_object, read_struct
from company.chief.api.gate import Call, Endpoint, Handler
from company.chief.api.problem import BadRequest
from company.chief.api.replies import json_reply, lines_reply, list_reply
from p2p.net.http_types import Response

MAX_LIST: Final = 1000
MAX_WAIT_S: Final = 60
MAX_LOG_LINES: Final = 100_000
ENDED: Final = frozenset({"done", "failed", "cancelled"})
ACTIONS: Final = ("pause", "resume", "cancel", "retry")
_FOLLOW_STEP_S: Final = 1.0


async def submit(call: Call) -> Response:
    """Create a job."""
    wanted = await read_struct(call.request, views.JobSubmit, call.raw)
    job = await call.chief.submit(wanted, by=call.by)
    return json_reply(job, 201, {"Location": f"/api/v1/jobs/{job.id}"})


async def list_jobs(call: Call) -> Response:
    """List jobs, newest first."""
    request = call.request
    offset = number(request, "offset", 0, 0, 1 << 40)
    owner = request.query.get("owner")
    jobs, total = call.chief.list_jobs(
        state=request.query.get("state") or None,
        limit=number(request, "limit", 50, 1, MAX_LIST),
        offset=offset,
        owner=call.by.name if owner == "me" else owner or None,
    )
    return list_reply(jobs, total, offset=offset)


async def show(call: Call) -> Response:
    """One job; with ``wait`` seconds, answers when it has ended or the time is over."""
    wait_s = number(call.request, "wait", 0, 0, MAX_WAIT_S)
    if wait_s:
        return json_reply(await call.chief.wait_job(call.arg("id"), timeout_s=wait_s))
    return json_reply(call.chief.job(call.arg("id")))


def change(action: str) -> Handler:
    """The handler that does ``action`` with the arguments in its body."""

    async def do(call: Call) -> Response:
        args = await read_object(call.request)
        return json_reply(await call.chief.change_job(call.arg("id"), action, args, by=call.by), 202)

    return do


async def edit(call: Call) -> Response:
    """Change limits of a job: priority, max_fails, time_limit_s, memory_bytes."""
    args = await read_object(call.request)
    if not args:
        raise BadRequest("nothing-to-edit", "Name at least one of priority, max_fails, time_limit_s, memory_bytes.")
    return json_reply(await call.chief.change_job(call.arg("id"), "edit", args, by=call.by))


async def remove(call: Call) -> Response:
    """Remove an ended job with its results."""
    await call.chief.change_job(call.arg("id"), "rm", {}, by=call.by)
    return Response(204)


async def explain(call: Call) -> Response:
    """Why a job, a fragment (JOB/N) or a worker is where it is."""
    return list_reply(call.chief.explain(call.arg("ref")))


async def explain_job(call: Call) -> Response:
    """Why a job is where it is."""
    return list_reply(call.chief.explain(call.arg("id")))


async def failures(call: Call) -> Response:
    """Fragments that failed at least once."""
    offset = number(call.request, "offset", 0, 0, 1 << 40)
    items, total = await call.chief.failures(call.arg("id"), limit=number(call.request, "limit", 50, 1, MAX_LIST), offset=offset)
    return list_reply(items, total, offset=offset)


async def heatmap(call: Call) -> Response:
    """Fragment states as runs, at most ``cells`` of them."""
    return json_reply(await call.chief.heatmap(call.arg("id"), number(call.request, "cells", 1024, 1, 4096)))


async def counts(call: Call) -> Response:
    """How many fragments are in which state."""
    return json_reply(call.chief.job(call.arg("id")).fragments)


async def logs(call: Call) -> Response:
    """What the module printed and what happened, one JSON line each; ``follow`` keeps on until the job ends."""
    request = call.request
    job = call.chief.job(call.arg("id"))  # an unknown job is a 404, not an empty stream
    text = request.query.get("fragment")
    fragment = number(request, "fragment", 0, 0, 1 << 40) if text else None
    limit = number(request, "limit", 10_000, 1, MAX_LOG_LINES)
    after = number(request, "after", 0, 0, 1 << 40)
    lines = (
        _follow(call, job.id, fragment, after)
        if flag(request, "follow")
        else call.chief.logs(job.id, fragment=fragment, limit=limit, after=after)
    )
    if request.query.get("format") == "text":
        return Response(200, {"Cache-Control": "no-store"}, _plain(lines), "text/plain; charset=utf-8")
    return lines_reply(lines)


async def _follow(call: Call, ref: str, fragment: int | None, after: int) -> AsyncIterator[views.LogLine]:
    """Lines as they come, each once.

    The chief's order changes as events and outputs come in, so lines are told apart by what they say, not by their place. The job is
    looked at before its lines, so that the last lines of an ended job are not missed.
    """
    seen: Counter[int] = Counter()
    while True:
        has_ended = call.chief.job(ref).state in ENDED
        now: Counter[int] = Counter()
        async for line in call.chief.logs(ref, fragment=fragment, limit=MAX_LOG_LINES, after=0):
            key = hash((line.fragment, line.stream, line.text))
            now[key] += 1
            if now[key] > seen[key]:
                seen[key] = now[key]
                if after > 0:
                    after -= 1
                else:
                    yield line
        if has_ended:
            return
        await call.chief.wait_job(ref, timeout_s=_FOLLOW_STEP_S)


async def _plain(lines: AsyncIterator[views.LogLine]) -> AsyncIterator[bytes]:
    async for line in lines:
        yield line.text.encode() + (b"" if line.text.endswith("\n") else b"\n")


def job_endpoints() -> list[Endpoint]:
    """What jobs have."""
    one = "/api/v1/jobs/{id}"
    view: Any = views.JobView
    made = [
        Endpoint(
            method="POST",
            pattern="/api/v1/jobs",
            handler=submit,
            need="submitter",
            tag="jobs",
            summary="Submit a job",
            body=views.JobSubmit,
            answer=view,
            status=201,
            repeatable=True,
        ),
        Endpoint(
            method="GET",
            pattern="/api/v1/jobs",
            handler=list_jobs,
            need="viewer",
            tag="jobs",
            summary="List jobs",
            answer=view,
            is_list=True,
            query=("state", "owner", "limit", "offset"),
        ),
        Endpoint(
            method="GET",
            pattern=one,
            handler=show,
            need="viewer",
            tag="jobs",
            summary="Show a job, or wait for its end",
            answer=view,
            query=("wait",),
        ),
        Endpoint(
            method="PATCH",
            pattern=one,
            handler=edit,
            need="submitter",
            tag="jobs",
            summary="Edit a job",
            body="application/json",
            answer=view,
        ),
        Endpoint(method="DELETE", pattern=one, handler=remove, need="submitter", tag="jobs", summary="Remove an ended job", status=204),
        Endpoint(
            method="GET",
            pattern=f"{one}/explain",
            handler=explain_job,
            need="viewer",
            tag="jobs",
            summary="Why a job waits",
            answer=views.ReasonView,
            is_list=True,
        ),
        Endpoint(
            method="GET",
            pattern="/api/v1/explain/{ref:.+}",
            handler=explain,
            need="viewer",
            tag="jobs",
            summary="Why a job, JOB/FRAGMENT or worker is where it is",
            answer=views.ReasonView,
            is_list=True,
        ),
        Endpoint(
            method="GET",
            pattern=f"{one}/failures",
            handler=failures,
            need="viewer",
            tag="jobs",
            summary="Failed fragments",
            answer=views.FailureView,
            is_list=True,
            query=("limit", "offset"),
        ),
        Endpoint(
            method="GET",
            pattern=f"{one}/fragments",
            handler=counts,
            need="viewer",
            tag="jobs",
            summary="Fragments by state",
            answer=views.CountsView,
        ),
        Endpoint(
            method="GET",
            pattern=f"{one}/heatmap",
            handler=heatmap,
            need="viewer",
            tag="jobs",
            summary="Fragment states in cells",
            answer="application/json",
            query=("cells",),
        ),
        Endpoint(
            method="GET",
            pattern=f"{one}/logs",
            handler=logs,
            need="viewer",
            tag="jobs",
            summary="Log lines, one JSON value a line",
            answer="application/x-ndjson",
            query=("fragment", "limit", "after", "follow", "format"),
        ),
    ]
    for action in ACTIONS:
        made.append(
            Endpoint(
                method="POST",
                pattern=f"{one}/{action}",
                handler=change(action),
                need="submitter",
                tag="jobs",
                summary=f"{action.capitalize()} a job",
                body="application/json",
                answer=view,
                status=202,
            )
        )
    return made
