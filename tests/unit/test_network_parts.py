"""Questions bound to both companies, who is known, what may be dialled, and what the doctor says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from company import network_views as nv
from company.chief.facade import NotFound
from company.chief.network import finding
from company.chief.network.building import is_private_network
from company.chief.network.contact import Contact
from company.chief.network.dialling import PeerDialler
from company.chief.network.findings import network_findings
from company.chief.network.known import MAX_COMPANIES, Known
from company.chief.network.questions import Question, open_answer_untrusted, open_question_untrusted, sign_answer, sign_question
from company.chief.network.trackers import TrackerState, check_tracker_url
from company.chief.network.words import state_reason
from company.cli.lend import until_of
from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage, Unavailable, UsageError
from p2p.base.keys import Identity, company_id_text
from p2p.dht.advertisement import Advertisement
from p2p.dht.reachability import Report
from p2p.dht.solicit import Answer
from p2p.dht.tracker import make_announcement, open_announcement_untrusted

NET, NOW = b"n" * 16, UnixTime(1_700_000_000)
A, B, C = (Identity(letter * 32) for letter in (b"a", b"b", b"c"))


def question() -> Question:
    return Question(asker=A.public, asked=B.public, nonce=b"n" * 16, capability="c", slots=1, memory_mib=0, frame_s=0, created=NOW)


def test_a_question_is_read_by_whom_it_is_meant_for_and_nobody_else() -> None:
    body, signature = sign_question(A, NET, question())
    opened = open_question_untrusted(body, signature, NET, asker=A.public, own=B.public, now=NOW)
    assert opened == question()
    for asker, own, net, now in ((C, B, NET, NOW), (A, C, NET, NOW), (A, B, b"o" * 16, NOW), (A, B, NET, UnixTime(NOW + 700))):
        with pytest.raises(MalformedMessage):
            open_question_untrusted(body, signature, net, asker=asker.public, own=own.public, now=now)


def test_an_answer_belongs_to_one_question_and_one_company() -> None:
    body, signature = sign_answer(B, NET, b"question", Answer(key=B.public, idle_slots=7, speed=3))
    answer = open_answer_untrusted(body, signature, NET, question_body=b"question", asked=B.public, round_trip_s=0.5)
    assert (answer.idle_slots, answer.speed, answer.round_trip_s) == (7, 3, 0.5)
    for asked, text in ((C, b"question"), (B, b"another")):
        with pytest.raises(MalformedMessage):
            open_answer_untrusted(body, signature, NET, question_body=text, asked=asked.public, round_trip_s=0.5)


def test_known_companies_are_bounded_and_never_ourselves() -> None:
    known = Known(A.public)
    known.heard(Contact(key=A.public), "offer", 0.0)
    for number in range(MAX_COMPANIES + 5):
        known.heard(Contact(key=number.to_bytes(32, "big")), "offer", float(number))
    assert len(known) == MAX_COMPANIES and known.get((4).to_bytes(32, "big")) is None and known.get(A.public) is None


def test_what_a_chief_says_of_itself_outweighs_an_old_offer() -> None:
    known = Known(A.public)
    known.heard(Contact(key=B.public, endpoints=(("192.0.2.1", 1),)), "contact", 0.0, name="Lab")
    known.heard(Contact(key=B.public, endpoints=(("192.0.2.9", 1),)), "offer", 1.0)
    found = known.find("Lab")
    assert found.contact.endpoints == (("192.0.2.1", 1),) and found.seen_at == 1.0
    assert known.find(found.id) is not None and known.find(found.id[:8]).id == found.id


def test_unknown_and_ambiguous_names_are_said() -> None:
    known = Known(A.public)
    for identity in (B, C):
        known.heard(Contact(key=identity.public), "contact", 0.0, name="Lab")
    with pytest.raises(NotFound) as refused:
        known.find("Lab")
    assert refused.value.code == "company-ambiguous"
    with pytest.raises(NotFound) as refused:
        known.find("co-nobody")
    assert refused.value.code == "company-unknown"


@pytest.mark.parametrize(
    ("hosts", "named", "expected"),
    [
        (("10.0.0.5", "127.0.0.1"), (), True),  # a first node on a LAN
        (("10.0.0.5",), ("10.0.0.9", "localhost"), True),
        (("10.0.0.5",), ("dht.example",), False),  # a name may lead anywhere
        (("10.0.0.5",), ("nas", "lab.local", "grid.home.arpa.", "LAB.Internal"), True),  # these lead nowhere but here
        (("10.0.0.5",), ("nas", "local.example"), False),
        (("10.0.0.5",), ("8.8.8.8",), False),
        (("8.8.4.4", "127.0.0.1"), (), False),  # a public node is asked by strangers
    ],
)
def test_private_addresses_are_dialled_only_in_private_networks(hosts: tuple[str, ...], named: tuple[str, ...], expected: bool) -> None:
    assert is_private_network(hosts, named) is expected


async def test_who_knows_private_addresses_only_and_may_not_dial_them_is_told_what_to_do() -> None:
    known = Known(A.public)
    known.heard(Contact(key=B.public, endpoints=(("192.168.1.9", 8468), ("fd00::9", 8468))), "contact", 0.0)
    ground = SimpleNamespace(
        known=known,
        allow_private=False,
        report=Report(),
        relays=(),
        directory=SimpleNamespace(status=lambda: SimpleNamespace(peers=(), skew_s=None)),
    )  # fmt: skip
    reason = state_reason(cast(Any, ground))
    assert reason is not None and reason.code == "only-private" and reason.actions[0]["cli"] == "company start --allow-private"
    with pytest.raises(Unavailable) as refused:
        await PeerDialler(A, allow_private=False).open(known.find(company_id_text(B.public)).contact)
    assert "private addresses only" in refused.value.text and "--allow-private" in str(refused.value.hint)
    ground.allow_private = True
    assert (reason := state_reason(cast(Any, ground))) is not None and reason.code == "reachability-unknown"
    ground.allow_private = False
    known.heard(Contact(key=C.public, endpoints=(("8.8.8.8", 8468),)), "contact", 0.0)
    assert (reason := state_reason(cast(Any, ground))) is not None and reason.code == "reachability-unknown"


async def test_a_tracker_hears_of_a_new_offer_soon_and_is_asked_seldom_otherwise(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    asked: list[tuple[float, int]] = []

    async def ask(http: object, state: TrackerState, announcement: bytes, *_: object) -> None:
        asked.append((round(trio.current_time() - began), len(open_announcement_untrusted(announcement, NET).offers)))
        state.ok, state.entries = True, (entry,)

    @asynccontextmanager
    async def no_client(**_: object) -> AsyncIterator[None]:
        yield None

    monkeypatch.setattr(finding, "ask_tracker", ask)
    monkeypatch.setattr(finding, "open_http_client", no_client)
    other = make_announcement(B, NET, dht=(), rpc=(("192.0.2.1", 1),), sequence=1, expires=UnixTime(NOW + 60))
    entry = open_announcement_untrusted(other, NET)
    ground = SimpleNamespace(
        identity=A, network_id=NET, known=Known(A.public), unix_time=lambda: NOW, dht_endpoints=tuple, endpoints=tuple
    )  # fmt: skip
    found = finding.Finding(cast(Any, ground), cast(Any, None), (), [TrackerState("http://t.example")])
    offer = Advertisement(capability="spare/v1/x86_64/py3.11/bubblewrap", endpoints=(("192.0.2.9", 1),), slots=4)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.track)
        await trio.sleep(100)
        found.offer((offer,))
        found.offer((offer,))
        await trio.sleep(1)
        found.offer(())  # within the gap: told at its end
        await trio.sleep(200)
        nursery.cancel_scope.cancel()
    assert asked == [(0, 0), (100, 1), (103, 0)]


def test_the_doctor_says_which_port_is_closed_and_how_far_the_clock_is_off() -> None:
    port = nv.PortView(port="udp", address="0.0.0.0:8468", verdict="closed", consequence="Nobody asks.", fix="open it")
    view = nv.NetworkView(state="public", company="co", network="", ports=[port], skew_s=700.0, relay=nv.RelayView(serves=True))
    found = {f["id"]: f for f in network_findings(view)}
    assert found["network-port"]["fix"] == "open it" and found["network-clock"]["verdict"] == "fail"
    assert "700 s behind" in found["network-clock"]["text"] and found["network"]["verdict"] == "ok"
    assert network_findings(nv.NetworkView(state="off", company="", network="", relay=nv.RelayView(serves=False))) == []


def test_times_and_tracker_addresses_are_read_or_refused() -> None:
    assert until_of("2h", 100.0) == 7300.0 and until_of(None, 0.0) is None
    assert check_tracker_url("http://t.example:8471/") == "http://t.example:8471"
    bad = ("ftp://x", "t.example", "http://[broken", "http://t.example:port", "http://t.example/?q")
    for call in (lambda: until_of("soon", 0.0), *(partial(check_tracker_url, url) for url in bad)):
        with pytest.raises(UsageError):
            call()
