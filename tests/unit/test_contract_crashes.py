"""The crash table: each row, and each side killed right after every journal record."""

from __future__ import annotations

import pytest

from p2p.contracts import messages as m
from p2p.contracts.agreement import Kind, Record
from p2p.contracts.chain import receipt_faults
from p2p.contracts.table import State
from p2p.contracts.terms import COUNTING, Cause, Role
from tests.support.contract_world import Link, Party, World, terms


def converged(world: World) -> None:
    """Both are final and say the same of everything that counts."""
    b, l_ = (world.parties[role].machine for role in (Role.BORROWER, Role.LENDER))
    assert b is not None
    assert l_ is not None
    assert b.state is l_.state, (b.state, l_.state)
    assert b.a.acked == l_.a.acked
    assert b.a.causes == l_.a.causes
    assert all(len(p.chain.halves) <= 1 for p in world.parties.values())
    if b.state is State.RATED:
        assert receipt_faults(b.a.halves[Role.LENDER], b.a.halves[Role.BORROWER]) == []
        assert {r: s.hash for r, s in b.a.halves.items()} == {r: s.hash for r, s in l_.a.halves.items()}
    # nothing said before a kill is ever said differently after it: what one has, the other has, to the byte
    assert [s.hash for s in b.a.out][: len(l_.a.came)] == [s.hash for s in l_.a.came]
    assert [s.hash for s in l_.a.out][: len(b.a.came)] == [s.hash for s in b.a.came]
    assert not world.borrower.proofs
    assert not world.lender.proofs


def run(kill: Role | None, after: int | None, down_s: float, **changes: object) -> World:
    world = World(7, terms=terms(time_frame_s=12, **changes))
    if kill is not None:
        world.parties[kill].kill_after, world.parties[kill].down_s = after, down_s
    world.start()
    world.run_until_over(900)
    return world


RECORDS = {role: len(run(None, None, 0).parties[role].journal) for role in Role}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("down_s", [0.5, 4.0, 40.0])
def test_each_side_killed_after_every_record_converges(role: Role, down_s: float) -> None:
    assert RECORDS[role] > 12
    for after in range(1, RECORDS[role] + 1):
        world = run(role, after, down_s)
        assert world.parties[role].life == 1, f"record {after} was never written"
        converged(world)
        unacked = world.lender.facts.core_ms - world.lender.machine.a.acked.core_ms  # type: ignore[union-attr]
        assert unacked <= world.terms.window_core_ms, f"the lender lost {unacked} core-ms, killed after {after}"


def in_the_middle(down: Role, down_s: float) -> World:
    """Kill one side for a while when the contract has run for 20 s."""
    world = World(3)
    world.start()
    world.run(20)
    world.kill(world.parties[down], down_s)
    return world


def test_borrower_away_for_less_than_the_lease_finds_the_contract_alive() -> None:
    world = in_the_middle(Role.BORROWER, 6)
    world.run(0.5)
    assert world.lender.work  # the lender runs on, within the window
    world.run_until_over()
    converged(world)
    assert world.lender.machine.a.causes == {}  # type: ignore[union-attr]
    assert world.borrower.facts == world.lender.facts  # what was held was handed over


def test_borrower_away_for_longer_frees_the_slots_and_is_called_silent() -> None:
    world = in_the_middle(Role.BORROWER, 60)
    world.run(16)
    assert world.lender.machine.state is State.BROKEN  # type: ignore[union-attr]
    assert not world.lender.work
    world.run_until_over()
    converged(world)
    assert world.lender.machine.a.causes[Role.LENDER] is Cause.PEER_SILENT  # type: ignore[union-attr]
    assert world.lender.machine.a.causes[Role.BORROWER] is Cause.SELF_AWAY  # type: ignore[union-attr]
    assert world.lender.most_unacked <= world.terms.window_core_ms


def test_lender_away_for_less_than_the_lease_is_not_given_up() -> None:
    world = in_the_middle(Role.LENDER, 9)
    world.run(8.9)
    assert world.borrower.machine.state is State.SUSPECT  # type: ignore[union-attr]
    assert not world.borrower.work  # nothing new, and nothing is sent elsewhere yet
    world.run_until_over()
    converged(world)
    assert world.borrower.machine.a.causes == {}  # type: ignore[union-attr]


def test_lender_away_for_longer_is_given_up() -> None:
    world = in_the_middle(Role.LENDER, 60)
    world.run(16)
    assert world.borrower.machine.state is State.BROKEN  # type: ignore[union-attr]
    world.run_until_over()
    converged(world)


def test_a_partition_ends_the_contract_on_both_sides_independently() -> None:
    world = World(4)
    world.start()
    world.run(20)
    world.link.is_up = False
    world.run(17)
    assert {p.machine.state for p in world.parties.values() if p.machine} == {State.BROKEN}
    world.run(30)
    world.link.is_up = True
    world.run_until_over()
    converged(world)
    assert set(world.lender.machine.a.causes.values()) == {Cause.PEER_SILENT}  # type: ignore[union-attr]


