"""Templates made into responses, and forms that must come from our own pages (I/O: reads templates once)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from company.chief.api.auth import has_role
from company.chief.api.bodies import MAX_FIELD_BYTES, fields_untrusted
from company.chief.api.gate import Call, Endpoint
from company.chief.api.problem import Problem, problem_of
from company.config import format_count, format_duration, format_size, typed_duration
from company.web.headline import when_text
from company.web.shapes import bar_of, shape
from p2p.base.errors import ParallelError
from p2p.net.http_types import BodyTooLarge, Request, Response

if TYPE_CHECKING:
    from jinja2 import Environment

HTML: Final = "text/html; charset=utf-8"


def format_time(seconds: float | None) -> Markup:
    """A point in time: in UTC and saying so, which the script of the page turns into the reader's zone."""
    if not seconds:
        return Markup("–")
    at = datetime.fromtimestamp(seconds, UTC)
    return Markup('<time datetime="{}">{}</time>').format(at.strftime("%Y-%m-%dT%H:%M:%SZ"), at.strftime("%Y-%m-%d %H:%M:%S UTC"))


def format_day(seconds: float | None) -> str:
    """A day, where no markup is allowed."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d") if seconds else "–"


def format_number(number: int, one: str, many: str | None = None) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{format_count(number)} {one if number == 1 else many or one + 's'}"


class Pages:
    """The templates of one chief's page. ``address_of``: the address of a static file."""

    def __init__(self, address_of: Callable[[str], str]) -> None:
        self._address_of = address_of

    @cached_property
    def _templates(self) -> Environment:
        """Made for the first page that is shown: jinja2's imports would be a twentieth of a chief's start."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        # autoescape for every template: names, logs and tracebacks are other people's text
        templates = Environment(
            loader=PackageLoader("company.web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        templates.filters |= {
            "size": format_size,
            "duration": format_duration,
            "typed_duration": typed_duration,
            "count": format_count,
            "when": format_time,
            "day": format_day,
            "number": format_number,
        }
        templates.globals |= {"may": has_role, "shape": shape, "bar_of": bar_of, "when_text": when_text, "static": self._address_of}
        return templates

    def show(self, call: Call, template: str, status: int = 200, **context: Any) -> Response:
        """A page for somebody who is logged in."""
        company = call.chief.company()
        body = self._templates.get_template(template).render(
            company=company, me=call.by, csrf=call.auth.csrf_token(call.request), path=call.request.path, **context
        )
        return Response(status, {"Cache-Control": "no-store"}, body.encode(), HTML)

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """The same page, whose refusals keep the navigation; those of the door itself know no user and look like `refuse`."""

        async def handle(call: Call) -> Response:
            try:
                return await endpoint.handler(call)
            except (ParallelError, BodyTooLarge) as error:
                problem = problem_of(error, call.request.path)
                return self.show(call, "problem.html", problem.status, problem=problem)

        return endpoint if endpoint.need == "open" else replace(endpoint, handler=handle)

    def show_open(self, template: str, status: int = 200, **context: Any) -> Response:
        """A page for anybody: it says nothing about the company."""
        body = self._templates.get_template(template).render(company=None, me=None, csrf="", path="", **context)
        return Response(status, {"Cache-Control": "no-store"}, body.encode(), HTML)

    def refuse(self, request: Request, problem: Problem) -> Response:
        """How the page shows a refusal: to the login when nobody is logged in, else a page with the reason."""
        if problem.status == 401 and request.method == "GET" and "HX-Request" not in request.headers:
            return redirect(_login_for(request.path))
        if problem.status == 401 and "HX-Request" in request.headers:  # an open page whose session has ended
            return Response(401, {"HX-Redirect": "/login", "Cache-Control": "no-store"}, b"", HTML)
        return self.show_open("problem.html", problem.status, problem=problem)


def _login_for(path: str) -> str:
    return f"/login?next={path}" if is_local(path) and path != "/" else "/login"


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
