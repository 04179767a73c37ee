"""Contract path 5/8 - the borrower's side: guests come in with tickets, their answers are counted and checked, and they go (I/O).

Guests are workers with an origin: the scheduler treats their slots like any other's. What reaches them is a job's processor, parameters
and the fragments they are given; what they may say is what a worker says of a batch, and files they make are not taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio
from sqlalchemy import Connection

from company import messages as m
from company.chief import events as ev
from company.chief.commit import Committer, Op
from company.chief.contracts.port import BORROWED, YARDSTICK, Contracts, ContractView
from company.chief.engine import Engine
from company.chief.leases import COUNTER_BITS
from company.chief.outcome_cut import cut_outcome_untrusted
from company.chief.secondment import believed, worked
from company.chief.secondment.checking import Checking
from company.chief.secondment.counting import Account, unpack_account
from company.chief.secondment.door import Admitted, admit, is_over
from company.chief.secondment.reporting import tell_drained, tell_facts, tell_heard
from company.chief.store import meta
from company.chief.store.store import Store
from p2p.base.errors import PeerError
from p2p.base.frames import Frame
from p2p.base.keys import company_id_text
from p2p.base.schema import Message
from p2p.contracts.terms import Cause, Role
from p2p.net.clock import read_unix
from p2p.net.hello import refusal
from p2p.reputation.checking import Policy

if TYPE_CHECKING:
    from company.chief.sessions import Session, Sessions

MAX_GUESTS = 1024
MAX_OVER = 4096  # contracts that are known to be over
TELL_EVERY_S = 0.2
HEARD_EVERY_S = 1.0
_log = logging.getLogger("company.chief.secondment")


@dataclass(slots=True)
class Borrowing:
    """All guests of one chief. ``is_trusted``: whether a company is, as far as --where trusted goes."""

    own: bytes
    network_id: bytes
    contracts: Contracts
    engine: Engine
    sessions: Sessions
    checking: Checking
    store: Store
    committer: Committer
    is_trusted: Callable[[bytes], bool]
    nursery: trio.Nursery = field(init=False)
    guests: dict[str, Admitted] = field(default_factory=dict)
    accounts: dict[bytes, Account] = field(default_factory=dict)
    came_at: dict[str, float] = field(default_factory=dict)
    _admitted: dict[str, Admitted] = field(default_factory=dict)  # between ticket and session
    _held: dict[str, tuple[str, str]] = field(default_factory=dict)  # worker -> (job, company) that its checks wait for
    _over: set[bytes] = field(default_factory=set)
    _heard: dict[bytes, float] = field(default_factory=dict)
    _news: trio.Event = field(default_factory=trio.Event)

    # ---- coming and going --------------------------------------------------------------------------------------------------
    async def admit(self, message: m.Guest, machine: m.Machine, key: bytes) -> ev.WorkerHere:
        """Judge a ticket. Raises `PeerError`."""
        if len(self.guests) >= MAX_GUESTS:
            raise PeerError("slots-exceeded", f"{MAX_GUESTS} guests are here already.")
        found = admit(
            message, machine, key, own=self.own, network_id=self.network_id, contracts=self.contracts,
            here=list(self.guests.values()), is_trusted=self.is_trusted(message.lender),
        )  # fmt: skip
        origin = found.spec.origin
        if origin not in self.checking.passed:
            now = float(read_unix())
            self.checking.passed[origin] = await self.store.read(lambda conn: believed.load_passed(conn, origin, now))
        await self._load(found.view)
        if found.view.id not in self.accounts:
            raise PeerError("contract-over", "This contract is over.")
        self._admitted[found.spec.id] = found
        held = tuple((token, job, first, count) for token, job, first, count, _ in message.held)
        return ev.WorkerHere(spec=found.spec, held=held)

    def entered(self, worker: str) -> None:
        """It is here."""
        self.came_at[worker] = trio.current_time()
        found = self.guests[worker] = self._admitted.pop(worker)
        _log.info("%s came with %d slots under contract %s", worker, found.spec.slots, found.ticket.contract.hex()[:16])
        self.checking.wake()

    def left(self, worker: str) -> None:
        """Its channel is gone."""
        found = self.guests.pop(worker, None)
        self._held.pop(worker, None)
        self.came_at.pop(worker, None)
        if found is not None:
            self._forget_over(found.ticket.contract)

    def on_contract(self, view: ContractView) -> None:
        """One that is over takes its guests with it."""
        if view.role is not Role.BORROWER:
            return
        mine = [w for w, a in self.guests.items() if a.ticket.contract == view.id]
        if view.is_live:
            for worker in mine:
                self._hold(worker, not view.may_work)
            if view.id not in self.accounts:
                self.nursery.start_soon(self._load, view)
            return
        if not is_over(view) or view.id in self._over:
            return
        if len(self._over) >= MAX_OVER:
            self._over &= {view.id for view in self.contracts.open_contracts()}
        self._over.add(view.id)
        grace_s = max(0.0, view.drain_until - trio.current_time())
        for worker in mine:
            self.engine.post(ev.WorkerChanged(worker=worker, action="drain"))
        self.nursery.start_soon(self._see_off, view, mine, grace_s)

    def _hold(self, worker: str, pause: bool) -> None:
        """A contract that is suspect gets nothing new."""
        live = self.engine.state.slots.workers.get(worker)
        if live is not None and live.paused != pause and worker not in self._held:
            self.engine.post(ev.WorkerChanged(worker=worker, action="pause" if pause else "resume"))

    async def _see_off(self, view: ContractView, workers: list[str], grace_s: float) -> None:
        """Let what runs finish for the notice; then close."""
        contract = view.id
        await self._load(view)
        until = trio.current_time() + grace_s
        while trio.current_time() < until and any(self.engine.state.leases.of_worker(w) for w in workers if w in self.guests):
            with trio.move_on_at(min(until, trio.current_time() + 0.1)):
                await self._news.wait()
                await trio.sleep(0.02)
        await self.committer.flushed()  # what came is on disk, and each guest knows it before it goes
        for worker in workers:
            session = self.sessions.open.get(worker)
            if session is not None:
                session.said_bye = True  # nobody's loss: what it held runs elsewhere at once, and no try is counted
                self.sessions.leave(session)
                await session.channel.aclose(refusal("contract-over", "The contract is over."))
        for run in list(self.engine.state.slots.workers.values()):
            if run.spec.guest is not None and run.spec.guest.contract == contract.hex():
                self.engine.post(ev.WorkerChanged(worker=run.spec.id, action="rm"))  # one that is away comes back no more
        self.tell_account(contract)
        await self.committer.flushed()  # what was counted is on disk and told
        tell_drained(self.contracts, contract)
        self._forget_over(contract)

    def _forget_over(self, contract: bytes) -> None:
        """The last guest of a contract that is over has gone: its numbers are told, nothing is kept of it."""
        if contract in self._over and not any(a.ticket.contract == contract for a in self.guests.values()):
            self.tell_account(contract)
            self.accounts.pop(contract, None)
            self._heard.pop(contract, None)

    # ---- what guests say -----------------------------------------------------------------------------------------------------
    def on_message(self, session: Session, message: Message, frame: Frame) -> bool:
        """Take what is judged here; False for what any worker may say. Raises `MalformedMessage`, `PeerError`."""
        found = self.guests.get(session.worker)
        if found is None:
            return True  # it is being seen off
        self._hear(found.ticket.contract)
        match message:
            case m.Outcome():
                self._outcome(session.worker, found, message, frame)
            case m.NeedProcessor() if message.processor != found.ticket.processor:
                raise PeerError("processor-not-agreed", "The contract names another processor.")
            case m.Artifact() | m.Status():
                return True
            case m.Seconded() | m.Join():
                raise PeerError("not-a-guests", f"A guest may not send {type(message).__name__}.")
            case _:
                return False
        return True

    def _hear(self, contract: bytes) -> None:
        now = trio.current_time()
        if now - self._heard.get(contract, float("-inf")) >= HEARD_EVERY_S:
            self._heard[contract] = now
            tell_heard(self.contracts, contract)

    def _outcome(self, worker: str, found: Admitted, message: m.Outcome, frame: Frame) -> None:
        cut = cut_outcome_untrusted(message, frame)
        lease = self.engine.state.leases.get(message.token)
        guest = found.spec.guest
        if lease is None or lease.worker != worker or lease.job != message.job or guest is None:
            self.engine.post_outcome(worker, message, frame, cut)  # which says that it is stale
            return
        if not lease.first <= message.first <= message.first + message.count <= lease.first + lease.count:
            self.engine.post_outcome(worker, message, frame, cut)  # which refuses it
            return
        contract = found.ticket.contract
        size = len(frame.body) + sum(size for _, size, _ in message.blobs)
        is_old = message.token >> COUNTER_BITS != self.engine.state.boot  # sent before a restart, nobody knows when
        since = found.view.ends_at - found.view.terms.end_s if is_old else lease.granted_at
        elapsed_us = (trio.current_time() - since) * 1e6
        noted = self._note(worker, message.job, contract)
        after = self.checking.take(message.job, guest, Policy.of(found.view.terms), cut, message.first)
        self.engine.post_outcome(worker, message, frame, cut, lambda: self._counted(contract, message, size, elapsed_us, noted))
        after()
        if self.checking.is_behind(message.job, guest.origin) and worker not in self._held:
            self.engine.post(ev.WorkerChanged(worker=worker, action="pause"))
            self._held[worker] = (message.job, guest.origin)

    def _note(self, worker: str, job: str, contract: bytes) -> Op | None:
        """What is written when a guest's first results of a job come: who worked for it, and why it could."""
        runtime = self.engine.runtimes.get(job)
        if runtime is None or worker in runtime.guests or len(runtime.guests) >= worked.MAX_NOTED:
            return None
        runtime.guests[worker] = contract.hex()
        return lambda conn: worked.note(conn, job, worker, contract.hex())

    def _counted(
        self, contract: bytes, message: m.Outcome, size: int, elapsed_us: float, noted: Op | None
    ) -> tuple[Op, Callable[[], None]]:
        """What is written of a contract with the outcome itself, and what follows when it is on disk."""
        account, leases = self.accounts[contract], self.engine.state.leases
        total = account.came(
            message.token, message.first, message.count, message.run_us, size, elapsed_us=elapsed_us,
            is_live=lambda token: leases.get(token) is not None, own_us=self._own_us(message.job),
        )  # fmt: skip
        packed = account.pack()

        def on_disk() -> None:
            account.on_disk(total)
            self._stir()

        def write(conn: Connection) -> None:
            meta.put(conn, row_of(contract), packed)
            if noted is not None:
                noted(conn)

        return write, on_disk

    def _own_us(self, job: str) -> float | None:
        """What a fragment of a job takes on own workers."""
        found = self.engine.state.jobs.get(job)
        count, run_us = found.own if found is not None else (0, 0)
        return run_us / count if count else None

    def checked(self, contract: str, passed: bool) -> None:
        """A check under this contract came out."""
        account = self.accounts.get(bytes.fromhex(contract))
        if account is not None:
            account.passed += passed
            account.failed += not passed
        for worker in [w for w, key in self._held.items() if not self.checking.is_behind(*key)]:
            del self._held[worker]
            self.engine.post(ev.WorkerChanged(worker=worker, action="resume"))
        self._stir()

    async def caught(self, origin: str, job: str, fragment: int, evidence: bytes) -> None:
        """A company's answer was wrong: every contract with it ends, and says why."""
        text = f"wrong result of fragment {fragment} of {job}"
        for view in self.contracts.open_contracts():
            if view.role is Role.BORROWER and company_id_text(view.peer) == origin:
                self.tell_account(view.id)
                await self.committer.flushed()  # what came before it counts
                await self.contracts.breach(view.id, Cause.BAD_RESULT, evidence, text)

    # ---- counting ------------------------------------------------------------------------------------------------------------
    async def _load(self, view: ContractView) -> None:
        """Where this boot counts on: what was on disk of a contract, which may be more than was ever acknowledged to its lender."""
        if view.id in self.accounts:
            return
        found = await self.store.read(lambda conn: meta.get(conn, row_of(view.id)))
        if view.id not in self.accounts and self.contracts.contract(view.id) is not None:
            self.accounts[view.id] = unpack_account(found, self.contracts.facts_of(view.id))
            self.tell_account(view.id)

    def _stir(self) -> None:
        self._news.set()

    async def run(self) -> None:
        """Tell the contracts what came, a few times a second at most, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            for contract in list(self.accounts):
                self.tell_account(contract)
            await trio.sleep(TELL_EVERY_S)

    def tell_account(self, contract: bytes) -> None:
        """Hand the facts of one contract over, where there are new ones."""
        account = self.accounts.get(contract)
        if account is None or account.told == (told := (account.facts, account.passed, account.failed)):
            return
        account.told = told
        packed, own_core_ms = account.pack(), account.own_core_ms

        def write(conn: Connection) -> None:
            meta.put(conn, row_of(contract), packed)
            if own_core_ms is not None:
                meta.put(conn, YARDSTICK + contract.hex(), str(own_core_ms).encode())

        def state() -> None:
            if own_core_ms is not None:
                self.contracts.measure(contract, own_core_ms)
            tell_facts(self.contracts, contract, told[0], checks_passed=told[1], checks_failed=told[2])

        self.committer.add(ops=[write], then=state)


def row_of(contract: bytes) -> str:
    """Where the counts lie."""
    return BORROWED + contract.hex()
