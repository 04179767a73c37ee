"""Two companies over a bad link, each killed now and then, one of them perhaps a liar: what holds whatever happens.

Honest sides never fork, never co-sign what they have not received, never lose more than one epoch; both books converge; and whoever
signs two things with one number has made a proof that verifies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2p.base.errors import UsageError
from p2p.contracts import events as e
from p2p.contracts import messages as m
from p2p.contracts.forks import contradiction, verify_fork_untrusted
from p2p.contracts.signing import GOT, Signed, open_signed_untrusted, split_wire_untrusted
from p2p.contracts.table import State
from p2p.contracts.terms import Cause, Role
from tests.support.contract_world import NET, Link, Party, World, terms

NUMBERS = {
    "facts": lambda v: tuple(n + 5000 for n in v),
    "accepted": lambda v: tuple(n // 2 for n in v),
    "slots": lambda v: v + 1,
    "epoch": lambda v: v + 1,
    "cause": lambda v: (v + 1) % 13,
    "seen_sequence": lambda v: v + 1,
    "sequence": lambda v: max(1, v - 1),
    "prev": lambda _v: b"x" * 32,
    "what": lambda _v: b"x" * 32,
    "created": lambda v: v + 1,
    "about": lambda _v: b"y" * 32,
}


class Contracts(RuleBasedStateMachine):
    """One contract; rules are what the world does to it."""

    @initialize(
        seed=st.integers(0, 2**32), drop=st.sampled_from([0.0, 0.2, 0.5]), repeat=st.sampled_from([0.0, 0.5]),
        slow=st.sampled_from([0.02, 1.5]), boasts=st.booleans(),
    )  # fmt: skip
    def begin(self, seed: int, drop: float, repeat: float, slow: float, boasts: bool) -> None:
        self.boasts = boasts  # whether the lender's chief claims more than its workers did, and always the same more
        self.world = World(seed, terms=terms(time_frame_s=40), link=Link(drop, repeat, (0.0, slow)), settle_window_s=3600)
        self.liar: Role | None = Role.LENDER if boasts else None
        self.lies = 0
        self.said: dict[Role, list[Signed]] = {role: [] for role in Role}
        self.arrived: list[Signed] = []
        self.forks: list[tuple[Party, int, int]] = []  # that came: to whom, in which of its lives, proofs before
        self.next_lie: str | None = None
        self.world.deliver_hook = self.deliver
        self.world.arrive_hook = self.arrive
        self.world.start()

    def deliver(self, party: Party, wire: bytes) -> list[bytes]:
        code, body, last = split_wire_untrusted(wire)
        if code == GOT or not isinstance(last, bytes):
            return [wire]
        signed = open_signed_untrusted(NET, party.signer.public, code, body, last)
        self.said[party.role].append(signed)
        if self.boasts and party.role is Role.LENDER and hasattr(signed.message, "facts"):
            self.lies += 1
            more = tuple(n + 5000 for n in signed.message.facts)
            return [party.signer.sign(replace(signed.message, facts=more)).wire]  # type: ignore[type-var]
        if self.liar is not party.role or self.next_lie is None or not hasattr(signed.message, self.next_lie):
            return [wire]
        change: Any = NUMBERS[self.next_lie]
        try:
            other = party.signer.sign(replace(signed.message, **{self.next_lie: change(getattr(signed.message, self.next_lie))}))  # type: ignore[type-var]
        except (UsageError, OverflowError):
            return [wire]
        self.lies += 1
        self.arrived.append(other)
        return [other.wire] if self.lies % 3 == 2 else [wire, other.wire]

    def arrive(self, party: Party, wire: bytes) -> None:
        """Whoever holds one message and gets another with its number will have a proof, unless it is killed before it is on disk."""
        code, body, last = split_wire_untrusted(wire)
        if party.machine is None or code == GOT or not isinstance(last, bytes):
            return
        signed = open_signed_untrusted(NET, self.world.other(party).signer.public, code, body, last)
        if any("two messages with number" in (contradiction(known, signed) or "") for known in party.machine.a.came):
            self.forks.append((party, party.life, len(party.proofs)))

    @rule(for_s=st.sampled_from([0.1, 1.0, 4.0, 16.0]))
    def time_passes(self, for_s: float) -> None:
        self.world.run(for_s)

    @rule(role=st.sampled_from(list(Role)), down_s=st.sampled_from([0.3, 3.0, 30.0]))
    def kill(self, role: Role, down_s: float) -> None:
        party = self.world.parties[role]
        if party.machine is not None:
            self.world.kill(party, down_s)

    @rule(role=st.sampled_from(list(Role)), records=st.integers(1, 6))
    def kill_soon(self, role: Role, records: int) -> None:
        party = self.world.parties[role]
        party.kill_after = len(party.journal) + records

    @rule(up=st.booleans())
    def cable(self, up: bool) -> None:
        self.world.link.is_up = up

    @rule(role=st.sampled_from(list(Role)), leap_s=st.sampled_from([300.0, -300.0, 86_400.0, -7200.0]))
    def calendar_leaps(self, role: Role, leap_s: float) -> None:
        self.world.parties[role].wall_offset_s += leap_s

    @rule(role=st.sampled_from(list(Role)), cause=st.sampled_from([Cause.OWNER_RECLAIM, Cause.SHUTDOWN, Cause.BAD_RESULT]))
    def revoke(self, role: Role, cause: Cause) -> None:
        party = self.world.parties[role]
        if party.machine is not None and party.machine.state in (State.ACTIVE, State.SUSPECT):
            self.world.revoke(party, cause, 2)

    @rule(role=st.sampled_from(list(Role)), ahead=st.integers(2, 4), longer=st.integers(0, 60))
    def amend(self, role: Role, ahead: int, longer: int) -> None:
        party, other = self.world.parties[role], self.world.parties[role.other]
        if party.machine is None or party.machine.state is not State.ACTIVE:
            return
        new = terms(time_frame_s=40 + longer)
        self.world.tell(party, e.Tick(self.world.wall(party)))  # a statement that is due now has the next epoch's number
        if party.machine is None or party.machine.state is not State.ACTIVE:
            return
        self.world.tell(party, e.Amending(new, party.machine.a.epoch + ahead, self.world.wall(party)))
        self.world.run(1.0)
        found = other.machine.a.amendment if other.machine is not None else None
        if found is not None and found.by is role and found.agreed is None:
            self.world.tell(other, e.AgreeingAmendment(self.world.wall(other)))

    @rule(role=st.sampled_from(list(Role)), what=st.sampled_from([*sorted(NUMBERS), *["facts"] * 8]))
    def lie(self, role: Role, what: str) -> None:
        if self.liar in (None, role):
            self.liar, self.next_lie = role, what

    @precondition(lambda self: self.liar is not None)
    @rule()
    def tell_the_truth(self) -> None:
        self.next_lie = None

    @invariant()
    def honest_sides_lose_at_most_an_epoch(self) -> None:
        if not hasattr(self, "world"):
            return
        lender, borrower = self.world.lender, self.world.borrower
        if self.liar is not Role.LENDER and lender.machine is not None:
            assert lender.most_unacked <= self.world.terms.window_core_ms
        if self.liar is not Role.BORROWER:
            for signed in self.said[Role.BORROWER]:
                if isinstance(signed.message, m.Ack | m.Countersettle):
                    assert all(a <= b for a, b in zip(signed.message.accepted, borrower.facts, strict=True))

    @invariant()
    def honest_sides_never_fork_and_proofs_verify(self) -> None:
        if not hasattr(self, "world"):
            return
        for role, party in self.world.parties.items():
            for proof in party.proofs:
                found = verify_fork_untrusted(NET, proof)
                assert self.liar is role.other
                assert found.author == self.world.parties[role.other].signer.public
            if role is not self.liar:
                by_place: dict[tuple[bytes, int], Signed] = {}
                for signed in self.said[role]:
                    key = (signed.message.about, signed.message.sequence)  # type: ignore[attr-defined]
                    assert contradiction(by_place.setdefault(key, signed), signed) is None

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.next_lie = None
        world = self.world
        world.link.is_up, world.link.drop = True, 0.0
        for party in world.parties.values():
            party.kill_after = None
        world.run_until_over(7000)
        self.honest_sides_lose_at_most_an_epoch()
        self.honest_sides_never_fork_and_proofs_verify()
        for party, life, before in self.forks:
            assert party.life != life or len(party.proofs) > before, "a fork came and nobody has a proof of it"
        b, lender = world.borrower.machine, world.lender.machine
        assert b is not None
        assert lender is not None
        if not self.lies:
            assert b.state is lender.state
            assert b.a.acked == lender.a.acked
            assert b.a.causes == lender.a.causes
            assert b.a.terms_bytes == lender.a.terms_bytes
        if self.liar is None or self.liar is Role.BORROWER:
            assert lender.a.is_over
        if self.liar is None or self.liar is Role.LENDER:
            assert b.a.is_over


TestContracts = Contracts.TestCase
TestContracts.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
