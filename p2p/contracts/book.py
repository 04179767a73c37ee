"""All contracts of one company: who may knock, which machine hears it, which slots are promised (pure).

Strangers meet bounds here before a signature is checked or a line written: blocked companies, open offers per company and in all,
offers that are too old or known. Everything else is the contracts' own machines; this only leads to them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from p2p.base.clock import Monotonic, UnixTime
from p2p.base.errors import InvariantBroken, MalformedMessage, UsageError
from p2p.base.record import record
from p2p.contracts import events as e
from p2p.contracts import messages as m
from p2p.contracts.chain import Chain
from p2p.contracts.ledger import SlotLedger
from p2p.contracts.machine import SETTLE_WINDOW_S, SKEW_S, ContractMachine
from p2p.contracts.signing import GOT, Signed, Signer, split_wire_untrusted
from p2p.contracts.table import FINAL, HOLDING, State
from p2p.contracts.terms import BORROWER, LENDER, Role, array_untrusted

MAX_OPEN_OFFERS = 256
MAX_OPEN_OFFERS_PER_PEER = 8
MAX_KNOWN = 65_536  # nonces remembered until their offers are too old anyway
LINGER_S = 3600.0  # a finished contract stays in memory, to answer what is still on its way


class Key(NamedTuple):
    """Which contract: the other company's key and the offer's nonce."""

    peer: bytes
    nonce: bytes


@record
class FromPeer:
    """Bytes from a company whose key the channel has proved."""

    peer: bytes
    wire: bytes
    wall: UnixTime


@record
class Order:
    """Something for one contract's machine: a command, its journal's answer, facts."""

    key: Key
    event: e.Event


@record
class Wake:
    """A deadline may have come."""

    wall: UnixTime


@record
class Of:
    """An effect of one contract's machine."""

    key: Key
    effect: e.Effect


@record
class PersistHalf:
    """Write this half into the company's chain, before any later effect."""

    half: Signed


@record
class TurnedAway:
    """A message was not even looked at; the caller may be told the reason, unsigned."""

    peer: bytes
    code: str
    text: str
    retry_after_s: int = 0


BookEvent = FromPeer | Order | Wake
BookEffect = Of | PersistHalf | TurnedAway


