"""Contract path 5/8 - the lender's side: own workers are sent with tickets, what they did is counted, and they are called back (I/O).

A worker is told over its own channel to this chief, and can be called back over it at any moment, whatever the borrower says. What it
counts is on disk here before it is stated to anybody. Tickets are on disk before they leave, so that a chief that was killed knows which
workers have something to tell it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgpack
import trio
from sqlalchemy import Connection

from company import messages as m
from company.chief import events as ev
from company.chief.commit import Committer
from company.chief.contracts.port import Contracts, ContractView
from company.chief.engine import Engine
from company.chief.secondment.door import is_over
from company.chief.secondment.papers import Sent, Tally, pack_sent, row_of_sent, row_of_tally, unpack_sent
from company.chief.secondment.placing import Spare, places_for
from company.chief.secondment.reporting import tell_drained, tell_facts, tell_heard
from company.chief.store import meta
from company.chief.store.store import Store
from company.ticket import MAX_DURATION_S, Ticket, sign_ticket
from p2p.base.errors import Unavailable
from p2p.base.keys import Identity
from p2p.base.schema import Message
from p2p.contracts.terms import NOTHING, Cause, Facts, Role
from p2p.net.channel import Channel
from p2p.net.clock import read_unix

if TYPE_CHECKING:
    from company.chief.sessions import Session, Sessions

GOODBYE_S = 5.0  # a worker that has not said by then that it is over is taken for over: its own clock ends it
RETURN_S = 7.0  # the same for one that has not yet come back to a chief that was started again
LOOK_S = 2.0  # how often lent workers are held against what their owners do
RETRY_S = 3.0  # before slots are placed anew on a worker that refused or lost them
ENDS = ("over", "overrun")  # the last that a run has to say
_log = logging.getLogger("company.chief.secondment")


@dataclass(slots=True)
class Lending:
    """Every own worker's time that other companies have. ``may_dial``: whether an address that a contract names may be dialled."""

    identity: Identity
    network_id: bytes
    contracts: Contracts
    engine: Engine
    sessions: Sessions
    committer: Committer
    store: Store
    may_dial: Callable[[str, int], bool]
    bandwidth: Callable[[int], int]  # bytes a second for so many slots; 0: no bound
    busy: Callable[[], Mapping[str, str]] = dict  # workers whose owner uses their machine now, and how
    silent: Callable[[], Collection[str]] = frozenset  # those that have yet to say it
    nursery: trio.Nursery = field(init=False)
    sent: dict[tuple[bytes, str], Sent] = field(default_factory=dict)
    tallies: dict[bytes, Tally] = field(default_factory=dict)
    _serial: int = 0
    _over: set[bytes] = field(default_factory=set)
    _rests: dict[tuple[bytes, str], float] = field(default_factory=dict)
    _news: trio.Event = field(default_factory=trio.Event)

    # ---- contracts and workers change ----------------------------------------------------------------------------------------
    def on_contract(self, view: ContractView) -> None:
        """One that is new wants slots; one that is over gives them back."""
        if view.role is Role.LENDER:
            self._news.set()

    def worker_here(self, session: Session) -> None:
        """An own worker is here, perhaps again: it is told what it is to do, which it may be doing."""
        for entry in [s for s in self.sent.values() if s.worker == session.worker]:
            entry.away_at, entry.is_leaving = None, False
            view = self.contracts.contract(entry.ticket.contract)
            if view is not None and view.is_live:
                self._send(entry)
            else:
                self._withdraw(entry, max(0.0, view.drain_until - trio.current_time()) if view is not None else 0.0)
        self._mark_lent(session.worker)
        self._news.set()

    def worker_gone(self, worker: str, *, said_bye: bool) -> None:
        """It has left for good, or is away for now: then it works on by itself."""
        for entry in [s for s in self.sent.values() if s.worker == worker]:
            if said_bye:
                self._forget(entry, rest=False)
            else:
                entry.away_at = trio.current_time()
        self._news.set()

    async def run(self) -> None:
        """Keep slots where contracts want them, until cancelled."""
        while True:
            self._news = trio.Event()
            self._follow_owners()
            for view in self.contracts.open_contracts():
                if view.role is Role.LENDER:
                    await self._place(view)
            self._forget_gone()
            self._rests = {key: until for key, until in self._rests.items() if until > trio.current_time()}
            look_at = trio.current_time() + LOOK_S if self.sent or self.busy() or self.silent() else math.inf
            with trio.move_on_at(min([look_at, *self._rests.values(), *(s.lost_at for s in self.sent.values())])):
                await self._news.wait()

    def _follow_owners(self) -> None:
        """Slots on a machine that its owner uses go back, with the contract's notice; others take their place where there are any."""
        busy = self.busy()
        for entry in [s for s in self.sent.values() if s.away_at is None and not s.is_leaving]:
            view = self.contracts.contract(entry.ticket.contract)
            if view is None or not view.is_live:
                continue
            if entry.worker in busy:
                _log.info("contract %s: %s leaves it: %s", view.id.hex()[:16], entry.worker, busy[entry.worker])
                entry.is_leaving = True
                self._withdraw(entry, view.terms.notice_s)
            elif entry.bytes_per_s != self.bandwidth(entry.ticket.slots):
                self._send(entry)  # another cap of bandwidth than it was told

    async def _place(self, view: ContractView) -> None:
        if not view.is_live:
            if is_over(view) and view.id not in self._over:
                self._over.add(view.id)
                self.nursery.start_soon(self._call_back, view)
            return
        await self._load(view.id)
        lacking = view.slots - sum(s.ticket.slots for s in self.sent.values() if s.ticket.contract == view.id)
        if lacking <= 0 or not view.may_work:
            return
        for place in places_for(lacking, self._spare(view.id)):
            self._second(view, place.worker, place.slots)

    async def _load(self, contract: bytes) -> None:
        """What was counted, and who was sent, before a restart, or before the contract was forgotten here."""
        if contract in self.tallies:
            return
        counted, out = await self.store.read(
            lambda conn: (meta.get(conn, row_of_tally(contract)), meta.get(conn, row_of_sent(contract)))
        )  # fmt: skip
        if contract in self.tallies:
            return  # another task was quicker
        tally = self.tallies[contract] = Tally.unpack(counted) if counted is not None else Tally()
        if tally.runs:  # on disk, but perhaps never stated
            tell_facts(self.contracts, contract, tally.facts)
        for entry in unpack_sent(out or b"", self.identity.public, self.network_id, trio.current_time()):
            self.sent[contract, entry.worker] = entry
            if (session := self.sessions.open.get(entry.worker)) is not None:
                self.worker_here(session)

    def _forget_gone(self) -> None:
        """Nothing is kept in memory of contracts that are neither open nor have a ticket out; a worker that stays away is replaced."""
        for entry in [s for s in self.sent.values() if s.lost_at <= trio.current_time()]:
            self._forget(entry, rest=False)
        kept = {view.id for view in self.contracts.open_contracts()} | {contract for contract, _ in self.sent}
        self.tallies = {contract: tally for contract, tally in self.tallies.items() if contract in kept}
        self._over &= kept

    def _spare(self, contract: bytes) -> list[Spare]:
        now, leases = trio.current_time(), self.engine.state.leases
        found = []
        for name, session in self.sessions.open.items():
            live = self.engine.state.slots.workers.get(name)
            if session.guest is not None or live is None or not live.takes_work or not isinstance(session.channel, Channel):
                continue
            if (
                name in self.busy()
                or name in self.silent()
                or (contract, name) in self.sent
                or self._rests.get((contract, name), 0.0) > now
            ):
                continue
            idle = sum(1 for n in range(live.own_slots) if not leases.depth((name, n)))
            found.append(Spare(name, session.machine.isolation, live.own_slots, idle))
        return found

    def _second(self, view: ContractView, worker: str, slots: int) -> None:
        session, now, terms = self.sessions.open[worker], read_unix(), view.terms
        left_s = max(1, min(MAX_DURATION_S, math.ceil(view.ends_at - trio.current_time())))
        relays = tuple((r.public, r.host, r.port) for r in view.contact.relays if self.may_dial(r.host, r.port))[:4]
        ticket = Ticket(
            lender=self.identity.public, worker=session.channel.peer_key, contract=view.id, borrower=view.peer,
            endpoints=tuple((host, port) for host, port in terms.endpoints if self.may_dial(host, port)), relays=relays, slots=slots,
            duration_s=left_s, processor=terms.processor, memory_mib=terms.memory_mib, disk_mib=terms.disk_mib,
            fragment_s=terms.fragment_s, lease_s=terms.lease_s, serial=self._next_serial(),
            created=now, expires=now + left_s,
        )  # fmt: skip
        body, signature = sign_ticket(self.identity, self.network_id, ticket)
        entry = self.sent[view.id, worker] = Sent(ticket, body, signature, worker)
        _log.info("contract %s: %d slots of %s", view.id.hex()[:16], slots, worker)
        self._mark_lent(worker)
        self.committer.add(ops=[self._note_sent(view.id)], then=lambda: self._send(entry))

    def _note_sent(self, contract: bytes) -> Callable[[Connection], None]:
        """Who has a ticket of this contract now."""
        packed = pack_sent(s for s in self.sent.values() if s.ticket.contract == contract)
        return lambda conn: meta.put(conn, row_of_sent(contract), packed) if packed else meta.drop(conn, row_of_sent(contract))

    def _next_serial(self) -> int:
        """Never one twice, also after a restart."""
        self._serial = max(self._serial + 1, read_unix() * 1000)
        return self._serial

    def _send(self, entry: Sent) -> None:
        entry.bytes_per_s = self.bandwidth(entry.ticket.slots)
        self._tell(entry.worker, m.Second(self.network_id, entry.body, entry.signature, entry.bytes_per_s))

    def _withdraw(self, entry: Sent, grace_s: float) -> None:
        self._tell(entry.worker, m.Unsecond(entry.ticket.contract, math.ceil(grace_s) if grace_s >= 0.5 else 0, "contract-over"))

    def _tell(self, worker: str, message: Message) -> None:
        session = self.sessions.open.get(worker)
        if session is not None:
            try:
                session.channel.send_nowait(message)
            except (trio.WouldBlock, Unavailable):
                _log.warning("%s does not read what it is told", worker)

    def _mark_lent(self, worker: str) -> None:
        lent = sum(s.ticket.slots for s in self.sent.values() if s.worker == worker)
        self.engine.post(ev.WorkerLent(worker=worker, slots=lent))

    # ---- what workers report -------------------------------------------------------------------------------------------------
    def on_seconded(self, worker: str, message: m.Seconded) -> None:
        """How a ticket stands."""
        contract = message.contract
        view = self.contracts.contract(contract)
        if view is None or view.role is not Role.LENDER:
            if message.state not in ENDS:
                self._tell(worker, m.Unsecond(contract, 0, "contract-unknown"))
            self._hear(worker, message)
            return
        if contract not in self.tallies:
            self.nursery.start_soon(self._after_loading, worker, message)
            return
        if message.run:
            self._count(self.tallies[contract], contract, message)
        if message.state == "overrun":
            self.nursery.start_soon(self._breach, worker, message)
        else:
            self.committer.add(then=lambda: self._hear(worker, message))
        entry = self.sent.get((contract, worker))
        if entry is None:
            if message.state not in ENDS:
                self._tell(worker, m.Unsecond(contract, 0, "contract-unknown"))
        elif message.serial == entry.ticket.serial or (not message.run and message.state == "over" and not view.is_live):
            entry.state, entry.slots_alive = message.state, message.slots
            if message.state in ENDS:
                _log.info("contract %s: %s is back: %s %s", contract.hex()[:16], worker, message.reason, message.text)
                self._forget(entry, rest=True)

    def _hear(self, worker: str, message: m.Seconded) -> None:
        """The last that a guest's run had to say is on disk: its worker may forget it."""
        if message.run and message.state in ENDS:
            self._tell(worker, m.SecondedHeard(message.contract, message.serial, message.run))

    async def _after_loading(self, worker: str, message: m.Seconded) -> None:
        """A worker was quicker than the database: its numbers are added to those of before, never put in their place."""
        await self._load(message.contract)
        self.on_seconded(worker, message)

    def _count(self, tally: Tally, contract: bytes, message: m.Seconded) -> None:
        """Write, then state: a number that was stated must be there after a restart."""
        key, facts = (message.serial, message.run), Facts(message.fragments, message.core_ms, message.bytes)
        before = tally.runs.get(key, NOTHING)
        if facts == before or not facts.covers(before):
            return
        tally.runs[key] = facts
        tally.results = message.results
        packed, total, results = tally.pack(), tally.facts, tally.results
        alive = sum(s.slots_alive for s in self.sent.values() if s.ticket.contract == contract)

        def write(conn: Connection) -> None:
            meta.put(conn, row_of_tally(contract), packed)

        def state() -> None:
            view = self.contracts.contract(contract)
            if view is not None:
                tell_facts(self.contracts, contract, total, results=results, slots_alive=alive)
                tell_heard(self.contracts, contract)

        self.committer.add(ops=[write], then=state)

    async def _breach(self, worker: str, message: m.Seconded) -> None:
        evidence: bytes = msgpack.packb([message.contract, message.serial, message.reason, message.text])
        await self._all_counted()  # what was done before it is stated first
        await self.contracts.breach(message.contract, Cause.OVERRUN, evidence, f"{message.reason}: {message.text}"[:200])
        self._hear(worker, message)

    async def _all_counted(self) -> None:
        """Every number that a worker reported is on disk and stated."""
        done = trio.Event()
        self.committer.add(then=done.set)
        await done.wait()

    def _forget(self, entry: Sent, *, rest: bool) -> None:
        key = (entry.ticket.contract, entry.worker)
        if self.sent.pop(key, None) is not None:
            if rest:
                self._rests[key] = trio.current_time() + RETRY_S
            self._mark_lent(entry.worker)
            self.committer.add(ops=[self._note_sent(entry.ticket.contract)])
            self._news.set()

    # ---- the end -------------------------------------------------------------------------------------------------------------
    async def _call_back(self, view: ContractView) -> None:
        """What runs has its notice; a second later everything is back, or taken for it."""
        await self._load(view.id)
        grace_s = max(0.0, view.drain_until - trio.current_time())
        mine = [s for s in self.sent.values() if s.ticket.contract == view.id]
        for entry in mine:
            self._withdraw(entry, grace_s)
        until = trio.current_time() + grace_s + (RETURN_S if any(s.state == "awaited" for s in mine) else GOODBYE_S)
        while trio.current_time() < until and any(s in self.sent.values() for s in mine):
            news = self._news
            with trio.move_on_at(until):
                await news.wait()
                await trio.lowlevel.checkpoint()
        for entry in mine:
            self._forget(entry, rest=False)
        await self._all_counted()
        tell_drained(self.contracts, view.id)
