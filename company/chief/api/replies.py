"""Answers in JSON, in lists that say how much they hold, and in lines (pure)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from p2p.net.http_types import Response

_encoder = msgspec.json.Encoder(enc_hook=str)  # params and facts may hold what JSON lacks


def json_bytes(value: Any) -> bytes:
    """A view as JSON."""
    return _encoder.encode(value)


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A view as a response, never cached: it shows the state of now."""
    return Response(status, {"Cache-Control": "no-store", **(headers or {})}, json_bytes(value))


def list_reply(items: Sequence[Any], total: int | None = None, *, offset: int = 0) -> Response:
    """A list that says whether it is whole."""
    whole = len(items) + offset if total is None else total
    return json_reply({"items": items, "total": whole, "returned": len(items), "truncated": offset + len(items) < whole})


def lines_reply(values: AsyncIterator[Any]) -> Response:
    """One JSON value a line, sent as they come."""

    async def lines() -> AsyncIterator[bytes]:
        async for value in values:
            yield json_bytes(value) + b"\n"

    return Response(200, {"Cache-Control": "no-store"}, lines(), "application/x-ndjson")


def attachment(name: str) -> str:
    """A Content-Disposition that saves under ``name`` (RFC 6266), whatever characters it has."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in name)[:200] or "download"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name[:200], safe='')}"
