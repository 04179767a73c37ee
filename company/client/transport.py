"""HTTP to one chief on the standard library alone (I/O).

One kept connection for short calls, a fresh one per stream. No redirects. With a fingerprint, the certificate is compared before a
byte is sent. A problem+json answer becomes the exception of `company.errors`; trouble on the way becomes `ChiefUnreachable`.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import select
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

from company.client.address import ChiefAddress
from company.errors import ChiefUnreachable, ConfigurationError, IntegrityError, error_of_problem
from p2p.base.record import record

MAX_ANSWER_BYTES = 256 << 20  # what a call may put into memory; files are streamed
MAX_LINE_BYTES = 64 << 20
TIMEOUT_S = 30.0
Body = bytes | Iterable[bytes | memoryview] | None
_LOST = (ConnectionError, http.client.RemoteDisconnected, http.client.CannotSendRequest, http.client.BadStatusLine)


@record
class Answer:
    """A complete answer of a chief: status below 400."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises `IntegrityError` when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            text = f"the chief's answer is not JSON: {self.body[:80]!r}"
            raise IntegrityError("not-json", text, hint="is this address a chief?") from None


class _PinnedConnection(http.client.HTTPSConnection):
    """TLS to exactly the certificate that was promised."""

    def __init__(self, host: str, port: int, *, timeout: float, fingerprint: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the comparison in connect() is the check
        super().__init__(host, port, timeout=timeout, context=context)
        self._fingerprint = fingerprint

    def connect(self) -> None:
        super().connect()
        assert isinstance(self.sock, ssl.SSLSocket)
        found = hashlib.sha256(self.sock.getpeercert(binary_form=True) or b"").hexdigest()
        if found != self._fingerprint:
            self.close()
            raise IntegrityError(
                "wrong-certificate",
                f"{self.host}:{self.port} shows another certificate than expected",
                hint="somebody may stand between; compare fingerprints on the chief with `company status`",
                expected=self._fingerprint,
                found=found,
            )


class Transport:
    """Requests to one chief. Each thread that asks has a connection of its own: executors of one client open jobs in their own threads."""

    def __init__(self, address: ChiefAddress, *, timeout_s: float = TIMEOUT_S) -> None:
        self.address = address
        self._timeout_s = timeout_s
        # By thread. Not `threading.local`: at the interpreter's end that closes what a daemon thread reads from, and Python aborts.
        self._of: dict[int, http.client.HTTPConnection] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the kept connections, those of other threads too."""
        with self._lock:
            found = list(self._of.values())
            self._of.clear()
        for connection in found:
            connection.close()

    @property
    def _kept(self) -> http.client.HTTPConnection | None:
        return self._of.get(threading.get_ident())

    @_kept.setter
    def _kept(self, connection: http.client.HTTPConnection) -> None:
        gone: list[http.client.HTTPConnection] = []
        with self._lock:
            if threading.get_ident() not in self._of:  # a thread that is new here: those of threads that are over go
                alive = {thread.ident for thread in threading.enumerate()}
                gone = [self._of.pop(ident) for ident in list(self._of) if ident not in alive]
            self._of[threading.get_ident()] = connection
        for old in gone:
            old.close()

    def _drop(self) -> None:
        """Close the connection of this thread."""
        with self._lock:
            connection = self._of.pop(threading.get_ident(), None)
        if connection is not None:
            connection.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Send one request and read the whole answer. Raises `CompanyError` subclasses for status >= 300."""
        sent = self._headers(headers)
        repeatable = body is None or isinstance(body, bytes)
        safe_again = repeatable and (method in ("GET", "HEAD", "DELETE") or "Idempotency-Key" in sent)
        reused = self._kept is not None
        try:
            return self._once(method, _target(path, query), body, sent, timeout_s)
        except _LOST as error:
            self._drop()
            if not (reused and safe_again):
                raise self._unreachable(error) from None
        except OSError as error:
            self._drop()
            raise self._unreachable(error) from None
        try:  # the kept connection had gone stale, and asking twice does no harm
            return self._once(method, _target(path, query), body, sent, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise self._unreachable(error) from None

    def json(self, method: str, path: str, value: Any = None, **options: Any) -> Any:
        """Send a request with a JSON body (or none) and return the answer's JSON; nil for an empty answer."""
        headers = dict(options.pop("headers", None) or {})
        body = None
        if value is not None:
            body = json.dumps(value).encode()
            headers["Content-Type"] = "application/json"
        answer = self.request(method, path, body=body, headers=headers, **options)
        return answer.json() if answer.body else None

    @contextmanager
    def stream(
        self, path: str, *, query: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """GET on a connection of its own, for bodies that are read piece by piece."""
        connection = self._connect(self._timeout_s if timeout_s is None else timeout_s)
        try:
            connection.request("GET", _target(path, query), headers=self._headers(headers))
            response = connection.getresponse()
            _raise_for(response.status, response.headers, b"" if response.status < 300 else response.read(1 << 20))
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        finally:
            connection.close()

    @contextmanager
    def reading(
        self, path: str, *, query: Mapping[str, Any] | None = None, timeout_s: float | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """GET on the kept connection, read piece by piece; read it to its end, or the connection is closed."""
        if self._kept is not None and _is_stale(self._kept):
            self._drop()
        connection = self._kept or self._connect(self._timeout_s)
        self._kept = connection
        try:
            if connection.sock is not None:
                connection.sock.settimeout(timeout_s)
            connection.timeout = timeout_s
            connection.request("GET", _target(path, query), headers=self._headers(None))
            response = connection.getresponse()
            _raise_for(response.status, response.headers, b"" if response.status < 300 else response.read(1 << 20))
            yield response
            if not response.isclosed() or response.will_close:
                self._drop()
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise self._unreachable(error) from None
        except BaseException:
            self._drop()
            raise

    def lines(self, path: str, *, query: Mapping[str, Any] | None = None, timeout_s: float | None = None) -> Iterator[Any]:
        """GET a stream of JSON lines, each as it comes."""
        with self.stream(path, query=query, timeout_s=timeout_s) as response:
            while line := response.readline(MAX_LINE_BYTES + 1):
                if len(line) > MAX_LINE_BYTES:
                    raise IntegrityError("line-too-long", f"the chief sent a line of more than {MAX_LINE_BYTES} bytes")
                if line.strip():
                    yield json.loads(line)

    def _headers(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        headers = {"Accept": "application/json, application/problem+json, */*;q=0.5", "User-Agent": "company-client/1"}
        if self.address.token:
            headers["Authorization"] = f"Bearer {self.address.token}"
        return headers | dict(extra or {})

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        address = self.address
        if not address.tls:
            return http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)
        if address.fingerprint:
            return _PinnedConnection(address.host, address.port, timeout=timeout_s, fingerprint=address.fingerprint)
        return http.client.HTTPSConnection(address.host, address.port, timeout=timeout_s)

    def _once(self, method: str, target: str, body: Body, headers: dict[str, str], timeout_s: float | None) -> Answer:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        if self._kept is not None and _is_stale(self._kept):
            self._drop()
        connection = self._kept or self._connect(timeout_s)
        self._kept = connection
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        try:
            try:
                connection.request(method, target, body=body, headers=headers)
            except (BrokenPipeError, ConnectionResetError):
                # A chief that refuses a long body answers early and closes; its reason is still there to be read.
                if body is None or isinstance(body, bytes):
                    raise
            response = connection.getresponse()
            content = response.read(MAX_ANSWER_BYTES + 1)
            if len(content) > MAX_ANSWER_BYTES:
                raise IntegrityError("answer-too-long", f"the chief answered more than {MAX_ANSWER_BYTES} bytes")
        except BaseException:
            self._drop()  # half a request or half an answer: this connection is of no more use
            raise
        if response.will_close:
            self._drop()
        _raise_for(response.status, response.headers, content)
        return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, content)

    def _unreachable(self, error: BaseException) -> ChiefUnreachable:
        url = self.address.url
        if isinstance(error, ConnectionRefusedError):
            code, text, hint = "chief-unreachable", f"nobody answers at {url}", "is the chief running? `company start` starts one"
        elif isinstance(error, ssl.SSLError):
            code, text, hint = "tls-failed", f"no TLS with {url}: {error}", "pin its certificate: --url https://HOST:PORT#sha256:HEX"
        elif isinstance(error, socket.gaierror):
            code, text, hint = "no-such-host", f"the name {self.address.host!r} cannot be resolved", "check the address"
        elif isinstance(error, TimeoutError):
            code, text, hint = "chief-timeout", f"{url} does not answer in time", "is it busy or stopped? `company status`"
        else:
            code, text, hint = "connection-lost", f"the connection to {url} was lost: {error or type(error).__name__}", "try again"
        return ChiefUnreachable(code, text, hint=hint, url=url)


def _is_stale(connection: http.client.HTTPConnection) -> bool:
    """Whether a kept connection has something to read before anything was asked: that is its end. No POST may be sent twice to find out."""
    if connection.sock is None:
        return False
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def path_of(*parts: str | int) -> str:
    """An API path from its parts, each quoted; a job/fragment reference keeps no slash of its own."""
    return "/api/v1/" + "/".join(quote(str(part), safe="") for part in parts)


def _target(path: str, query: Mapping[str, Any] | None) -> str:
    pairs = {k: v for k, v in (query or {}).items() if v is not None}
    return f"{path}?{urlencode(pairs)}" if pairs else path


def _raise_for(status: int, headers: Any, content: bytes) -> None:
    if status < 300:
        return
    if status < 400 and status != 304:
        raise ConfigurationError(
            "redirected",
            f"the chief's address redirects to {str(headers.get('Location'))[:200]!r}; redirects are not followed",
            hint="give the address it names",
        )
    try:
        problem = json.loads(content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": content[:300].decode("utf-8", "replace").strip()}
    error = error_of_problem(status, problem)
    retry_after = headers.get("Retry-After")
    if retry_after:
        error.facts["retry_after"] = retry_after
    raise error