class Book:
    """A machine of machines."""

    def __init__(self, signer: Signer, chain: Chain, *, capacity: int = 0, settle_window_s: float = SETTLE_WINDOW_S) -> None:
        self.signer = signer
        self.chain = chain
        self.slots = SlotLedger(capacity)
        self.blocked: set[bytes] = set()
        self.contracts: dict[Key, ContractMachine] = {}
        self._settle_window_s = settle_window_s
        self._by_id: dict[tuple[bytes, bytes], Key] = {}  # (peer, nonce or contract id)
        self._due: dict[Key, float] = {}  # each contract's next deadline, kept as it changes
        self._first_due: float | None = math.inf  # the least of them; None: not known
        self._over: dict[Key, float] = {}  # finished contracts, and when they may be forgotten at the earliest
        self._known: dict[bytes, UnixTime] = {}  # nonce of a finished or forgotten offer, until when it must be remembered

    def restore(
        self, key: Key, role: Role, records: Iterable[bytes], now: Monotonic, wall: UnixTime, *, alive: UnixTime | None = None,
        since_alive_s: float | None = None,
    ) -> tuple[BookEffect, ...]:  # fmt: skip
        """Take one contract's journal back in after a restart; returns what it says at once. The rest: `ContractMachine.restore`."""
        machine = ContractMachine.restore(
            role, self.signer, key.peer, key.nonce, records, now, wall, settle_window_s=self._settle_window_s, alive=alive,
            since_alive_s=since_alive_s,
        )  # fmt: skip
        self._add(key, machine)
        if role is LENDER and machine.state in HOLDING:
            self.slots.enter(key, self._wanted(machine))
        return self._order(key, e.Restarted(wall), now)

    def handle(self, event: BookEvent, now: Monotonic) -> tuple[BookEffect, ...]:
        """Apply one event. Raises `UsageError` or `Unavailable` for a command that cannot be carried out; nothing changes then."""
        match event:
            case FromPeer():
                return self._from_peer(event, now)
            case Order():
                if isinstance(event.event, e.Propose) and event.key not in self.contracts:
                    self._add(event.key, self._new(BORROWER, event.key))
                return self._order(event.key, event.event, now)
            case Wake():
                effects: list[BookEffect] = []
                for key in [k for k, due in self._due.items() if due <= now]:
                    effects += self._order(key, e.Tick(event.wall), now)
                for key in [k for k, at in self._over.items() if now > at]:
                    self._forget(key, self.contracts[key], now)
                if len(self._known) > MAX_KNOWN // 2:
                    self._known = {nonce: until for nonce, until in self._known.items() if until > event.wall}
                return tuple(effects)

    def _new(self, role: Role, key: Key) -> ContractMachine:
        return ContractMachine(role, self.signer, key.peer, key.nonce, settle_window_s=self._settle_window_s)

    def _add(self, key: Key, machine: ContractMachine) -> None:
        self.contracts[key] = machine
        self._by_id[key.peer, key.nonce] = key
        self._index(key, machine)

    def _index(self, key: Key, machine: ContractMachine) -> None:
        a = machine.a
        if a.contract:
            self._by_id[key.peer, a.contract] = key
        if a.state in FINAL and key not in self._over:
            self._over[key] = machine.phase_at + LINGER_S
        before, deadline = self._due.get(key), machine.next_deadline()
        if deadline == before:
            return
        if deadline is not None:
            self._due[key] = deadline
        else:
            del self._due[key]
        if self._first_due is None:
            return
        if deadline is not None and deadline <= self._first_due:
            self._first_due = deadline
        elif before == self._first_due:
            self._first_due = None

    def send_again_now(self, peer: bytes) -> None:
        """That company is there again: say again at the next wake what it has not confirmed."""
        for key, machine in self.contracts.items():
            if key.peer == peer:
                machine.send_again_now()
                self._index(key, machine)

    def find(self, peer: bytes, about: bytes) -> Key | None:
        """The contract with that company and nonce or id."""
        return self._by_id.get((peer, about))

    def inbox(self) -> list[Key]:
        """Offers that wait for an answer, oldest first."""
        return [k for k, c in self.contracts.items() if c.a.role is LENDER and c.state is State.OFFERED]

    def _from_peer(self, event: FromPeer, now: Monotonic) -> tuple[BookEffect, ...]:
        if event.peer in self.blocked:
            return (TurnedAway(event.peer, "company-blocked", "this company does not deal with yours"),)
        try:
            code, body, last = split_wire_untrusted(event.wire)
            about = body if code == GOT else about_untrusted(body)
        except MalformedMessage as error:
            return (TurnedAway(event.peer, error.code, error.text),)
        key = self.find(event.peer, about)
        if key is not None:
            return self._order(key, e.Received(event.wire, event.wall, (code, body, last)), now)
        if code != m.Offer.code or not isinstance(last, bytes):
            return (TurnedAway(event.peer, "contract-unknown", "no such contract is known here"),)
        return self._first_offer(event, Key(event.peer, about), body, last, now)

    def _first_offer(self, event: FromPeer, key: Key, body: bytes, signature: bytes, now: Monotonic) -> tuple[BookEffect, ...]:
        waiting = self.inbox()
        from_peer = sum(k.peer == event.peer for k in waiting)
        if from_peer >= MAX_OPEN_OFFERS_PER_PEER or len(waiting) >= MAX_OPEN_OFFERS or len(self._known) >= MAX_KNOWN:
            return (TurnedAway(event.peer, "inbox-full", f"{from_peer} of your offers and {len(waiting)} in all wait for an answer", 60),)
        if key.nonce in self._known:
            return (TurnedAway(event.peer, "offer-known", "this offer has had its answer"),)
        machine = self._new(LENDER, key)
        try:
            offer = self.signer.open_untrusted(event.peer, m.Offer.code, body, signature).message
        except MalformedMessage as error:
            return (TurnedAway(event.peer, error.code, error.text),)
        if isinstance(offer, m.Offer) and offer.expires + SKEW_S < event.wall:
            return (TurnedAway(event.peer, "offer-too-old", "this offer was made for an earlier time, or one of two clocks is wrong"),)
        effects = machine.handle(e.Received(event.wire, event.wall), now)
        if machine.state is State.DRAFT:  # refused: nothing was written, nothing is kept
            refused = next((f.text for f in effects if isinstance(f, e.Refused)), "it is no offer")
            return (TurnedAway(event.peer, "contract-message-refused", refused),)
        self._add(key, machine)
        return tuple(Of(key, effect) for effect in effects)

    def _order(self, key: Key, event: e.Event, now: Monotonic) -> tuple[BookEffect, ...]:
        machine = self.contracts.get(key)
        if machine is None:
            raise UsageError("contract-unknown", "no such contract is known here")
        if isinstance(event, e.Persisted):  # lets go what waited for the disk; neither promises nor deadlines change by it
            return self._carried(key, machine, machine.handle(event, now), now)
        held = self.slots.of(key)
        self._reserve(key, machine, event)
        try:
            effects = machine.handle(event, now)
        except UsageError:
            self.slots.let_go(key, held)
            self._index(key, machine)
            raise
        out = self._carried(key, machine, effects, now)
        if machine.a.role is LENDER:
            self.slots.let_go(key, self._wanted(machine) if machine.a.state in HOLDING else 0)
        self._index(key, machine)
        return out

    def _carried(self, key: Key, machine: ContractMachine, effects: Iterable[e.Effect], now: Monotonic) -> tuple[BookEffect, ...]:
        out: list[BookEffect] = []
        for effect in effects:
            if isinstance(effect, e.WantHalf):
                half = self.chain.make(effect, machine.a, machine.wall)
                out += (PersistHalf(half), *self._order(key, e.HalfMade(half, machine.wall), now))
            else:
                out.append(Of(key, effect))
        return tuple(out)

    def _reserve(self, key: Key, machine: ContractMachine, event: e.Event) -> None:
        """Promise slots before anything is signed about them."""
        if machine.a.role is not LENDER:
            return
        if isinstance(event, e.Agreeing) and machine.state is State.OFFERED:
            self.slots.promise(key, event.slots)
        elif isinstance(event, e.Amending) and machine.state is State.ACTIVE:
            self.slots.promise(key, max(self.slots.of(key), event.terms.slots))
        elif isinstance(event, e.AgreeingAmendment) and machine.a.amendment is not None:
            self.slots.promise(key, max(self.slots.of(key), machine.a.amendment.terms.slots))

    @staticmethod
    def _wanted(machine: ContractMachine) -> int:
        a = machine.a
        found = a.amendment
        if found is not None and (found.by is LENDER or found.agreed is not None):
            return max(a.slots, found.terms.slots)
        return a.slots

    def _forget(self, key: Key, machine: ContractMachine, now: Monotonic) -> None:
        if now > machine.phase_at + LINGER_S and machine.next_deadline() is None:
            del self.contracts[key], self._over[key]
            if self._due.pop(key, None) is not None:
                self._first_due = None
            self._by_id.pop((key.peer, key.nonce), None)
            self._by_id.pop((key.peer, machine.a.contract), None)
            first = machine.a.offer
            if first is not None:
                self._known[key.nonce] = UnixTime(first.message.expires + 2 * SKEW_S)  # type: ignore[attr-defined]

    def remember(self, nonce: bytes, until: UnixTime) -> None:
        """A finished contract's offer, from the store after a restart: it is not to be taken again."""
        self._known[nonce] = until

    def next_deadline(self) -> Monotonic | None:
        """The earliest deadline of any contract."""
        first = self._first_due
        if first is None:
            first = self._first_due = min(self._due.values(), default=math.inf)
        return Monotonic(first) if first != math.inf else None

    def validate(self) -> None:
        """Check every invariant. Raises `InvariantBroken`."""
        for key, machine in self.contracts.items():
            machine.validate()
            if machine.next_deadline() != self._due.get(key):
                raise InvariantBroken(f"a deadline is kept as {self._due.get(key)}, it is {machine.next_deadline()}")
            if machine.a.role is LENDER and machine.state in HOLDING and self.slots.of(key) < machine.a.slots:
                raise InvariantBroken("a contract holds slots that the ledger does not know")
        if self.next_deadline() != min(self._due.values(), default=None):
            raise InvariantBroken(f"the first deadline is kept as {self._first_due}")
        for key in [k for k in self.contracts if self.contracts[k].state not in HOLDING]:
            if self.slots.of(key):
                raise InvariantBroken("slots are promised to a contract that is over")


def about_untrusted(body: bytes) -> bytes:
    """What an unverified message says it is about; only to find whom to ask. Raises only `MalformedMessage`."""
    array = array_untrusted(body, 16 << 10)
    about = array[4] if len(array) > 4 else None  # code, version, author, peer, about: see `messages.Header`
    if type(about) is not bytes or len(about) != 32:
        raise MalformedMessage("a contract message names what it is about")
    return about
