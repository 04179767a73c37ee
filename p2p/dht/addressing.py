"""Addresses as bytes, the networks they belong to, and which of them may be dialled (pure)."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from p2p.base.ids import NODE_ID_BYTES
from p2p.dht.directory import Address

V4_BYTES, V6_BYTES = NODE_ID_BYTES + 6, NODE_ID_BYTES + 18  # node id, address, port


@lru_cache(maxsize=8192)
def packed(address: Address) -> bytes:
    """The 6 or 18 bytes of an address. Raises `ValueError` when the host is no IP literal."""
    host, port = address
    return ipaddress.ip_address(host).packed + port.to_bytes(2, "big")


@lru_cache(maxsize=8192)
def unpacked(data: bytes) -> Address:
    """The address in 6 or 18 bytes."""
    return str(ipaddress.ip_address(data[:-2])), int.from_bytes(data[-2:], "big")


def normal(host: str, port: int) -> Address:
    """An address as a dual-stack socket gives it, in its one spelling: no mapped IPv4, no scope."""
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return host.partition("%")[0], port


@lru_cache(maxsize=8192)
def is_private(host: str) -> bool:
    """Whether a host means something else elsewhere: private, loopback, link-local, shared, unspecified, multicast, reserved."""
    ip = ipaddress.ip_address(host)
    mapped = getattr(ip, "ipv4_mapped", None)
    return not (mapped or ip).is_global or (mapped or ip).is_multicast


def is_dialable(address: Address, *, allow_private: bool) -> bool:
    """Whether an address learnt from others may be sent to."""
    try:
        ip = ipaddress.ip_address(address[0])
        if address[1] < 1 or ip.is_multicast or ip.is_unspecified or address[0] == "255.255.255.255":
            return False
        return allow_private or not is_private(address[0])
    except ValueError:
        return False


@lru_cache(maxsize=8192)
def group_of(address: Address, allow_private: bool) -> bytes:
    """What one party is likely to own whole: a /24 or /48; where private ranges are allowed, they do not count as one party."""
    raw = packed(address)
    if allow_private and is_private(address[0]):
        return raw
    return raw[:3] if len(raw) == 6 else raw[:6]


@lru_cache(maxsize=8192)
def limited_as(address: Address, allow_private: bool) -> bytes:
    """Whose packets are counted together: one IPv4 address or a /64; each port for itself where private ranges are allowed."""
    raw = packed(address)
    if allow_private and is_private(address[0]):
        return raw
    return raw[:4] if len(raw) == 6 else raw[:8]
