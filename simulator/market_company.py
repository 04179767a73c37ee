"""One company of the exact market: the shipped book of contracts, ledger, evidence and favours; its workers are a rate (pure).

Real: `p2p.contracts.book` (machines, ledger, chain), `p2p.reputation` (evidence, limits, scores, favours, control of supply, credibility).
A model: how work gets done. Own fragments run on the slots that are not lent; a lent slot does one core-second per second while its
contract lets work flow. Signatures are keyed hashes of a signature's length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from p2p.base.clock import Monotonic, UnixTime
from p2p.base.errors import InvariantBroken, UsageError
from p2p.contracts import book as b
from p2p.contracts import events as e
from p2p.contracts import messages as m
from p2p.contracts.acting import work_may
from p2p.contracts.chain import Chain
from p2p.contracts.table import LIVE, State
from p2p.contracts.terms import BORROWER, LENDER, Cause, Facts
from p2p.reputation.evidence import Evidence
from p2p.reputation.favours import Favours, Supply, favour_value
from simulator.dht_exact import StandInKey
from simulator.stand_in import SharedEvidence, StandInSigner

if TYPE_CHECKING:
    from simulator.market_exact import MarketWorld

UNIX: Final = 1_800_000_000
MOST_WAKES: Final = 4
SPEAK_OF_RESULTS: Final = (m.Epoch.code, m.Settle.code)  # second byte of a wire form
STATE_AT: Final = 0.8  # of an epoch: the lender states what was done, before the window is full


@dataclass(slots=True, kw_only=True)
class Work:
    """What is truly done under one contract."""

    lender: Company
    slots: int = 0
    since: float | None = None  # flows since then
    core_ms: float = 0.0
    taken_ms: float = 0.0  # the borrower has counted this
    wrong_ms: float = 0.0
    checks: int = 0
    fraction: float = 0.0  # of a check that is due
    is_settled: bool = False

    def advance(self, now: float) -> None:
        """Count up to now."""
        if self.since is not None:
            self.core_ms += self.slots * (now - self.since) * 1000
            self.since = now


@dataclass(slots=True)
class Seen:
    """What a borrower found in a lender's results."""

    passed: float = 0.0
    is_caught: bool = False
    provisional: list[tuple[float, float]] = field(default_factory=list)  # core-ms right, wrong


@dataclass(slots=True)
class Tally:
    """Totals of one company, in core-ms unless named otherwise."""

    wanted: float = 0.0
    own: float = 0.0
    received: float = 0.0
    given: float = 0.0
    accepted: float = 0.0
    wrong: float = 0.0
    checked: float = 0.0
    undone: float = 0.0
    took_s: float = 0.0  # of all finished jobs
    alone_s: float = 0.0  # … and what they would have taken on own workers


