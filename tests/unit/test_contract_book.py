"""All contracts of one company: bounds for strangers, slots promised once, what a restart brings back."""

from __future__ import annotations

import time

import pytest

from p2p.base.clock import Monotonic, UnixTime
from p2p.base.errors import Unavailable, UsageError
from p2p.base.keys import Identity
from p2p.contracts import book as b
from p2p.contracts import events as e
from p2p.contracts import messages as m
from p2p.contracts.chain import Chain
from p2p.contracts.ledger import SlotLedger
from p2p.contracts.signing import Signer
from p2p.contracts.table import State
from p2p.contracts.terms import Role
from tests.support.contract_world import NET, TERMS

WALL = UnixTime(1_790_000_000)
ME = Signer(Identity(b"l" * 32), NET)
STRANGER = Signer(Identity(b"s" * 32), NET)


def offer(n: int, signer: Signer = STRANGER, expires: int = WALL + 60) -> bytes:
    message = m.Offer(1, signer.public, ME.public, n.to_bytes(32, "big"), 1, 1, m.ZERO, 0, m.ZERO, WALL, expires, TERMS.pack(), 60)
    return signer.sign(message).wire


def book(capacity: int = 4) -> b.Book:
    return b.Book(ME, Chain(ME), capacity=capacity)


def knock(book: b.Book, wire: bytes, signer: Signer = STRANGER, at: float = 1.0) -> tuple[b.BookEffect, ...]:
    effects = book.handle(b.FromPeer(signer.public, wire, WALL), Monotonic(at))
    book.validate()
    return effects


def journal(effects: tuple[b.BookEffect, ...]) -> list[bytes]:
    return [f.effect.record for f in effects if isinstance(f, b.Of) and isinstance(f.effect, e.Persist)]


def turned_away(effects: tuple[b.BookEffect, ...]) -> list[str]:
    return [f.code for f in effects if isinstance(f, b.TurnedAway)]


def test_a_thousand_offers_of_one_stranger_fill_only_its_own_places() -> None:
    mine = book()
    wires = [offer(n) for n in range(1000)]
    before = time.process_time()
    answers = [knock(mine, wire) for wire in wires]
    spent_s = time.process_time() - before
    assert len(mine.inbox()) == b.MAX_OPEN_OFFERS_PER_PEER
    assert sum(turned_away(a) == ["inbox-full"] for a in answers) == 1000 - b.MAX_OPEN_OFFERS_PER_PEER
    assert sum(len(journal(a)) for a in answers) == b.MAX_OPEN_OFFERS_PER_PEER
    assert spent_s < 1.0  # no signature is verified for those that find no place
    other = Signer(Identity(b"o" * 32), NET)
    assert turned_away(knock(mine, offer(1, other), other)) == []


def test_a_blocked_company_is_not_read() -> None:
    mine = book()
    mine.blocked.add(STRANGER.public)
    assert turned_away(knock(mine, b"whatever")) == ["company-blocked"]


def test_an_offer_is_taken_once_and_an_old_one_not_at_all() -> None:
    mine = book()
    knock(mine, offer(1))
    assert journal(knock(mine, offer(1))) == []
    assert turned_away(knock(mine, offer(2, expires=WALL - 3600))) == ["offer-too-old"]
    mine.handle(b.Wake(WALL), Monotonic(100.0))
    assert mine.inbox() == []  # lapsed
    mine.handle(b.Wake(UnixTime(WALL + 8000)), Monotonic(9000.0))
    assert turned_away(knock(mine, offer(1), at=9001.0)) == ["offer-known"]


def test_slots_are_promised_once_and_asked_before_any_signature() -> None:
    mine = book(capacity=3)
    keys = [b.Key(STRANGER.public, n.to_bytes(32, "big")) for n in (1, 2)]
    for n in (1, 2):
        knock(mine, offer(n))
    mine.handle(b.Order(keys[0], e.Agreeing(2, 10, WALL)), Monotonic(2.0))
    with pytest.raises(Unavailable):
        mine.handle(b.Order(keys[1], e.Agreeing(2, 10, WALL)), Monotonic(2.0))
    second = mine.contracts[keys[1]]
    assert second.state is State.OFFERED
    assert second.a.out == []  # nothing was signed
    mine.handle(b.Wake(WALL), Monotonic(20.0))  # the first lapses: no commitment came
    assert mine.slots.promised == 0
    mine.handle(b.Order(keys[1], e.Agreeing(2, 10, WALL)), Monotonic(20.0))
    mine.validate()


def test_a_command_that_fails_leaves_the_ledger_as_it_was() -> None:
    mine = book()
    knock(mine, offer(1))
    key = b.Key(STRANGER.public, (1).to_bytes(32, "big"))
    with pytest.raises(UsageError):
        mine.handle(b.Order(key, e.Agreeing(2, 10, WALL, offer_terms=b"x" * 32)), Monotonic(2.0))
    assert mine.slots.promised == 0


def test_a_restart_brings_promises_back() -> None:
    mine = book()
    key = b.Key(STRANGER.public, (1).to_bytes(32, "big"))
    records = journal(knock(mine, offer(1))) + journal(mine.handle(b.Order(key, e.Agreeing(2, 10, WALL)), Monotonic(2.0)))
    again = book(capacity=1)  # the owner has lowered it meanwhile
    again.restore(key, Role.LENDER, records, Monotonic(5.0), WALL)
    again.validate()
    assert again.slots.promised == 2
    assert again.slots.free == 0


def test_the_ledger_counts_what_is_added_and_never_more_than_there_is() -> None:
    ledger = SlotLedger(4)
    ledger.promise("a", 3)
    with pytest.raises(Unavailable):
        ledger.promise("b", 2)
    ledger.promise("a", 4)
    assert ledger.free == 0
    ledger.let_go("a", 1)
    assert ledger.free == 3
    ledger.let_go("a")
    assert ledger.promised == 0


def test_an_acceptance_of_nobody_known_is_turned_away() -> None:
    mine = book()
    message = m.Accept(1, STRANGER.public, ME.public, b"u" * 32, 2, 1, m.ZERO, 0, m.ZERO, WALL, WALL, b"o" * 32, 1, 10)
    assert turned_away(knock(mine, STRANGER.sign(message).wire)) == ["contract-unknown"]
