"""The contract's machine, its messages and proofs: single rules."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack
import pytest

from p2p.base.clock import Monotonic, UnixTime
from p2p.base.errors import MalformedMessage, UsageError
from p2p.base.keys import Identity
from p2p.contracts import events as e
from p2p.contracts import messages as m
from p2p.contracts.agreement import Record
from p2p.contracts.chain import Chain, chain_fault
from p2p.contracts.forks import contradiction, fork_proof, verify_fork_untrusted
from p2p.contracts.machine import ContractMachine
from p2p.contracts.signing import Signed, Signer, open_signed_untrusted, split_wire_untrusted
from p2p.contracts.table import FINAL, TABLE, State, mermaid
from p2p.contracts.terms import Cause, Facts, Role, Terms, terms_digest
from tests.support.contract_world import NET, NONCE, TERMS, Party, World, terms

DOC = Path(__file__).resolve().parents[2] / "docs/contracts.md"
WALL = UnixTime(1_790_000_000)


def running(**changes: Any) -> World:
    world = World(1, terms=terms(**changes))
    world.start()
    world.run(12.5)
    assert world.lender.machine is not None
    assert world.lender.machine.state is State.ACTIVE
    return world


def test_the_diagram_in_the_docs_is_drawn_from_the_table() -> None:
    assert f"```mermaid\n{mermaid()}\n```" in DOC.read_text("utf-8")


def test_every_state_is_reached_and_only_final_ones_have_no_way_out() -> None:
    reached = {to for _, _, to in TABLE} | {State.DRAFT}
    assert reached == set(State)
    assert set(State) - {state for states, _, _ in TABLE for state in states} == FINAL


def test_one_state_and_trigger_lead_to_one_state() -> None:
    ways = [(state, trigger) for states, trigger, _ in TABLE for state in states]
    assert len(ways) == len(set(ways))


def test_signed_bytes_come_back_verbatim_and_only_for_this_network_type_and_key() -> None:
    signer = Signer(Identity(b"a" * 32), NET)
    signed = signer.sign(m.Head(1, signer.public, 3, b"h" * 32, WALL))
    assert msgpack.packb(msgpack.unpackb(signed.body), use_bin_type=True) == signed.body
    assert open_signed_untrusted(NET, signer.public, 21, signed.body, signed.signature) == signed
    for network, key, code in ((b"x" * 16, signer.public, 21), (NET, b"k" * 32, 21), (NET, signer.public, 20)):
        with pytest.raises(MalformedMessage):
            open_signed_untrusted(network, key, code, signed.body, signed.signature)


def test_terms_that_contradict_themselves_are_refused_in_words() -> None:
    for change in ({"network": "any"}, {"epoch_s": 6}, {"check": "trust-me"}, {"time_frame_s": 30 * 86_400}):
        with pytest.raises(MalformedMessage):
            Terms.unpack_untrusted(terms(**change).pack())
    assert Terms.unpack_untrusted(TERMS.pack()) == TERMS


def test_accepting_binds_to_the_text_that_was_shown() -> None:
    world = World(1)
    world.on_state = lambda _p, _s: None
    world.start()
    world.run(1)
    lender = world.lender.machine
    assert lender is not None
    with pytest.raises(UsageError) as refused:
        world.tell(world.lender, e.Agreeing(2, 10, WALL, offer_terms=b"x" * 32))
    assert refused.value.code == "terms-changed"
    assert lender.state is State.OFFERED
    world.tell(world.lender, e.Agreeing(2, 10, WALL, offer_terms=terms_digest(TERMS.pack())))
    assert lender.state is State.ACCEPTED


def test_a_counter_proposal_is_answered_by_an_offer_with_the_next_number() -> None:
    world = World(1)
    other = terms(slots=1)
    world.on_state = lambda _p, _s: None
    world.start()
    world.run(1)
    world.tell(world.lender, e.Refusing("counter", WALL, "one slot", terms=other))
    world.run(1)
    borrower, lender = world.borrower.machine, world.lender.machine
    assert borrower is not None
    assert lender is not None
    assert Terms.unpack_untrusted(borrower.a.suggestion) == other
    world.tell(world.borrower, e.Propose(other, 30, WALL))
    world.run(1)
    assert lender.a.terms == other
    assert borrower.a.offer is not None
    assert borrower.a.offer.message.sequence == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("by", list(Role))
def test_an_amendment_takes_effect_at_its_epoch_on_both_sides(by: Role) -> None:
    world = running()
    party, other = world.parties[by], world.parties[by.other]
    assert party.machine is not None
    assert other.machine is not None
    longer = terms(time_frame_s=90)
    world.tell(party, e.Amending(longer, party.machine.a.epoch + 3, WALL))
    world.run(0.5)
    assert other.machine.state is State.AMENDING
    world.tell(other, e.AgreeingAmendment(WALL, terms_digest(longer.pack())))
    world.run(0.5)
    assert party.machine.a.terms == TERMS  # not before its epoch
    world.run_until_over()
    assert [p.machine.a.terms for p in world.parties.values() if p.machine] == [longer, longer]
    assert world.lender.machine is not None
    assert world.lender.machine.a.acked.fragments > 170


def test_an_amendment_that_nobody_agrees_to_is_void_on_both_sides() -> None:
    world = running()
    assert world.lender.machine is not None
    world.tell(world.borrower, e.Amending(terms(time_frame_s=90), world.lender.machine.a.epoch + 2, WALL))
    world.run_until_over()
    assert [p.machine.a.terms for p in world.parties.values() if p.machine] == [TERMS, TERMS]


def test_an_amendment_that_comes_after_its_epoch_changes_nothing_and_stops_nothing() -> None:
    world = running()
    borrower, lender = world.borrower.machine, world.lender.machine
    assert borrower is not None
    assert lender is not None
    world.link.is_up = False
    from_epoch = borrower.a.epoch + 2
    world.tell(world.borrower, e.Amending(terms(time_frame_s=90), from_epoch, WALL))
    while lender.a.epoch < from_epoch:
        world.run(0.5)
    world.link.is_up = True
    world.run_until_over()
    assert lender.a.acked == borrower.a.acked and lender.a.acked.fragments > 100
    assert not lender.a.causes and [m_.a.terms for m_ in (borrower, lender)] == [TERMS, TERMS]
    assert not any("revision" in text for text in world.lender.refused)


def test_what_time_has_done_is_written_though_a_command_is_refused() -> None:
    world = running()
    lender = world.lender.machine
    assert lender is not None
    epoch = lender.a.epoch
    world.now += 6  # a statement is due
    with pytest.raises(UsageError):
        world.tell(world.lender, e.Amending(TERMS, 0, WALL))
    deadline = lender.next_deadline()
    assert lender.a.epoch > epoch and deadline is not None and deadline <= lender.now
    world.run_until_over()  # which asserts that no record is left out
    assert lender.a.is_over and lender.a.acked.fragments > 0


def test_a_revocation_is_in_force_at_once_though_nothing_arrives() -> None:
    world = running()
    world.link.is_up = False
    world.revoke(world.lender, Cause.OWNER_RECLAIM)
    world.run(0.1)
    assert not world.lender.work
    assert world.lender.machine is not None
    assert world.lender.machine.state is State.CLOSING
    world.run(1)
    world.link.is_up = True
    world.run_until_over()
    assert world.borrower.machine is not None
    assert world.borrower.machine.a.causes == {Role.LENDER: Cause.OWNER_RECLAIM}


def test_who_is_away_is_told_seldom_and_who_is_back_at_once() -> None:
    """Trying every 30 s would be 240 times in these two hours: a quarter of what a market's companies sent went to absent ones."""
    world = World(1, settle_window_s=86_400.0)
    world.start()
    world.run(12.5)
    world.link.is_up = False
    told: set[float] = set()

    def hear(party: Party, wire: bytes) -> list[bytes]:
        if party is world.lender:
            told.add(world.now)
        return [wire]

    world.deliver_hook = hear
    world.revoke(world.lender, Cause.OWNER_RECLAIM)
    began = world.now
    world.run(7200)
    tries = sorted(at - began for at in told)
    waits = [later - at for at, later in pairwise(tries)]
    assert 10 < len(tries) < 40
    assert all(wait <= max(31, at / 3) for at, wait in zip(tries, waits, strict=False))  # a hole in the network is found to be over soon
    world.kill(world.borrower, 1.0)  # it comes back, and speaks first
    world.link.is_up = True
    world.run(5)
    assert all(p.machine is not None and p.machine.a.is_over for p in world.parties.values())