@pytest.mark.parametrize("first", list(Role))
@pytest.mark.parametrize("causes", [(Cause.OWNER_RECLAIM, Cause.SHUTDOWN), (Cause.BAD_RESULT, Cause.OWNER_RECLAIM)])
def test_both_revoke_with_the_same_result_in_either_order(first: Role, causes: tuple[Cause, Cause]) -> None:
    world = World(5)
    world.start()
    world.run(20)
    by_role = {Role.BORROWER: causes[0], Role.LENDER: causes[1]}
    for role in (first, first.other):
        world.revoke(world.parties[role], by_role[role])
    world.run_until_over()
    converged(world)
    assert world.lender.machine.a.causes == by_role  # type: ignore[union-attr]


def test_a_side_that_never_returns_leaves_a_half_alone() -> None:
    world = in_the_middle(Role.BORROWER, 10_000)
    world.run(1000)
    lender = world.lender.machine
    assert lender is not None
    assert lender.state is State.RATED
    half = lender.a.halves[Role.LENDER].message
    assert isinstance(half, m.Half)
    assert half.peer_half == m.ZERO
    assert tuple(half.accepted) == tuple(lender.a.acked)
    assert half.accepted[1] > 0


def test_a_commit_after_the_deadline_is_void_without_penalty() -> None:
    fresh = World(6)
    behave = fresh.on_state

    def slow(party: Party, state: State) -> None:
        if state is State.ACCEPTED and party is fresh.borrower:
            fresh.link.is_up = False
            fresh.at(9.9, lambda: behave(party, state))  # signed in time by its own clock, and late on arrival
            fresh.at(12.0, lambda: setattr(fresh.link, "is_up", True))
        else:
            behave(party, state)

    fresh.on_state = slow
    fresh.start()
    fresh.run_until_over()
    converged(fresh)
    assert fresh.lender.machine.state is State.LAPSED  # type: ignore[union-attr]
    assert fresh.lender.machine.a.causes == {}  # type: ignore[union-attr]


def test_a_commitment_that_never_arrived_and_was_revoked_is_void_without_a_cause() -> None:
    world = World(12, link=Link(delay_s=(0.0, 1.5)))
    behave = world.on_state

    def cut(party: Party, state: State) -> None:
        if state is State.ACCEPTED and party is world.borrower:
            world.link.is_up = False
            world.at(0.5, lambda: world.revoke(world.borrower, Cause.OWNER_RECLAIM))
            world.at(14.0, lambda: setattr(world.link, "is_up", True))
        behave(party, state)

    world.on_state = cut
    world.start()
    world.run_until_over()
    converged(world)
    assert world.borrower.machine.state is State.LAPSED  # type: ignore[union-attr]
    world.run(10)
    converged(world)
    assert world.lender.machine.a.causes == {}  # type: ignore[union-attr]


@pytest.mark.parametrize("offset_s", [300.0, -300.0])
def test_calendars_five_minutes_apart_judge_nobody(offset_s: float) -> None:
    world = World(8)
    world.borrower.wall_offset_s = offset_s
    world.start()
    world.run_until_over()
    converged(world)
    assert world.lender.machine.a.causes == {}  # type: ignore[union-attr]
    assert world.lender.machine.a.acked.fragments == 120  # type: ignore[union-attr]


@pytest.mark.parametrize("leap_s", [86_400.0, -86_400.0, 3600.0])
@pytest.mark.parametrize("role", list(Role))
def test_a_leap_of_the_calendar_ends_no_running_contract(role: Role, leap_s: float) -> None:
    world = World(9)
    world.start()
    world.run(20)
    world.parties[role].wall_offset_s = leap_s
    world.run_until_over()
    converged(world)
    assert world.lender.machine.a.causes == {}  # type: ignore[union-attr]


@pytest.mark.parametrize("leap_s", [86_400.0, -86_400.0])
@pytest.mark.parametrize("role", list(Role))
def test_a_leap_during_a_restart_blames_nobody(role: Role, leap_s: float) -> None:
    world = in_the_middle(role, 3)
    world.parties[role].wall_offset_s = leap_s
    world.run_until_over()
    converged(world)
    assert all(c not in COUNTING for c in world.lender.machine.a.causes.values())  # type: ignore[union-attr]


def test_nothing_leaves_before_it_is_on_disk() -> None:
    world = World(10)
    sent: list[tuple[Role, bytes]] = []

    def watch(party: Party, wire: bytes) -> list[bytes]:
        sent.append((party.role, wire))
        on_disk = [r.signed.wire for r in map(Record.unpack, party.journal) if r.signed is not None and r.kind is Kind.OUT]
        assert wire in on_disk or wire[1] == 0  # a word of receipt
        return [wire]

    world.deliver_hook = watch
    world.start()
    world.run_until_over()
    assert len(sent) > 40


def test_a_lossy_link_only_delays() -> None:
    world = World(11, link=Link(drop=0.3, repeat=0.3, delay_s=(0.0, 0.8)))
    world.start()
    world.run_until_over()
    converged(world)
    assert world.lender.machine.state is State.RATED  # type: ignore[union-attr]
