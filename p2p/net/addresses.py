"""``host:port`` as text and as a pair (pure)."""

import ipaddress

from p2p.base.errors import UsageError


def split_address(address: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` as (host, port). Raises `UsageError`."""
    host, colon, port = address.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not port.isascii() or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        raise UsageError("bad-address", f"an address looks like host:port, got {address[:100]!r}")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """(host, port) as one text; brackets round IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a host, without port and brackets, is this machine by its very name; other names may lead anywhere."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