@pytest.mark.parametrize(("silence_s", "state"), [(2 * TERMS.epoch_s, State.SUSPECT), (TERMS.lease_s, State.BROKEN)])
def test_silence_is_over_at_its_deadline_however_the_sum_is_rounded(silence_s: int, state: State) -> None:
    """A clock of t + 15 s may lie less than 15 s after t in floats; a deadline that nothing comes of would be asked for again for ever."""
    machine = running().borrower.machine
    assert machine is not None
    times = (machine.now + i / 1000 for i in range(1, 5000))
    machine.heard_at = Monotonic(next(t for t in times if (t + silence_s) - t < silence_s))
    due = Monotonic(machine.heard_at + silence_s)
    machine.handle(e.Tick(WALL), due)
    assert machine.state is state
    assert machine.next_deadline() != due


def test_a_borrower_that_stops_acknowledging_costs_one_epoch() -> None:
    world = running()
    world.deliver_hook = lambda party, wire: [] if party is world.borrower and wire[1] == m.Ack.code else [wire]
    world.run(14)
    assert not world.lender.work
    assert world.lender.most_unacked <= TERMS.window_core_ms
    world.run(20)
    assert world.lender.machine is not None
    assert world.lender.machine.a.causes == {Role.LENDER: Cause.UNACKED}


