"""Fragment path 5/9 - the chief's end of every worker's channel (I/O).

Messages become events, effects become messages; nothing is decided here. A channel whose queue is full or that fell silent is
closed: the machine hears that the worker is gone, and the worker resumes when it can.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgpack
import numpy as np
import trio

from company import messages as m
from company.chief import events as ev
from company.chief.artifacts import ArtifactSink
from company.chief.bulk import serve_bulk
from company.chief.engine import Engine
from company.chief.outcome_cut import cut_outcome_untrusted
from company.chief.requirement_wheels import RequirementWheels
from company.chief.runtime import JobRuntime
from company.machine_use import Machine
from p2p.base.errors import MalformedMessage, ParallelError, PeerError, Reason, Unavailable
from p2p.base.frames import NO_SIZES, Frame, Sizes
from p2p.base.schema import Message
from p2p.net.channel import Channel
from p2p.net.hello import refusal
from p2p.net.stream import Buffer

HEARTBEAT_MS = 2000
MAX_EARLY = 64  # reports about lent slots of one worker, kept until the network of companies is there
INFRA_CAUSES = frozenset({"sandbox-failed", "cancelled", "worker-stopped", "blob-missing", "lost-in-child"})
_log = logging.getLogger("company.chief.workers")


class Gate(Protocol):
    """Who may be a worker."""

    async def join(self, message: m.Join, machine: m.Machine, key: bytes, address: str) -> m.Joined: ...
    async def resume(self, worker: str, key: bytes, machine: m.Machine, address: str) -> ev.WorkerHere: ...
    async def seen(self, worker: str) -> None: ...


class Secondment(Protocol):
    """What lends own workers and takes guests in (`company.chief.secondment.service`)."""

    async def admit(self, message: m.Guest, machine: m.Machine, key: bytes) -> ev.WorkerHere: ...
    def entered(self, session: Session) -> None: ...
    def left(self, session: Session) -> None: ...
    def on_message(self, session: Session, message: Message, frame: Frame) -> bool: ...


class Processors(Protocol):
    """Where signed processor archives come from."""

    async def processor(self, digest: bytes) -> tuple[m.ProcessorIs, bytes]: ...


class Way(Protocol):
    """How messages reach one worker: an RPC channel, or the outbox of a worker that speaks REST. Bounded."""

    peer_key: bytes

    def send_nowait(self, message: Message, sizes: Sizes = NO_SIZES, body: Buffer | Sequence[Buffer] = b"") -> None:
        """Queue one message. Raises `trio.WouldBlock` when the queue is full, `Unavailable` when the way is closed."""

    async def send(self, message: Message, sizes: Sizes = NO_SIZES, body: Buffer | Sequence[Buffer] = b"") -> None: ...
    async def aclose(self, reason: m.Refused | None = None) -> None:
        """End it; whoever reads it then sees the session end."""


@dataclass(slots=True)
class Session:
    """One worker that is here."""

    worker: str
    channel: Way
    machine: m.Machine
    jobs_told: set[str] = field(default_factory=set)
    slot_states: dict[int, tuple[str, str]] = field(default_factory=dict)
    connected_at: float = 0.0
    clock_skew_s: float | None = None  # how far the worker's clock is ahead of ours, to a second
    said_bye: bool = False
    use: Machine | None = None  # what the owner of its machine does, as its heartbeats say
    guest: ev.Guest | None = None
    early: dict[tuple[bytes, int], m.Seconded] = field(default_factory=dict)  # said before the network of companies was there
    resumed: tuple[tuple[int, ...], tuple[tuple[int, str], ...]] = ((), ())


class Sessions:
    """All open sessions; the engine's way to the workers."""

    def __init__(self, gate: Gate, processors: Processors, artifacts: ArtifactSink, wheels: RequirementWheels) -> None:
        self._gate = gate
        self._processors = processors
        self._artifacts = artifacts
        self._wheels = wheels
        self.open: dict[str, Session] = {}
        self.engine: Engine
        self.secondment: Secondment | None = None  # while there is a network of companies

    # ---- a channel's life ------------------------------------------------------------------------------------------------
    async def on_channel(self, channel: Channel) -> None:
        """Serve one authenticated channel to its end."""
        try:
            match channel.purpose:
                case "join":
                    await self._join(channel)
                case "worker":
                    await self._worker(channel)
                case "guest":
                    await self._guest(channel)
                case "bulk":
                    mine = self._of_key(channel.peer_key)
                    if mine is None:
                        await channel.aclose(refusal("worker-unknown", "No worker with this key has a channel open."))
                        return
                    await serve_bulk(channel, mine.worker, self.engine, self._wheels if mine.guest is None else None)
                case other:
                    await channel.aclose(refusal("purpose-unknown", f"This port does not serve {other[:40]!r}."))
        except ParallelError as error:
            if isinstance(error, Unavailable):
                return
            _log.info("%s refused: %s", channel.peer_address, error.text)
            facts = {k: v for k, v in error.facts.items() if isinstance(v, (str, int, float))}
            await channel.aclose(refusal(error.code, error.text, **facts))

    def _of_key(self, key: bytes) -> Session | None:
        return next((session for session in self.open.values() if session.channel.peer_key == key), None)

    async def _join(self, channel: Channel) -> None:
        with trio.fail_after(15):
            message, frame = await channel.receive()
        if not isinstance(message, m.Join):
            raise MalformedMessage(f"expected Join, got {type(message).__name__}")
        joined = await self._gate.join(message, machine_untrusted(frame), channel.peer_key, channel.peer_address)
        await channel.send(joined)
        await channel.aclose()

    async def _worker(self, channel: Channel) -> None:
        with trio.fail_after(15):
            message, frame = await channel.receive()
        if not isinstance(message, m.Resume):
            raise MalformedMessage(f"expected Resume, got {type(message).__name__}")
        machine = machine_untrusted(frame)
        here = await self._gate.resume(message.worker, channel.peer_key, machine, channel.peer_address)
        held = tuple((token, job, first, count) for token, job, first, count, _ in message.held)
        session = await self.enter(message.worker, channel, machine, replace(here, held=held))
        session.clock_skew_s = float(message.at - int(time.time())) if message.at else None
        try:
            await self._read(session, channel)
        finally:
            self.leave(session)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
                await self._gate.seen(session.worker)

    async def _guest(self, channel: Channel) -> None:
        """Another company's worker, which comes with a ticket every time."""
        with trio.fail_after(15):
            message, frame = await channel.receive()
        if not isinstance(message, m.Guest):
            raise MalformedMessage(f"expected Guest, got {type(message).__name__}")
        if self.secondment is None:
            raise PeerError("contract-unknown", "This chief has no contracts.")
        machine = machine_untrusted(frame)
        here = await self.secondment.admit(message, machine, channel.peer_key)
        session = await self.enter(here.spec.id, channel, machine, here)
        try:
            await self._read(session, channel)
        finally:
            self.leave(session)

    async def enter(self, worker: str, way: Way, machine: m.Machine, here: ev.WorkerHere) -> Session:
        """The worker is here and reached by ``way``."""
        while (old := self.open.get(worker)) is not None:  # the worker came back before its old channel was seen to be dead
            self.leave(old)
            await old.channel.aclose(refusal("replaced", "The worker opened another channel."))
        session = Session(worker, way, machine, connected_at=time.time(), guest=here.spec.guest)
        self.open[worker] = session
        self.engine.post(here)
        if self.secondment is not None:
            self.secondment.entered(session)
        return session

    def leave(self, session: Session) -> None:
        """The worker is gone. Idempotent."""
        if self.open.get(session.worker) is session:
            del self.open[session.worker]
            self.engine.post(ev.WorkerGone(worker=session.worker, said_bye=session.said_bye))
            if self.secondment is not None:
                self.secondment.left(session)

    async def _read(self, session: Session, channel: Channel) -> None:
        while True:
            messages: list[tuple[Message, Frame]] = []
            with trio.move_on_at(self.engine.silent_at(session.worker)):
                messages = await channel.receive_many()
            if not messages:
                _log.warning("worker %s is silent for longer than its heartbeats let expect", session.worker)
                return
            self.engine.post(ev.Heartbeat(worker=session.worker))
            for message, frame in messages:
                await self.on_message(session, message, frame)
                if session.said_bye:
                    return

    async def on_message(self, session: Session, message: Message, frame: Frame) -> None:
        """One message of a worker, by whichever door it came. Raises `MalformedMessage`, and what the parts it reaches raise."""
        engine, worker = self.engine, session.worker
        if self.secondment is not None and self.secondment.on_message(session, message, frame):
            return
        match message:
            case m.Outcome():
                engine.post_outcome(worker, message, frame, cut_outcome_untrusted(message, frame))
            case m.Ping():
                if message.owner_permille is not None and session.guest is None:
                    session.use = Machine(message.owner_permille / 1000, message.on_mains)
                session.channel.send_nowait(m.Pong(message.at))
            case m.Failed():
                engine.post_died(worker, message, frame, infra=message.cause in INFRA_CAUSES)
            case m.NeedProcessor():
                answer, archive = await self._processors.processor(message.processor)
                await session.channel.send(answer, np.array([len(archive)], dtype="<u4"), archive)
            case m.JobBlocked():
                reason = Reason(message.code_word, message.text, {"worker": session.machine.name})
                engine.post(ev.WorkerBlocked(worker=worker, job=message.job, reason=reason))
            case m.Recalled():
                engine.post(ev.Recalled(worker=worker, token=message.token, given_back=message.given_back))
            case m.SlotState():
                session.slot_states[message.slot] = (message.state, message.reason)
            case m.Status():
                self._status(worker, message)
            case m.Artifact():
                if self._holds(worker, message.token, message.job, message.index):
                    await self._artifacts.take(message, frame)
            case m.Bye():
                session.said_bye = True
            case m.Pong():
                pass
            case m.Seconded() if self.secondment is None and session.guest is None and len(session.early) < MAX_EARLY:
                session.early[message.contract, message.run] = message
            case _:
                raise MalformedMessage(f"a worker may not send {type(message).__name__}")

    def _holds(self, worker: str, token: int, job: str, index: int) -> bool:
        lease = self.engine.state.leases.get(token)
        return lease is not None and lease.worker == worker and lease.job == job and lease.first <= index < lease.first + lease.count

    def _status(self, worker: str, message: m.Status) -> None:
        runtime = self.engine.runtimes.get(message.job)
        if runtime is not None and self._holds(worker, message.token, message.job, message.index):
            fraction = None if message.permille is None else message.permille / 1000
            runtime.statuses.append({"fragment": message.index, "text": message.text, "fraction": fraction, "at": time.time()})

    async def expel(self, worker: str) -> None:
        """Close the channel of a worker that was removed."""
        session = self.open.get(worker)
        if session is not None:
            await session.channel.aclose(refusal("worker-removed", "This worker was removed from the company."))

    # ---- the engine's effects ----------------------------------------------------------------------------------------------
    def send_run(self, effect: ev.SendRun, runtime: JobRuntime) -> None:
        session = self.open.get(effect.worker)
        if session is None:
            return  # it left in this very step; WorkerGone is on its way and gives the lease back
        if effect.job not in session.jobs_told:
            session.jobs_told.add(effect.job)
            self._send(session, _job_is(effect.job, runtime), [runtime.row.params])
        sizes, bodies, large = runtime.window.cut(effect.first, effect.count)
        blobs = tuple((i - effect.first, f.size, f.digest) for i, f in sorted(large.items()))
        run = m.Run(effect.token, effect.slot, effect.job, effect.first, effect.count, effect.attempt, blobs)
        try:
            session.channel.send_nowait(run, sizes, bodies)
        except (trio.WouldBlock, Unavailable):
            self._drop(session)

    def send_job(self, job: str, runtime: JobRuntime) -> None:
        """The job's limits are others now: whoever was told of it is told again."""
        for session in list(self.open.values()):
            if job in session.jobs_told:
                self._send(session, _job_is(job, runtime), [runtime.row.params])

    def send_cancel(self, worker: str, token: int, reason: str) -> None:
        self._tell(worker, m.Cancel(token, reason))

    def send_recall(self, worker: str, token: int) -> None:
        self._tell(worker, m.Recall(token))

    def send_stale(self, worker: str, token: int, reason: str) -> None:
        self._tell(worker, m.Stale(token, reason[:64]))

    def send_resumed(self, effect: ev.SendResumed) -> None:
        self._tell(effect.worker, m.Resumed(effect.keep, effect.drop, HEARTBEAT_MS, int(time.time())))

    def send_drain(self, worker: str, pause: bool | None) -> None:
        self._tell(worker, m.Undrain() if pause is None else m.Drain(pause))

    def send_ack(self, worker: str, token: int, first: int) -> None:
        self._tell(worker, m.Ack(((token, first),)))

    def send_job_over(self, job: str, reason: str) -> None:
        for session in list(self.open.values()):
            if job in session.jobs_told:
                session.jobs_told.discard(job)
                self._send(session, m.JobOver(job, reason), [])

    def _tell(self, worker: str, message: Message) -> None:
        session = self.open.get(worker)
        if session is not None:
            self._send(session, message, [])

    def _send(self, session: Session, message: Message, items: list[bytes]) -> None:
        sizes = np.array([len(i) for i in items], dtype="<u4")
        try:
            session.channel.send_nowait(message, sizes, items)
        except (trio.WouldBlock, Unavailable):
            self._drop(session)

    def _drop(self, session: Session) -> None:
        """The worker does not read what it is sent: treat it as gone; its reader task sees the closed channel and ends."""
        trio.lowlevel.spawn_system_task(_close, session.channel.aclose)


def _job_is(job: str, runtime: JobRuntime) -> m.JobIs:
    limit_ms = int(runtime.time_limit_s * 1000)
    return m.JobIs(job, runtime.processor, limit_ms, runtime.memory_bytes, "\n".join(runtime.requirements))


async def _close(aclose: Callable[[], Awaitable[None]]) -> None:
    with trio.move_on_after(5):
        await aclose()


def machine_untrusted(frame: Frame) -> m.Machine:
    """The Machine in item 0 of a Join or Resume. Raises only `MalformedMessage`."""
    try:
        array = msgpack.unpackb(bytes(frame.body[:8192]), use_list=True)
    except Exception as error:  # noqa: BLE001 - msgpack raises a wide set; all of it is the sender's fault
        raise MalformedMessage(f"machine cannot be decoded: {type(error).__name__}") from None
    if type(array) is not list:
        raise MalformedMessage("machine must be an array")
    return m.Machine.parse_untrusted(array)
