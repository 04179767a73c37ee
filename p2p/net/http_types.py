"""What an HTTP handler sees and gives back, without knowing the server behind it (pure).

Handlers are trio functions ``async (Request) -> Response``; `p2p.net.http_server` adapts them to aiohttp.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Protocol

from p2p.base.record import record


class Part(Protocol):
    """One part of a multipart/form-data body; read it before asking for the next."""

    name: str
    filename: str | None

    def chunks(self) -> AsyncIterator[bytes]: ...


class Request(Protocol):
    """One request. Bodies are streamed; nothing is buffered unless `body` is called."""

    method: str
    path: str  # decoded, without query
    match: Mapping[str, str]  # named parts of the route's pattern
    query: Mapping[str, str]
    headers: Mapping[str, str]  # case-insensitive
    cookies: Mapping[str, str]
    remote: str  # peer address
    is_tls: bool
    content_length: int | None

    async def body(self, max_bytes: int) -> bytes:
        """The whole body. Raises `BodyTooLarge` as soon as more than ``max_bytes`` is announced or came."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body piece by piece, at most 1 MiB each. Raises `Unavailable` when the client goes away halfway."""

    def parts(self) -> AsyncIterator[Part]:
        """The parts of a multipart/form-data body."""


class BodyTooLarge(Exception):
    """The body is larger than the handler wants."""

    def __init__(self, limit: int, actual: int | None) -> None:
        super().__init__(f"body larger than {limit} bytes")
        self.limit = limit
        self.actual = actual


@record
class FileSlice:
    """Bytes ``start .. start+length`` of a file, sent without reading it into memory."""

    path: Path
    start: int
    length: int


@record
class Response:
    """One response. ``body``: bytes, a file slice, or pieces made while sending (SSE, NDJSON)."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FileSlice | AsyncIterator[bytes] = b""
    media_type: str = "application/json"
    cookies: tuple[str, ...] = ()  # ready Set-Cookie values


Handler = Callable[[Request], Awaitable[Response]]


@record
class Route:
    """``pattern`` in aiohttp's syntax: "/api/v1/jobs/{id}". ``meta`` is for the OpenAPI document."""

    method: str
    pattern: str
    handler: Handler
    meta: Mapping[str, Any] = field(default_factory=dict)
