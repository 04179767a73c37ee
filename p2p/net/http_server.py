"""Serves trio handlers over HTTP with aiohttp (I/O; one of the few modules that know asyncio).

Bodies are streamed both ways and nothing is buffered for a handler that does not ask; aiohttp's ``client_max_size`` of 1 MiB and its
`FileResponse`, which answers a stale If-Range wrongly, are never met. Uploads are gathered into pieces of 1 MiB on the asyncio side,
because each crossing between the two loops costs what a hundred kilobytes cost. A GET, and any streamed answer, is cancelled
when the client leaves; other requests run to their end, and see the loss in their body.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Never

import trio
from multidict import CIMultiDict
from trio_asyncio import aio_as_trio, trio_as_aio

from p2p.base.errors import MalformedMessage, ParallelError, Reason, Unavailable
from p2p.net.addresses import join_address
from p2p.net.asyncio_bridge import open_bridge
from p2p.net.endings import ENDINGS, Endings
from p2p.net.http_door import Door
from p2p.net.http_types import BodyTooLarge, FileSlice, Part, Request, Response, Route
from p2p.net.lean_aiohttp import aiohttp, web
from p2p.net.problem import problem, problem_of

PIECE_BYTES = 1 << 20
GATHER_S = 0.25  # how long a piece that has begun may wait to become larger
BODY_IDLE_S = 60.0  # a body that brings nothing for so long is given up
WRITE_DEADLINE_S = 60.0  # a client that takes no piece for so long is given up
HEADER_DEADLINE_S = 20.0  # for a request's headers, and for the next request of a kept connection
TLS_DEADLINE_S = 10.0
LINGER_S = 5.0  # read on after a refusal, so that the client gets to see it
SHUTDOWN_S = 1.0
SMALL_BODY_BYTES = 60 << 10  # below aiohttp's 64 KiB: written without ever waiting for the client
SERVER_NAME = "company"
Before = Callable[[Request], Awaitable[Response | None]]
_log = logging.getLogger("parallel.http")
_LOST = (OSError, aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, web.PayloadAccessError)


async def serve_http(
    routes: Iterable[Route],
    *,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None = None,
    max_header_bytes: int = 16 << 10,
    before: Before | None = None,
    endings: Endings = ENDINGS,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> Never:
    """Serve until cancelled. ``before`` sees every request first, and may answer it. Reports the bound address as ``host:port``.

    HEAD is answered by the GET handler. Raises: `Unavailable` "port-taken".
    """
    async with open_bridge() as loop:
        site = _Site(routes, before, loop)
        server = Door(
            site.handle, endings, header_deadline_s=HEADER_DEADLINE_S, request_factory=site.make_exchange, loop=loop, access_log=None,
            lingering_time=LINGER_S, read_bufsize=PIECE_BYTES, max_line_size=8190, max_field_size=max_header_bytes,
        )  # fmt: skip
        try:
            listen = partial(loop.create_server, server, host, port, backlog=512)
            if ssl_context is not None:
                listen = partial(listen, ssl=ssl_context, ssl_handshake_timeout=TLS_DEADLINE_S, ssl_shutdown_timeout=1.0)
            listener = await aio_as_trio(listen)()
        except OSError as error:
            where = join_address(host, port)
            raise Unavailable("port-taken", f"cannot listen on {where}: {error.strerror or error}", port=port) from error
        try:
            bound = listener.sockets[0].getsockname()
            task_status.started(join_address(bound[0], bound[1]))
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(SHUTDOWN_S + 2, shield=True):
                listener.close()
                site.cancel_streams()
                server.pre_shutdown()
                await aio_as_trio(server.shutdown)(SHUTDOWN_S)
    raise AssertionError("unreachable")


class _Exchange(web.BaseRequest):
    """One request and its answer. Knows when the client left, which aiohttp tells nobody."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.scope: trio.CancelScope | None = None  # cancelled when the client leaves
        self.is_gone = False
        self._rest = b""  # what had come when the client left; aiohttp forgets it

    def __hash__(self) -> int:
        return id(self)

    def _cancel(self, exc: BaseException) -> None:
        try:
            self._rest = self.content.read_nowait()
        except (RuntimeError, *_LOST):  # somebody waits for more, so there is nothing
            self._rest = b""
        super()._cancel(exc)
        self.is_gone = True
        if self.scope is not None:
            self.scope.cancel()

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers["Server"] = SERVER_NAME  # here, because aiohttp's own refusals pass it too

    async def read_body(self, count: int) -> bytes:
        """At most ``count`` bytes of the body, b"" at its end (asyncio side)."""
        try:
            return await self.content.read(count)
        except _LOST:
            piece, self._rest = self._rest[:count], self._rest[count:]
            if not piece:
                raise
            return piece

    def abort(self) -> web.StreamResponse:
        """Cut the connection, so that the client sees that its answer is not whole. Returns what aiohttp wants, and nobody gets."""
        if self.transport is not None:
            self.transport.abort()
        return web.Response(status=499)  # an exception would be logged as our fault


