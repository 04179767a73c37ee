"""Runs the contracts of this company: `p2p.contracts.book.Book` with a clock, a database and channels (I/O).

Journal before effects: what a machine wants written goes to the committer, in order, and only its word that it is on disk releases what
was to be said about it. A restart folds the journals. The book is touched by this chief's own task alone, never across an await.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import trio
from sqlalchemy import Connection

from company import peer_messages as pm
from company.chief.contracts.port import BORROWED, LENT, LENT_OUT
from company.chief.store import contracts as rows
from company.chief.store import meta
from company.chief.store.store import Store
from p2p.base.clock import Monotonic, UnixTime
from p2p.base.errors import MalformedMessage
from p2p.base.keys import company_id_text
from p2p.base.schema import Message
from p2p.contracts import book as b
from p2p.contracts import events as e
from p2p.contracts import messages as m
from p2p.contracts.agreement import Agreement
from p2p.contracts.chain import Chain
from p2p.contracts.forks import fork_proof
from p2p.contracts.machine import SKEW_S, ContractMachine
from p2p.contracts.signing import GOT, Signed, split_wire_untrusted, trusted
from p2p.contracts.table import LIVE, State
from p2p.contracts.terms import Cause, Facts, Role
from p2p.dht.limits import Buckets
from p2p.net.clock import read_uptime

LOOK_S = 60.0  # finished contracts are forgotten at such times
LEAST_S = 0.01  # between two looks at deadlines
ALIVE_S, ALIVE_ROW = 2.0, "contracts-alive"  # so often it is written down that this side is there, while a contract lives
OFFERS_PER_S, OFFERS_BURST = 0.5, 32.0  # new offers of one company that are looked at
CHAIN_PAGE = 1000
Op = Callable[[Connection], None]
_log = logging.getLogger("company.chief.contracts")


class Writing(Protocol):
    """The committer."""

    def add(self, *, ops: Sequence[Op] = (), then: Callable[[], None] | None = None) -> None: ...


class Listener(Protocol):
    """Who is told of what is on disk."""

    def on_changed(self, key: b.Key, cause: Cause) -> None: ...
    def on_work(self, key: b.Key) -> None: ...
    def on_offer(self, key: b.Key) -> None: ...  # lender: an offer, or a revised one, waits for an answer
    def on_hand_over(self, key: b.Key, facts: Facts) -> None: ...
    def on_half(self, half: Signed) -> None: ...  # one more, ours or the other side's
    def on_fork(self, author: bytes) -> None: ...


@dataclass(slots=True)
class Told:
    """What has been said of one contract: it lags behind the machine by what is not on disk yet."""

    state: State = State.DRAFT
    cause: Cause = Cause.NONE
    may_work: tuple[bool, str] = (False, "")
    turned: tuple[str, str, float] | None = None  # code, text, when: the other chief did not take our last message
    considered: bytes = b""  # hash of the offer that was judged


@dataclass(slots=True, kw_only=True)
class BookDriver:
    """The one task that owns the book."""

    book: b.Book
    store: Store
    writing: Writing
    send: Callable[[bytes, Message], None]
    wall: Callable[[], UnixTime]
    uptime: Callable[[], tuple[str, float]] = read_uptime
    may_knock: Callable[[bytes], tuple[str, str] | None] = lambda peer: None  # why a first offer of this company is not looked at
    listener: Listener | None = None
    told: dict[b.Key, Told] = field(default_factory=dict)
    offers: Buckets = field(default_factory=lambda: Buckets(OFFERS_PER_S, OFFERS_BURST, 4096))
    _open: dict[b.Key, rows.ContractRow] = field(default_factory=dict)
    _wake: trio.Event = field(default_factory=trio.Event)
    is_closed: bool = False
    _alive_at: float = -math.inf
    _about: bytes = m.ZERO  # what the message that is being taken in is about

    async def load(self) -> None:
        """Fold the journals of contracts that are not over. Raises what a damaged database raises."""
        own = self.book.signer.public
        chain = await self.store.read(partial(_load_chain, own))
        self.book.chain = Chain(self.book.signer, chain)
        for nonce, until in (await self.store.read(lambda conn: rows.nonces_since(conn, self.wall()))).items():
            self.book.remember(nonce, UnixTime(until))
        alive, since_s = was_alive(await self.store.read(lambda conn: meta.get(conn, ALIVE_ROW)), self.uptime())
        for row in await self.store.read(rows.load_open):
            key = b.Key(row.peer, row.nonce)
            records = await self.store.read(partial(rows.journal, peer=row.peer, nonce=row.nonce))
            if not records:
                continue
            self._open[key] = row
            effects = self.book.restore(key, Role(row.role), records, self.now(), self.wall(), alive=alive, since_alive_s=since_s)
            machine = self.book.contracts[key]
            self.told[key] = Told(machine.state, _cause_of(machine.a))
            self._perform(effects)
        self._sweep()

    async def run(self) -> None:
        """Keep deadlines until cancelled."""
        last = -1.0
        while True:
            deadline = self.book.next_deadline()
            self._wake = trio.Event()
            look_at = trio.current_time() + (ALIVE_S if self._note_alive() else LOOK_S)
            at = min(deadline if deadline is not None else look_at, look_at)
            with trio.move_on_at(max(at, last + LEAST_S)):
                await self._wake.wait()
                continue  # something happened: the next deadline may be another
            last = trio.current_time()
            self.handle(b.Wake(self.wall()))
            self._forget()

    def _note_alive(self) -> bool:
        """Write down that this side is there: a contract's last record may be an epoch old. Returns whether one lives."""
        if self.is_closed or not any(c.state in LIVE for c in self.book.contracts.values()):
            return False
        if trio.current_time() >= self._alive_at + ALIVE_S:
            self._alive_at = trio.current_time()
            said = "{} {} {:.3f}".format(self.wall(), *self.uptime()).encode()
            self.writing.add(ops=[lambda conn: meta.put(conn, ALIVE_ROW, said)])
        return True

    @staticmethod
    def now() -> Monotonic:
        """This chief's own clock."""
        return Monotonic(trio.current_time())

    # ---- in ------------------------------------------------------------------------------------------------------------------
    def handle(self, event: b.BookEvent) -> None:
        """Apply one event and do what follows. Raises `UsageError` or `Unavailable` for a command that cannot be carried out."""
        if self.is_closed:
            return
        try:
            self._perform(self.book.handle(event, self.now()))
        finally:
            self._wake.set()  # also after a refused command: what time had done until then waits to be written

    def close(self) -> None:
        """Take in and write nothing more: nobody is left to write it, and nothing leaves that is not on disk."""
        self.is_closed = True

    def order(self, key: b.Key, event: e.Event) -> None:
        """A command, or facts, for one contract."""
        self.handle(b.Order(key, event))

    def on_message(self, peer: bytes, message: Message) -> None:
        """Something that another company's chief said."""
        if isinstance(message, pm.ContractTurned):
            key = self.book.find(peer, message.about)
            if key is not None and key in self.told:
                self.told[key].turned = (message.code_word, message.text, trio.current_time())
        elif isinstance(message, pm.ContractWire):
            self._wire(peer, message.wire)

    def on_connected(self, peer: bytes) -> None:
        """The other company is there again: say again at once what it has not confirmed."""
        self.book.send_again_now(peer)
        self._wake.set()

    async def wait_durable(self) -> None:
        """Return when everything that was journalled so far is on disk."""
        if not self.is_closed:
            done = trio.Event()
            self.writing.add(then=done.set)
            await done.wait()

    def _wire(self, peer: bytes, wire: bytes) -> None:
        self._about = m.ZERO
        try:
            code, body, _ = split_wire_untrusted(wire)
            self._about = body if code == GOT else b.about_untrusted(body)
        except MalformedMessage as error:
            self._turn_away(b.TurnedAway(peer, error.code, error.text))
            return
        if self.book.find(peer, self._about) is None and code == m.Offer.code and (why := self._why_not(peer)) is not None:
            self._turn_away(why)
            return
        self.handle(b.FromPeer(peer, wire, self.wall()))

    def _why_not(self, peer: bytes) -> b.TurnedAway | None:
        """Why a company's first offer is not even looked at."""
        if peer in self.book.blocked:  # before its offers are counted: it hears this, and nothing about their number
            return b.TurnedAway(peer, "company-blocked", "this company does not deal with yours")
        found = self.may_knock(peer)
        if found is not None:
            return b.TurnedAway(peer, *found, retry_after_s=600)
        if not self.offers.take(peer, trio.current_time()):
            return b.TurnedAway(peer, "too-many-offers", f"more than {OFFERS_BURST:.0f} offers at once came from this company", 60)
        return None

    def _turn_away(self, effect: b.TurnedAway) -> None:
        _log.info("a message of %s was not taken: %s", company_id_text(effect.peer), effect.text)
        if self._about != m.ZERO:
            self.send(effect.peer, pm.ContractTurned(self._about, effect.code[:64], effect.text[:120], effect.retry_after_s))

    # ---- out -----------------------------------------------------------------------------------------------------------------
    def _perform(self, effects: Sequence[b.BookEffect]) -> None:
        """Write what is to be written, in one transaction; what follows from it waits inside the machines."""
        ops: list[Op] = []
        written: list[tuple[b.Key, int]] = []
        halves: list[Signed] = []
        rest: list[b.BookEffect] = []
        for effect in effects:
            match effect:
                case b.Of(key, e.Persist(ordinal, record)):
                    ops += self._record_ops(key, ordinal, record)
                    written.append((key, ordinal))
                case b.PersistHalf(half):
                    ops.append(partial(_add_half, half=half))
                    halves.append(half)
                case _:
                    rest.append(effect)
        if ops:
            self.writing.add(ops=ops, then=partial(self._on_disk, written, halves))
        for effect in rest:
            self._carry(effect)

    def _record_ops(self, key: b.Key, ordinal: int, record: bytes) -> list[Op]:
        machine = self.book.contracts[key]
        self.told.setdefault(key, Told())
        offer = machine.a.offer.message if machine.a.offer is not None else None
        until = offer.expires + 2 * SKEW_S if isinstance(offer, m.Offer) else 0
        row = rows.ContractRow(key.peer, key.nonce, int(machine.a.role), False, until)
        line = rows.RecordRow(key.peer, key.nonce, ordinal, record)
        ops: list[Op] = [lambda conn: rows.append(conn, [line])]
        if self._open.get(key) != row:
            self._open[key] = row
            ops.insert(0, lambda conn: rows.save(conn, row))
        return ops

    def _on_disk(self, written: list[tuple[b.Key, int]], halves: list[Signed]) -> None:
        if self.is_closed:
            return
        for half in halves:
            self._half(half)
        for key, ordinal in written:
            if key in self.book.contracts:
                self.handle(b.Order(key, e.Persisted(ordinal)))
                self.consider(key)

    def consider(self, key: b.Key) -> None:
        """An offer of another company is on disk now: let somebody judge it, once."""
        machine, told = self.book.contracts.get(key), self.told.get(key)
        if machine is None or told is None or machine.a.role is not Role.LENDER or machine.state is not State.OFFERED:
            return
        offer = machine.a.offer
        if offer is not None and told.considered != offer.hash and not machine.a.suggestion:
            told.considered = offer.hash
            if self.listener is not None:
                self.listener.on_offer(key)

    def _carry(self, effect: b.BookEffect) -> None:
        match effect:
            case b.Of(key, e.Send(wire)):
                self.send(key.peer, pm.ContractWire(wire))
            case b.Of(key, e.Changed(state, cause)):
                told = self.told.setdefault(key, Told())
                told.state, told.cause, told.turned = state, cause, None
                self._halves_of(key)
                if self.listener is not None:
                    self.listener.on_changed(key, cause)
            case b.Of(key, e.WorkMay(flow, why)):
                self.told.setdefault(key, Told()).may_work = (flow, why)
                if self.listener is not None:
                    self.listener.on_work(key)
            case b.Of(key, e.HandOver(facts)):
                if self.listener is not None:
                    self.listener.on_hand_over(key, facts)
            case b.Of(key, e.ForkFound(proof)):
                self._fork(key.peer, proof)
            case b.Of(key, e.Refused(code, text)):
                _log.info("contract with %s: %s: %s", company_id_text(key.peer), code, text)
            case b.TurnedAway():
                self._turn_away(effect)

    def _halves_of(self, key: b.Key) -> None:
        """Keep the other side's half too, once: others may ask for it when its author is gone."""
        machine = self.book.contracts.get(key)
        if machine is None or self.told[key].state is not State.RATED:
            return
        half = machine.a.halves.get(machine.a.role.other)
        if half is not None:
            self.keep_half(half)

    def keep_half(self, half: Signed) -> None:
        """Store another company's verified half; two that contradict each other make a proof."""
        if self.is_closed:
            return
        other: list[rows.HalfRow] = []

        def op(conn: Connection) -> None:
            other.extend(rows.keep_half(conn, _row_of(half)))

        def then() -> None:
            proofs = [fork_proof(trusted(m.Half.code, row.body, row.signature), half) for row in other]
            for proof in filter(None, proofs):
                self._fork(_row_of(half).author, proof)
            self._half(half)

        self.writing.add(ops=[op], then=then)

    def _fork(self, author: bytes, proof: bytes) -> None:
        _log.error("%s signed two things where it may sign one", company_id_text(author))
        self.writing.add(ops=[lambda conn: rows.add_proof(conn, author, proof)])
        if self.listener is not None:
            self.listener.on_fork(author)

    def _half(self, half: Signed) -> None:
        if self.listener is not None:
            self.listener.on_half(half)

    def _forget(self) -> None:
        """What the book has let go of is over: its nonce is remembered, its journal stays, what was counted for it goes."""
        gone = [k for k in self._open if k not in self.book.contracts]
        for key in gone:
            row = self._open.pop(key)
            self.told.pop(key, None)
            over = rows.ContractRow(row.peer, row.nonce, row.role, True, row.offer_expires)
            self.writing.add(ops=[partial(_save, row=over)])
        if gone:
            self._sweep()

    def _sweep(self) -> None:
        """Counts of contracts that are not in memory are of no use: receipts say what they came to."""
        kept = frozenset(c.a.contract.hex() for c in self.book.contracts.values() if c.a.contract)
        self.writing.add(ops=[partial(meta.drop_others, prefixes=(LENT, LENT_OUT, BORROWED), kept=kept)])

    def machine(self, key: b.Key) -> ContractMachine | None:
        """The machine of one contract, while it is in memory."""
        return self.book.contracts.get(key)


