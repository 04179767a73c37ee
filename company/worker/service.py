"""One worker: builds the parts, joins or comes back to its chief, runs until it is stopped, drained or refused (I/O)."""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Protocol

import trio

from company import messages as m
from company.home_lock import HomeLock
from company.machine_reading import MachineReader, OwnReader, roots_of
from company.paths import OWN_NAME, WorkerHome, make_private
from company.sandbox import Sandbox
from company.tokens import JoinToken, parse_token_untrusted
from company.worker import events as ev
from company.worker import facts
from company.worker.batch import Batch
from company.worker.children import Children
from company.worker.core import WorkerCore
from company.worker.dialling import Dialler
from company.worker.environments import Environments, WheelSource
from company.worker.guests import Guests
from company.worker.joining import PATIENCE_S, join
from company.worker.link import ChiefLink, Refusal
from company.worker.options import Membership, WorkerOptions, load_membership, save_membership
from company.worker.processors import Processors
from company.worker.relay import Relay
from company.worker.results import HeldResults
from company.worker.slots import SlotRunner
from company.worker.state import WorkerState
from p2p.base.errors import ParallelError, Unavailable, UsageError
from p2p.base.frames import Frame
from p2p.base.keys import Identity
from p2p.base.schema import Message
from p2p.net.addresses import split_address
from p2p.net.clock import read_unix
from p2p.net.identity_file import load_or_create_identity
from p2p.net.rpc import RpcLimits, serve_rpc

log = logging.getLogger(__name__)
OFF = ("", "off", "none")
OLD_MEMBER_PATIENCE_S = 5.0  # then it goes on as the member it was, and looks for its chief for ever
RELAY_LIMITS = RpcLimits(connections=64, per_address=64)


async def run_worker(options: WorkerOptions) -> int:
    """Run one worker until it leaves; returns 0. Raises `ParallelError` when it cannot start or is refused for good."""
    home = options.home.worker(options.name).create()
    with HomeLock.take(home.root, "worker"):
        wipe(home.scratch)
        identity = load_or_create_identity(home.identity / "key")
        async with Sandbox.open(home=home.root, stage=(home.environments,), allow_none=options.sandbox_allow_none) as sandbox:
            worker = Worker(options, home, identity, sandbox, SystemRandom())
            try:
                await worker.run()
            except BaseExceptionGroup as group:
                error = _only_error(group)
                if error is None:
                    raise
                raise error from group
    return 0


def _only_error(group: BaseExceptionGroup[BaseException]) -> ParallelError | None:
    """The one reason why the worker ended, out of the nurseries that it came through; nil when there is another kind, too."""
    found, others = group.split(ParallelError)
    if found is None or others is not None:
        return None
    inner: BaseException = found
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner if isinstance(inner, ParallelError) else None


def wipe(folder: Path) -> None:
    """Scratch holds nothing that outlives its process."""
    shutil.rmtree(folder, ignore_errors=True)
    make_private(folder)


FetchBlob = Callable[[Batch, int, int, bytes, Path], Awaitable[None]]


class Link(Protocol):
    """The way to the chief: `ChiefLink` or `company.worker.rest.RestLink`."""

    def tell(self, message: Message) -> None: ...
    def wake(self) -> None: ...
    def check(self) -> None:
        """Find out soon whether the chief is there."""

    @property
    def wheels(self) -> WheelSource: ...
    async def run(self) -> None: ...
    async def say_bye(self, reason: str) -> None: ...