class _Site:
    """Routes, and the way of one request through them."""

    def __init__(self, routes: Iterable[Route], before: Before | None, loop: asyncio.AbstractEventLoop) -> None:
        self._before = before
        self._loop = loop
        self._router = web.UrlDispatcher()
        self._by_handler: dict[Any, Route] = {}
        self._active: set[_Exchange] = set()
        for route in routes:

            async def placeholder(_request: web.Request) -> web.StreamResponse:  # aiohttp insists on a handler; ours is called by us
                raise AssertionError

            self._by_handler[placeholder] = route
            for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
                self._router.add_route(method, route.pattern, placeholder)

    def make_exchange(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> _Exchange:
        """Build what one request is handled as; called by aiohttp."""
        return _Exchange(message, payload, protocol, writer, task, self._loop)

    def cancel_streams(self) -> None:
        """End all answers that are cancelled when their client leaves; they would not end by themselves."""
        for exchange in self._active:
            if exchange.scope is not None:
                exchange.scope.cancel()

    async def handle(self, exchange: web.BaseRequest) -> web.StreamResponse:
        """Answer one request (asyncio side)."""
        assert isinstance(exchange, _Exchange)
        self._active.add(exchange)
        try:
            answer = await trio_as_aio(self._run)(exchange)
            if answer is None:
                return exchange.abort()
            return answer if isinstance(answer, web.StreamResponse) else await _send_whole(exchange, answer)
        finally:
            self._active.discard(exchange)

    async def _run(self, exchange: _Exchange) -> Response | web.StreamResponse | None:
        """Decide the answer, and send it if it is made while sending (trio side). None when the client left."""
        with trio.CancelScope() as scope:
            if exchange.method in ("GET", "HEAD"):
                exchange.scope = scope
            response = await self._decide(exchange)
            if isinstance(response.body, (bytes, FileSlice)):
                return response
            exchange.scope = scope
            if exchange.is_gone:
                scope.cancel()
            return await _send_pieces(exchange, response, response.body)
        return None

    async def _decide(self, exchange: _Exchange) -> Response:
        try:
            found = await aio_as_trio(self._router.resolve)(exchange)
            request = _AioRequest(exchange, dict(found))
            if self._before is not None and (early := await self._before(request)) is not None:
                return early
            refusal = found.http_exception
            if refusal is None:
                return await self._by_handler[found.handler].handler(request)
            if isinstance(refusal, web.HTTPMethodNotAllowed):
                allowed = sorted(refusal.allowed_methods)
                text = f"{request.path} does not take {request.method}; it takes {', '.join(allowed)}"
                reason = Reason("method-not-allowed", text, {"allowed": allowed})
                return problem(405, reason, {"Allow": ", ".join(allowed)}, instance=request.path[:200])
            return problem(404, Reason("not-found", f"there is nothing at {request.path[:200]}"), instance=request.path[:200])
        except Exception as error:  # noqa: BLE001 - the boundary between one request and all others
            known = problem_of(error, exchange.path[:200])
            if known is not None:
                return known
            _log.exception("%s %s failed", exchange.method, exchange.path)
            code = error.code if isinstance(error, ParallelError) else "internal-error"
            return problem(500, Reason(code, "something is wrong inside; the log has the details"), instance=exchange.path[:200])


# ---- the request ----------------------------------------------------------------------------------------------------------------
class _AioRequest:
    """`p2p.net.http_types.Request` over aiohttp."""

    def __init__(self, exchange: _Exchange, match: Mapping[str, str]) -> None:
        self._exchange = exchange
        self._gather = _Gatherer()
        self._is_continued = False
        self.match = match
        self.method = exchange.method
        self.path = exchange.path
        self.query: Mapping[str, str] = exchange.query
        self.headers: Mapping[str, str] = exchange.headers
        self.cookies: Mapping[str, str] = exchange.cookies
        self.remote = exchange.remote or ""
        self.is_tls = exchange.secure
        self.content_length = exchange.content_length

    async def body(self, max_bytes: int) -> bytes:
        """The whole body, at most ``max_bytes``."""
        if self.content_length is not None and self.content_length > max_bytes:
            raise BodyTooLarge(max_bytes, self.content_length)
        pieces: list[bytes] = []
        size = 0
        async for piece in self.chunks():
            size += len(piece)
            if size > max_bytes:
                raise BodyTooLarge(max_bytes, None)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces of at most 1 MiB."""
        await self._continue()
        gather = aio_as_trio(self._gather.piece)
        while self._exchange.body_exists and (piece := await gather(self._exchange.read_body)):
            yield piece

    async def parts(self) -> AsyncIterator[Part]:
        """The parts of a multipart/form-data body."""
        if not self.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
            raise MalformedMessage("this body is not multipart/form-data")
        await self._continue()
        try:
            reader = await aio_as_trio(self._exchange.multipart)()
            while (part := await aio_as_trio(self._gather.next_part)(reader)) is not None:
                yield _AioPart(part, self._gather)
        except (ValueError, LookupError) as error:
            raise MalformedMessage(f"multipart body cannot be read: {error}") from None

    async def _continue(self) -> None:
        """Ask for the body if the client waits to be asked; a refusal before this saves the upload."""
        if self._is_continued or self.headers.get("Expect", "").lower() != "100-continue":
            return
        self._is_continued = True

        async def write() -> None:
            await self._exchange.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._exchange.writer.output_size = 0

        await aio_as_trio(write)()


class _AioPart:
    def __init__(self, part: aiohttp.BodyPartReader, gatherer: _Gatherer) -> None:
        self._part = part
        self._gather = gatherer
        self.name = part.name or ""
        self.filename = part.filename

    async def chunks(self) -> AsyncIterator[bytes]:
        while piece := await aio_as_trio(self._gather.piece)(self._part.read_chunk):
            yield piece


class _Gatherer:
    """Reads on the asyncio side until a piece is worth the crossing."""

    def __init__(self) -> None:
        self._loss: BaseException | None = None

    async def piece(self, read: Callable[[int], Awaitable[bytes]]) -> bytes:
        """The next piece, b"" at the end. What came before a loss is handed out first. Raises: `Unavailable`."""
        parts: list[bytes] = []
        size = 0
        try:
            if self._loss is not None:
                raise self._loss
            async with asyncio.timeout(BODY_IDLE_S) as timeout:
                while size < PIECE_BYTES and (data := await read(PIECE_BYTES - size)):
                    if not parts:
                        timeout.reschedule(asyncio.get_running_loop().time() + GATHER_S)
                    parts.append(data)
                    size += len(data)
        except TimeoutError:
            if not parts:
                raise Unavailable("upload-stalled", f"no byte of the body came for {BODY_IDLE_S:g} s") from None
        except _LOST as error:
            if not parts:
                raise Unavailable("client-left", "the client went away before its body was whole") from error
            self._loss = error
        return b"".join(parts)

    async def next_part(self, reader: aiohttp.MultipartReader) -> aiohttp.BodyPartReader | None:
        """The next part. Raises: `Unavailable`, `MalformedMessage`."""
        try:
            async with asyncio.timeout(BODY_IDLE_S):
                part = await reader.next()
        except (TimeoutError, *_LOST) as error:
            raise Unavailable("client-left", "the client went away before its body was whole") from error
        if part is not None and not isinstance(part, aiohttp.BodyPartReader):
            raise MalformedMessage("a multipart body inside a multipart body is not read")
        return part


# ---- the answer -----------------------------------------------------------------------------------------------------------------
def _headers_of(response: Response) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict(response.headers)
    if response.status not in (204, 304):
        headers.setdefault("Content-Type", response.media_type)
    for cookie in response.cookies:
        headers.add("Set-Cookie", cookie)
    return headers


async def _send_whole(exchange: _Exchange, response: Response) -> web.StreamResponse:
    """Send bytes or a part of a file (asyncio side); a client that stops taking them is cut off."""
    body = response.body
    headers = _headers_of(response)
    if isinstance(body, bytes) and len(body) <= SMALL_BODY_BYTES:
        return web.Response(status=response.status, headers=headers, body=body)
    assert isinstance(body, (bytes, FileSlice))
    length = len(body) if isinstance(body, bytes) else body.length
    descriptor, loop = None, asyncio.get_running_loop()
    if isinstance(body, FileSlice):
        try:
            descriptor = await loop.run_in_executor(None, os.open, body.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            _log.exception("cannot open %s", body.path)
            return await _send_whole(exchange, problem(500, Reason("file-unreadable", "the file cannot be read; the log has the details")))
    try:
        out = web.StreamResponse(status=response.status, headers=headers)
        out.content_length = length
        await out.prepare(exchange)
        for at in range(0, 0 if exchange.method == "HEAD" else length, PIECE_BYTES):
            count = min(PIECE_BYTES, length - at)
            if isinstance(body, bytes):
                piece: bytes | memoryview = memoryview(body)[at : at + count]
            else:
                assert descriptor is not None
                piece = await loop.run_in_executor(None, os.pread, descriptor, count, body.start + at)
            if len(piece) != count:
                raise EOFError(f"the file is shorter than {length} bytes")
            async with asyncio.timeout(WRITE_DEADLINE_S):
                await out.write(piece)
        return out
    except (TimeoutError, EOFError, OSError) as error:
        _log.info("%s %s was cut off: %s", exchange.method, exchange.path, error)
        return exchange.abort()
    finally:
        if descriptor is not None:
            os.close(descriptor)


async def _send_pieces(exchange: _Exchange, response: Response, pieces: AsyncIterator[bytes]) -> web.StreamResponse | None:
    """Send pieces as they are made (trio side). None when the connection was cut because they, or the client, failed."""
    out = web.StreamResponse(status=response.status, headers=_headers_of(response))
    try:
        await aio_as_trio(out.prepare)(exchange)
        if exchange.method == "HEAD":
            return out
        write = aio_as_trio(out.write)
        async for piece in pieces:
            with trio.fail_after(WRITE_DEADLINE_S):
                await write(piece)
        return out
    except (OSError, trio.TooSlowError) as error:
        _log.info("%s %s was cut off: %s", exchange.method, exchange.path, error)
    except Exception:  # noqa: BLE001 - too late for a status, so the client must see a cut
        _log.exception("%s %s failed while its answer was sent", exchange.method, exchange.path)
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            with trio.move_on_after(1.0, shield=True):
                await close()
    return None
