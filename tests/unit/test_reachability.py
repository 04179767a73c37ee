"""Two peers dial back, and their words become a state."""

from __future__ import annotations

from p2p.base.clock import Monotonic
from p2p.dht import reachability as r

OPEN: dict[r.Port, r.Seen] = {"udp": "open", "rpc": "open", "http": "not-asked"}
SHUT: dict[r.Port, r.Seen] = {"udp": "closed", "rpc": "closed", "http": "not-asked"}
A, B, C, D = (r.Helper(bytes([n]) * 32, f"8.8.{n}.1", 1) for n in range(1, 5))
NEAR_A = r.Helper(b"n" * 32, "8.8.1.77", 1)


def at(seconds: float) -> Monotonic:
    return Monotonic(seconds)


def asked(effects: tuple[r.Effect, ...]) -> list[r.Helper]:
    return [e.helper for e in effects if isinstance(e, r.AskToDial)]


def machine(*helpers: r.Helper) -> tuple[r.Reachability, list[r.Helper]]:
    m = r.Reachability(at(0))
    return m, asked(m.handle(r.PeersKnown(helpers), at(0)))


def test_two_peers_of_two_networks_are_asked_and_make_it_public() -> None:
    m, first = machine(A, NEAR_A, B, C)
    assert first == [A, B]
    m.handle(r.Told(A, OPEN), at(1))
    effects = m.handle(r.Told(B, OPEN, "8.8.9.9:5"), at(1))
    assert effects == (r.Changed(m.report),)
    assert m.report.state == "public" and m.report.ports["rpc"] == ("open", 2) and m.report.seen_as == "8.8.9.9:5"
    assert m.next_deadline() == at(r.AGAIN_S)


def test_a_closed_port_makes_it_outbound_only_and_it_is_asked_again_soon() -> None:
    m, _ = machine(A, B)
    m.handle(r.Told(A, SHUT), at(1))
    m.handle(r.Told(B, SHUT), at(1))
    assert m.report.state == "outbound-only" and not m.report.is_open("rpc")
    assert asked(m.handle(r.Tick(), at(r.AGAIN_SOON_S - 1))) == []
    assert asked(m.handle(r.Tick(), at(r.AGAIN_SOON_S))) == [A, B]


def test_where_two_differ_a_third_decides() -> None:
    m, _ = machine(A, B, C, D)
    m.handle(r.Told(A, OPEN), at(1))
    assert asked(m.handle(r.Told(B, SHUT), at(1))) == [C]
    assert m.report.state == "outbound-only"  # a port that half the peers reach is none to rely on
    m.handle(r.Told(C, OPEN), at(2))
    assert m.report.state == "public" and m.report.ports["udp"] == ("open", 2)


def test_one_peer_alone_is_one_witness() -> None:
    m, first = machine(A)
    assert first == [A]
    m.handle(r.Told(A, OPEN), at(1))
    assert m.report.state == "public" and m.report.ports["udp"] == ("open", 1)


def test_who_fails_or_is_late_is_replaced() -> None:
    m, _ = machine(A, B, C, D)
    assert asked(m.handle(r.Failed(A), at(1))) == [C]
    assert asked(m.handle(r.Tick(), at(r.ASK_DEADLINE_S + 2))) == [D]
    m.validate()
    m.handle(r.Told(A, OPEN), at(20))  # it was given up: its word no longer counts
    assert m.report.state == "unknown"


def test_nobody_that_answers_means_offline_and_a_peer_that_comes_is_asked_at_once() -> None:
    m, _ = machine()
    assert m.handle(r.Tick(), at(r.OFFLINE_AFTER_S)) == (r.Changed(m.report),)
    assert m.report.state == "offline"
    assert asked(m.handle(r.PeersKnown((A,)), at(r.OFFLINE_AFTER_S + 1))) == [A]


def test_a_public_chief_that_falls_silent_becomes_offline() -> None:
    m, _ = machine(A)
    m.handle(r.Told(A, OPEN), at(1))
    m.handle(r.Tick(), at(r.AGAIN_S))
    m.handle(r.Failed(A), at(r.AGAIN_S + 1))
    assert m.report.state == "public"
    m.handle(r.Tick(), at(r.AGAIN_S + r.OFFLINE_AFTER_S + 2))
    assert m.report.state == "offline"


def test_blocked_udp_alone_is_outbound_only_and_an_http_port_on_loopback_is_no_fault() -> None:
    assert r.verdict_of(["open", "closed"]) == ("closed", 1)
    m, _ = machine(A)
    m.handle(r.Told(A, {"udp": "closed", "rpc": "open", "http": "not-asked"}), at(1))
    assert m.report.state == "outbound-only" and m.report.is_open("rpc") and m.report.ports["http"] == ("not-asked", 0)
