"""The tracker's book: signed, expiring, bounded, and nobody can push others out."""

from __future__ import annotations

import base64
import json
from random import Random

import pytest

from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage, PeerError, Unavailable
from p2p.base.keys import Identity
from p2p.dht import tracker as t

NET = b"n" * 16
NOW = UnixTime(1_700_000_000)


def who(number: int) -> Identity:
    return Identity(number.to_bytes(32, "big"))


def said(identity: Identity, *, sequence: int = 1, lifetime_s: int = 600, offers: tuple[bytes, ...] = ()) -> bytes:
    return t.make_announcement(
        identity, NET, dht=(("203.0.113.9", 8468),), rpc=(("203.0.113.9", 8468),), offers=offers, sequence=sequence,
        expires=UnixTime(NOW + lifetime_s),
    )  # fmt: skip


def book(**bounds: int) -> t.TrackerBook:
    return t.TrackerBook(NET, Random(1), **bounds)


def test_what_is_announced_is_handed_out_and_verifies_at_the_reader() -> None:
    tracker = book()
    tracker.announce(said(who(1)), "203.0.113.9", NOW)
    (found,) = t.peers_of_json_untrusted(t.peers_json(tracker, NOW), NET, NOW)
    assert (found.owner, found.rpc, found.dht) == (who(1).public, (("203.0.113.9", 8468),), (("203.0.113.9", 8468),))


def test_an_entry_ends_at_its_expiry() -> None:
    tracker = book()
    tracker.announce(said(who(1), lifetime_s=60), "203.0.113.9", NOW)
    assert len(tracker.sample(UnixTime(NOW + 59))) == 1
    assert tracker.sample(UnixTime(NOW + 60)) == () and len(tracker) == 0


@pytest.mark.parametrize("lifetime_s", [0, -5, t.MAX_LIFETIME_S + t.SKEW_S + 1])
def test_an_expiry_out_of_bounds_is_refused_and_changes_nothing(lifetime_s: int) -> None:
    tracker = book()
    with pytest.raises(PeerError) as refused:
        tracker.announce(said(who(1), lifetime_s=lifetime_s), "203.0.113.9", NOW)
    assert refused.value.code == "announcement-expired" and len(tracker) == 0


def test_an_older_announcement_does_not_replace_a_newer_one() -> None:
    tracker = book()
    tracker.announce(said(who(1), sequence=5), "203.0.113.9", NOW)
    assert tracker.announce(said(who(1), sequence=4), "203.0.113.9", NOW).sequence == 5


def test_one_network_displaces_its_own_entries_and_nobody_elses() -> None:
    tracker = book(max_entries=20, max_per_group=5)
    for number in range(1, 4):
        tracker.announce(said(who(number)), f"8.8.{number}.1", NOW)
    for number in range(100, 140):
        tracker.announce(said(who(number)), "9.9.9.9", NOW)
        tracker.validate()
    owners = {entry.owner for entry in tracker.sample(NOW)}
    assert {who(n).public for n in range(1, 4)} <= owners and len(owners) == 8


def test_a_full_book_takes_from_the_largest_group_and_refuses_a_newcomer_where_all_are_equal() -> None:
    tracker = book(max_entries=4, max_per_group=3)
    for number in range(3):
        tracker.announce(said(who(10 + number)), "9.9.9.9", NOW)
    tracker.announce(said(who(1)), "8.8.8.8", NOW)
    tracker.announce(said(who(2)), "1.1.1.1", NOW)
    tracker.announce(said(who(3)), "4.4.4.4", NOW)
    assert {who(1).public, who(2).public, who(3).public} <= {e.owner for e in tracker.sample(NOW)} and len(tracker) == 4
    with pytest.raises(Unavailable) as refused:
        for number in range(4, 9):
            tracker.announce(said(who(number)), f"5.5.{number}.5", NOW)
    assert refused.value.code == "tracker-full" and len(tracker) == 4


def test_one_address_announces_so_often_and_no_more() -> None:
    tracker = book()
    for number in range(t.ANNOUNCES_PER_MINUTE):
        tracker.announce(said(who(1), sequence=number), "8.8.8.8", NOW)
    with pytest.raises(Unavailable) as refused:
        tracker.announce(said(who(1), sequence=99), "8.8.8.8", NOW)
    assert refused.value.code == "too-many-announcements"
    tracker.announce(said(who(2)), "8.8.4.4", NOW)
    tracker.announce(said(who(1), sequence=99), "8.8.8.8", UnixTime(NOW + 60))


def test_private_addresses_are_each_a_party_of_their_own() -> None:
    tracker = book(max_per_group=2)
    for number in range(1, 20):
        tracker.announce(said(who(number)), "127.0.0.1", NOW)
    assert len(tracker) == 19
    assert t.group_of_host("10.0.0.1") != t.group_of_host("10.0.0.2")
    assert t.group_of_host("9.9.9.1") == t.group_of_host("::ffff:9.9.9.2") == "9.9.9.0/24"


def test_another_companys_offer_another_network_and_a_changed_byte_are_refused() -> None:
    stranger = t.open_announcement_untrusted(said(who(2)), NET).record.raw
    for data in (said(who(1), offers=(stranger,)), said(who(1))[:-1] + b"\0", b"", b"\x92\xc4\x00\x90"):
        with pytest.raises(MalformedMessage):
            t.open_announcement_untrusted(data, NET)
    with pytest.raises(MalformedMessage):
        t.open_announcement_untrusted(said(who(1)), b"o" * 16)


def test_an_entry_that_a_tracker_changed_is_left_out_and_another_network_is_said() -> None:
    tracker = book()
    for number in (1, 2):
        tracker.announce(said(who(number)), "203.0.113.9", NOW)
    answer = json.loads(t.peers_json(tracker, NOW))
    broken = bytearray(base64.b64decode(answer["peers"][0]["signed"]))
    broken[60] ^= 1
    answer["peers"][0]["signed"] = base64.b64encode(bytes(broken)).decode()
    assert len(t.peers_of_json_untrusted(json.dumps(answer).encode(), NET, NOW)) == 1
    with pytest.raises(MalformedMessage, match="another network"):
        t.peers_of_json_untrusted(t.peers_json(tracker, NOW), b"o" * 16, NOW)
