"""Errors as HTTP responses: application/problem+json, RFC 9457 (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from p2p.base.errors import PeerError, Reason, Unavailable, UsageError
from p2p.net.http_types import BodyTooLarge, Response

MEDIA_TYPE = "application/problem+json"


def problem(status: int, reason: Reason, headers: Mapping[str, str] | None = None) -> Response:
    """The response for one `Reason`: its code, text, facts and actions beside the fields of RFC 9457."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": reason.text} | reason.as_dict()
    return Response(status, headers or {}, json.dumps(body, default=str).encode(), MEDIA_TYPE)


def problem_of(error: Exception) -> Response | None:
    """The response for an error that a handler let out; None for one that nobody meant, which is logged and answered 500."""
    if isinstance(error, BodyTooLarge):
        facts = {"limit": error.limit, "actual": error.actual}
        return problem(413, Reason("body-too-large", f"the body may have {error.limit} bytes", facts))
    if isinstance(error, Unavailable):
        return problem(503, error.reason())
    if isinstance(error, (UsageError, PeerError)):
        return problem(400, error.reason())
    return None
