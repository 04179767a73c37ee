"""Contract path 5/8 - every secondment of one worker: begun and ended by its own chief alone (I/O).

A ticket that this worker's own chief did not sign for this worker's key is not even looked at. When the own chief is silent for a
contract's lease, the contract's work stops here by this machine's clock: nobody may be there any more who answers for it. What a guest's
end was is said on every new channel until the own chief has it on disk: it may be away at that moment, and its books need the last count.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from random import Random

import trio

from company import messages as m
from company.sandbox import Sandbox
from company.ticket import Ticket, open_ticket_untrusted
from company.worker.guest import GuestRun
from p2p.base.errors import MalformedMessage
from p2p.base.keys import Identity
from p2p.base.schema import Message

log = logging.getLogger(__name__)
MAX_CONTRACTS = 32
MAX_LAST = 256  # last reports that the own chief has not confirmed


class Guests:
    """Secondments by contract."""

    def __init__(
        self, *, identity: Identity, chief_key: bytes, slots: int, sandbox: Sandbox, scratch: Path, machine: Callable[[], m.Machine],
        tell: Callable[[Message], None], nursery: trio.Nursery, rng: Random,
    ) -> None:  # fmt: skip
        self._identity = identity
        self._chief_key = chief_key
        self._slots = slots
        self._sandbox = sandbox
        self._scratch = scratch
        self._machine = machine
        self._tell = tell
        self._nursery = nursery
        self._rng = rng
        self.runs: dict[bytes, GuestRun] = {}
        self.last: dict[tuple[bytes, int, int], m.Seconded] = {}  # of guests that are over, by contract, serial and run
        self._is_up = True
        self._changed = trio.Event()

    def on_message(self, message: Message) -> bool:
        """Take an order of the own chief; False when it is none about secondments."""
        match message:
            case m.Second():
                self._second(message)
            case m.Unsecond():
                run = self.runs.get(message.contract)
                self._say_last(message.contract)
                if run is not None:
                    run.end(message.grace_s, message.reason or "withdrawn")
                else:
                    self._say(message.contract, 0, "unknown", "nothing of this contract runs here")
            case m.SecondedHeard():
                self.last.pop((message.contract, message.serial, message.run), None)
            case _:
                return False
        return True

    def _second(self, order: m.Second) -> None:
        try:
            ticket = open_ticket_untrusted(self._chief_key, order.network, order.ticket, order.signature)
        except MalformedMessage as error:
            log.warning("a ticket of the own chief is refused: %s", error.text)
            return
        self._say_last(ticket.contract)
        known = self.runs.get(ticket.contract)
        if known is not None:
            known.pace.bytes_per_s = order.bytes_per_s
            known.report()
            return
        if (why := self._why_not(ticket)) is not None:
            self._say(ticket.contract, ticket.serial, *why)
            return
        run = GuestRun(
            ticket, order.ticket, order.signature, run=self._rng.getrandbits(63), identity=self._identity, sandbox=self._sandbox,
            folder=self._scratch / f"guest-{ticket.contract.hex()[:16]}", machine=self._machine, tell=self._told, rng=self._rng,
            bytes_per_s=order.bytes_per_s,
        )  # fmt: skip
        self.runs[ticket.contract] = run
        self._nursery.start_soon(self._keep, run)

    def _why_not(self, ticket: Ticket) -> tuple[str, str] | None:
        if ticket.worker != self._identity.public:
            return "ticket-refused", "the ticket is for another worker's key"
        if not self._sandbox.is_for_strangers:
            return "lending-unsafe", f"strangers' work needs the isolation bubblewrap; here it is {self._sandbox.rung}"
        lent = sum(run.ticket.slots for run in self.runs.values())
        if lent + ticket.slots > self._slots or len(self.runs) >= MAX_CONTRACTS:
            return "no-slots", f"{lent} of {self._slots} slots are lent already"
        return None

    def _say(self, contract: bytes, serial: int, code: str, text: str) -> None:
        self._tell(m.Seconded(contract, serial, 0, "over", 0, 0, 0, 0, bytes(32), code, text))

    def _told(self, report: m.Seconded) -> None:
        """A guest's report; the one of its end is kept."""
        if report.state in ("over", "overrun"):
            if len(self.last) >= MAX_LAST:
                lost = self.last.pop(next(iter(self.last)))
                log.warning("contract %s: the own chief never confirmed the last count: %d fragments", lost.contract.hex(), lost.fragments)
            self.last[report.contract, report.serial, report.run] = report
        self._tell(report)

    def _say_last(self, contract: bytes | None = None) -> None:
        """Every last report that is not confirmed, or those of one contract."""
        for report in self.last.values():
            if contract in (None, report.contract):
                self._tell(report)

    async def _keep(self, run: GuestRun) -> None:
        try:
            await run.run()
        finally:
            if self.runs.get(run.ticket.contract) is run:
                del self.runs[run.ticket.contract]

    def on_up(self) -> None:
        """The own chief is here again: it hears how everything stands."""
        self._is_up = True
        self._wake()
        self._say_last()
        for run in list(self.runs.values()):
            run.report()

    def on_down(self) -> None:
        """The own chief is away."""
        if self._is_up:
            self._is_up = False
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def watch(self) -> None:
        """End what lasts longer than its lease without the own chief, for ever."""
        while True:
            changed = self._changed
            if self._is_up:
                await changed.wait()
                continue
            since = trio.current_time()
            while not self._is_up:
                now = trio.current_time()
                for run in [r for r in self.runs.values() if now >= since + r.ticket.lease_s]:
                    run.end(0, "own-chief-silent", f"the own chief was away for {run.ticket.lease_s} s")
                waits = [since + r.ticket.lease_s for r in self.runs.values()]
                with trio.move_on_at(max(now + 0.05, min(waits, default=float("inf")))):
                    await self._changed.wait()

    def end_all(self, grace_s: float, why: str) -> None:
        """This worker leaves."""
        for run in list(self.runs.values()):
            run.end(grace_s, why)
