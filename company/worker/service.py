"""One worker: builds the parts, joins or comes back to its chief, runs until it is stopped, drained or refused (I/O)."""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random, SystemRandom

import trio

from company import messages as m
from company.home_lock import HomeLock
from company.paths import WorkerHome, make_private
from company.sandbox import Sandbox
from company.worker import events as ev
from company.worker import facts
from company.worker.batch import Batch
from company.worker.children import Children
from company.worker.core import WorkerCore
from company.worker.dialling import Dialler
from company.worker.joining import join
from company.worker.link import ChiefLink
from company.worker.options import Membership, WorkerOptions, load_membership, save_membership
from company.worker.processors import Processors
from company.worker.relay import Relay
from company.worker.results import HeldResults
from company.worker.slots import SlotRunner
from company.worker.state import WorkerState
from p2p.base.errors import UsageError
from p2p.base.frames import Frame
from p2p.base.keys import Identity
from p2p.base.schema import Message
from p2p.net.addresses import split_address
from p2p.net.identity_file import load_or_create_identity
from p2p.net.rpc import RpcLimits, serve_rpc

log = logging.getLogger(__name__)
OFF = ("", "off", "none")
RELAY_LIMITS = RpcLimits(connections=64, per_address=64)


async def run_worker(options: WorkerOptions) -> int:
    """Run one worker until it leaves; returns 0. Raises `ParallelError` when it cannot start or is refused for good."""
    home = options.home.worker(options.name).create()
    with HomeLock.take(home.root, "worker"):
        wipe(home.scratch)
        identity = load_or_create_identity(home.identity / "key")
        async with Sandbox.open(home=home.root, allow_none=options.sandbox_allow_none) as sandbox:
            worker = Worker(options, home, identity, sandbox, SystemRandom())
            await worker.run()
    return 0


def wipe(folder: Path) -> None:
    """Scratch holds nothing that outlives its process."""
    shutil.rmtree(folder, ignore_errors=True)
    make_private(folder)


