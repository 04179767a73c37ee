"""Where a chief's page may listen, and what its certificate says: names, fingerprint, expiry (pure, but for reading the two files)."""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

from company.config import parse_address
from company.errors import ConfigurationError
from p2p.base.record import record
from p2p.net.addresses import is_loopback as is_loopback_host
from p2p.net.addresses import join_address

ANY_HOST = ("", "*", "0.0.0.0", "::")
MAX_PEM_BYTES = 1 << 20


@record(kw_only=True)
class Certificate:
    """A page's certificate, ready to serve. ``fingerprint``: hex SHA-256 of its DER, what clients pin."""

    context: ssl.SSLContext
    fingerprint: str
    names: tuple[str, ...]
    expires: float


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it: a host, or host:port as it is written in an address."""
    if "]" in host:
        host = host.partition("]")[0].lstrip("[")
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    return is_loopback_host(host)


def check_exposure(http: str, *, has_tls: bool) -> None:
    """Raises `ConfigurationError` for a page that other machines could reach without TLS."""
    host, port = parse_address(http)
    if not has_tls and not is_loopback(host):
        raise ConfigurationError(
            "http-without-tls",
            f"--http {http} is reachable from other machines, and not encrypted",
            hint=f"give --tls-cert, or keep it on 127.0.0.1 and tunnel from there: ssh -L {port}:127.0.0.1:{port} THIS-MACHINE",
        )


def load_certificate(cert: Path, key: Path | None) -> Certificate:
    """Read a PEM certificate (chain) and its key, which may lie in the same file. Raises `ConfigurationError`."""
    from cryptography import x509

    from p2p.net.tls import browser_context

    files = " and ".join(str(path) for path in (cert, key) if path is not None)
    try:
        pem = _read(cert)
        context = browser_context(pem, _read(key) if key is not None else b"")
        leaf = x509.load_pem_x509_certificates(pem)[0]
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        text = f"{files} cannot be used as certificate and key: {getattr(error, 'reason', None) or error}"
        hint = "PEM, the server's certificate first, the key without a password"
        raise ConfigurationError("tls-cert-unusable", text, hint=hint) from None
    expires = leaf.not_valid_after_utc.timestamp()
    if expires < time.time():
        raise ConfigurationError("tls-cert-expired", f"{cert} expired on {leaf.not_valid_after_utc:%Y-%m-%d}", hint="make a new one")
    try:
        alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [*alternative.get_values_for_type(x509.DNSName), *map(str, alternative.get_values_for_type(x509.IPAddress))]
    except x509.ExtensionNotFound:
        names = []
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(_first_block(pem))).hexdigest()
    return Certificate(context=context, fingerprint=fingerprint, names=tuple(n for n in names if "*" not in n), expires=expires)


def page_urls(bound: str, *, certificate: Certificate | None, hosts: Sequence[str]) -> tuple[str, str]:
    """The page's address for everybody, and the one for this machine. ``bound``: host:port; ``hosts``: this machine's addresses."""
    scheme = "https" if certificate is not None else "http"
    host, port = parse_address(bound)
    if host not in ANY_HOST:
        return (f"{scheme}://{join_address(host, port)}",) * 2
    names = certificate.names if certificate is not None else ()
    public = next((n for n in (*names, *hosts) if not is_loopback(n)), "127.0.0.1")
    loopback = "::1" if host == "::" else "127.0.0.1"
    return f"{scheme}://{join_address(public, port)}", f"{scheme}://{join_address(loopback, port)}"


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_PEM_BYTES)


def _first_block(pem: bytes) -> str:
    end = "-----END CERTIFICATE-----"
    text = pem.decode("ascii", "replace")
    begin = text.index("-----BEGIN CERTIFICATE-----")
    return text[begin : text.index(end, begin) + len(end)]
