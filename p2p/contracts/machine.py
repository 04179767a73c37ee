"""The one machine of a contract, for borrower and lender (pure).

It journals before it speaks: everything that follows from a record waits until `Persisted` says that the record is on disk. All
deadlines are durations on the caller's monotonic clock. What the other side signs is judged by `p2p.contracts.judging`, folded by
`p2p.contracts.agreement`; states change by `p2p.contracts.table` alone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

from p2p.base.clock import Monotonic, UnixTime
from p2p.base.errors import InvariantBroken, MalformedMessage, UsageError
from p2p.contracts import acting, judging
from p2p.contracts import events as e
from p2p.contracts import messages as m
from p2p.contracts.agreement import IN, NOTE, OUT, Agreement, Record
from p2p.contracts.forks import fork_proof
from p2p.contracts.signing import GOT, Signed, Signer, got_wire, split_wire_untrusted
from p2p.contracts.table import LIVE, State, Trigger
from p2p.contracts.terms import LENDER, NOTHING, Cause, Facts, Role

SKEW_S = 600  # calendars may differ by this before an offer looks old
SETTLE_WINDOW_S = 7 * 86_400.0  # how long a side waits for the other's totals and half before it closes alone
FIRST_RESEND_S = 1.0
LAST_RESEND_S = 30.0  # between two tries, while the other side was heard of a moment ago
SILENCE_SHARE = 4  # … later a quarter of the time that it has been silent: who comes back speaks first (`acting.come_back`)
SELDOM_RESEND_S = 3600.0  # … and at least this often
MAX_RESENT = 32  # messages at a time


class ContractMachine:
    """One contract, one side."""

    def __init__(self, role: Role, signer: Signer, peer: bytes, nonce: bytes, *, settle_window_s: float = SETTLE_WINDOW_S) -> None:
        self.a = Agreement(role, signer.public, peer, nonce)
        self.signer = signer
        self.settle_window_s = settle_window_s
        self.now = Monotonic(0.0)
        self.wall = UnixTime(0)
        self.t0 = Monotonic(math.nan)  # set with the acceptance
        self.phase_at = Monotonic(0.0)  # when the present state began
        self.heard_at = Monotonic(0.0)
        self.epoch_at = Monotonic(-math.inf)
        self.acked_at = Monotonic(0.0)
        self.notice_s = 0.0
        self.away_s = 0  # by the calendar, at the last restart
        self.done: Facts = NOTHING  # lender: done and handed over; borrower: received and accepted
        self.results = m.ZERO
        self.slots_alive: int | None = None
        self.checks = (0, 0)
        self.is_drained = False
        self.is_heard_since = False
        self.is_half_wanted = False
        self._persisted = 0
        self._held: deque[tuple[int, e.Effect]] = deque()
        self._effects: list[e.Effect] = []
        self._resend_at = math.inf
        self._resend_s = FIRST_RESEND_S
        self._unanswered_at = 0.0  # what is not confirmed was first said then, or the other side last heard
        self._work: tuple[bool, str] = (False, "")
        self._due: float | None = None  # when `acting.keep_time` has something to do again; None: not known

    @classmethod
    def restore(
        cls, role: Role, signer: Signer, peer: bytes, nonce: bytes, records: Iterable[bytes], now: Monotonic, wall: UnixTime,
        *, settle_window_s: float = SETTLE_WINDOW_S, alive: UnixTime | None = None, since_alive_s: float | None = None,
    ) -> ContractMachine:  # fmt: skip
        """Fold a journal. Hand it `Restarted` next.

        alive: when this side is known to have been there, if later than its last record. since_alive_s: how long ago that was by a clock
        that does not leap; without it only the calendar can tell.
        """
        machine = cls(role, signer, peer, nonce, settle_window_s=settle_window_s)
        last: Record | None = None
        for data in records:
            last = Record.unpack(data)
            machine.a.apply(last)
        a = machine.a
        machine.now, machine.wall, machine._persisted = now, wall, a.records
        machine.phase_at = machine.heard_at = machine.acked_at = now
        machine.done = a.claimed if role is LENDER else a.acked
        machine.checks = a.checks
        if last is not None:
            if alive is not None and since_alive_s is not None:
                wall = UnixTime(alive + math.ceil(since_alive_s))  # what the calendar would say if nobody had moved it
            away_s = max(0, wall - last.wall)
            machine.away_s = away_s if alive is None else min(away_s, max(0, wall - alive))
            if a.accept is not None:
                # calendars leap; longer than a lease this side cannot have been away and still be in a live contract
                lease_s = a.terms.lease_s if a.terms is not None else 0
                machine.t0 = Monotonic(now - last.elapsed_ms / 1000 - min(away_s, lease_s))
            elif a.state is State.OFFERED:
                machine.phase_at = Monotonic(now - away_s)
        machine._resend_at = now if a.is_unconfirmed else math.inf
        machine._unanswered_at = now
        return machine

    @property
    def state(self) -> State:
        return self.a.state

    @property
    def elapsed_s(self) -> float:
        """Since t0, by this side's clock; 0 before."""
        return 0.0 if math.isnan(self.t0) else max(0.0, self.now - self.t0)

    @property
    def unacked_core_ms(self) -> int:
        """Lender: work that the borrower has not co-signed yet."""
        return max(0, self.done.core_ms - self.a.acked.core_ms)

    def handle(self, event: e.Event, now: Monotonic) -> tuple[e.Effect, ...]:
        """Apply one event. Raises `UsageError` for a command that does not fit; what time had done by then is kept for the next one."""
        if isinstance(event, e.Persisted):
            return self._release(event.ordinal)
        if now > self.now:
            self.now = now
        self.wall = event.wall
        due, self._due = self._due, None
        if due is None or self.now >= due:
            acting.keep_time(self)  # deadlines that have come come first
        self._dispatch(event)
        acting.keep_time(self)
        if self.now >= self._resend_at:
            self._resend()
        self._tell()
        effects, self._effects = tuple(self._effects), []
        return effects

    def _dispatch(self, event: e.Event) -> None:
        match event:
            case e.Received():
                self._received(event)
            case e.Heard():
                self.hear()
            case e.Progress() | e.Accepted():
                self._progress(event)
            case e.Drained():
                self.is_drained = True
            case e.HalfMade():
                if self.a.role not in self.a.halves:
                    self.say(m.Receipt, half=event.half.body, half_signature=event.half.signature)
            case e.Restarted():
                acting.come_back(self)
            case e.Tick() | e.Persisted():
                pass
            case _:
                acting.command(self, event)

    def _progress(self, event: e.Progress | e.Accepted) -> None:
        if not event.facts.covers(self.done):
            raise UsageError("facts-fell", f"cumulative facts cannot fall: {tuple(self.done)} to {tuple(event.facts)}")
        self.done = event.facts
        if isinstance(event, e.Progress):
            self.results, self.slots_alive = event.results, event.slots_alive
        else:
            self.checks = (event.checks_passed, event.checks_failed)

    def _received(self, event: e.Received) -> None:
        a = self.a
        try:
            code, body, last = event.parts or split_wire_untrusted(event.wire)
            if code == GOT and isinstance(last, int):
                if body in (a.nonce, a.contract):
                    self.hear()
                    self._confirm(min(last, len(a.out)))
                return
            signed = self.signer.open_untrusted(a.peer, code, body, last)  # type: ignore[arg-type]
        except MalformedMessage as error:
            self.refuse(error.code, error.text)
            return
        header = signed.message
        if isinstance(header, m.Header) and header.sequence <= len(a.came) and header.about in (a.nonce, a.contract):
            self._known(signed, a.came[header.sequence - 1])
            return
        if (fault := judging.fault_of(a, signed, self.signer)) is not None:
            if isinstance(header, m.Header) and a.came and header.sequence == len(a.came) + 1 and header.prev != a.came[-1].hash:
                self._forked(fork_proof(a.came[-1], signed))
            self.refuse("contract-message-refused", fault)
            return
        self.hear()
        state = a.state
        self.record(Record(IN, self.wall, self._elapsed_ms(), signed))
        self._confirm(a.got)
        self.send(got_wire(a.about, len(a.came)))
        acting.react(self, signed, state)

    def _known(self, signed: Signed, known: Signed) -> None:
        if signed.hash == known.hash:
            self.hear()
            self.send(got_wire(self.a.about, len(self.a.came)))
        else:
            self._forked(fork_proof(known, signed))

    def _forked(self, proof: bytes | None) -> None:
        if proof is None:
            return
        self.effect(e.ForkFound(proof))
        if self.state in LIVE:
            self.say(m.Revoke, cause=int(Cause.EQUIVOCATION), notice_s=0, evidence=m.ZERO, text="two messages with one number")

    def hear(self) -> None:
        """The other side is there."""
        self.heard_at = self._unanswered_at = self.now
        self.is_heard_since = True
        if self._resend_s > LAST_RESEND_S:  # it had been away
            self._resend_s = FIRST_RESEND_S
            self._resend_at = min(self._resend_at, self.now + FIRST_RESEND_S)
        if self.a.state is acting.SUSPECT:
            self.note(Trigger.HEAR_AMENDING if self.a.amendment is not None else Trigger.HEAR)

    def say(self, cls: Any, **fields: Any) -> Signed:
        """Sign, journal, and send once that is on disk."""
        a = self.a
        seen = len(a.came)
        valid_s = fields.get("valid_s", 30 * 86_400)
        about = a.nonce if cls in (m.Offer, m.Accept) else a.about
        header = (
            1, a.me, a.peer, about, int(a.role), len(a.out) + 1, a.out[-1].hash if a.out else m.ZERO, seen,
            a.came[-1].hash if a.came else m.ZERO, max(0, self.wall), max(0, self.wall) + valid_s + SKEW_S,
        )  # fmt: skip
        signed = self.signer.sign(cls(*header, **fields))
        if not a.is_unconfirmed:
            self._unanswered_at = self.now
        self.record(Record(OUT, self.wall, self._elapsed_ms(), signed))
        self.send(signed.wire)
        if self._resend_s <= LAST_RESEND_S:  # otherwise it is away: one more thing to tell it is no reason to try more often
            self._resend_s = FIRST_RESEND_S
            self._resend_at = min(self._resend_at, self.now + FIRST_RESEND_S)
        return signed

    def note(self, trigger: Trigger) -> None:
        """Journal something that only time did."""
        self.record(Record(NOTE, self.wall, self._elapsed_ms(), note=trigger))

    def record(self, record: Record) -> None:
        """Fold a record in and have it written."""
        a = self.a
        before = a.state
        a.apply(record)
        is_changed = before is not a.state
        if is_changed and before is State.OFFERED and a.state is State.ACCEPTED:
            self.t0 = self.now
        if is_changed or (record.signed is not None and isinstance(record.signed.message, m.Offer)):
            self.phase_at = self.now
            self.is_heard_since = False
        self._effects.append(e.Persist(a.records, record.pack()))
        if is_changed:
            self.effect(e.Changed(a.state, a.causes.get(a.role) or a.causes.get(a.role.other) or Cause.NONE))

    def send(self, wire: bytes) -> None:
        self.effect(e.Send(wire))

    def effect(self, effect: e.Effect) -> None:
        """Give an effect now, or hold it until everything it follows from is on disk."""
        records = self.a.records
        if self._persisted >= records:
            self._effects.append(effect)
        else:
            self._held.append((records, effect))

    def refuse(self, code: str, text: str) -> None:
        self._effects.append(e.Refused(code, text))

    def _release(self, ordinal: int) -> tuple[e.Effect, ...]:
        self._persisted = max(self._persisted, min(ordinal, self.a.records))
        free: list[e.Effect] = []
        while self._held and self._held[0][0] <= self._persisted:
            free.append(self._held.popleft()[1])
        return tuple(free)

    def _confirm(self, sequence: int) -> None:
        if sequence > self.a.got:
            self.a.got = sequence
            self._resend_s = FIRST_RESEND_S
        self._resend_at = self.now + self._resend_s if self.a.is_unconfirmed else math.inf

    def send_again_now(self) -> None:
        """The other side may have missed something."""
        if self.a.is_unconfirmed:
            self._resend_at, self._resend_s = self.now, FIRST_RESEND_S

    def _resend(self) -> None:
        if self.a.is_over and self.now > self.phase_at + self.settle_window_s:
            self._resend_at = math.inf
            return
        for signed in self.a.unconfirmed[:MAX_RESENT]:
            self.send(signed.wire)
        silent_s = self.now - self._unanswered_at
        self._resend_s = min(2 * self._resend_s, max(LAST_RESEND_S, min(silent_s / SILENCE_SHARE, SELDOM_RESEND_S)))
        self._resend_at = self.now + self._resend_s if self.a.is_unconfirmed else math.inf

    def _tell(self) -> None:
        work = acting.work_may(self)
        if work != self._work:
            self._work = work
            self.effect(e.WorkMay(*work))

    def _elapsed_ms(self) -> int:
        elapsed_s = self.now - self.t0
        return int(elapsed_s * 1000) if elapsed_s > 0 else 0  # not a number before t0

    def next_deadline(self) -> Monotonic | None:
        """When to hand over a `Tick`."""
        if self._effects:
            return self.now  # a refused command left them: they are signed and counted, and must be written
        due = self._due
        if due is None:
            due = self._due = acting.due_at(self)
        when = min(self._resend_at, due)
        return None if when == math.inf else Monotonic(when)

    def validate(self) -> None:
        """Check every invariant. Raises `InvariantBroken`."""
        a = self.a
        if not a.claimed.covers(a.acked):
            raise InvariantBroken(f"acknowledged {tuple(a.acked)} of {tuple(a.claimed)} claimed")
        for chain in (a.out, a.came):
            for number, signed in enumerate(chain[-2:], max(1, len(chain) - 1)):
                if signed.message.sequence != number:  # type: ignore[attr-defined]
                    raise InvariantBroken(f"message {number} of a chain carries another number")
        if a.state in LIVE and (a.commit is None or a.accept is None):
            raise InvariantBroken("work may flow without a commitment")
        if self._due is not None and self._due != acting.due_at(self):
            raise InvariantBroken(f"what time will do is kept for {self._due}, it is due at {acting.due_at(self)}")
        if a.got > len(a.out) or self._persisted > a.records:
            raise InvariantBroken("more was confirmed than was ever said")