def test_a_lender_that_claims_more_than_it_handed_over_is_not_acknowledged_for_it() -> None:
    world = running()

    def boast(party: Party, wire: bytes) -> list[bytes]:
        code, body, last = split_wire_untrusted(wire)
        if party is not world.lender or code != m.Epoch.code or not isinstance(last, bytes):
            return [wire]
        told = party.signer.open_untrusted(party.signer.public, code, body, last).message
        return [party.signer.sign(replace(told, facts=tuple(n + 50_000 for n in told.facts))).wire]  # type: ignore[attr-defined, type-var]

    world.deliver_hook = boast
    world.run(6)
    assert world.borrower.machine is not None
    a = world.borrower.machine.a
    assert a.claimed.core_ms > world.borrower.facts.core_ms  # it did claim
    assert world.borrower.facts.covers(a.acked)
    assert a.acked.core_ms > 0


def forge(world: World, signed: Signed, **changes: Any) -> Signed:
    return world.lender.signer.sign(replace(signed.message, **changes))  # type: ignore[type-var]


def test_two_messages_with_one_number_make_a_proof_and_end_the_contract() -> None:
    world = running()
    assert world.lender.machine is not None
    last = world.lender.machine.a.out[-1]
    world.tell(world.borrower, e.Received(forge(world, last, created=5).wire, WALL))
    world.run(1)
    (proof,) = world.borrower.proofs
    found = verify_fork_untrusted(NET, proof)
    assert found.author == world.lender.signer.public
    assert "one contract" in found.what
    assert State.BROKEN in world.borrower.states
    with pytest.raises(MalformedMessage):
        verify_fork_untrusted(b"x" * 16, proof)
    with pytest.raises(MalformedMessage):
        verify_fork_untrusted(NET, proof[:-1] + bytes([proof[-1] ^ 1]))


def test_a_message_that_denies_the_one_before_it_is_a_proof_too() -> None:
    world = running()
    assert world.lender.machine is not None
    out = world.lender.machine.a.out
    last = next(s for s in reversed(out) if isinstance(s.message, m.Epoch))
    number = last.message.epoch + 1  # type: ignore[attr-defined]
    next_ = forge(world, last, sequence=len(out) + 1, prev=b"x" * 32, epoch=number)  # right in everything else
    world.tell(world.borrower, e.Received(next_.wire, WALL))
    world.run(1)
    assert "denies" in verify_fork_untrusted(NET, world.borrower.proofs[0]).what


def test_two_honest_messages_are_no_proof() -> None:
    world = running()
    assert world.lender.machine is not None
    out = world.lender.machine.a.out
    assert all(contradiction(a, b) is None and fork_proof(a, b) is None for a in out for b in out)


