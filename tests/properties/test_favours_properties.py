"""Whatever is asked: never more than there is, by favours owed, newcomers' tenth kept, and nobody waits longer than a balance lasts."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from p2p.base.clock import UnixTime
from p2p.base.keys import Identity
from p2p.contracts import messages as m
from p2p.contracts.signing import Signed, Signer
from p2p.contracts.terms import Cause, Role
from p2p.reputation.evidence import Evidence
from p2p.reputation.favours import LEAST_OFFERED, Ask, Favours, Supply
from p2p.reputation.graph import newcomer_slots
from p2p.reputation.owed import enter, explained, recomputed, steps_of
from p2p.reputation.supply import MAX_PERIODS, Control

ME, OTHER = (Signer(Identity(bytes([n]) * 32), b"n" * 16) for n in (1, 2))
COMPANIES = [bytes([n]) * 32 for n in range(8)]
asks = st.lists(st.builds(Ask, st.sampled_from(COMPANIES), st.integers(0, 30)), max_size=12)
balances = st.dictionaries(st.sampled_from(COMPANIES[:5]), st.floats(1.0, 1e9), max_size=5)
held = st.dictionaries(st.sampled_from(COMPANIES), st.integers(0, 20), max_size=5)


@given(asks, balances, st.integers(0, 60), held, st.booleans())
def test_slots_are_divided_by_favours_and_never_beyond_what_there_is(
    waiting: list[Ask], owed: dict[bytes, float], idle: int, has: dict[bytes, int], is_taken_back: bool
) -> None:
    favours = Favours(dict(owed))
    got = favours.grant(waiting, idle, has, is_taken_back=is_taken_back)
    assert len(got) == len(waiting) and all(0 <= n <= ask.slots for n, ask in zip(got, waiting, strict=True)) and sum(got) <= idle
    assert favours.balances == owed  # asking changes nothing
    mine, wanted = dict.fromkeys(COMPANIES, 0), dict.fromkeys(COMPANIES, 0)
    for n, ask in zip(got, waiting, strict=True):
        mine[ask.company] += n
        wanted[ask.company] += ask.slots
    for one, other in itertools.permutations(owed, 2):
        if owed[one] > owed[other]:
            assert mine[one] >= min(wanted[one], mine[other])
    known, new = ([c for c in COMPANIES if (c in owed) == is_known] for is_known in (True, False))
    new_got, new_wanted = sum(mine[c] for c in new), sum(wanted[c] for c in new)
    bound = max(0, newcomer_slots(idle + sum(has.get(c, 0) for c in new)) - sum(has.get(c, 0) for c in new))
    unmet = sum(wanted[c] - mine[c] for c in known)
    if unmet:  # newcomers have no more than their part while somebody owed lacks slots, and no less, but the last slot of all
        assert min(new_wanted, bound, max(0, idle - 1)) <= new_got <= bound
    elif is_taken_back:
        assert sum(got) == min(idle, sum(wanted.values()))
    else:
        assert new_got <= bound


@given(st.integers(1, 12), st.integers(1, 5))
def test_a_newcomer_waits_for_one_slot_no_longer_than_a_balance_lasts(hours: int, companies: int) -> None:
    """Each has the slot for an hour, again and again; the newcomer asks every time."""
    favours = Favours({COMPANIES[n]: float(hours) for n in range(companies)})
    newcomer = COMPANIES[7]
    for turn in range(hours * companies + 1):
        got = favours.grant([Ask(newcomer, 1), *(Ask(COMPANIES[n], 1) for n in range(companies))], 1)
        if got[0]:
            assert turn == hours * companies
            return
        favours.given(COMPANIES[got.index(1) - 1], 1.0)
    raise AssertionError("it never had the slot")


@given(st.lists(st.builds(Ask, st.sampled_from(COMPANIES), st.integers(1, 9)), max_size=12), balances, st.integers(1, 40))
def test_only_who_is_owed_nothing_is_displaced_and_newcomers_keep_their_part(
    lent: list[Ask], owed: dict[bytes, float], needed: int
) -> None:
    favours, capacity = Favours(dict(owed)), sum(ask.slots for ask in lent)
    for asker in COMPANIES:
        places = favours.to_take_back(lent, asker, needed, capacity)
        assert len(set(places)) == len(places)
        assert not places or favours.owed(asker) > 0
        assert all(favours.owed(lent[n].company) <= 0 for n in places)
        if places:  # without the last one either too little would go back or newcomers would keep more than their part
            before = sum(ask.slots for n, ask in enumerate(lent) if favours.owed(ask.company) <= 0 and n not in places[:-1])
            assert sum(lent[n].slots for n in places[:-1]) < needed and before > min(newcomer_slots(capacity), capacity - 1)


facts = st.tuples(st.booleans(), st.integers(0, 10**9), st.integers(0, 10**9), st.booleans(), st.integers(0, 10**6), st.booleans())


def _half(number: int, is_lender: bool, core_ms: int, claimed: int, is_bad: bool, ended: int) -> Signed:
    cause = Cause.BAD_RESULT if is_bad else Cause.NONE
    role = Role.LENDER if is_lender else Role.BORROWER
    causes = (int(cause), 0) if role is Role.BORROWER else (0, int(cause))
    return ME.sign(
        m.Half(
            1, ME.public, OTHER.public, number.to_bytes(32, "big"), int(role), number, m.ZERO, (1, core_ms, 0), (1, claimed, 0), 0, 0,
            *causes, 0, 1_790_000_000 + ended, m.ZERO,
        )
    )  # fmt: skip


@given(st.lists(facts, max_size=12), st.dictionaries(st.integers(1, 12), st.integers(0, 10**9)))
def test_a_balance_is_recomputed_from_what_explains_it_and_lies_between_nothing_and_what_was_received(
    rows: list[tuple[bool, int, int, bool, int, bool]], own: dict[int, int]
) -> None:
    found, balance = Evidence(ME.public), 0.0
    for number, (is_lender, core_ms, claimed, is_bad, ended, _) in enumerate(rows, 1):
        found.add(_half(number, is_lender, core_ms, claimed, is_bad, ended))
        if is_lender:
            balance = max(0.0, balance - max(core_ms, claimed))
        elif not is_bad:
            balance += own.get(number, core_ms)  # of its one fragment
    steps = steps_of(found, OTHER.public, yardsticks={number.to_bytes(32, "big"): float(own_ms) for number, own_ms in own.items()})
    said = explained(OTHER.public, steps)
    assert said["owed_core_ms"] == recomputed(said) == enter(Favours(), OTHER.public, steps).owed(OTHER.public) == balance
    found.forked.add(OTHER.public)
    assert steps_of(found, OTHER.public) == []


@given(st.lists(facts, max_size=30), st.integers(0, 2 * 10**6), st.integers(1, 200))
def test_what_is_offered_stays_between_its_bounds_and_comes_back(
    rows: list[tuple[bool, int, int, bool, int, bool]], after: int, capacity: int
) -> None:
    control = Control(ME.public)
    for number, (is_lender, core_ms, claimed, is_bad, ended, has_asked) in enumerate(rows, 1):
        control.settled(_half(number, is_lender, core_ms, claimed, is_bad, ended))
        if has_asked:
            control.asked(UnixTime(1_790_000_000 + ended))
    assert len(control.periods) <= MAX_PERIODS
    now = UnixTime(1_790_000_000 + after)
    supply = control.at(now)
    assert LEAST_OFFERED <= supply.offered <= 1.0 and 1 <= supply.slots(capacity) <= capacity
    assert bool(control.why(now)) == (supply.offered < 1.0)
    assert control.at(UnixTime(1_790_000_000 + 10**6 + 12 * 3600)) == Supply()  # after hours without a loss
    again = Control(ME.public)
    again.take_asked(control.asked_hours())
    assert again.asked_hours() == control.asked_hours()
