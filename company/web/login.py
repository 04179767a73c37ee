"""Logging in with a one-time link, and out again (I/O: through the chief).

The link opens a page with a button instead of logging in at once: programs that preview links would otherwise use it up.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from company.chief.api.bodies import MAX_FIELD_BYTES, fields_untrusted
from company.chief.api.gate import Call, Endpoint
from company.chief.facade import Refused
from company.web.pages import Pages, is_local, read_form, redirect
from p2p.net.http_types import Response

MAX_SECRET_CHARS = 4096


class LoginPages:
    """The login page."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def form(self, call: Call) -> Response:
        """Ask to go on with the link's secret, or for a link or token to paste."""
        query = call.request.query
        return self._pages.show_open(
            "login.html", secret=query.get("secret", "")[:MAX_SECRET_CHARS], next=query.get("next", ""), refused=None
        )

    async def log_in(self, call: Call) -> Response:
        """Turn a one-time secret, or a token, into a session."""
        fields = fields_untrusted(await call.request.body(MAX_FIELD_BYTES))
        given = secret_of(fields.get("secret", ""))
        wanted = fields.get("next", "")
        try:
            session = await self._session(call, given)
        except Refused as refused:
            call.auth.count_failure(call.request.remote)
            return self._pages.show_open("login.html", 403, secret="", next=wanted, refused=refused)
        cookie = call.auth.session_cookie(session, is_tls=call.request.is_tls)
        return redirect(wanted if is_local(wanted) else "/", (cookie,))

    async def _session(self, call: Call, given: str) -> str:
        try:
            session, _ = await call.chief.use_login(given)
            return session
        except Refused as refused:
            try:
                await call.chief.authenticate(given)  # an access token will do as well, and is then what the cookie holds
            except Refused:
                raise refused from None
            return given

    async def log_out(self, call: Call) -> Response:
        """End the session, here and in every copy of its cookie."""
        await read_form(call)
        await call.chief.end_session(call.auth.session(call.request))
        return redirect("/login", (call.auth.end_cookie(is_tls=call.request.is_tls),))

    def endpoints(self) -> list[Endpoint]:
        """The routes."""
        return [
            Endpoint(method="GET", pattern="/login", handler=self.form, need="open", summary="Login", is_hidden=True),
            Endpoint(method="POST", pattern="/login", handler=self.log_in, need="open", summary="Log in", is_hidden=True),
            Endpoint(
                method="POST", pattern="/logout", handler=self.log_out, need="viewer", summary="Log out", is_hidden=True, csrf="later"
            ),
        ]


def secret_of(text: str) -> str:
    """The secret in what was pasted: a whole link, or the secret or token alone."""
    text = text.strip()[:MAX_SECRET_CHARS]
    if text.startswith(("http://", "https://")):
        return parse_qs(urlsplit(text).query).get("secret", [""])[0]
    return text
