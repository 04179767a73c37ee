"""Rules of TLS between peers: the key is what counts. In memory, without sockets."""

import ssl

import pytest
from cryptography import x509

from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage
from p2p.base.keys import Identity
from p2p.net.tls import (
    WrongKey,
    browser_certificate,
    browser_context,
    client_context,
    key_of_certificate_untrusted,
    peer_certificate,
    server_context,
)

ONE, TWO = Identity(b"1" * 32), Identity(b"2" * 32)


class Pair:
    """A client and a server joined by buffers."""

    def __init__(self, client: ssl.SSLContext, server: ssl.SSLContext) -> None:
        self.to_server, self.to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self.to_client, self.to_server)
        self.server = server.wrap_bio(self.to_server, self.to_client, server_side=True)
        self.flights: list[int] = []

    def shake_hands(self) -> None:
        done: set[ssl.SSLObject] = set()
        for _ in range(4):
            for side in (self.client, self.server):
                try:
                    side.do_handshake()
                    done.add(side)
                except ssl.SSLWantReadError:
                    pass
            if len(done) == 2:
                return
        raise AssertionError("no end")


def test_the_certificate_of_an_identity_is_always_the_same_and_holds_its_key() -> None:
    pem, _ = peer_certificate(ONE)
    assert pem == peer_certificate(ONE)[0]
    assert key_of_certificate_untrusted(ssl.PEM_cert_to_DER_cert(pem.decode())) == ONE.public


def test_the_right_key_is_accepted_with_tls_1_3() -> None:
    pair = Pair(client_context(ONE.public), server_context(ONE))
    pair.shake_hands()
    assert pair.client.version() == "TLSv1.3"
    assert pair.server.getpeercert(binary_form=True) is None


def test_a_wrong_key_is_refused_before_the_callers_last_flight() -> None:
    pair = Pair(client_context(ONE.public), server_context(TWO))
    with pytest.raises(WrongKey) as raised:
        pair.shake_hands()
    assert raised.value.actual == TWO.public
    # What lies in the buffer is never flushed by `TlsStream`; the server cannot have finished.
    with pytest.raises(ssl.SSLError):
        pair.server.read(1)


def test_a_certificate_without_an_ed25519_key_is_a_wrong_key() -> None:
    pem, key = browser_certificate(["localhost"], now=UnixTime(1_700_000_000))
    with pytest.raises(WrongKey) as raised:
        Pair(client_context(ONE.public), browser_context(pem, key)).shake_hands()
    assert raised.value.actual is None


def test_older_tls_is_refused() -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        Pair(old, server_context(ONE)).shake_hands()


@pytest.mark.parametrize("der", [b"", b"x", b"\x30\x82\xff\xff", bytes(20_000)])
def test_bytes_that_are_no_certificate_are_malformed(der: bytes) -> None:
    with pytest.raises(MalformedMessage):
        key_of_certificate_untrusted(der)


def test_a_damaged_certificate_raises_nothing_else() -> None:
    der = ssl.PEM_cert_to_DER_cert(peer_certificate(ONE)[0].decode())
    for at in range(len(der)):
        try:
            key_of_certificate_untrusted(der[:at] + bytes([der[at] ^ 0x41]) + der[at + 1 :])
        except MalformedMessage:
            pass


def test_a_browser_certificate_names_hosts_and_addresses_and_lasts_as_long_as_browsers_allow() -> None:
    now = UnixTime(1_700_000_000)
    pem, _ = browser_certificate(["chief.example", "127.0.0.1", "::1"], now=now)
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["chief.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days < 398
    assert certificate.not_valid_before_utc.timestamp() <= now
