"""Contract path 5/8 - secondment put together: borrowing, lending and checking of one chief, over the contracts' port (I/O)."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING

import trio

from company import messages as m
from company.chief import events as ev
from company.chief.contracts.port import Contracts, ContractView
from company.chief.secondment.borrowing import Borrowing
from company.chief.secondment.check_slot import CheckSlot
from company.chief.secondment.checking import Checking
from company.chief.secondment.lending import Lending
from company.chief.secondment.reopening import Reopener
from p2p.base.frames import Frame
from p2p.base.schema import Message
from p2p.contracts.terms import Facts

if TYPE_CHECKING:
    from company.chief.service import ChiefService
    from company.chief.sessions import Session


@dataclass(slots=True)
class Secondment:
    """Between sessions, engine and contracts. A `ContractWatcher`."""

    borrowing: Borrowing
    lending: Lending
    checking: Checking
    contracts: Contracts

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            self.borrowing.nursery = self.lending.nursery = nursery
            self.contracts.watch(self)
            for session in list(self.lending.sessions.open.values()):
                for message in session.early.values():  # workers of a chief that was started again are quicker than its contracts
                    self.lending.on_seconded(session.worker, message)
                session.early.clear()
            nursery.start_soon(self.checking.run)
            nursery.start_soon(self.borrowing.run)
            nursery.start_soon(self.lending.run)

    # ---- the contracts' driver tells -------------------------------------------------------------------------------------------
    def on_contract(self, view: ContractView) -> None:
        """Its state, slots or leave to work are others now."""
        self.borrowing.on_contract(view)
        self.lending.on_contract(view)

    def on_hand_over(self, view: ContractView, acknowledged: Facts) -> None:
        """Nothing to do: results are kept by each worker until they are acknowledged, and sent again on its next channel."""

    # ---- sessions and engine tell ------------------------------------------------------------------------------------------------
    async def admit(self, message: m.Guest, machine: m.Machine, key: bytes) -> ev.WorkerHere:
        """Judge a guest's ticket. Raises `PeerError`."""
        return await self.borrowing.admit(message, machine, key)

    def entered(self, session: Session) -> None:
        """A worker is here."""
        if session.guest is not None:
            self.borrowing.entered(session.worker)
        else:
            self.lending.worker_here(session)

    def left(self, session: Session) -> None:
        """A worker's channel is gone."""
        if session.guest is not None:
            self.borrowing.left(session.worker)
        else:
            self.lending.worker_gone(session.worker, said_bye=session.said_bye)

    def on_message(self, session: Session, message: Message, frame: Frame) -> bool:
        """Take what is meant for here; False for what any worker says. Raises `MalformedMessage`, `PeerError`."""
        if session.guest is not None:
            return self.borrowing.on_message(session, message, frame)
        if isinstance(message, m.Seconded):
            self.lending.on_seconded(session.worker, message)
            return True
        return False

    def poke(self, kind: str, ref: str) -> None:
        """A job has moved."""
        if kind != "job":
            return
        if ref not in self.checking.engine.runtimes:
            self.checking.forget_job(ref)
        if self.borrowing.accounts or self.checking.trials:  # answers of a contract that is over are checked on
            self.checking.wake()


def build_secondment(
    chief: ChiefService, contracts: Contracts, *, network_id: bytes, may_dial: Callable[[str, int], bool],
    is_trusted: Callable[[bytes], bool], bandwidth: Callable[[int], int] = lambda slots: 0,
    busy: Callable[[], Mapping[str, str]] = dict, silent: Callable[[], Collection[str]] = frozenset,
) -> Secondment:  # fmt: skip
    """Make the parts and hang them into the sessions; `Secondment.run` begins."""
    late: list[Borrowing] = []
    reopener = Reopener(chief.engine, chief.committer, chief.engine.merging, chief.desk.go_live_again)
    slots = tuple(CheckSlot(chief.sandbox) for _ in range(len(os.sched_getaffinity(0))))
    checking = Checking(
        engine=chief.engine, committer=chief.committer, story=chief.engine.story, slots=slots, rng=SystemRandom(),
        reopen=reopener.reopen, on_caught=lambda origin, job, fragment, evidence: late[0].caught(origin, job, fragment, evidence),
        on_checked=lambda contract, passed: late[0].checked(contract, passed),
    )  # fmt: skip
    borrowing = Borrowing(
        own=chief.identity.public, network_id=network_id, contracts=contracts, engine=chief.engine, sessions=chief.sessions,
        checking=checking, store=chief.store, committer=chief.committer, is_trusted=is_trusted,
    )  # fmt: skip
    late.append(borrowing)
    lending = Lending(
        identity=chief.identity, network_id=network_id, contracts=contracts, engine=chief.engine, sessions=chief.sessions,
        committer=chief.committer, store=chief.store, may_dial=may_dial, bandwidth=bandwidth, busy=busy,
        silent=silent,
    )  # fmt: skip
    secondment = Secondment(borrowing, lending, checking, contracts)
    chief.sessions.secondment = secondment
    chief.feed.listeners.append(secondment.poke)
    return secondment
