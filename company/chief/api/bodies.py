"""Bodies of requests as values: JSON, form fields or multipart, all bounded (I/O: reads the request).

`curl -d '{"package": …}'` sends JSON under the media type of forms, so a body that begins with a brace is JSON whatever it is called.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from company.chief.api.problem import BadRequest
from company.chief.facade import Invalid, TooLarge
from p2p.net.http_types import Part, Request

T = TypeVar("T")

MAX_JSON_BYTES: Final = 1 << 20
MAX_FIELDS: Final = 1000
MAX_FIELD_BYTES: Final = 64 << 10


async def read_struct(request: Request, kind: type[T], raw: bytes | None = None) -> T:
    """The body as ``kind``. Raises `BadRequest` when it cannot be read, `Invalid` with a pointer when it is wrong."""
    data = await request.body(MAX_JSON_BYTES) if raw is None else raw
    if is_form(request, data):
        return convert_untrusted(params_from_fields(fields_untrusted(data)), kind, strict=False)
    return convert_untrusted(json_untrusted(data), kind, strict=True)


async def read_object(request: Request) -> dict[str, Any]:
    """The body as a map; no body is an empty map."""
    data = await request.body(MAX_JSON_BYTES)
    if not data.strip():
        return {}
    value: Any = params_from_fields(fields_untrusted(data)) if is_form(request, data) else json_untrusted(data)
    if not isinstance(value, dict):
        raise BadRequest("malformed-body", "The body must be a JSON object.")
    return value


def is_form(request: Request, data: bytes) -> bool:
    """Whether the body is form fields."""
    return request.headers.get("Content-Type", "").lower().startswith("application/x-www-form-urlencoded") and not data.lstrip().startswith(
        b"{"
    )


def json_untrusted(data: bytes) -> Any:
    """Decode JSON. Raises `BadRequest`."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest("malformed-body", f"The body is not JSON: {error}", hint="Send JSON, or form fields with -d name=value.") from None


def fields_untrusted(data: bytes) -> dict[str, str]:
    """Decode form fields; a repeated name keeps its last value. Raises `BadRequest`."""
    try:
        return dict(parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except (ValueError, UnicodeDecodeError) as error:
        raise BadRequest("malformed-body", f"The form cannot be read: {error}") from None


def params_from_fields(fields: Mapping[str, str]) -> dict[str, Any]:
    """Form fields as a body: ``params.n=5`` becomes a parameter, ``params={…}`` all of them; empty fields count as absent."""
    body: dict[str, Any] = {}
    params: dict[str, Any] = {}
    for name, value in fields.items():
        if name.startswith("params."):
            params[name.removeprefix("params.")] = _value(value)
        elif name == "params" and value.strip():
            whole = json_untrusted(value.encode())
            if not isinstance(whole, dict):
                raise Invalid("invalid-body", "params must be a JSON object.", errors=[{"path": "$.params", "detail": "not an object"}])
            params |= whole
        elif value != "":
            body[name] = value
    return body | {"params": params} if params else body


def _value(text: str) -> Any:
    """A parameter: JSON where it is JSON (5, true, [1]), else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def convert_untrusted(value: Any, kind: type[T], *, strict: bool) -> T:
    """Check a decoded value against its type. Raises `Invalid`."""
    try:
        return msgspec.convert(value, kind, strict=strict)
    except (msgspec.ValidationError, OverflowError) as error:
        text, _, path = str(error).partition(" - at `")
        where = path.rstrip("`") or "$"
        raise Invalid("invalid-body", f"{text} (at {where})", errors=[{"path": where, "detail": text}]) from None


def number(request: Request, name: str, default: int, low: int, high: int) -> int:
    """An integer of the query, clamped to ``high``. Raises `BadRequest`."""
    text = request.query.get(name)
    if text is None or text == "":
        return default
    if not text.isascii() or not text.lstrip("-").isdigit() or len(text) > 19 or int(text) < low:
        raise BadRequest("query-malformed", f"{name} must be an integer of at least {low}, got {text[:40]!r}.")
    return min(int(text), high)


def flag(request: Request, name: str) -> bool:
    """Whether a switch of the query is on: present, and not 0, false or no."""
    return request.query.get(name, "no").lower() not in ("0", "false", "no", "off")


async def small_part(part: Part, limit: int = MAX_FIELD_BYTES) -> bytes:
    """A multipart part in memory. Raises `TooLarge`."""
    pieces: list[bytes] = []
    size = 0
    async for chunk in part.chunks():
        size += len(chunk)
        if size > limit:
            raise TooLarge("field-too-large", f"Part {part.name[:60]!r} is larger than {limit} bytes.", limit=limit, actual=size)
        pieces.append(chunk)
    return b"".join(pieces)


async def one_chunk(data: bytes) -> AsyncIterator[bytes]:
    """Bytes in memory as a stream."""
    yield data


def is_multipart(request: Request) -> bool:
    """Whether the body is multipart/form-data."""
    return request.headers.get("Content-Type", "").lower().startswith("multipart/form-data")


def disposition_filename(request: Request) -> str | None:
    """The file name in Content-Disposition, or nil."""
    for piece in request.headers.get("Content-Disposition", "").split(";")[1:]:
        key, _, value = piece.strip().partition("=")
        if key.strip().lower() == "filename":
            return value.strip().strip('"')[:255] or None
    return None
