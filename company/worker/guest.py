"""Contract path 5/8 - one secondment: this worker's own outbound channel to a borrower, its sandboxes, its end (I/O).

It has slots, results, processors and scratch of its own, shares nothing with the work for this worker's company, and leaves nothing
behind. It ends by this machine's own clock, by a word of its own chief, when that chief is silent for a lease, or by an overrun.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import trio

from company import messages as m
from company.paths import make_private
from company.sandbox import Sandbox
from company.ticket import Ticket
from company.worker import events as ev
from company.worker.batch import Batch
from company.worker.environments import Environments
from company.worker.guest_core import GuestChildren, GuestCore
from company.worker.guest_ways import GuestWays
from company.worker.link import FINAL_REFUSALS, ChiefLink, Refusal
from company.worker.processors import Processors
from company.worker.results import HeldResults
from company.worker.slots import SlotRunner
from p2p.base.errors import ParallelError
from p2p.base.frames import Frame
from p2p.base.keys import Identity
from p2p.base.schema import Message
from p2p.net.throttle import Pace

log = logging.getLogger(__name__)
TELL_EVERY_S = 0.2
REFUSALS = FINAL_REFUSALS | {"ticket-refused", "contract-unknown", "contract-over", "slots-exceeded"}
GOODBYE_S = 1.5  # for a channel to say goodbye on; then it is cut
SPOOL_BYTES = 256 << 20
HELD_BYTES = 16 << 20


class GuestLink(ChiefLink):
    """A channel that opens with a ticket."""

    purpose = "guest"
    final = REFUSALS
    ticket: tuple[Ticket, bytes, bytes]

    def greeting(self) -> Message:
        ticket, body, signature = self.ticket
        return m.Guest(ticket.lender, body, signature, self._port.held(), int(time.time()))


class GuestRun:
    """Works for one borrower under one ticket; the `LinkPort` and the `Upstream` of its parts."""

    def __init__(
        self, ticket: Ticket, body: bytes, signature: bytes, *, run: int, identity: Identity, sandbox: Sandbox, folder: Path,
        machine: Callable[[], m.Machine], tell: Callable[[m.Seconded], None], rng: Random, bytes_per_s: int = 0,
    ) -> None:  # fmt: skip
        self.ticket = ticket
        self._signed = (ticket, body, signature)
        self._run = run
        self._identity = identity
        self._sandbox = sandbox
        self._folder = folder
        self._machine = machine
        self._tell = tell
        self._rng = rng
        self.pace = Pace(bytes_per_s)
        self._scope = trio.CancelScope()
        self._core: GuestCore | None = None
        self._link: GuestLink | None = None
        self._left = trio.Event()
        self.state = "dialling"
        self._why = ("", "")
        self._changed = trio.Event()

    async def run(self) -> None:
        """Until the end, whatever brings it; afterwards nothing of it is left on this machine."""
        self._scope.deadline = trio.current_time() + self.ticket.duration_s
        try:
            with self._scope:
                await self._work()
            if self._scope.cancelled_caught and not self._why[0]:
                self._why = ("time-frame", "the time frame is over")
        except ParallelError as error:
            self._why = (error.code[:64], error.text[:1000])
        except ExceptionGroup as group:
            known, others = group.split(ParallelError)
            if others is not None or known is None:
                raise
            first: BaseException = known
            while isinstance(first, ExceptionGroup):
                first = first.exceptions[0]
            self._why = (getattr(first, "code", "failed")[:64], str(first)[:1000])
        finally:
            if self.state != "overrun":
                self.state = "over"
            self.report()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(lambda: shutil.rmtree(self._folder, ignore_errors=True))

    async def _work(self) -> None:
        await trio.to_thread.run_sync(lambda: shutil.rmtree(self._folder, ignore_errors=True))
        make_private(self._folder)
        results = HeldResults(self._folder / "results", memory_limit=HELD_BYTES, spool_limit=SPOOL_BYTES)
        link = self._link = GuestLink(GuestWays(self._identity, self.ticket, self.pace), results, self, self._rng)
        link.ticket = self._signed
        processors = Processors(
            self._folder / "packages", chief_key=self.ticket.borrower, ask=lambda ask: self.tell(ask), require_client_signature=False
        )
        environments = Environments(
            self._folder / "environments", self._folder, chief_key=self.ticket.borrower, source=link.wheels, sandbox=self._sandbox,
            is_allowed=False, rng=self._rng,
        )  # fmt: skip
        children = GuestChildren(self._sandbox, self.ticket)
        async with children.pool, trio.open_nursery() as nursery:
            core = self._core = GuestCore(
                self.ticket, on_overrun=self._on_overrun, results=results, processors=processors, environments=environments,
                upstream=self, scratch=self._folder, nursery=nursery, on_leave=lambda _: self._left.set(),
            )  # fmt: skip
            core.runners = [SlotRunner(slot, children, core) for slot in range(self.ticket.slots)]
            for runner in core.runners:
                nursery.start_soon(runner.run)
            nursery.start_soon(core.tick)
            nursery.start_soon(self._keep_telling)
            nursery.start_soon(self._keep_link, link)
            await self._left.wait()
            await link.say_bye("leaving")
            nursery.cancel_scope.cancel()

    async def _keep_link(self, link: GuestLink) -> None:
        try:
            await link.run()
        except Refusal as error:
            self.end(0, error.code, error.text)

    # -- ends
    def end(self, grace_s: float, code: str, text: str = "") -> None:
        """No new batch from now on; what runs has ``grace_s``, then it is killed."""
        if not self._why[0]:
            self._why = (code[:64], text[:1000])
        if self._core is None:
            self._scope.cancel()
            return
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + grace_s + GOODBYE_S)
        self._core.apply(ev.StopAsked(grace_s))
        if grace_s <= 0:
            self._core.apply(ev.Tick())  # kills what runs; then the borrower hears goodbye, if it still reads

    def _on_overrun(self, what: str, text: str) -> None:
        if self.state != "overrun":
            log.warning("contract %s: overrun of %s: %s", self.ticket.contract.hex()[:16], what, text)
            self.state, self._why = "overrun", (what[:64], text[:1000])
            self.end(0, what)

    # -- the own chief hears
    def report(self) -> None:
        """Say how it stands."""
        meter = self._core.meter if self._core is not None else None
        fragments, core_ms, size = meter.facts if meter is not None else (0, 0, 0)
        self._tell(
            m.Seconded(
                self.ticket.contract, self.ticket.serial, self._run, self.state, fragments, core_ms, size,
                self.ticket.slots if self.state == "working" else 0, meter.results if meter is not None else bytes(32), *self._why,
            )
        )  # fmt: skip

    async def _keep_telling(self) -> None:
        while True:
            self._changed = trio.Event()
            if self.state != "overrun":  # said at the very end, with the last counts: its contract settles on them at once
                self.report()
            await self._changed.wait()
            await trio.sleep(TELL_EVERY_S)  # so that a busy secondment tells at most so often

    # -- the LinkPort
    def machine(self) -> m.Machine:
        caps = self.ticket
        return replace(
            self._machine(), name="guest", slots=caps.slots, memory_bytes=caps.memory_mib << 20, requirements_allowed=False, http=None,
            rpc=None,
        )  # fmt: skip

    def held(self) -> tuple[m.Held, ...]:
        assert self._core is not None
        return self._core.machine.held()

    def worker_id(self) -> str:
        return "guest"

    def use(self) -> tuple[int | None, bool | None]:
        return None, None  # no business of a borrower's

    def on_up(self, resumed: m.Resumed) -> None:
        assert self._core is not None
        if self.state == "dialling":
            self.state = "working"
        self._changed.set()
        self._core.on_link_up(resumed.keep)

    def on_down(self, why: str) -> None:
        log.info("contract %s: lost the borrower: %s", self.ticket.contract.hex()[:16], why)
        if self._core is not None:
            self._core.apply(ev.LinkDown())

    async def on_message(self, message: Message, frame: Frame) -> None:
        assert self._core is not None
        await self._core.on_message(message, frame)
        if isinstance(message, m.Ack):
            self._changed.set()

    def on_stale(self, token: int) -> None:
        assert self._core is not None
        self._core.lease_stale(token)

    def on_failure_heard(self, token: int) -> None:
        assert self._core is not None
        self._core.failure_heard(token)

    # -- the Upstream
    def tell(self, message: Message) -> None:
        if self._link is not None:
            self._link.tell(message)

    def wake(self) -> None:
        if self._link is not None:
            self._link.wake()

    async def fetch_blob(self, batch: Batch, offset: int, size: int, digest: bytes, path: Path) -> None:
        assert self._link is not None
        await self._link.bulk_fetch(batch, offset, size, digest, path)
