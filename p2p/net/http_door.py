"""Who may hold an HTTP connection, and how those ended that never became a request (I/O; knows aiohttp).

aiohttp closes a connection that brings no whole request in time, answers nonsense with 400 and a traceback in the log, and takes as
many connections as there are descriptors. Here they are bounded, counted by reason, and told in a line each.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from p2p.net.endings import Endings
from p2p.net.lean_aiohttp import web

MAX_CONNECTIONS = 2048
PORT = "http"  # what endings are counted under
_log = logging.getLogger("parallel.http")


class Door(web.Server):
    """aiohttp's server with a bound on connections."""

    def __init__(self, handler: Any, endings: Endings, *, header_deadline_s: float, **options: Any) -> None:
        super().__init__(handler, logger=_Words(endings), keepalive_timeout=header_deadline_s, **options)
        self._endings = endings
        self._deadline_s = header_deadline_s
        self._began: dict[web.RequestHandler, tuple[float, str]] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Called by aiohttp."""
        super().connection_made(handler, transport)
        peer = transport.get_extra_info("peername")
        address = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "?"
        if len(self._connections) > MAX_CONNECTIONS:
            self._endings.note(PORT, "too-many-connections", address, f"{MAX_CONNECTIONS} are open")
            transport.abort()
            return
        self._began[handler] = (asyncio.get_running_loop().time(), address)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Called by aiohttp, also before it has seen a request."""
        began = self._began.pop(handler, None)
        if began is not None and not handler._request_count:
            since, address = began
            passed = asyncio.get_running_loop().time() - since
            if passed >= self._deadline_s * 0.95:
                self._endings.note(PORT, "no-request", address, f"no whole request came within {self._deadline_s:g} s")
            else:
                self._endings.note(PORT, "left-early", address, "it left before a whole request had come", level=logging.INFO)
        super().connection_lost(handler, exc)


class _Words:
    """In the place of aiohttp's log: what a stranger's bytes cause is an ending, with no traceback; the rest is ours to see."""

    def __init__(self, endings: Endings) -> None:
        self._endings = endings

    def debug(self, text: str, *words: object, **more: Any) -> None:
        """Called by aiohttp; a request by an impossible method comes here."""
        if text.startswith("Error handling request"):
            self.exception(text, *words, **more)

    def exception(self, text: str, *words: object, exc_info: object = None, **_: Any) -> None:
        """Called by aiohttp."""
        if exc_info is not None and type(exc_info).__module__.startswith("aiohttp."):
            address = str(words[0]) if words else "?"
            self._endings.note(PORT, "malformed-request", address, f"{type(exc_info).__name__}: {exc_info}")
            return
        _log.error(text, *words, exc_info=exc_info if isinstance(exc_info, BaseException) else True)

    error = warning = info = exception
