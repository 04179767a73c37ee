"""What a worker may say of itself when it joins over REST, and which addresses the chief will dial."""

from __future__ import annotations

from typing import Any

import pytest

from company.chief.facade import Invalid
from company.chief.rest_join import checked_address, held_untrusted, join_untrusted
from p2p.base.errors import MalformedMessage

HERE, AWAY = "127.0.0.1", "192.0.2.7"
MACHINE = [9, "other", 2, 4, 1 << 30, "3.11.0", "linux", "none", False, None, "1.2.3.4:5", "1"]
GOOD = {"token": "t", "http": "http://127.0.0.1:8471", "callback": "ab" * 32, "machine": MACHINE}


def test_a_join_is_read() -> None:
    asked = join_untrusted({**GOOD, "name": "new", "slots": 3}, HERE)
    assert (asked.token, asked.address, asked.machine.name, asked.machine.slots) == ("t", "http://127.0.0.1:8471", "new", 3)
    assert asked.machine.http == asked.address and asked.machine.rpc is None  # no other address is believed


def test_what_a_worker_holds_is_read_from_its_answer() -> None:
    assert held_untrusted(b'{"accepted": 0, "held": [[7, "j-1", 3, 2, "running"]]}') == ((7, "j-1", 3, 2),)
    assert held_untrusted(b'{"held": []}') == ()
    for silent in (b"", b"{}", b"[]"):
        assert held_untrusted(silent) is None
    for bad in (b"{", b'{"held": [[7, "j-1", 3]]}', b'{"held": 5}'):
        with pytest.raises(MalformedMessage):
            held_untrusted(bad)


def test_the_key_of_an_encrypted_address_is_what_the_chief_will_compare() -> None:
    far = {**GOOD, "http": "https://192.0.2.7:8471"}
    assert join_untrusted({**far, "key": "0A" * 32}, AWAY).key == b"\x0a" * 32
    assert join_untrusted(far, AWAY).key is None  # then authorities vouch
    assert join_untrusted({**GOOD, "key": "anything"}, HERE).key is None  # in clear there is nothing to compare
    for bad in ("0A" * 31, "x" * 64, 5):
        with pytest.raises(Invalid):
            join_untrusted({**far, "key": bad}, AWAY)


def test_a_worker_without_an_address_needs_no_callback() -> None:
    assert join_untrusted({"token": "t", "machine": MACHINE}, AWAY).address is None


@pytest.mark.parametrize(
    "change",
    [
        {"token": None}, {"bearer": "b", "worker": "w"}, {"token": None, "bearer": "b"}, {"token": None, "worker": "w"}, {"token": 5},
        {"callback": "ab"}, {"callback": "AB" * 32}, {"machine": None}, {"machine": MACHINE[:-1]}, {"slots": 0}, {"slots": "2"},
        {"name": ""}, {"name": "x" * 200}, {"token": "x" * 5000},
    ],
)  # fmt: skip
def test_a_join_that_is_wrong_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        join_untrusted({**GOOD, **change}, HERE)
    assert caught.value.code == "join-invalid"


@pytest.mark.parametrize(
    "address",
    [
        "http://192.0.2.7:80", "http://example.com:80", "ftp://127.0.0.1:80", "http://127.0.0.1", "http://127.0.0.1:80/path",
        "http://u:p@127.0.0.1:80", "http://127.0.0.1:80?x=1", "http://127.0.0.1:99999", "http://:80", "http://[::1:80", "",
    ],
)  # fmt: skip
def test_the_chief_dials_nothing_in_clear_elsewhere_and_nothing_but_an_address(address: str) -> None:
    with pytest.raises(Invalid):
        checked_address(address, HERE)


def test_a_loopback_address_is_this_machine_only_for_who_is_on_it() -> None:
    assert checked_address("http://[::1]:80/", "::1") == "http://[::1]:80"
    assert checked_address("https://worker.example:443", AWAY) == "https://worker.example:443"
    with pytest.raises(Invalid):
        checked_address("http://127.0.0.1:80", AWAY)