class Worker:
    """The parts of one worker, put together."""

    def __init__(self, options: WorkerOptions, home: WorkerHome, identity: Identity, sandbox: Sandbox, rng: Random) -> None:
        self._options = options
        self._home = home
        self._identity = identity
        self._sandbox = sandbox
        self._rng = rng
        self._membership: Membership | None = None
        self._core: WorkerCore | None = None
        self._link: ChiefLink | None = None
        self._rpc_address: str | None = None
        self._http_address: str | None = None
        self._is_ready = False
        self._left = trio.Event()

    # -- life
    async def run(self) -> None:
        """From joining to leaving."""
        membership = await self._become_member()
        slots = self._options.slots
        async with Children.open(self._sandbox, slots) as children, trio.open_nursery() as nursery:
            core = self._build(membership, nursery)
            core.runners = [SlotRunner(slot, children, core) for slot in range(slots)]
            if self._options.rpc not in OFF:
                await self._listen(membership, nursery)
            for runner in core.runners:
                nursery.start_soon(runner.run)
            nursery.start_soon(core.tick)
            if self._options.handle_signals:
                nursery.start_soon(self._obey_signals)
            assert self._link is not None
            nursery.start_soon(self._link.run)
            await self._left.wait()
            await self._link.say_bye("leaving")
            nursery.cancel_scope.cancel()

    async def _become_member(self) -> Membership:
        """What is remembered, or a join with the token. Raises `UsageError` when there is neither."""
        options = self._options
        known = load_membership(self._home.root)
        if options.token is None:
            if known is None:
                raise UsageError("not-joined", f"worker {options.name} has joined no company", hint="company worker join TOKEN")
            self._membership = known
            return known
        from company.tokens import parse_token_untrusted

        token = parse_token_untrusted(options.token)
        if known is not None and known.chief_key == token.chief_key:
            self._membership = known  # an old member: the token may be used up, and is not needed
            return known
        joined = await join(token, identity=self._identity, machine=self.machine, via=options.via, rng=self._rng)
        save_membership(self._home.root, joined)
        self._membership = joined
        log.info("joined %s as %s", joined.supervisor, joined.worker)
        return joined

    def _build(self, membership: Membership, nursery: trio.Nursery) -> WorkerCore:
        options = self._options
        results = HeldResults(self._home.scratch / "results")
        processors = Processors(
            self._home.packages, chief_key=membership.chief_key, require_client_signature=options.require_client_signature, ask=self.tell
        )
        self._core = WorkerCore(
            slots=options.slots, results=results, processors=processors, upstream=self, scratch=self._home.scratch,
            nursery=nursery, on_leave=lambda _: self._left.set(),
        )  # fmt: skip
        dialler = Dialler(
            self._identity, chief_key=membership.chief_key, addresses=membership.addresses, via=options.via or membership.via
        )
        self._link = ChiefLink(dialler, results, self, self._rng)
        return self._core

    async def _listen(self, membership: Membership, nursery: trio.Nursery) -> None:
        host, port = split_listen(self._options.rpc)
        relay = Relay(membership.addresses)
        serve = partial(
            serve_rpc, identity=self._identity, host=host, port=port, registry=m.MESSAGES, on_channel=relay.on_channel, limits=RELAY_LIMITS
        )
        self._rpc_address = await nursery.start(serve)

    async def _obey_signals(self) -> None:
        """First signal: finish what runs. Second one: leave at once."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            grace_s = self._options.drain_s
            async for number in signals:
                log.info("signal %d: leaving, %g s for what runs", number, grace_s)
                self.stop(grace_s)
                grace_s = 0.0

    async def wait_until(self, condition: Callable[[WorkerState], bool]) -> None:
        """Return once the worker's machine is as wanted."""
        assert self._core is not None
        await self._core.wait_until(condition)

    def stop(self, grace_s: float) -> None:
        """Give back what has not begun, let the rest finish for ``grace_s``, then leave."""
        if self._core is None:
            self._left.set()
        else:
            self._core.apply(ev.StopAsked(grace_s))
            if not grace_s:
                self._core.apply(ev.Tick())

    # -- the LinkPort
    def machine(self) -> m.Machine:
        options = self._options
        return facts.machine(
            name=options.name, slots=options.slots, memory=options.memory_bytes, isolation=self._sandbox.rung,
            requirements_allowed=options.allow_requirements, http=self._http_address, rpc=self._rpc_address,
        )  # fmt: skip

    def held(self) -> tuple[m.Held, ...]:
        assert self._core is not None
        return self._core.machine.held()

    def worker_id(self) -> str:
        assert self._membership is not None
        return self._membership.worker

    def on_up(self, resumed: m.Resumed) -> None:
        assert self._core is not None and self._membership is not None
        self._core.on_link_up(resumed.keep)
        if not self._is_ready:
            self._is_ready = True
            if self._options.on_ready is not None:
                self._options.on_ready({"worker": self._membership.worker, "rpc": self._rpc_address, "http": self._http_address})

    def on_down(self, why: str) -> None:
        log.warning("lost the chief: %s", why)

    async def on_message(self, message: Message, frame: Frame) -> None:
        assert self._core is not None
        if isinstance(message, m.Bye):
            log.info("the chief says goodbye: %s", message.reason)
            return
        await self._core.on_message(message, frame)

    def on_stale(self, token: int) -> None:
        assert self._core is not None
        self._core.apply(ev.LeaseGone(token, "stale"))

    def on_failure_heard(self, token: int) -> None:
        assert self._core is not None
        for part in self._core.failures_of(token):
            self._core.apply(ev.Acked(((token, part),)))

    # -- the Upstream
    def tell(self, message: Message) -> None:
        if self._link is not None:
            self._link.tell(message)

    def wake(self) -> None:
        if self._link is not None:
            self._link.wake()

    async def fetch_blob(self, batch: Batch, offset: int, size: int, digest: bytes, path: Path) -> None:
        assert self._link is not None
        await self._link.bulk.get(batch.token, batch.job, batch.first + offset, size=size, digest=digest, path=path)


def split_listen(address: str) -> tuple[str | None, int]:
    """HOST:PORT to listen on; port 0 picks a free one, an empty host means every interface. Raises `UsageError`."""
    if address.endswith(":0"):
        return address[:-2].strip("[]") or None, 0
    return split_address(address) if not address.startswith(":") else (None, int(address[1:]))
