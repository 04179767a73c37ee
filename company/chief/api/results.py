"""Downloads over REST: the final result, partial results, artifacts, single fragments (I/O: through the chief).

A result that is not ready is a 409, not a 202: `curl -O` would save a 202 as the result.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from company import views
from company.chief.api.auth import require
from company.chief.api.bodies import flag, number
from company.chief.api.gate import Call, Endpoint
from company.chief.api.jobs import MAX_WAIT_S
from company.chief.api.problem import BadRequest
from company.chief.api.ranges import file_reply
from company.chief.api.replies import attachment, json_bytes, lines_reply, list_reply
from p2p.base.codec import decode_value_untrusted
from p2p.base.errors import MalformedMessage
from p2p.base.frames import encode_frame_of
from p2p.net.http_types import Response

MAX_SHOWN_BYTES: Final = 1 << 20  # larger results are named in NDJSON, not shown
MAX_PARTIAL: Final = 1_000_000
_BYTES: Final = "application/octet-stream"


async def final_result(call: Call) -> Response:
    """The file of a finished job; ``wait`` seconds for it first."""
    ref = call.request.query.get("job", "")
    require(ref, "job-missing", "Which job? Say /final-result?job=ID", hint="company job list")
    wait_s = number(call.request, "wait", 0, 0, MAX_WAIT_S)
    if wait_s:
        await call.chief.wait_job(ref, timeout_s=wait_s)
    return file_reply(call.request, await call.chief.final_result(ref))


async def artifacts(call: Call) -> Response:
    """Files that fragments left."""
    return list_reply(await call.chief.artifacts(call.arg("id")))


async def artifact(call: Call) -> Response:
    """One file that a fragment left."""
    return file_reply(call.request, await call.chief.artifact(call.arg("id"), fragment_of(call), call.arg("name")))


def fragment_of(call: Call) -> int:
    """The fragment number in the path. Raises `BadRequest`."""
    text = call.arg("n")
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise BadRequest("fragment-malformed", f"A fragment is a number, got {text[:40]!r}.")
    return int(text)


async def fragment_input(call: Call) -> Response:
    """What a failed fragment was given, as codec bytes."""
    return _codec_reply(await call.chief.fragment_input(call.arg("id"), fragment_of(call)), f"fragment-{fragment_of(call)}-input.bin")


async def fragment_result(call: Call) -> Response:
    """What a fragment returned, as codec bytes."""
    return _codec_reply(await call.chief.fragment_result(call.arg("id"), fragment_of(call)), f"fragment-{fragment_of(call)}-result.bin")


def _codec_reply(data: bytes, name: str) -> Response:
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    return Response(
        200, {"Content-Disposition": attachment(name), "Repr-Digest": f"sha-256=:{digest}:", "Cache-Control": "no-store"}, data, _BYTES
    )


async def partial_results(call: Call) -> Response:
    """Results so far: NDJSON for people, or with ``raw`` frames of [fragment] + codec bytes for programs."""
    job = call.chief.job(call.arg("id"))
    start, limit = number(call.request, "start", 0, 0, 1 << 40), number(call.request, "limit", MAX_PARTIAL, 1, MAX_PARTIAL)
    results = call.chief.partial_results(job.id, start=start, limit=limit)
    if flag(call.request, "raw"):
        return Response(200, {"Cache-Control": "no-store"}, _frames(results), _BYTES)
    return lines_reply(_shown(results))


async def _frames(results: AsyncIterator[tuple[int, bytes]]) -> AsyncIterator[bytes]:
    async for fragment, data in results:
        head, body = encode_frame_of([fragment], [data])
        yield head
        yield body


async def _shown(results: AsyncIterator[tuple[int, bytes]]) -> AsyncIterator[msgspec.Raw]:
    async for fragment, data in results:
        yield msgspec.Raw(_line(fragment, data))


def _line(fragment: int, data: bytes) -> bytes:
    """One result as JSON, or why it cannot be shown: a strange result must not end the stream."""
    if len(data) > MAX_SHOWN_BYTES:
        return json_bytes({"fragment": fragment, "size": len(data), "omitted": "larger than 1 MiB; ask with raw=1"})
    try:
        value: Any = decode_value_untrusted(data)
        return json_bytes({"fragment": fragment, "value": value})
    except (MalformedMessage, TypeError, ValueError, OverflowError, RecursionError) as error:
        return json_bytes({"fragment": fragment, "size": len(data), "omitted": f"not JSON ({error}); ask with raw=1"})


def result_endpoints() -> list[Endpoint]:
    """What can be downloaded of a job."""
    one = "/api/v1/jobs/{id}"
    made = [
        Endpoint(
            method="GET",
            pattern=f"{one}/artifacts",
            handler=artifacts,
            need="viewer",
            tag="results",
            summary="List artifacts",
            answer=views.ArtifactView,
            is_list=True,
        ),
        Endpoint(
            method="GET",
            pattern=one + "/artifacts/{n}/{name:.+}",
            handler=artifact,
            need="viewer",
            tag="results",
            summary="Download an artifact (Range)",
            answer=_BYTES,
        ),
        Endpoint(
            method="GET",
            pattern=f"{one}/results",
            handler=partial_results,
            need="viewer",
            tag="results",
            summary="Results so far, in fragment order",
            answer="application/x-ndjson",
            query=("start", "limit", "raw"),
        ),
        Endpoint(
            method="GET",
            pattern=one + "/fragments/{n}/input",
            handler=fragment_input,
            need="submitter",
            tag="results",
            summary="Input of a failed fragment (codec bytes)",
            answer=_BYTES,
        ),
        Endpoint(
            method="GET",
            pattern=one + "/fragments/{n}/result",
            handler=fragment_result,
            need="viewer",
            tag="results",
            summary="Result of one fragment (codec bytes)",
            answer=_BYTES,
        ),
    ]
    for pattern in ("/final-result", "/api/v1/final-result"):  # a server answers HEAD with the handler of GET
        made.append(
            Endpoint(
                method="GET",
                pattern=pattern,
                handler=final_result,
                need="viewer",
                tag="results",
                query=("job", "wait"),
                summary="Download the result (Range, If-Range)",
                answer=_BYTES,
            )
        )
    return made