def test_two_halves_at_one_place_or_about_one_contract_are_a_proof() -> None:
    world = running(time_frame_s=15)
    world.run_until_over()
    half = world.lender.chain.halves[0]
    for changes in ({"ended": 1}, {"ended": 1, "chain_sequence": 2}):
        other = world.lender.signer.sign(replace(half.message, **changes))  # type: ignore[type-var]
        proof = fork_proof(half, other)
        assert proof is not None
        assert verify_fork_untrusted(NET, proof).author == world.lender.signer.public


def test_a_withheld_half_shows_in_the_head() -> None:
    signer = Signer(Identity(b"c" * 32), NET)
    chain = Chain(signer)
    for number in range(3):
        want = e.WantHalf(Facts(1, 1, 1), Facts(1, 1, 1), 0, 0, Cause.NONE, Cause.NONE, m.ZERO)
        a = ContractMachine(Role.LENDER, signer, b"p" * 32, NONCE).a
        a.contract = bytes([number]) * 32
        chain.make(want, a, WALL)
        assert chain.make(want, a, WALL) is chain.halves[-1]  # asked again, the same half
    head = chain.head(WALL)
    assert chain_fault(chain.halves, head) is None
    withheld, missing = chain_fault(chain.halves[:2], head), chain_fault([chain.halves[0], chain.halves[2]], head)
    assert withheld is not None
    assert "withheld" in withheld.text
    assert missing is not None
    assert missing.place == 2


@pytest.mark.parametrize(
    "changes",
    [{"facts": (0, 0, 0)}, {"epoch": 9}, {"revision": 1}, {"role": 1}, {"peer": b"z" * 32}, {"seen_sequence": 40}, {"about": b"z" * 32}],
)
def test_a_message_that_breaks_a_rule_changes_nothing(changes: dict[str, Any]) -> None:
    world = running()
    assert world.lender.machine is not None
    assert world.borrower.machine is not None
    last = next(s for s in reversed(world.lender.machine.a.out) if isinstance(s.message, m.Epoch))
    number = len(world.lender.machine.a.out)
    fields = {"sequence": number + 1, "prev": world.lender.machine.a.out[-1].hash, "epoch": last.message.epoch + 1, **changes}  # type: ignore[attr-defined]
    before = (len(world.borrower.journal), world.borrower.machine.a.claimed, world.borrower.machine.state)
    world.tell(world.borrower, e.Received(forge(world, last, **fields).wire, WALL))
    assert (len(world.borrower.journal), world.borrower.machine.a.claimed, world.borrower.machine.state) == before
    assert world.borrower.refused or changes.keys() == {"about"}


def test_a_record_comes_back_from_disk_as_it_was() -> None:
    world = running()
    for party in world.parties.values():
        assert all(Record.unpack(data).pack() == data for data in party.journal)


@pytest.mark.parametrize(
    ("by", "cause", "state"), [("lender", Cause.OWNER_RECLAIM, State.REVOKING), ("borrower", Cause.PEER_SILENT, State.BROKEN)]
)
@pytest.mark.parametrize("says_so", [True, False])
def test_what_is_counted_last_is_in_the_totals_also_without_notice(says_so: bool, by: str, cause: Cause, state: State) -> None:
    """The lender's guests are stopped at once; their last numbers come a moment later."""
    world = running()
    who = {"lender": world.lender, "borrower": world.borrower}[by]
    behave = world.on_state
    world.on_state = lambda party, state: behave(party, state) if says_so and party is world.borrower else None
    world.revoke(who, cause, 0)
    world.run(2.0)
    lender, borrower = world.lender, world.borrower
    assert lender.machine is not None and borrower.machine is not None
    assert lender.machine.state is state, "it waits for what was stopped to be counted"
    last = Facts(lender.facts.fragments + 3, lender.facts.core_ms + 700, lender.facts.bytes + 5)
    for party in (lender, borrower):
        party.facts = last
        world._facts(party)
    if says_so:
        world.tell(lender, e.Drained(world.wall(lender)))
    world.run_until_over()
    assert lender.machine.a.claimed == lender.machine.a.acked == borrower.machine.a.acked == last
    assert lender.machine.state is borrower.machine.state is State.RATED
