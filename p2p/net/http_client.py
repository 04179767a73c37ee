"""Small HTTP requests from trio, through aiohttp (I/O; one of the few modules that know asyncio).

A worker calls its chief and a chief its workers. No redirects, no cookies, no proxies, no compression; every answer has a bound.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import NamedTuple

import trio
from trio_asyncio import aio_as_trio

from p2p.base.errors import PeerError, Unavailable
from p2p.net.asyncio_bridge import open_bridge
from p2p.net.lean_aiohttp import aiohttp
from p2p.net.tls import KEY_NAME, WrongKey, client_context, fingerprint_context

DEFAULT_MAX_BYTES = 16 << 20
MAX_PINNED_KEYS = 1024


@cache
def _authorities() -> ssl.SSLContext:
    """The machine's certificate authorities, read when they are first needed: that takes a tenth of a second."""
    return ssl.create_default_context()


class _SinkFailed(Exception):
    """What takes an answer's body could not write it; the cause says why."""


class HttpReply(NamedTuple):
    """An answer. ``headers`` are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@asynccontextmanager
async def open_http_client(*, connections: int = 64) -> AsyncIterator[HttpClient]:
    """A client for the length of the block; keeps connections and uses them again."""
    async with open_bridge():

        async def make() -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"User-Agent": "company"},
                skip_auto_headers=("Accept-Encoding",),
            )

        session = await aio_as_trio(make)()
        try:
            yield HttpClient(session)
        finally:
            with trio.move_on_after(2, shield=True):
                await aio_as_trio(session.close)()


class HttpClient:
    """Made by `open_http_client`; any task may call it."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._pinned: OrderedDict[tuple[str, bytes], ssl.SSLContext] = OrderedDict()  # the same context, or no connection is used again

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
        pin_key: bytes | None = None,
        pin_sha256: bytes | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        sink: Callable[[bytes], object] | None = None,
    ) -> HttpReply:
        """One request and its whole answer, whatever its status. ``pin_key``: the Ed25519 key that an https server must show;
        ``pin_sha256``: or its certificate's digest. Without either, authorities are asked.

        ``sink``: gets the body of a 200 piece by piece, on the loop's thread, in place of the reply; what it raises ends the request.
        Raises: `Unavailable` "unreachable", "timeout"; `PeerError` "wrong-key", "answer-too-large", "bad-answer".
        """
        context: ssl.SSLContext | bool = True  # of plain http, where it says nothing
        if pin_key is not None:
            context = self._pinned_context(pin_key, client_context)
        elif pin_sha256 is not None:
            context = self._pinned_context(pin_sha256, fingerprint_context)
        elif url.startswith("https:"):
            context = _authorities()

        async def exchange() -> HttpReply:
            async with self._session.request(
                method,
                url,
                headers=headers,
                data=body,
                allow_redirects=False,
                ssl=context,
                server_hostname=KEY_NAME if pin_key is not None else None,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                parts: list[bytes] = []
                take = sink if sink is not None and response.status == 200 else parts.append
                left = max_bytes
                if (response.content_length or 0) > max_bytes and method != "HEAD":
                    left = -1
                while left >= 0 and (data := await response.content.read(256 << 10)):
                    left -= len(data)
                    if left >= 0:
                        try:
                            take(data)
                        except OSError as error:  # not the peer's fault
                            raise _SinkFailed from error
                if left < 0:
                    response.close()
                    raise PeerError("answer-too-large", f"the answer of {url} is larger than {max_bytes} bytes", peer=url, limit=max_bytes)
                return HttpReply(response.status, response.headers, b"".join(parts))

        try:
            reply: HttpReply = await aio_as_trio(exchange)()
            return reply
        except _SinkFailed as error:
            raise error.__cause__ or error from None
        except TimeoutError:
            raise Unavailable("timeout", f"{url} did not answer within {timeout_s:g} s", peer=url) from None
        except aiohttp.ClientConnectorCertificateError as error:
            cause = error.certificate_error
            actual = cause.actual.hex() if isinstance(cause, WrongKey) and cause.actual else None
            raise PeerError("wrong-key", f"{url} does not show the expected key: {cause}", peer=url, actual=actual) from None
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise Unavailable("unreachable", f"cannot reach {url}: {error}", peer=url) from error
        except aiohttp.ClientError as error:
            raise PeerError("bad-answer", f"{url} did not answer by the rules of HTTP: {error}", peer=url) from error

    def _pinned_context(self, pin: bytes, make: Callable[[bytes], ssl.SSLContext]) -> ssl.SSLContext:
        key = (make.__name__, pin)
        context = self._pinned.pop(key, None) or make(pin)
        self._pinned[key] = context
        if len(self._pinned) > MAX_PINNED_KEYS:
            self._pinned.popitem(last=False)
        return context
