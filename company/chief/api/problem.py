"""Every refusal as problem+json, RFC 9457 (pure).

One error object serves all surfaces: the class says who must act and gives the status, the code stays the same for ever, and the
facts become members of the problem. `company.errors.error_of_problem` is the other direction.
Source: RFC 9457 (members, media type); tus 1.0 (460); RFC 9110 §15.5.20 (421).
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Final

import msgspec

from company.chief import facade
from p2p.base.errors import InvariantBroken, ParallelError, PeerError, Unavailable, UsageError
from p2p.base.record import record
from p2p.net.http_types import BodyTooLarge, Response
from p2p.net.problem import MEDIA_TYPE, RETRYABLE, members, title_of


class Unauthorized(ParallelError):
    """Nobody proved who asks: 401."""


class Misdirected(ParallelError):
    """The Host header names no address of this chief: 421."""


class Throttled(ParallelError):
    """Too many failed logins from there: 429. facts: retry_after_s."""


class BadRequest(ParallelError):
    """The request itself is wrong: 400."""


class NotAcceptable(ParallelError):
    """The request asks for a protocol, range or form that is not offered: 412, 415 or 416 by its ``status``."""

    def __init__(self, status: int, code: str, text: str, *, hint: str = "", **facts: Any) -> None:
        super().__init__(code, text, hint=hint, **facts)
        self.status = status


# first match wins, so subclasses come before their bases
_STATUS_BY_CLASS: Final[tuple[tuple[type[ParallelError], int], ...]] = (
    (Unauthorized, 401),
    (Misdirected, 421),
    (Throttled, 429),
    (BadRequest, 400),
    (facade.NotFound, 404),
    (facade.Conflict, 409),
    (facade.Refused, 403),
    (facade.TooLarge, 413),
    (facade.StorageFull, 507),
    (facade.Invalid, 422),
    (InvariantBroken, 500),
    (PeerError, 400),
    (UsageError, 400),
    (Unavailable, 503),
)
# codes that protocols tie to a status of their own
_STATUS_BY_CODE: Final = {
    "checksum-mismatch": 460, "upload-expired": 410, "result-expired": 410, "upload-busy": 423, "storage-full": 507,
    "network-off": 409,  # asking again changes nothing while this chief runs as it was started
}  # fmt: skip


@record
class Problem:
    """What went wrong, ready for JSON or a page."""

    status: int
    code: str
    detail: str
    hint: str = ""
    instance: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The code in words."""
        return title_of(self.code)

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in RETRYABLE or self.code in ("result-not-ready", "idempotency-in-flight")

    def as_dict(self) -> dict[str, Any]:
        """The members of the problem object; a fact never replaces a standard member."""
        return members(
            self.status, self.code, self.detail, hint=self.hint, instance=self.instance, retryable=self.is_retryable, facts=self.facts
        )

    def response(self) -> Response:
        """The problem as an HTTP response."""
        headers: dict[str, str] = {"Cache-Control": "no-store"}
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="company"'
        if self.is_retryable:
            headers["Retry-After"] = str(max(1, round(float(self.facts.get("retry_after_s", 1)))))
        if self.status == 416 and "size" in self.facts:
            headers["Content-Range"] = f"bytes */{self.facts['size']}"
        if self.code == "tus-version-wrong":
            headers["Tus-Version"] = "1.0.0"
        body = msgspec.json.encode(self.as_dict(), enc_hook=str)
        return Response(self.status, headers, body, MEDIA_TYPE)


def problem_of(error: ParallelError | BodyTooLarge, instance: str = "") -> Problem:
    """The problem that tells of ``error``."""
    if isinstance(error, BodyTooLarge):
        facts: dict[str, Any] = {"limit": error.limit}
        if error.actual is not None:
            facts["actual"] = error.actual
        return Problem(
            413,
            "body-too-large",
            f"The body is larger than {error.limit} bytes.",
            "Send less; GET /api/v1/limits lists the limits.",
            instance,
            facts,
        )
    return Problem(_status_of(error), error.code, error.text, error.hint, instance, dict(error.facts))


def _status_of(error: ParallelError) -> int:
    if isinstance(error, NotAcceptable):
        return error.status
    if error.code in _STATUS_BY_CODE:
        return _STATUS_BY_CODE[error.code]
    return next((status for kind, status in _STATUS_BY_CLASS if isinstance(error, kind)), 500)
