"""TLS 1.3 between peers: what is compared is the key in the certificate, never a name or an authority (I/O).

A peer's certificate is made from its Ed25519 identity and always comes out the same, so nothing is stored. The caller's
context refuses a wrong key at the end of the handshake, before its own last flight is sent: the wrong server learns nothing
but the ClientHello. Servers ask for no client certificate; the caller proves its key by the challenge in `p2p.net.hello`.
Browsers refuse Ed25519 certificates (measured), so what faces them gets P-256; a program that asks the same port for the name
`KEY_NAME` is shown the certificate of the identity instead (`also_show_key`), and compares its key.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage
from p2p.base.keys import Identity, company_id_text

MAX_CERTIFICATE_BYTES = 16 << 10
BROWSER_DAYS = 397  # browsers refuse more
KEY_NAME = "key.company.invalid"  # no host has it (RFC 6761): in a ClientHello it asks for the certificate of the identity
_BEGIN = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_NO_END = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)  # RFC 5280, 4.1.2.5: no well-defined expiry


class WrongKey(ssl.SSLCertVerificationError):
    """The server's certificate holds another key than the one expected. ``actual``: its key, or None if not Ed25519."""

    def __init__(self, expected: bytes, actual: bytes | None) -> None:
        super().__init__(1, f"the server's key is {actual.hex() if actual else 'not Ed25519'}, expected {expected.hex()}")
        self.verify_message = "wrong key"
        self.verify_code = 0
        self.expected = expected
        self.actual = actual


def peer_certificate(identity: Identity) -> tuple[bytes, bytes]:
    """Return (certificate, private key) as PEM for an identity; the same identity always gives the same bytes."""
    key = Ed25519PrivateKey.from_private_bytes(identity.seed)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, company_id_text(identity.public))])
    serial = int.from_bytes(hashlib.blake2b(identity.public, digest_size=16).digest(), "big") | 1
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(_BEGIN)
        .not_valid_after(_NO_END)
        .sign(key, None)
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _private_pem(key)


def browser_certificate(names: Sequence[str], *, now: UnixTime) -> tuple[bytes, bytes]:
    """Return (certificate, private key) as PEM: P-256, fresh, self-signed for these host names and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    begin = datetime.datetime.fromtimestamp(now - 3600, datetime.UTC)  # an hour back, for clocks that run late
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=BROWSER_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _private_pem(key)


def server_context(identity: Identity) -> ssl.SSLContext:
    """The context a peer listens with: TLS 1.3 only, asks for no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # no resumption: every connection shows the key again
    _load(context, *peer_certificate(identity))
    return context


def browser_context(certificate_pem: bytes, key_pem: bytes) -> ssl.SSLContext:
    """The context for HTTP that faces browsers; TLS 1.2 is allowed there. Raises `ssl.SSLError` for a pair that does not match."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, certificate_pem, key_pem)
    return context


def also_show_key(context: ssl.SSLContext, identity: Identity) -> None:
    """Let a server that shows another certificate show the identity's to those who ask for `KEY_NAME`."""
    own = server_context(identity)

    def choose(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
        if name == KEY_NAME:
            connection.context = own

    context.sni_callback = choose


def client_context(expected_key: bytes) -> ssl.SSLContext:
    """The context a caller dials with; works for `TlsStream` and asyncio alike. Its handshakes raise `WrongKey`."""

    def check(certificate: bytes) -> None:
        actual = key_of_certificate_untrusted(certificate)
        if actual != expected_key:
            raise WrongKey(expected_key, actual)

    context = _checked_context(check)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def fingerprint_context(sha256: bytes) -> ssl.SSLContext:
    """The same for a certificate that is known by the SHA-256 of its DER. Its handshakes raise `ssl.SSLCertVerificationError`."""

    def check(certificate: bytes) -> None:
        actual = hashlib.sha256(certificate).digest()
        if actual != sha256:
            raise ssl.SSLCertVerificationError(1, f"the server's certificate is {actual.hex()}, expected {sha256.hex()}")

    context = _checked_context(check)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _checked_context(check: Callable[[bytes], None]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # TLS still proves that the server holds the certificate's key; ``check`` says which it must be

    class Pinned(ssl.SSLObject):
        def do_handshake(self, *args: Any, **kwargs: Any) -> None:
            super().do_handshake(*args, **kwargs)
            check(self.getpeercert(binary_form=True) or b"")

    context.sslobject_class = Pinned
    return context


def key_of_certificate_untrusted(der: bytes) -> bytes | None:
    """The Ed25519 key of a stranger's certificate, None if it holds another kind. Raises only `MalformedMessage`."""
    if not 0 < len(der) <= MAX_CERTIFICATE_BYTES:
        raise MalformedMessage(f"a certificate has 1..{MAX_CERTIFICATE_BYTES} bytes, got {len(der)}")
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except UnsupportedAlgorithm:
        return None
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        raise MalformedMessage(f"certificate cannot be parsed: {type(error).__name__}") from None
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private_pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _load(context: ssl.SSLContext, certificate_pem: bytes, key_pem: bytes) -> None:
    """Give a key to a context. Python's ssl reads files only, so the key goes through one that has no name, or not for long."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        path = f"/proc/self/fd/{descriptor}"
    else:
        descriptor, path = tempfile.mkstemp()
    try:
        os.write(descriptor, certificate_pem + b"\n" + key_pem)
        context.load_cert_chain(path, password="")  # a key with a password is an error; without this, OpenSSL would ask the terminal
    finally:
        os.close(descriptor)
        if not path.startswith("/proc/"):
            os.unlink(path)