class Worker:
    """The parts of one worker, put together."""

    def __init__(self, options: WorkerOptions, home: WorkerHome, identity: Identity, sandbox: Sandbox, rng: Random) -> None:
        self._options = options
        self._home = home
        self._identity = identity
        self._sandbox = sandbox
        self._rng = rng
        self.results = HeldResults(home.scratch / "results")
        self._membership: Membership | None = None
        self._core: WorkerCore | None = None
        self._link: Link | None = None
        self._fetch: FetchBlob | None = None
        self._guests: Guests | None = None
        self._reader = MachineReader(trio.current_time, own=OwnReader(lambda: roots_of(options.home.root)))
        self._rpc_address: str | None = None
        self.http_address: str | None = None
        self.processors: Processors | None = None
        self._is_ready = False
        self._left = trio.Event()

    # -- life
    async def run(self) -> None:
        """From joining to leaving."""
        if self._options.transport == "rest":
            await self._run_rest()
        else:
            await self._run_rpc()

    async def _run_rpc(self) -> None:
        membership = await self._become_member()
        async with trio.open_nursery() as nursery:
            if self._options.rpc not in OFF:
                await self._listen(membership, nursery)
            if self._options.http is not None:
                await self._listen_http(self._options.http, membership, nursery)
            dialler = Dialler(
                self._identity, chief_key=membership.chief_key, addresses=membership.addresses, via=self._options.via or membership.via,
                socket=self._home_socket,
            )  # fmt: skip
            link = ChiefLink(dialler, self.results, self, self._rng)
            self._fetch = link.bulk_fetch
            await self._work(membership, link, nursery)
            nursery.cancel_scope.cancel()

    @property
    def _home_socket(self) -> Path | None:
        """Where the chief of this home serves its own worker."""
        options = self._options
        return options.home.chief.socket if options.name == OWN_NAME and options.via is None else None

    async def _run_rest(self) -> None:
        """The same with HTTP both ways; aiohttp is imported for nobody else."""
        from company.worker.rest_service import open_rest

        token = await self._token()
        async with open_rest(self._options, self._home, self._identity, token, self, self._rng) as (membership, link):
            self._membership = membership
            self._fetch = link.fetch_blob
            async with trio.open_nursery() as nursery:
                await self._work(membership, link, nursery)
                nursery.cancel_scope.cancel()

    async def _work(self, membership: Membership, link: Link, nursery: trio.Nursery) -> None:
        """Run slots and link until the worker leaves."""
        self._membership = membership
        self._link = link
        slots = self._options.slots
        self.processors = Processors(
            self._home.packages, chief_key=membership.chief_key, ask=self.tell,
            require_client_signature=self._options.require_client_signature,
        )  # fmt: skip
        async with Children.open(self._sandbox, slots) as children:
            core = self._core = WorkerCore(
                slots=slots, results=self.results, processors=self.processors, environments=self._environments(membership, link),
                upstream=self, scratch=self._home.scratch,
                nursery=nursery, on_leave=lambda _: self._left.set(),
            )  # fmt: skip
            core.runners = [SlotRunner(slot, children, core) for slot in range(slots)]
            for runner in core.runners:
                nursery.start_soon(runner.run)
            nursery.start_soon(core.tick)
            if self._options.transport == "rpc":
                self._guests = Guests(
                    identity=self._identity, chief_key=membership.chief_key, slots=slots, sandbox=self._sandbox, scratch=self._home.scratch,
                    machine=self.machine, tell=self.tell, nursery=nursery, rng=self._rng,
                )  # fmt: skip
                nursery.start_soon(self._guests.watch)
            if self._options.handle_signals:
                nursery.start_soon(self._obey_signals)
            nursery.start_soon(link.run)
            await self._left.wait()
            await link.say_bye("leaving")

    def _environments(self, membership: Membership, link: Link) -> Environments:
        return Environments(
            self._home.environments, self._home.scratch, chief_key=membership.chief_key, source=link.wheels,
            sandbox=self._sandbox, is_allowed=self._options.allow_requirements, rng=self._rng,
        )  # fmt: skip

    async def _token(self) -> JoinToken | None:
        text, read = self._options.token, self._options.read_token
        if read is not None:
            text = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
        return None if text is None else parse_token_untrusted(text)

    async def _become_member(self) -> Membership:
        """What is remembered, or a join with the token. Raises `UsageError` when there is neither."""
        options = self._options
        token = await self._token()
        known = load_membership(self._home.root)
        if token is None:
            if known is None:
                raise UsageError("not-joined", f"worker {options.name} has joined no company", hint="company worker join TOKEN")
            return known
        patience_s = PATIENCE_S
        moved: Membership | None = None
        if known is not None and known.chief_key == token.chief_key and known.transport == "rpc":
            moved = replace(known, addresses=tuple(token.addresses))  # the chief may listen elsewhere now
            patience_s = OLD_MEMBER_PATIENCE_S
        try:
            joined = await join(token, identity=self._identity, machine=self.machine, via=options.via, rng=self._rng, patience_s=patience_s)
        except (Refusal, Unavailable):
            if moved is None:
                raise
            joined = moved  # an old member: the token may be used up or over, and is not needed unless the chief has forgotten us
        save_membership(self._home.root, joined)
        log.info("joined %s as %s", joined.supervisor, joined.worker)
        return joined

    async def _listen(self, membership: Membership, nursery: trio.Nursery) -> None:
        host, port = split_listen(self._options.rpc)
        relay = Relay(membership.addresses)
        serve = partial(
            serve_rpc, identity=self._identity, host=host, port=port, registry=m.MESSAGES, on_channel=relay.on_channel, limits=RELAY_LIMITS
        )
        self._rpc_address = await nursery.start(serve)

    async def _listen_http(self, http: str, membership: Membership, nursery: trio.Nursery) -> None:
        """The chief's calls by HTTP beside its channel; aiohttp is imported for nobody who did not ask for it."""
        from company.worker.api import by_pass, worker_routes
        from company.worker.door import door_of
        from p2p.net.http_server import serve_http

        door = door_of(http, self._options.http_public)
        toward = split_address(membership.addresses[0])[0]
        is_chief = by_pass(membership.chief_key, self._identity.public, read_unix)
        routes = worker_routes(self, lambda: self.processors, is_chief)
        serve = partial(serve_http, routes, host=door.host, port=door.port, ssl_context=door.context(self._identity))
        self.http_address = door.address(await nursery.start(serve), toward)

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
        if self._guests is not None:
            self._guests.end_all(grace_s, "worker-stopped")
        if self._core is None:
            self._left.set()
        else:
            self._core.apply(ev.StopAsked(grace_s))
            if self._link is not None:
                self._link.check()
            if not grace_s:
                self._core.apply(ev.Tick())

    # -- the LinkPort
    def machine(self) -> m.Machine:
        options = self._options
        return facts.machine(
            name=options.name, slots=options.slots, memory=options.memory_bytes, isolation=self._sandbox.rung,
            requirements_allowed=options.allow_requirements, http=self.http_address, rpc=self._rpc_address,
        )  # fmt: skip

    def held(self) -> tuple[m.Held, ...]:
        return self._core.machine.held() if self._core is not None else ()

    def is_started(self) -> bool:
        """Whether work can be taken."""
        return self._core is not None

    def worker_id(self) -> str:
        assert self._membership is not None
        return self._membership.worker

    def use(self) -> tuple[int | None, bool | None]:
        machine = self._reader.machine()
        return (round(1000 * machine.load) if self._reader.is_known else None), machine.on_mains

    def on_up(self, resumed: m.Resumed) -> None:
        for token, why in resumed.drop:
            log.warning("what was held of batch %d came too late and is not taken: %s", token, why)
        self.is_up(resumed.keep)

    def is_up(self, keep: tuple[int, ...] | None) -> None:
        """The chief knows us; ``keep``: which held leases still count, nil for all."""
        assert self._core is not None and self._membership is not None
        self._core.on_link_up(keep)
        if self._guests is not None:
            self._guests.on_up()
        if not self._is_ready:
            self._is_ready = True
            if self._options.on_ready is not None:
                self._options.on_ready({"worker": self._membership.worker, "rpc": self._rpc_address, "http": self.http_address})

    def on_down(self, why: str) -> None:
        log.warning("lost the chief: %s", why)
        self.is_away(True)
        if self._guests is not None:
            self._guests.on_down()

    def is_away(self, is_away: bool) -> None:
        """Whether the chief can be reached, as far as the link has found out by itself."""
        if self._core is not None:
            self._core.apply(ev.LinkDown() if is_away else ev.LinkUp(None))

    async def on_message(self, message: Message, frame: Frame) -> None:
        assert self._core is not None
        if isinstance(message, m.Bye):
            log.info("the chief says goodbye: %s", message.reason)
            return
        if self._guests is None or not self._guests.on_message(message):
            await self._core.on_message(message, frame)

    def on_stale(self, token: int) -> None:
        assert self._core is not None
        self._core.lease_stale(token)

    def on_acked(self, token: int, first: int) -> None:
        assert self._core is not None
        self._core.apply(ev.Acked(((token, first),)))

    def health(self) -> dict[str, Any]:
        """What /health shows."""
        held = self.held()
        busy = sum(1 for lease in held if lease[4] == "running")
        return {"name": self._options.name, "slots": self._options.slots, "busy": busy, "held": len(held), "ready": self._is_ready}

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
        assert self._fetch is not None
        await self._fetch(batch, offset, size, digest, path)


def split_listen(address: str) -> tuple[str | None, int]:
    """HOST:PORT to listen on; port 0 picks a free one, an empty host means every interface. Raises `UsageError`."""
    if address.endswith(":0"):
        return address[:-2].strip("[]") or None, 0
    return split_address(address) if not address.startswith(":") else (None, int(address[1:]))
