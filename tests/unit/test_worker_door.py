"""Where a worker's HTTP listens and what it calls: in clear on this machine alone, elsewhere by keys."""

from __future__ import annotations

import pytest

from company.errors import ConfigurationError, exit_code_of
from company.tokens import JoinToken
from company.worker.chief_page import ChiefPage, chief_page, default_page
from company.worker.door import door_of
from p2p.base.errors import UsageError

KEY = b"k" * 32


@pytest.mark.parametrize(
    ("http", "public", "bound", "told"),
    [
        ("127.0.0.1:0", None, "127.0.0.1:7", "http://127.0.0.1:7"),
        ("[::1]:0", None, "[::1]:7", "http://[::1]:7"),
        ("https://127.0.0.1:0", None, "127.0.0.1:7", "https://127.0.0.1:7"),
        ("192.0.2.7:8471", None, "192.0.2.7:8471", "https://192.0.2.7:8471"),
        ("0.0.0.0:0", None, "0.0.0.0:7", "https://127.0.0.1:7"),  # toward a chief on this machine
        (":8471", None, "0.0.0.0:8471", "https://127.0.0.1:8471"),
        ("0.0.0.0:0", "worker.example:443", "0.0.0.0:7", "https://worker.example:443"),
        ("127.0.0.1:0", "worker.example:443", "127.0.0.1:7", "https://worker.example:443"),  # behind a tunnel: TLS to its end
        ("127.0.0.1:0", "https://127.0.0.1:9", "127.0.0.1:7", "https://127.0.0.1:9"),
    ],
)  # fmt: skip
def test_beyond_loopback_a_worker_listens_with_tls(http: str, public: str | None, bound: str, told: str) -> None:
    door = door_of(http, public)
    assert door.address(bound, "127.0.0.1") == told
    assert door.has_tls == told.startswith("https")


@pytest.mark.parametrize(
    ("http", "public"),
    [
        ("http://0.0.0.0:8471", None), ("http://192.0.2.7:1", None), ("http://localhost.example:1", None), ("http://127.x.example:1", None),
        ("127.0.0.1:0", "http://worker.example:80"),
    ],
)  # fmt: skip
def test_an_address_in_clear_for_others_is_refused(http: str, public: str | None) -> None:
    with pytest.raises(ConfigurationError) as raised:
        door_of(http, public)
    assert raised.value.code == "http-without-tls" and exit_code_of(raised.value) == 78


@pytest.mark.parametrize("http", ["", "8471", "ftp://127.0.0.1:1", "https://u@127.0.0.1:1", "https://127.0.0.1:1/x", "127.0.0.1:99999"])
def test_what_is_no_address_is_refused(http: str) -> None:
    with pytest.raises(UsageError):
        door_of(http, None)


def test_the_page_is_told_by_the_tokens_key_unless_another_way_is_named() -> None:
    assert chief_page("https://chief.example", KEY) == ChiefPage("https://chief.example:8470", "chief.example", key=KEY)
    assert chief_page("https://[2001:db8::1]:1/", KEY) == ChiefPage("https://[2001:db8::1]:1", "2001:db8::1", key=KEY)
    assert chief_page(f"https://h:1#sha256:{'AB' * 32}", KEY) == ChiefPage("https://h:1", "h", sha256=b"\xab" * 32)
    assert chief_page("https://h:1#ca", KEY) == ChiefPage("https://h:1", "h")
    for url in ("http://127.0.0.1:1", "http://localhost:2", "http://[::1]:3"):
        assert chief_page(url, KEY).key is None


@pytest.mark.parametrize("url", ["http://10.0.0.1:8470", "http://chief.example", "http://localhost.example:1"])
def test_secrets_do_not_travel_in_clear(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        chief_page(url, KEY)
    assert raised.value.code == "chief-not-encrypted" and exit_code_of(raised.value) == 78


@pytest.mark.parametrize(
    "url", ["", "chief:8470", "ftp://127.0.0.1", "https://h:x", "https://h/x", "https://h#sha256:12", "https://h#x", "https://u@h"]
)
def test_what_is_no_page_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        chief_page(url, KEY)


def test_without_a_word_the_page_is_at_the_tokens_first_host() -> None:
    def token(address: str) -> JoinToken:
        return JoinToken(addresses=(address, "127.0.0.1:9"), chief_key=KEY, role="worker", expires=None, id="t", secret=b"s" * 32)

    assert default_page(token("10.0.0.7:8468")) == "https://10.0.0.7:8470"
    assert default_page(token("127.0.0.1:8468")) == "http://127.0.0.1:8470"
