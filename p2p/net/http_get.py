"""Answers one plain ``GET`` on the RPC port, for a machine that has nothing but Python (I/O).

It serves the install script and the wheels, nothing else: one request per connection, 8 KiB of request, every wait has a deadline.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

import trio

from p2p.base.errors import MalformedMessage
from p2p.net.channel import ExactReader
from p2p.net.stream import FrameStream

MAX_REQUEST_BYTES = 8 << 10
PIECE_BYTES = 256 << 10
PIECE_DEADLINE_S = 20.0  # 13 kB/s at least
_log = logging.getLogger("parallel.rpc")


def is_http(first: bytes | bytearray) -> bool:
    """Whether a connection's first bytes ask by HTTP; as the length of a frame's header they would be half a gigabyte."""
    return bytes(first[:4]) in (b"GET ", b"HEAD")


async def answer(reader: ExactReader, get: Callable[[str], Awaitable[tuple[int, str, bytes]]], *, handshake_s: float) -> None:
    """Read one request, answer it from ``get`` (path -> status, media type, body), and close."""
    stream = reader.stream
    is_head = False
    try:
        with trio.fail_after(handshake_s):
            method, path = await _read_request_untrusted(reader)
        is_head = method == "HEAD"
        status, media_type, body = await get(path)
    except (MalformedMessage, trio.TooSlowError) as error:
        status, media_type, body = 400, "text/plain; charset=utf-8", f"{error or 'too slow'}\n".encode()
    except Exception:  # noqa: BLE001 - the boundary between one request and the server
        _log.exception("answering a plain GET failed")
        status, media_type, body = 500, "text/plain; charset=utf-8", b"internal error\n"
    await _send(stream, status, media_type, body, is_head=is_head)
    await stream.aclose()


async def _read_request_untrusted(reader: ExactReader) -> tuple[str, str]:
    """(method, decoded path without query). Raises only `MalformedMessage`."""
    end = -1
    while (end := reader.buffer.find(b"\r\n\r\n")) < 0:
        if len(reader.buffer) > MAX_REQUEST_BYTES:
            raise MalformedMessage(f"the request is larger than {MAX_REQUEST_BYTES} bytes")
        if not await reader.read_at_least(len(reader.buffer) + 1):
            raise MalformedMessage("the request was cut off")
    words = bytes(reader.buffer[:end]).split(b"\r\n", 1)[0].split(b" ")
    if end > MAX_REQUEST_BYTES or len(words) != 3 or words[0] not in (b"GET", b"HEAD") or not words[2].startswith(b"HTTP/1."):
        raise MalformedMessage("only GET and HEAD by HTTP/1.1 are answered here")
    try:
        path = unquote_to_bytes(words[1].split(b"?", 1)[0]).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedMessage("the path is not UTF-8") from None
    if not path.startswith("/") or "\0" in path or "\\" in path or ".." in path.split("/"):
        raise MalformedMessage("the path is not allowed")
    return words[0].decode("ascii"), path


async def _send(stream: FrameStream, status: int, media_type: str, body: bytes, *, is_head: bool) -> None:
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Status"
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\r\n"
    ).encode("latin-1", "replace")
    view = memoryview(b"" if is_head else body)
    with trio.fail_after(PIECE_DEADLINE_S):
        await stream.send_all([head, view[:PIECE_BYTES]])
    for at in range(PIECE_BYTES, len(view), PIECE_BYTES):
        with trio.fail_after(PIECE_DEADLINE_S):
            await stream.send_all(view[at : at + PIECE_BYTES])
