"""Errors as HTTP responses: application/problem+json, RFC 9457, in one shape for every server of the project (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from p2p.base.errors import PeerError, Reason, Unavailable, UsageError
from p2p.net.http_types import BodyTooLarge, Response

MEDIA_TYPE = "application/problem+json"
RETRYABLE: Final = frozenset({423, 429, 460, 503})  # statuses of which the same request may succeed later
_RESERVED: Final = frozenset({"type", "title", "status", "detail", "instance", "code", "hint", "retryable"})


def title_of(code: str) -> str:
    """A code in words."""
    return code.replace("-", " ").capitalize()


def members(
    status: int, code: str, detail: str, *, hint: str = "", instance: str = "", retryable: bool | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The members of a problem object; a fact never replaces a standard member. ``retryable``: nil for what the status says."""
    standard = {
        "type": f"urn:company:problem:{code}", "title": title_of(code), "status": status, "detail": detail, "instance": instance,
        "code": code, "hint": hint, "retryable": status in RETRYABLE if retryable is None else retryable,
    }  # fmt: skip
    return standard | {k: v for k, v in (facts or {}).items() if k not in _RESERVED}


def problem(status: int, reason: Reason, headers: Mapping[str, str] | None = None, *, instance: str = "") -> Response:
    """The response for one `Reason`; its first action is the hint."""
    hint = next((a.label if a.cli is None else f"{a.label}: {a.cli}" for a in reason.actions), "")
    body = members(status, reason.code, reason.text, hint=hint, instance=instance, facts=reason.facts)
    said = {"Cache-Control": "no-store", **(headers or {})}
    if status in RETRYABLE:
        said.setdefault("Retry-After", "1")
    return Response(status, said, json.dumps(body, default=str).encode(), MEDIA_TYPE)


def problem_of(error: Exception, instance: str = "") -> Response | None:
    """The response for an error that a handler let out; None for one that nobody meant, which is logged and answered 500."""
    if isinstance(error, BodyTooLarge):
        facts = {"limit": error.limit} | ({} if error.actual is None else {"actual": error.actual})
        return problem(413, Reason("body-too-large", f"the body may have {error.limit} bytes", facts), instance=instance)
    if isinstance(error, Unavailable):
        return problem(503, error.reason(), instance=instance)
    if isinstance(error, (UsageError, PeerError)):
        return problem(400, error.reason(), instance=instance)
    return None
