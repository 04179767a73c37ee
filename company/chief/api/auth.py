"""Who may call what: bearer token or cookie session, roles, Host and Origin, CSRF (I/O only through the chief).

A page of a stranger that the owner's browser has open must not be able to drive a chief on loopback. Four fences: the Host header must
name this chief (DNS rebinding), a changing request's Origin must be this chief, the cookie is SameSite=Strict, and a cookie alone
changes nothing without the CSRF token, which is a keyed hash of the session and so needs no table.
Tokens have 128 bits or more, so guessing is hopeless; the failure limit saves work and noise, and never refuses a right token.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

from company import views
from company.chief.api.problem import BadRequest, Misdirected, Throttled, Unauthorized
from company.chief.api.throttle import FailureLimit
from company.chief.facade import Principal, Refused
from p2p.base.clock import Monotonic
from p2p.net.http_types import Request

Need = Literal["open", "worker", "viewer", "submitter", "operator", "owner"]
Csrf = Literal["header", "later"]  # "later": a form handler checks the field itself, before it acts

RANK: Final[dict[str, int]] = {"viewer": 1, "submitter": 2, "operator": 3, "owner": 4}
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "::1")
ANONYMOUS: Final = Principal("", "viewer", "")
SESSION_S: Final = 7 * 86400
MAX_TOKEN_CHARS: Final = 4096


class _Authenticates(Protocol):
    def authenticate(self, token: str) -> Awaitable[Principal]: ...


class Auth:
    """The fences of one chief.

    ``hosts``: names and addresses, without port, that Host may carry (an SSH tunnel changes the port, never the name).
    ``origins``: further origins, as scheme://host[:port]. ``csrf_key``: 32 random bytes, best kept across restarts.
    ``cookie_id``: tells chiefs on one host apart, since cookies know no ports.
    """

    def __init__(
        self,
        chief: _Authenticates,
        *,
        monotonic: Callable[[], Monotonic],
        csrf_key: bytes,
        hosts: Iterable[str] = LOOPBACK_HOSTS,
        origins: Iterable[str] = (),
        cookie_id: str = "",
        on_failure: Callable[[str], None] = lambda kind: None,
    ) -> None:
        self._chief = chief
        self.monotonic = monotonic
        self._csrf_key = csrf_key
        self._hosts = frozenset(_bare_host(h) for h in hosts)
        self._origins = frozenset(o.rstrip("/").lower() for o in origins)
        self._cookie = f"company_session_{cookie_id[:12]}" if cookie_id else "company_session"
        self._limit = FailureLimit()
        self.on_failure = on_failure

    # -- the fences, in the order in which a request meets them

    def check_host(self, request: Request) -> None:
        """Raises `Misdirected` unless the Host header names this chief."""
        host = _bare_host(request.headers.get("Host", ""))
        if host not in self._hosts:
            self.on_failure("host")
            raise Misdirected(
                "host-not-allowed",
                f"This chief does not answer to the name {host[:100]!r}.",
                hint=f"Open it under one of {', '.join(sorted(self._hosts))}, "
                f"or start it with: company start --allow-host {host[:100] or 'NAME'}",
            )

    def check_origin(self, request: Request) -> None:
        """Raises `Refused` for a changing request that a page of another site sent."""
        if request.method in SAFE_METHODS:
            return
        origin = request.headers.get("Origin", "").rstrip("/").lower()
        if origin and origin not in self._origins and urlsplit(origin).netloc != request.headers.get("Host", "").lower():
            self.on_failure("origin")
            raise Refused(
                "origin-not-allowed",
                f"A page of {origin[:200]} may not change anything here.",
                hint=f"If that page is yours, start the chief with: company start --allow-origin {origin[:200]}",
            )
        if not origin and request.headers.get("Sec-Fetch-Site") == "cross-site":
            self.on_failure("origin")
            raise Refused(
                "origin-not-allowed",
                "A page of another site may not change anything here.",
                hint="Start the chief with: company start --allow-origin ORIGIN",
            )

    async def admit(self, request: Request, need: Need, *, csrf: Csrf = "header") -> Principal:
        """Return who asks, if they may. Raises `Unauthorized`, `Throttled` or `Refused`."""
        self.check_origin(request)
        if need == "open":
            return ANONYMOUS
        token, from_cookie = self._credentials(request)
        if not token:
            raise Unauthorized(
                "token-missing",
                "This needs a token.",
                hint="Send 'Authorization: Bearer TOKEN' (company token create), or open the link of: company open",
            )
        principal = await self._authenticate(token, request.remote)
        if from_cookie and csrf == "header" and request.method not in SAFE_METHODS:
            self.check_csrf(request, request.headers.get("X-CSRF-Token", ""))
        _check_role(principal.role, need)
        return principal

    async def _authenticate(self, token: str, remote: str) -> Principal:
        if len(token) > MAX_TOKEN_CHARS:
            raise Unauthorized("token-malformed", f"A token has at most {MAX_TOKEN_CHARS} characters.")
        try:
            return await self._chief.authenticate(token)
        except Refused as refused:
            self.count_failure(remote)
            raise Unauthorized(refused.code, refused.text, hint=refused.hint, **refused.facts) from None

    def count_failure(self, remote: str) -> None:
        """Count a failed login. Raises `Throttled` when the address has had too many."""
        now = self.monotonic()
        self.on_failure("token")
        if self._limit.is_over(remote, now):
            wait_s = self._limit.retry_after_s(remote, now)
            raise Throttled("too-many-failed-logins", f"Too many failed logins from {remote}; wait {wait_s:.0f} s.", retry_after_s=wait_s)
        self._limit.failed(remote, now)

    # -- the cookie session and its CSRF token

    def _credentials(self, request: Request) -> tuple[str, bool]:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return token.strip(), False
        if scheme:
            raise Unauthorized("auth-scheme-unknown", f"Authorization scheme {scheme[:20]!r} is not known; use Bearer.")
        return self.session(request), True

    def session(self, request: Request) -> str:
        """The session token in the cookie, or the empty text."""
        return request.cookies.get(self._cookie_name(request.is_tls), "")

    def csrf_token(self, request: Request) -> str:
        """What forms of this session must send back."""
        return hmac.new(self._csrf_key, self.session(request).encode(), hashlib.sha256).hexdigest()

    def check_csrf(self, request: Request, given: str) -> None:
        """Raises `Refused` unless ``given`` is this session's token."""
        if not hmac.compare_digest(self.csrf_token(request).encode(), given.encode()):
            self.on_failure("csrf")
            raise Refused(
                "csrf-token-wrong",
                "The form is too old or came from another page.",
                hint="Load the page again and send the form once more.",
            )

    def session_cookie(self, token: str, *, is_tls: bool) -> str:
        """The Set-Cookie value that begins a session."""
        return self._set_cookie(token, SESSION_S, is_tls)

    def end_cookie(self, *, is_tls: bool) -> str:
        """The Set-Cookie value that ends a session."""
        return self._set_cookie("", 0, is_tls)

    def _set_cookie(self, value: str, age_s: int, is_tls: bool) -> str:
        secure = "; Secure" if is_tls else ""  # browsers drop Secure cookies on plain http, which loopback is
        return f"{self._cookie_name(is_tls)}={value}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}"

    def _cookie_name(self, is_tls: bool) -> str:
        return f"__Host-{self._cookie}" if is_tls else self._cookie


def has_role(role: views.Role, need: Need) -> bool:
    """Whether ``role`` is enough. A worker's token opens the workers' calls and nothing else, and nobody else's opens those."""
    if need == "open":
        return True
    if role == "worker" or need == "worker":
        return role == need
    return RANK[role] >= RANK[need]


def _check_role(role: views.Role, need: Need) -> None:
    if not has_role(role, need):
        raise Refused(
            "role-missing",
            f"This needs the role {need}; the token has {role}.",
            hint=f"company token create --role {need}",
            need=need,
            role=role,
        )


def _bare_host(host: str) -> str:
    """A Host value without its port, in lower case; an IPv6 address without brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0].rstrip(".")


def require(condition: object, code: str, text: str, *, hint: str = "") -> None:
    """Raises `BadRequest` when a condition on the request does not hold."""
    if not condition:
        raise BadRequest(code, text, hint=hint)