def was_alive(said: bytes | None, uptime: tuple[str, float]) -> tuple[UnixTime | None, float | None]:
    """When a note was written, by the calendar, and how long ago, where the machine has not been started again since."""
    words = said.decode().split(" ") if said is not None else []
    if not words:
        return None, None
    is_same = len(words) == 3 and words[1] != "" and words[1] == uptime[0]
    return UnixTime(int(words[0])), max(0.0, uptime[1] - float(words[2])) if is_same else None


def _cause_of(a: Agreement) -> Cause:
    return a.causes.get(a.role) or a.causes.get(a.role.other) or Cause.NONE


def _save(conn: Connection, row: rows.ContractRow) -> None:
    rows.save(conn, row)


def _row_of(half: Signed) -> rows.HalfRow:
    found = half.message
    assert isinstance(found, m.Half)  # the chain makes and reads nothing else
    return rows.HalfRow(found.author, found.chain_sequence, found.contract, half.body, half.signature)


def _add_half(conn: Connection, half: Signed) -> None:
    rows.add_half(conn, _row_of(half))


def _load_chain(own: bytes, conn: Connection) -> list[Signed]:
    found: list[Signed] = []
    while True:
        page = rows.chain(conn, own, len(found) + 1, CHAIN_PAGE)
        found += [trusted(m.Half.code, row.body, row.signature) for row in page]
        if len(page) < CHAIN_PAGE:
            return found
