"""The company over REST: itself, tokens, limits, doctor, health, metrics, wheels, backup, stop (I/O: through the chief)."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from company import views
from company.chief.api.auth import has_role
from company.chief.api.bodies import read_object, read_struct
from company.chief.api.gate import Call, Endpoint
from company.chief.api.metrics import Metrics
from company.chief.api.problem import BadRequest
from company.chief.api.ranges import file_reply
from company.chief.api.replies import json_bytes, json_reply, list_reply
from company.chief.facade import NotFound, Principal, Refused
from p2p.net.http_types import Response

_JSON: Final = "application/json"


async def company(call: Call) -> Response:
    """The company."""
    return json_reply(call.chief.company())


async def limits(call: Call) -> Response:
    """The largest of everything, and what who asks keeps here and may still add."""
    return json_reply(call.chief.limits(call.by))


async def doctor(call: Call) -> Response:
    """Findings about this machine."""
    return list_reply(await call.chief.doctor())


async def live(call: Call) -> Response:
    """Whether the process answers."""
    return json_reply({"status": "ok"})


async def ready(call: Call) -> Response:
    """Whether the chief can work; `Unavailable` from it becomes 503."""
    call.chief.company()
    return json_reply({"status": "ok"})


async def list_tokens(call: Call) -> Response:
    """All tokens, without their secrets."""
    return list_reply(await call.chief.list_tokens())


async def create_token(call: Call) -> Response:
    """A new token; its secret is in this answer and nowhere else."""
    wanted = await read_struct(call.request, views.TokenRequest, call.raw)
    check_may_grant(call.by, wanted.role)
    return json_reply(await call.chief.create_token(wanted, call.by), 201)


def check_may_grant(by: Principal, role: views.Role) -> None:
    """Raises `Refused` when the token would be mightier than who asks for it."""
    if role != "worker" and not has_role(by.role, role):
        raise Refused("role-missing", f"A token of role {by.role} cannot make or revoke one of role {role}.", need=role, role=by.role)


async def revoke_token(call: Call) -> Response:
    """End a token now."""
    token_id = call.arg("id")
    found = next((t for t in await call.chief.list_tokens() if t.id == token_id), None)
    if found is None:
        raise NotFound("token-unknown", f"No token {token_id[:60]!r}.", hint="company token list")
    check_may_grant(call.by, found.role)
    await call.chief.revoke_token(token_id)
    return Response(204)


async def create_login(call: Call) -> Response:
    """A link that logs a browser in once, as whoever asks for it."""
    secret = await call.chief.create_login(call.by)
    path = f"/login?secret={quote(secret, safe='')}"
    return json_reply({"secret": secret, "path": path, "url": call.chief.company().http.rstrip("/") + path}, 201)


async def backup(call: Call) -> Response:
    """Write a backup to a directory on the chief's machine."""
    target = (await read_object(call.request)).get("path")
    if not isinstance(target, str) or not target.startswith("/"):
        raise BadRequest("path-missing", 'Send {"path": "/absolute/path/on/the/chief"}.')
    return json_reply(await call.chief.backup(Path(target)), 201)


async def stop(call: Call) -> Response:
    """Ask the chief to end; jobs go on after its next start."""
    call.chief.request_stop()
    return json_reply({"status": "stopping"}, 202)


async def wheel_index(call: Call) -> Response:
    """What pip --find-links reads."""
    links = "".join(
        f'<a href="{quote(w.name, safe="")}#sha256={w.digest}">{escape(w.name)}</a><br>\n'
        for w in sorted(call.chief.wheelhouse(), key=lambda w: w.name)
    )
    page = f'<!doctype html>\n<html lang="en"><head><title>Wheels</title></head><body><h1>Wheels</h1>\n{links}</body></html>\n'
    return Response(200, {"Cache-Control": "no-cache"}, page.encode(), "text/html; charset=utf-8")


async def wheel(call: Call) -> Response:
    """One wheel."""
    name = call.arg("name")
    found = next((w for w in call.chief.wheelhouse() if w.name == name), None)
    if found is None:
        raise NotFound("wheel-unknown", f"This chief has no wheel {name[:100]!r}.")
    return file_reply(call.request, found)


def system_endpoints(metrics: Metrics, document: Callable[[], dict[str, Any]]) -> list[Endpoint]:
    """What the company has. ``document`` gives the OpenAPI document."""

    async def metrics_text(call: Call) -> Response:
        return Response(200, {"Cache-Control": "no-store"}, metrics.text(), "text/plain; version=0.0.4; charset=utf-8")

    async def openapi(call: Call) -> Response:
        return Response(200, {"Cache-Control": "no-cache"}, json_bytes(document()))

    return [
        Endpoint(method="GET", pattern="/api/v1/company", handler=company, need="viewer", summary="The company", answer=views.CompanyView),
        Endpoint(method="GET", pattern="/api/v1/limits", handler=limits, need="viewer", summary="Limits in bytes and counts", answer=_JSON),
        Endpoint(
            method="GET",
            pattern="/api/v1/doctor",
            handler=doctor,
            need="operator",
            summary="Findings about the chief's machine",
            answer=_JSON,
        ),
        Endpoint(
            method="GET", pattern="/api/v1/health/live", handler=live, need="open", summary="Whether the process answers", answer=_JSON
        ),
        Endpoint(
            method="GET", pattern="/api/v1/health/ready", handler=ready, need="open", summary="Whether the chief can work", answer=_JSON
        ),
        Endpoint(
            method="GET", pattern="/api/v1/metrics", handler=metrics_text, need="viewer", summary="Prometheus metrics", answer="text/plain"
        ),
        Endpoint(method="GET", pattern="/metrics", handler=metrics_text, need="viewer", summary="Prometheus metrics", answer="text/plain"),
        Endpoint(method="GET", pattern="/api/v1/openapi.json", handler=openapi, need="open", summary="This document", answer=_JSON),
        Endpoint(
            method="GET",
            pattern="/api/v1/tokens",
            handler=list_tokens,
            need="operator",
            tag="tokens",
            summary="List tokens",
            answer=views.TokenView,
            is_list=True,
        ),
        Endpoint(
            method="POST",
            pattern="/api/v1/tokens",
            handler=create_token,
            need="operator",
            tag="tokens",
            summary="Create a token",
            body=views.TokenRequest,
            answer=views.TokenCreated,
            status=201,
            repeatable=True,
        ),
        Endpoint(
            method="DELETE",
            pattern="/api/v1/tokens/{id}",
            handler=revoke_token,
            need="operator",
            tag="tokens",
            summary="Revoke a token",
            status=204,
        ),
        Endpoint(
            method="POST",
            pattern="/api/v1/login-links",
            handler=create_login,
            need="viewer",
            tag="tokens",
            summary="A one-time login link",
            answer=_JSON,
            status=201,
        ),
        Endpoint(
            method="POST",
            pattern="/api/v1/admin/backup",
            handler=backup,
            need="owner",
            summary="Back up to a path on the chief",
            body=_JSON,
            answer=_JSON,
            status=201,
        ),
        Endpoint(
            method="POST", pattern="/api/v1/admin/stop", handler=stop, need="owner", summary="End the chief", answer=_JSON, status=202
        ),
        # open, since a machine that joins has no token yet for pip, and wheels are no secret
        Endpoint(
            method="GET",
            pattern="/wheelhouse/",
            handler=wheel_index,
            need="open",
            summary="Wheels for pip --find-links",
            answer="text/html",
        ),
        Endpoint(
            method="GET", pattern="/wheelhouse/{name}", handler=wheel, need="open", summary="One wheel", answer="application/octet-stream"
        ),
    ]
