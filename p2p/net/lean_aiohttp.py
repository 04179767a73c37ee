"""aiohttp, imported without reading the machine's certificate authorities (I/O: imports).

aiohttp makes two default TLS contexts when it is imported, and OpenSSL reads every authority of the machine for each: a tenth of a
company's start, for contexts that nobody here uses. `p2p.net.http_client` names the context of each request itself; a request that
forgot to would find no authority, and fail.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _no_authorities() -> Iterator[None]:
    """Contexts made in the block trust nobody. The way of `ssl.create_default_context` to OpenSSL is this method alone, on POSIX."""
    ssl.SSLContext.set_default_verify_paths = lambda self: None  # type: ignore[method-assign]  # hides that of the base class
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths


with _no_authorities():
    import aiohttp
    from aiohttp import web

__all__ = ["aiohttp", "web"]
