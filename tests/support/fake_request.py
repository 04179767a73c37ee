"""A request made in memory, a caller of routes, and the reading of answers: HTTP tests without a server (I/O: reads file slices)."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from multidict import CIMultiDict

from p2p.net.http_types import BodyTooLarge, FileSlice, Part, Response, Route

PIECE_BYTES = 7  # bodies come in small pieces, so that nothing relies on one chunk
_NAMED = re.compile(r"\{(\w+)(?::([^{}]*))?\}")


@dataclass
class FakePart:
    """One part of a form."""

    name: str
    filename: str | None
    data: bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self.data), PIECE_BYTES):
            yield self.data[at : at + PIECE_BYTES]


@dataclass
class FakeRequest:
    """Fulfils `p2p.net.http_types.Request`."""

    method: str
    path: str
    match: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    remote: str = "127.0.0.1"
    is_tls: bool = False
    content_length: int | None = None
    data: bytes = b""
    form: tuple[FakePart, ...] = ()

    async def body(self, max_bytes: int) -> bytes:
        if len(self.data) > max_bytes:
            raise BodyTooLarge(max_bytes, len(self.data))
        return self.data

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self.data), PIECE_BYTES):
            yield self.data[at : at + PIECE_BYTES]

    async def parts(self) -> AsyncIterator[Part]:
        for part in self.form:
            yield part


@dataclass
class Answer:
    """A response, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    media_type: str
    cookies: tuple[str, ...]

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code."""
        return str(self.json()["code"])

    @property
    def text(self) -> str:
        return self.body.decode()


async def read(response: Response) -> Answer:
    """Read a response as a client would."""
    body = response.body
    if isinstance(body, FileSlice):
        with body.path.open("rb") as file:
            file.seek(body.start)
            data = file.read(body.length)
    elif isinstance(body, bytes):
        data = body
    else:
        data = b"".join([piece async for piece in body])
    return Answer(response.status, CIMultiDict(response.headers), data, response.media_type, response.cookies)


class FakeServer:
    """Finds the route of a request as aiohttp does, calls it, reads the answer."""

    def __init__(self, routes: list[Route], headers: Mapping[str, str] | None = None) -> None:
        self._routes = [(r, re.compile(_pattern(r.pattern))) for r in routes]
        self._headers = {"Host": "127.0.0.1:8470", **(headers or {})}

    async def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes = b"",
        form: tuple[FakePart, ...] = (),
        cookies: Mapping[str, str] | None = None,
        remote: str = "127.0.0.1",
        is_tls: bool = False,
    ) -> Response:
        """Call the route; the body is not read yet."""
        parts = urlsplit(url)
        path = unquote(parts.path)
        sent: CIMultiDict[str] = CIMultiDict(self._headers)
        sent.update(headers or {})
        if form:
            sent["Content-Type"] = "multipart/form-data; boundary=x"
        for route, pattern in self._routes:
            match = pattern.fullmatch(path)
            if match and method in (("GET", "HEAD") if route.method == "GET" else (route.method,)):  # as the real server does
                query = dict(parse_qsl(parts.query, keep_blank_values=True))
                length = None if form else int(sent.get("Content-Length", len(data)))
                request = FakeRequest(method, path, match.groupdict(), query, sent, cookies or {}, remote, is_tls, length, data, form)
                return await route.handler(request)
        raise LookupError(f"no route for {method} {path}")

    async def call(self, method: str, url: str, **rest: Any) -> Answer:
        """Call the route and read the answer to its end."""
        response = await self.open(method, url, **rest)
        return await read(replace(response, body=b"") if method == "HEAD" else response)


def _pattern(pattern: str) -> str:
    """An aiohttp pattern as a regular expression."""
    pieces, at = "", 0
    for match in _NAMED.finditer(pattern):
        pieces += re.escape(pattern[at : match.start()]) + f"(?P<{match.group(1)}>{match.group(2) or '[^{}/]+'})"
        at = match.end()
    return pieces + re.escape(pattern[at:])
