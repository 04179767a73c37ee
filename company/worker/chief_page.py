"""The chief's page as a worker calls it: where, and how it is told from another (pure).

Secrets go to this machine in clear, and elsewhere only over TLS to who shows the key in the join token. A page behind a server that ends
TLS with a certificate of its own is named with that certificate's fingerprint, or with the word that authorities may vouch for it.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from company.errors import ConfigurationError
from company.tokens import JoinToken
from p2p.base.errors import UsageError
from p2p.base.record import record
from p2p.net.addresses import is_loopback, join_address, split_address

CHIEF_HTTP_PORT = 8470
_FINGERPRINT = re.compile(r"sha256:([0-9a-fA-F]{64})")


@record
class ChiefPage:
    """``key``, ``sha256``: what is compared; neither for plain HTTP on this machine, and where authorities vouch."""

    url: str  # scheme://host:port, no slash at the end
    host: str
    key: bytes | None = None
    sha256: bytes | None = None


def chief_page(url: str, chief_key: bytes) -> ChiefPage:
    """Read ``URL``, ``URL#sha256:HEX`` or ``URL#ca``. ``chief_key``: the token's. Raises `UsageError`, `ConfigurationError`."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    fingerprint = _FINGERPRINT.fullmatch(parts.fragment)
    is_wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or parts.path not in ("", "/")
    if is_wrong or port == -1 or parts.query or not (parts.fragment in ("", "ca") or fingerprint):
        raise UsageError("bad-url", f"{url[:200]!r} is not the address of a chief", hint="write https://HOST:8470, and no more than that")
    host = parts.hostname or ""
    base = f"{parts.scheme}://{join_address(host, port or CHIEF_HTTP_PORT)}"
    if parts.scheme == "http":
        if not is_loopback(host):
            raise ConfigurationError(
                "chief-not-encrypted", f"{base} is not https, and not this machine: the worker's secrets would travel in clear",
                hint="start the chief with --tls-cert, or use --transport rpc",
            )  # fmt: skip
        return ChiefPage(base, host)
    if fingerprint is not None:
        return ChiefPage(base, host, sha256=bytes.fromhex(fingerprint[1]))
    return ChiefPage(base, host, key=None if parts.fragment == "ca" else chief_key)


def default_page(token: JoinToken) -> str:
    """The chief's page where nobody says otherwise: the token's first host, encrypted unless it is this machine."""
    host, _ = split_address(token.addresses[0])
    return f"{'http' if is_loopback(host) else 'https'}://{join_address(host, CHIEF_HTTP_PORT)}"
