"""Two companies, one contract, in virtual time: journals that survive, a link that drops, repeats, reorders and delays (pure).

A party can be killed right after any journal record: what was not on disk is gone, and so is everything that it was about to say.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from p2p.base.clock import Monotonic, UnixTime
from p2p.base.keys import Identity
from p2p.contracts import events as e
from p2p.contracts.chain import Chain
from p2p.contracts.machine import ContractMachine
from p2p.contracts.signing import Signer
from p2p.contracts.table import State
from p2p.contracts.terms import NOTHING, Cause, Facts, Role, Terms

NET = b"n" * 16
NONCE = b"o" * 32
EPOCH_OF_ALL = 1_790_000_000
TERMS = Terms(
    package=b"p" * 32, processor=b"q" * 32, slots=2, memory_mib=512, disk_mib=64, fragment_s=5, runtime="python-3.11", not_before_s=0,
    time_frame_s=60, epoch_s=5, lease_s=15, grace_s=10, notice_s=5, network="none", retention="none", check="spot", error_ppm=10_000,
    spot_ppm=100_000, assumed_bad_ppm=200_000, price_milli=1000, endpoints=(("198.51.100.7", 8468),),
)  # fmt: skip


def terms(**changes: object) -> Terms:
    return replace(TERMS, **changes)  # type: ignore[arg-type]


@dataclass(slots=True)
class Link:
    """What lies between them."""

    drop: float = 0.0
    repeat: float = 0.0
    delay_s: tuple[float, float] = (0.01, 0.05)
    is_up: bool = True


@dataclass(slots=True)
class Party:
    """One side: its machine while it runs, and what survives a kill."""

    role: Role
    signer: Signer
    chain: Chain
    machine: ContractMachine | None = None
    journal: list[bytes] = field(default_factory=list)
    facts: Facts = NOTHING  # in its own store: done by the lender's workers, or accepted by the borrower
    kill_after: int | None = None
    down_s: float = 2.0
    wall_offset_s: float = 0.0
    states: list[State] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    proofs: list[bytes] = field(default_factory=list)
    work: bool = False
    life: int = 0
    most_unacked: int = 0


class World:
    """Runs both parties until nothing happens any more, or the time is over."""

    def __init__(self, seed: int = 0, *, terms: Terms = TERMS, link: Link | None = None, settle_window_s: float = 600.0) -> None:
        self.rng = Random(seed)
        self.terms = terms
        self.link = link or Link()
        self.now = 100.0
        self.settle_window_s = settle_window_s
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.counter = 0
        keys = {Role.BORROWER: Identity(b"b" * 32), Role.LENDER: Identity(b"l" * 32)}
        self.parties = {role: Party(role, Signer(key, NET), Chain(Signer(key, NET))) for role, key in keys.items()}
        self.borrower, self.lender = self.parties[Role.BORROWER], self.parties[Role.LENDER]
        self.on_state: Callable[[Party, State], None] = self._behave
        self.deliver_hook: Callable[[Party, bytes], list[bytes]] = lambda _party, wire: [wire]
        self.arrive_hook: Callable[[Party, bytes], None] = lambda _party, _wire: None
        for party in self.parties.values():
            peer = self.other(party).signer.public
            party.machine = ContractMachine(party.role, party.signer, peer, NONCE, settle_window_s=settle_window_s)
        self.at(1.0, self._work)

    def other(self, party: Party) -> Party:
        return self.parties[party.role.other]

    def wall(self, party: Party) -> UnixTime:
        return UnixTime(int(EPOCH_OF_ALL + self.now + party.wall_offset_s))

    def at(self, in_s: float, do: Callable[[], None]) -> None:
        self.counter += 1
        heapq.heappush(self.queue, (self.now + in_s, self.counter, do))

    def tell(self, party: Party, event: e.Event) -> None:
        """Hand an event over, perform what follows."""
        machine = party.machine
        if machine is None:
            return
        effects = machine.handle(event, Monotonic(self.now - 50 * party.role))  # no two monotonic clocks agree
        machine.validate()
        if party.role is Role.LENDER:
            party.most_unacked = max(party.most_unacked, machine.unacked_core_ms)
        for effect in effects:
            if party.machine is not machine:
                return  # killed in the middle
            self._perform(party, effect)
        self._wake(party)

    def _perform(self, party: Party, effect: e.Effect) -> None:
        match effect:
            case e.Persist():
                assert effect.ordinal == len(party.journal) + 1
                party.journal.append(effect.record)
                if party.kill_after == len(party.journal):
                    self.kill(party)
                    return
                life = party.life
                self.at(0.002, lambda: self.tell(party, e.Persisted(effect.ordinal)) if party.life == life else None)
            case e.Send():
                self._send(party, effect.wire)
            case e.Changed():
                party.states.append(effect.state)
                self.on_state(party, effect.state)
            case e.WorkMay():
                party.work = effect.flow
            case e.WantHalf():
                half = party.chain.make(effect, party.machine.a, self.wall(party))  # type: ignore[union-attr]
                self.at(0.0, lambda: self.tell(party, e.HalfMade(half, self.wall(party))))
            case e.ForkFound():
                party.proofs.append(effect.proof)
            case e.Refused():
                party.refused.append(effect.text)

    def _send(self, party: Party, wire: bytes) -> None:
        for piece in self.deliver_hook(party, wire):
            copies = 1 + (self.rng.random() < self.link.repeat)
            for _ in range(copies):
                if not self.link.is_up or self.rng.random() < self.link.drop:
                    continue
                self.at(self.rng.uniform(*self.link.delay_s), lambda piece=piece: self._arrive(self.other(party), piece))  # type: ignore[misc]

    def _arrive(self, party: Party, wire: bytes) -> None:
        if self.link.is_up:
            self.arrive_hook(party, wire)
            self.tell(party, e.Received(wire, self.wall(party)))

    def _wake(self, party: Party) -> None:
        deadline = party.machine.next_deadline() if party.machine is not None else None
        if deadline is not None:
            life, in_s = party.life, max(0.0, deadline + 50 * party.role - self.now)
            self.at(in_s + 1e-6, lambda: self.tell(party, e.Tick(self.wall(party))) if party.life == life else None)

    def kill(self, party: Party, down_s: float | None = None) -> None:
        party.machine, party.work, party.kill_after = None, False, None
        party.life += 1
        self.at(party.down_s if down_s is None else down_s, lambda: self.restart(party))

    def restart(self, party: Party) -> None:
        party.machine = ContractMachine.restore(
            party.role, party.signer, self.other(party).signer.public, NONCE, party.journal, Monotonic(self.now - 50 * party.role),
            self.wall(party), settle_window_s=self.settle_window_s,
        )  # fmt: skip
        self.tell(party, e.Restarted(self.wall(party)))
        self._facts(party)
        if party.machine is not None:  # what a person or policy had on the table is there again
            self.on_state(party, party.machine.state)

    def _behave(self, party: Party, state: State) -> None:
        """Both sides agree to everything, and stop at once when it ends."""
        wall = self.wall(party)
        event: e.Event | None = None
        if state is State.DRAFT and party is self.borrower:
            event = e.Propose(self.terms, 30, wall)
        if state is State.OFFERED and party is self.lender:
            event = e.Agreeing(self.terms.slots, 10, wall)
        if state is State.ACCEPTED and party is self.borrower:
            event = e.Committing(wall)
        if state in (State.REVOKING, State.EXPIRED, State.BROKEN):
            event = e.Drained(wall)
        if event is not None:
            life = party.life
            self.at(0.01, lambda: self._command(party, event) if party.life == life else None)

    def _command(self, party: Party, event: e.Event) -> None:
        fits = {e.Propose: State.DRAFT, e.Agreeing: State.OFFERED, e.Committing: State.ACCEPTED}
        if party.machine is not None and fits.get(type(event), party.machine.state) is party.machine.state:
            self.tell(party, event)

    def _work(self) -> None:
        """One second of work on every slot, handed over while both are up."""
        if self.lender.machine is not None and self.lender.work:
            n = self.terms.slots
            self.lender.facts = Facts(*(a + b for a, b in zip(self.lender.facts, (n, n * 1000, n * 100), strict=True)))
            self._facts(self.lender)
        if self.lender.machine is not None and self.borrower.machine is not None and self.link.is_up:
            self.borrower.facts = self.lender.facts
            self._facts(self.borrower)
        self.at(1.0, self._work)

    def _facts(self, party: Party) -> None:
        if party.machine is not None and party.facts.covers(party.machine.done):
            kind = e.Progress if party.role is Role.LENDER else e.Accepted
            self.tell(party, kind(party.facts, self.wall(party)))

    def start(self) -> None:
        self.tell(self.borrower, e.Propose(self.terms, 30, self.wall(self.borrower)))

    def revoke(self, party: Party, cause: Cause, notice_s: int = 0) -> None:
        self.tell(party, e.Revoking(cause, self.wall(party), notice_s))

    def run(self, for_s: float) -> None:
        end = self.now + for_s
        while self.queue and self.queue[0][0] <= end:
            self.now, _, do = heapq.heappop(self.queue)
            do()
        self.now = end

    def run_until_over(self, most_s: float = 400.0) -> None:
        """Run until both machines are in a final state."""
        end = self.now + most_s
        while self.now < end and not all(p.machine is not None and p.machine.a.is_over for p in self.parties.values()):
            self.run(1.0)
