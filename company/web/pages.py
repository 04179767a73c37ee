"""Templates made into responses, and forms that must come from our own pages (I/O: reads templates once)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from company.chief.api.auth import has_role
from company.chief.api.bodies import MAX_FIELD_BYTES, fields_untrusted
from company.chief.api.gate import Call
from company.chief.api.problem import Problem
from company.config import format_count, format_duration, format_size
from p2p.net.http_types import Request, Response

HTML: Final = "text/html; charset=utf-8"
# a shape beside every word, so that colour is never the only sign
ICONS: Final = {
    "queued": "◷", "splitting": "⑂", "running": "▶", "merging": "⇲", "done": "✔", "failed": "✖", "cancelled": "⊘", "paused": "⏸",
    "joining": "◷", "idle": "○", "busy": "▶", "draining": "⇣", "offline": "⊘", "quarantined": "⚠",
}  # fmt: skip


def format_time(seconds: float | None) -> str:
    """A point in time, in UTC and saying so."""
    if not seconds:
        return "–"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class Pages:
    """The templates of one chief's page."""

    def __init__(self) -> None:
        # autoescape for every template: names, logs and tracebacks are other people's text
        self._templates = Environment(
            loader=PackageLoader("company.web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"size": format_size, "duration": format_duration, "count": format_count, "when": format_time}
        self._templates.globals |= {"icons": ICONS, "may": has_role}

    def show(self, call: Call, template: str, status: int = 200, **context: Any) -> Response:
        """A page for somebody who is logged in."""
        company = call.chief.company()
        body = self._templates.get_template(template).render(
            company=company, me=call.by, csrf=call.auth.csrf_token(call.request), path=call.request.path, **context
        )
        return Response(status, {"Cache-Control": "no-store"}, body.encode(), HTML)

    def show_open(self, template: str, status: int = 200, **context: Any) -> Response:
        """A page for anybody: it says nothing about the company."""
        body = self._templates.get_template(template).render(company=None, me=None, csrf="", path="", **context)
        return Response(status, {"Cache-Control": "no-store"}, body.encode(), HTML)

    def refuse(self, request: Request, problem: Problem) -> Response:
        """How the page shows a refusal: to the login when nobody is logged in, else a page with the reason."""
        if problem.status == 401 and request.method == "GET" and "HX-Request" not in request.headers:
            return redirect(f"/login?next={request.path}" if is_local(request.path) and request.path != "/" else "/login")
        return self.show_open("problem.html", problem.status, problem=problem)


def redirect(path: str, cookies: tuple[str, ...] = ()) -> Response:
    """Go on to another page with GET."""
    return Response(303, {"Location": path, "Cache-Control": "no-store"}, b"", HTML, cookies)


def is_local(path: str) -> bool:
    """Whether a path leads to a page of this chief and nowhere else."""
    return path.startswith("/") and not path.startswith("//") and path.isascii() and path.isprintable() and not set(path) & set("\\?#&% ")


async def read_form(call: Call) -> dict[str, str]:
    """The fields of a small form. Raises `Refused` unless it carries this session's CSRF token."""
    fields = fields_untrusted(await call.request.body(MAX_FIELD_BYTES))
    call.auth.check_csrf(call.request, fields.pop("csrf", ""))
    return fields
