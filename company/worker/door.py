"""Where a worker's HTTP listens, with which protection, and under which address it is told to others (I/O: asks the kernel, sends nothing).

On loopback it speaks plain HTTP, beyond it TLS with the certificate of the worker's own key, which whoever calls compares. There is no
way to listen in clear for other machines.
"""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from company.config import parse_address
from company.errors import ConfigurationError
from company.listening import ANY_HOST
from p2p.base.errors import UsageError
from p2p.base.keys import Identity
from p2p.base.record import record
from p2p.net.addresses import is_loopback, join_address, split_address
from p2p.net.tls import server_context


@record
class Door:
    """``public``: host and port that others are told, where that is not the address listened on."""

    host: str
    port: int
    public: tuple[str, int] | None
    has_tls: bool

    def context(self, identity: Identity) -> ssl.SSLContext | None:
        """What to listen with."""
        return server_context(identity) if self.has_tls else None

    def address(self, bound: str, toward: str) -> str:
        """The URL that others are told. ``bound``: host:port listened on; ``toward``: host of the chief, which must be able to reach it."""
        host, port = self.public or (self.host if self.host not in ANY_HOST else own_host(toward), parse_address(bound)[1])
        return f"{'https' if self.has_tls else 'http'}://{join_address(host, port)}"


def door_of(http: str, public: str | None) -> Door:
    """Read HOST:PORT, or a URL of them, to listen on and to be told. Raises `UsageError`, `ConfigurationError` for an address in clear."""
    scheme, host, port = _read("--http", http)
    told = None
    has_tls = scheme == "https" or not is_loopback(host)
    if public is not None:
        public_scheme, *_ = _read("--http-public", public)
        told = split_address(public.partition("://")[2] or public)
        has_tls = has_tls or public_scheme == "https" or not is_loopback(told[0])
    return Door("0.0.0.0" if host in ("", "*") else host, port, told, has_tls)


def own_host(toward: str) -> str:
    """The address of this machine from which ``toward`` is reached."""
    try:
        family, _, _, _, target = socket.getaddrinfo(toward, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)  # sends nothing: asks the kernel which address it would use
            return str(probe.getsockname()[0])
    except OSError as error:
        text = f"it cannot be told under which address {toward} reaches this machine: {error}"
        raise ConfigurationError("own-address-unknown", text, hint="say it: --http-public HOST:PORT") from None


def _read(option: str, text: str) -> tuple[str, str, int]:
    """(scheme or nothing, host, port)."""
    scheme, mark, place = text.rpartition("://")
    if mark:
        parts = urlsplit(text)
        if scheme not in ("http", "https") or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in place:
            raise UsageError("bad-address", f"{option} {text[:100]!r} is not HOST:PORT", hint="write 0.0.0.0:8471")
    host, port = parse_address(place.rstrip("/"))
    if scheme == "http" and not is_loopback(host):
        raise ConfigurationError(
            "http-without-tls", f"{option} {text[:100]} can be reached from other machines, and is not encrypted",
            hint=f"say {option} {join_address(host, port)}: TLS with this worker's own key is used there by itself",
        )  # fmt: skip
    return scheme, host, port