class Company:
    """One company."""

    def __init__(self, world: MarketWorld, number: int, kind: str) -> None:
        self.world, self.number, self.kind = world, number, kind
        self.is_here, self.life, self.identity = True, 0, 0
        self.frozen_until = 0.0
        self.skew_s = 0.0
        self.tally = Tally()
        self.jobs: deque[list[float]] = deque()  # [arrived, core-ms, core-ms left]
        self.last = world.engine.now
        self.born = world.engine.now
        self.first_help: float | None = None
        self.new_identity()

    # ---- identity ------------------------------------------------------------------------------------------------------
    def new_identity(self) -> None:
        """A fresh key: nothing is remembered under it, by nobody."""
        world = self.world
        self.key = StandInKey(world.public_key(self.number, self.identity))
        self.identity += 1
        self.life += 1
        self.signer = StandInSigner(self.key, world.memo)
        self.book = b.Book(self.signer, Chain(self.signer), settle_window_s=world.rules.settle_s)
        self.evidence: Evidence = SharedEvidence(self.key.public, world.receipts)
        self.favours, self.supply = Favours(), Supply()
        self.period = [0.0, 0.0]  # given, received
        self.seen: dict[bytes, Seen] = {}
        self.journal: dict[b.Key, list[bytes]] = {}
        self.read_halves: dict[bytes, int] = {}
        self.learned_to = b""  # whose chain was read last
        self._deciding = False
        self._wake_at = float("inf")
        self.serial = 0
        world.by_key[self.key.public] = self

    @property
    def now(self) -> Monotonic:
        """Its own clock."""
        return Monotonic(self.world.engine.now)

    @property
    def wall(self) -> UnixTime:
        """Its calendar, which may be wrong."""
        return int(UNIX + self.world.engine.now + self.skew_s)  # type: ignore[return-value]  # `UnixTime` is a call, and this is asked often

    # ---- the book in virtual time --------------------------------------------------------------------------------------
    def order(self, key: b.Key, event: e.Event) -> bool:
        """A command; False where it does not fit (any more)."""
        try:
            self.post(b.Order(key, event))
        except UsageError:
            self._alarm()
            return False
        return True

    def post(self, event: b.BookEvent) -> None:
        """Hand an event to the book and do what follows."""
        world = self.world
        world.machine_events += 1
        effects = self.book.handle(event, world.engine.now)  # type: ignore[arg-type]  # see `wall`
        if effects:
            self._perform(effects)
        due = self.book.next_deadline()
        if due is not None and due < self._wake_at:
            self._wake_at = due
            world.engine.at(due, self._wake, (due, self.life))
        every = world.rules.validate_every
        if every and world.machine_events % every == 0:
            world.validate(self)

    def _alarm(self) -> None:
        due = self.book.next_deadline()
        if due is not None and due < self._wake_at:
            self._wake_at = due
            self.world.engine.at(due, self._wake, (due, self.life))

    def _wake(self, alarm: tuple[float, int]) -> None:
        due, life = alarm
        if due != self._wake_at or life != self.life or not self.is_here:
            return
        if self.world.engine.now < self.frozen_until:
            self.world.engine.at(self.frozen_until, self._wake, alarm)
            return
        self._wake_at = float("inf")
        for _ in range(MOST_WAKES):  # a command that was refused meanwhile leaves what is to be written: that is due at once
            deadline = self.book.next_deadline()
            if deadline is None or deadline > self.now:
                self._alarm()
                return
            self.post(b.Wake(self.wall))
        stuck = [(str(c.state), c.a.role.name, c.next_deadline()) for c in self.book.contracts.values()]
        raise InvariantBroken(f"a deadline that does not move: {deadline} at {self.now}: {stuck}")

    def _perform(self, effects: Sequence[b.BookEffect]) -> None:
        written: dict[b.Key, int] = {}
        changed: list[tuple[b.Key, State]] = []
        for outer in effects:
            if isinstance(outer, b.PersistHalf):
                self.evidence.add(outer.half)
            if not isinstance(outer, b.Of):
                continue
            key, effect = outer.key, outer.effect
            if isinstance(effect, e.Send):
                self.world.send(self, key.peer, effect.wire)
            elif isinstance(effect, e.Persist):
                if effect.ordinal == 1:
                    self.journal[key] = []
                journal = self.journal.get(key)
                if journal is not None:  # what comes after a receipt is not folded again
                    journal.append(effect.record)
                written[key] = effect.ordinal
            elif isinstance(effect, e.Changed):
                changed.append((key, effect.state))
            elif isinstance(effect, e.WorkMay):
                self._work_may(key, effect.flow)
            elif isinstance(effect, e.ForkFound):
                self.evidence.forked.add(key.peer)
                self.world.forks += 1
        for key, ordinal in written.items():
            self.world.persist(self, key, ordinal)
        for key, state in changed:
            self._changed(key, state)

    def receive(self, packet: tuple[bytes, bytes, int]) -> None:
        """Bytes of another company came."""
        sender, wire, life = packet
        if not self.is_here or life != self.life:
            self.world.unheard += 1
            return
        if self.world.engine.now < self.frozen_until:
            self.world.engine.at(self.frozen_until, self.receive, packet)
            return
        self.take_stock(sender, wire)
        self.post(b.FromPeer(sender, wire, self.wall))

    # ---- what follows from a contract's state --------------------------------------------------------------------------
    def _changed(self, key: b.Key, state: State) -> None:
        machine = self.book.contracts.get(key)
        if machine is None:
            return
        is_lender = machine.a.role is LENDER
        if state is State.OFFERED and is_lender:
            if not self._deciding:
                self._deciding = True
                self.world.engine.after(self.world.rules.decide_s, self._decide, self.life)
        elif state is State.ACCEPTED and not is_lender:
            if self.backlog_ms > 0:
                self.order(key, e.Committing(self.wall))
            else:
                self.order(key, e.Refusing("not-needed", self.wall))
        elif state is State.ACTIVE and is_lender:
            work = self.world.work.setdefault(key.nonce, Work(lender=self))
            if not work.slots:
                work.slots = machine.a.slots
                self.world.contracts += 1
                self._work_may(key, work_may(machine)[0])
                self._state_later(key)
        elif state in (State.EXPIRED, State.REVOKING, State.BROKEN, State.CLOSING):
            if state is State.BROKEN:
                self.world.broken[machine.a.causes.get(machine.a.role, Cause.NONE).name.lower().replace("_", "-")] += 1
            self._stop(key, is_lender)
        elif machine.a.is_over:
            self._over(key, state, is_lender)

    def _work_may(self, key: b.Key, flow: bool) -> None:
        work = self.world.work.get(key.nonce)
        if work is None or work.lender is not self:
            return
        work.advance(self.now)
        work.since = self.now if flow and self.is_here else None

    def _state_later(self, key: b.Key) -> None:
        self.world.engine.after(STATE_AT * self.world.rules.epoch_s, self._state, (key, self.life))

    def _state(self, task: tuple[b.Key, int]) -> None:
        """Lender: say what was done; the machine makes a statement of it."""
        key, life = task
        machine = self.book.contracts.get(key)
        if life != self.life or not self.is_here or machine is None or machine.state not in LIVE:
            return
        self._progress(key)
        self._state_later(key)

    def _progress(self, key: b.Key) -> None:
        work = self.world.work.get(key.nonce)
        if work is not None:
            work.advance(self.now)
            factor = self.world.rules.overclaim if self.kind == "over-claimer" else 1.0
            self.order(key, e.Progress(facts_of(work.core_ms * factor, self.world.rules.fragment_s), self.wall))

    def _stop(self, key: b.Key, is_lender: bool) -> None:
        """No work flows any more: count, hand over, drain."""
        work = self.world.work.get(key.nonce)
        if work is None:
            return
        if is_lender:
            self._progress(key)
            work.since = None
        else:
            self._count(key)
        self.order(key, e.Drained(self.wall))

    def take_stock(self, peer: bytes, wire: bytes) -> None:
        """Borrower: results have come before the message that speaks of them."""
        if wire[1] not in SPEAK_OF_RESULTS:
            return
        known = self.world.memo_of(wire)
        if known is not None:
            key = self.book.find(peer, known.message.about)  # type: ignore[attr-defined]
            if key is not None and self.book.contracts[key].a.role is BORROWER:
                self._count(key)

    def _count(self, key: b.Key) -> None:
        """Borrower: take in what was done since, check some of it."""
        from simulator.market_cheats import slanders
        from simulator.market_checks import take_in

        work, machine = self.world.work.get(key.nonce), self.book.contracts.get(key)
        if work is None or machine is None or work.is_settled:
            return
        caught = take_in(self, key.peer, work)
        facts = facts_of(work.taken_ms, self.world.rules.fragment_s)
        if facts.covers(machine.done):
            self.order(key, e.Accepted(facts, self.wall, work.checks, int(caught)))
        if (caught or (self.kind == "slanderer" and slanders(self.world, work))) and machine.state in LIVE:
            self.order(key, e.Revoking(Cause.BAD_RESULT, self.wall))

    def _over(self, key: b.Key, state: State, is_lender: bool) -> None:
        """The receipt is written, or nothing came of it."""
        self.journal.pop(key, None)
        self.world.ends[str(state)] += 1
        machine, work = self.book.contracts[key], self.world.work.get(key.nonce)
        for half in machine.a.halves.values():
            self.evidence.add(half)
        if work is None:
            return
        facts = machine.a.acked
        value = favour_value(facts.fragments, facts.core_ms, self.world.rules.fragment_s * 1000)
        if is_lender:
            self.favours.given(key.peer, value)
            self.tally.given += facts.core_ms
            self.period[0] += value
            self.world.over_credit(self, key.peer, facts.core_ms)
        else:
            self.favours.received(key.peer, value)
            self.period[1] += value
            work.is_settled = True

    # ---- demand --------------------------------------------------------------------------------------------------------
    @property
    def backlog_ms(self) -> float:
        """Own work that waits or runs."""
        return sum(job[2] for job in self.jobs)

    def advance(self) -> None:
        """Own slots have worked since the last look."""
        now, rules = self.world.engine.now, self.world.rules
        free = rules.workers - self.book.slots.promised
        if self.is_here and free > 0 and self.jobs:
            self.tally.own += self.do(free * (now - self.last) * 1000)
        self.last = now

    def do(self, core_ms: float) -> float:
        """Take work off the jobs, oldest first; returns how much there was."""
        done = 0.0
        while self.jobs and done < core_ms:
            job = self.jobs[0]
            part = min(job[2], core_ms - done)
            job[2] -= part
            done += part
            if job[2] <= 1e-6:
                self.jobs.popleft()
                self.tally.took_s += self.world.engine.now - job[0]
                self.tally.alone_s += job[1] / 1000 / self.world.rules.workers
        return done

    def _decide(self, life: int) -> None:
        from simulator.market_choices import decide

        self._deciding = False
        if life == self.life and self.is_here:
            decide(self)

    # ---- faults --------------------------------------------------------------------------------------------------------
    def leave(self) -> None:
        """The process is gone; what is on disk stays."""
        self.advance()
        self.is_here = False
        self.life += 1
        for key in self.book.contracts:
            work = self.world.work.get(key.nonce)
            if work is not None and work.lender is self:
                work.advance(self.now)
                work.since = None

    def come_back(self, lost_records: int = 0) -> None:
        """A new process folds the journals. ``lost_records``: the disk had lied about so many of the last ones."""
        self.is_here, self.last, self._deciding, self._wake_at = True, self.world.engine.now, False, float("inf")
        halves = self.book.chain.halves
        self.book = b.Book(self.signer, Chain(self.signer, halves), settle_window_s=self.world.rules.settle_s)
        for key, records in list(self.journal.items()):
            if lost_records:
                del records[max(1, len(records) - lost_records) :]
            role = self.world.role_of(records[0], self.key.public)
            effects = self.book.restore(key, role, records, self.now, self.wall)
            self._perform(effects)
            if role is LENDER and self.book.contracts[key].state in LIVE and key.nonce in self.world.work:
                self._state_later(key)
        self._alarm()


def facts_of(core_ms: float, fragment_s: float) -> Facts:
    """Cumulative facts of so much work."""
    return Facts(int(core_ms / (fragment_s * 1000)), int(core_ms), int(core_ms))
