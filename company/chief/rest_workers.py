"""Workers that speak the seven REST calls alone (P5, P6): the other door to the same sessions (I/O).

A worker's session has an outbox in place of a channel, so machine, engine and effects do not know the difference. The bytes are said in
`company.worker.rest`. A call of a worker that this chief has lost sight of, or forgot by starting anew, brings its session back.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any

import msgpack
import numpy as np
import trio

from company import messages as m
from company.chief import events as ev
from company.chief.engine import Engine
from company.chief.facade import Conflict, Invalid, Refused, StoredFile, Streamed
from company.chief.gate import Gate, machine_of
from company.chief.library import Library
from company.chief.requirement_wheels import RequirementWheels
from company.chief.rest_calls import RestCalls, RestWorker
from company.chief.rest_fragments import fragments_of, run_frame
from company.chief.rest_join import Held, join_untrusted
from company.chief.rest_outbox import Outbox, Said
from company.chief.sessions import Sessions
from company.chief.store import meta
from company.chief.store.store import Store
from p2p.base.errors import MalformedMessage, ParallelError, Unavailable
from p2p.base.frames import Frame, FrameParser, encode_frame_of
from p2p.base.schema import Message, parse_any_untrusted
from p2p.net.http_client import open_http_client

COMMIT_DEADLINE_S = 30.0
REPEAT_AFTER_S = 10.0  # a batch given in answer to a question, of which nothing was heard, is given again
FROM_WORKER = (m.Resume, m.Outcome, m.Failed, m.Recalled, m.JobBlocked, m.SlotState, m.Status, m.Artifact, m.Bye)
_log = logging.getLogger("company.chief.rest")


@dataclass(slots=True)
class Taken:
    """What became of the frames of one body."""

    again: list[Said] = field(default_factory=list)  # answers to frames that came before
    waiting: list[trio.Event] = field(default_factory=list)  # set when their frames are on disk
    fresh: list[bytes] = field(default_factory=list)  # digests of frames that came for the first time
    is_stale: bool = False


class RestWorkers:
    """The door of workers without a channel; `run` must be running."""

    def __init__(
        self, *, gate: Gate, library: Library, sessions: Sessions, store: Store, supervisor: str, wheels: RequirementWheels
    ) -> None:
        self._gate = gate
        self._wheels = wheels
        self._library = library
        self._sessions = sessions
        self._store = store
        self._supervisor = supervisor
        self._known: dict[str, RestWorker] = {}
        self._calls = RestCalls(lambda: self._engine, library, leave=self._leave, revive=self._revive)
        self._to_serve, self._served = trio.open_memory_channel[RestWorker](inf)

    @property
    def _engine(self) -> Engine:
        return self._sessions.engine

    # ---- tasks ------------------------------------------------------------------------------------------------------------
    async def load(self) -> None:
        """Remember the workers of before; `run` looks for them."""
        for row in self._gate.workers.values():
            machine = machine_of(row)
            if row.transport != "rest" or machine is None:
                continue
            kept = await self._store.read(partial(meta.get, key=_key(row.id)))
            if kept is not None:
                address, callback, *key = msgpack.unpackb(kept)  # the key came later than the rest
                worker = RestWorker(row.id, address, callback, machine, key[0] if key else None, is_of_before=True)
                self._know(worker)
                self._serve(worker)

    async def run(self) -> None:
        """Call workers, for ever. The HTTP client is made for the first one: most chiefs never have any."""
        first = await self._served.receive()
        async with open_http_client() as client, trio.open_nursery() as nursery:
            nursery.start_soon(self._calls.serve, client, first)
            async for worker in self._served:  # begun here, because only tasks of this one know the client's loop
                nursery.start_soon(self._calls.serve, client, worker)

    def _serve(self, worker: RestWorker) -> None:
        if not worker.is_served:
            worker.is_served = True
            self._to_serve.send_nowait(worker)

    def _know(self, worker: RestWorker) -> None:
        """From now on this is the one of its name."""
        before = self._known.get(worker.id)
        if before is not None:
            before.is_over = True
            before.outbox.wake()
        self._known[worker.id] = worker

    # ---- coming and going ---------------------------------------------------------------------------------------------------
    async def join(self, body: dict[str, Any], remote: str) -> dict[str, Any]:
        """Admit a worker, or take a known one back. Raises `Invalid`, `Refused` with a code for each fault."""
        asked = join_untrusted(body, remote)
        place = asked.address or remote
        if asked.token is not None:
            self._gate.check_worker_token(asked.token)  # first: a stranger must not have the chief call anybody
            await self._calls.check_address(asked)
            worker, bearer = await self._gate.join_by_rest(asked.token, asked.machine, place)
        else:
            worker, bearer = asked.worker or "", asked.bearer or ""
            by = await self._gate.authenticate(bearer)
            if by.role != "worker" or by.id != worker:
                raise Refused("worker-unknown", "This is not the token of that worker.", hint="join with a new token")
        kept: bytes = msgpack.packb([asked.address, asked.callback, asked.key])
        await self._store.write(lambda conn: meta.put(conn, _key(worker), kept))
        entry = RestWorker(worker, asked.address, asked.callback, asked.machine, asked.key)
        self._know(entry)
        async with entry.lock:
            await self._enter(entry, ())
        self._serve(entry)
        return {"worker": worker, "token": bearer, "supervisor": self._supervisor}

    def troubles(self) -> dict[str, str]:
        """Why workers cannot be called, by their ids."""
        return {worker.id: f"{worker.address}: {worker.trouble}" for worker in self._known.values() if worker.trouble and worker.address}

    async def look(self) -> None:
        """Call every worker that has an address, so that `troubles` is of now."""
        await self._calls.look([w for w in self._known.values() if w.address is not None and not w.is_over])

    async def _enter(self, worker: RestWorker, held: Held) -> None:
        """Open its session. Raises `Refused` when it is no worker any more."""
        row = self._gate.workers.get(worker.id)
        if row is None:
            raise Refused("worker-unknown", "This chief does not know this worker; it needs a new token.")
        here = await self._gate.resume(worker.id, row.pubkey, worker.machine, worker.address or row.address)
        old, worker.outbox = worker.outbox, Outbox()
        worker.heard_at = trio.current_time()
        worker.pending.clear()
        worker.session = await self._sessions.enter(worker.id, worker.outbox, worker.machine, replace(here, held=held))
        old.wake()

    async def _revive(self, worker: RestWorker) -> None:
        """It is there again, and is taken to hold what it held: it was not restarted, or it would join."""
        async with worker.lock:
            if worker.is_here or worker.is_over:
                return
            held = self._held_of(worker)
            worker.delivered.update(token for token, _, _, _ in held)
            try:
                await self._enter(worker, held)
                worker.is_of_before, worker.claims, worker.shown = False, None, ()
            except ParallelError as error:
                _log.info("worker %s cannot come back: %s", worker.id, error.text)
                worker.is_over = True

    def _held_of(self, worker: RestWorker) -> Held:
        """What it holds. A chief that started anew takes its word for it, or where it says nothing, the rows of long leases."""
        state = self._engine.state
        if not worker.is_of_before:
            mine = [x for x in state.leases.of_worker(worker.id) if x.token in worker.delivered]
            return tuple((x.token, x.job, x.first, x.count) for x in mine)
        if worker.claims is not None:
            return worker.claims
        rows = {x.token: (x.token, x.job, x.first, x.count) for x in state.leases_of_before(worker.id)}
        return tuple(({said[0]: said for said in worker.shown} | rows).values())

    async def _leave(self, worker: RestWorker) -> None:
        session, worker.session = worker.session, None
        if session is None:
            return
        self._sessions.leave(session)
        await worker.outbox.aclose()
        worker.is_over = worker.is_over or session.said_bye or worker.id not in self._gate.workers
        await self._gate.seen(worker.id)

    async def _here(self, worker: str, messages: Iterable[tuple[Message, Frame]] = ()) -> RestWorker:
        """The worker that calls, with a session; ``messages``: what it says. Raises `Refused` when it is none."""
        entry = self._known.get(worker)
        if entry is not None and not entry.is_here:
            entry.is_over = False
            for message, _ in messages:
                if isinstance(message, m.Outcome) and entry.is_of_before:
                    entry.shown += ((message.token, message.job, message.first, message.count),)
                elif isinstance(message, m.Resume):
                    entry.claims = tuple((token, job, first, count) for token, job, first, count, _ in message.held)
            await self._revive(entry)
            if entry.is_here:
                self._serve(entry)
        if entry is None or not entry.is_here or worker not in self._gate.workers:
            raise Refused("worker-unknown", "This chief does not know this worker; it needs a new token.", hint="join with a new token")
        entry.heard_at = trio.current_time()
        self._engine.post(ev.Heartbeat(worker=worker))
        return entry

    # ---- the calls -----------------------------------------------------------------------------------------------------------
    async def result(self, worker: str, body: bytes, wait_s: float, on_taken: Callable[[], None]) -> bytes | None:
        """Take frames; answer what is next, or nil. ``on_taken``: called when nothing of ``body`` is kept any more.

        Raises `Conflict` stale-lease, `MalformedMessage`, `Unavailable`.
        """
        messages = deque(messages_untrusted(body))
        del body
        entry = await self._here(worker, messages)
        entry.calls_open += 1
        try:
            taken = await self._take_all(entry, messages)
            await _all_set(taken.waiting)
            on_taken()
            for digest in taken.fresh:
                entry.pending.pop(digest, None)
            if entry.session is not None and entry.session.said_bye:
                await self._leave(entry)
                return None
            if taken.is_stale:
                entry.remember(taken.fresh, [])
                raise Conflict("stale-lease", "This lease is over: the work was done elsewhere, or dropped.")
            if not entry.is_here:
                raise Unavailable("worker-left", "This worker's session ended while its results were written; send them again.")
            said = await self._next(entry, taken.again, wait_s)
            entry.remember(taken.fresh, said)
            return _body(said)
        finally:
            entry.calls_open -= 1
            entry.outbox.wake()

    async def _take_all(self, entry: RestWorker, messages: deque[tuple[Message, Frame]]) -> Taken:
        """Give every message to the machine; nothing of them is kept here afterwards."""
        taken = Taken()
        while messages:
            message, frame = messages.popleft()
            digest = _digest(frame)
            if digest in entry.answered:
                taken.again += [s for s in entry.answered[digest] if s not in taken.again]
            if isinstance(message, (m.Outcome, m.Failed)):
                if digest in entry.pending:  # the same again, while the first is on its way to the disk
                    taken.waiting.append(entry.pending[digest])
                elif digest not in entry.answered:
                    ack = await self._take(entry, message, frame)
                    if message.token in entry.outbox.stale:
                        taken.is_stale = True
                        continue
                    entry.pending[digest] = ack
                    taken.waiting.append(ack)
                    taken.fresh.append(digest)
            elif not isinstance(message, m.Resume):  # that was for `_here`
                await self._sessions.on_message(entry.session, message, frame)  # type: ignore[arg-type]
                taken.fresh.append(digest)
            job = getattr(message, "job", None)
            if job is not None and not isinstance(message, m.JobBlocked):
                entry.outbox.knows_job(job)
        return taken

    async def _take(self, entry: RestWorker, message: m.Outcome | m.Failed, frame: Frame) -> trio.Event:
        """Give one outcome to the machine; the event is set when it is on disk, or was refused."""
        if isinstance(message, m.Outcome) and message.blobs:
            raise MalformedMessage("over REST a large result travels inside its Outcome")
        entry.outbox.stale.pop(message.token, None)
        first = message.first if isinstance(message, m.Outcome) else message.index
        ack = entry.outbox.expect_ack(message.token, first)
        assert entry.session is not None
        try:
            await self._sessions.on_message(entry.session, message, frame)
        except MalformedMessage:
            entry.outbox.forget_ack(message.token, first)
            raise
        return ack

    async def next_batch(self, worker: str, wait_s: float) -> bytes | None:
        """What is next, at once or within ``wait_s``."""
        entry = await self._here(worker)
        entry.calls_open += 1
        try:
            at, given = entry.given
            again = given if trio.current_time() - at > REPEAT_AFTER_S else ()
            said = await self._next(entry, again, wait_s)
            if said:
                entry.given = (trio.current_time(), [s.without_run() for s in said])
            return _body(said)
        finally:
            entry.calls_open -= 1
            entry.outbox.wake()

    async def _next(self, entry: RestWorker, again: Sequence[Said], wait_s: float) -> list[Said]:
        """What may go now. Only a worker that cannot be called may wait for it."""
        said = self._still_due(entry, again)
        with trio.move_on_after(wait_s if entry.address is None else 0):
            while True:
                changed = entry.outbox.changed
                said += entry.outbox.take(lambda digest: entry.address is None or digest in entry.has)
                if said or entry.outbox.closed.is_set():
                    break
                await changed.wait()
        entry.note_delivered(said)
        return said

    def _still_due(self, entry: RestWorker, again: Sequence[Said]) -> list[Said]:
        """Of an answer that may have been lost, what still counts."""
        leases = self._engine.state.leases
        runs = {s.job for s in again if s.token is not None and leases.is_current(s.token, entry.id)}
        made = [s if s.token is None else self._run_again(s) for s in again if s.job in runs]
        return [s for s in made if s is not None and (s.token is None or leases.is_current(s.token, entry.id))]

    def _run_again(self, said: Said) -> Said | None:
        """Its Run, made anew; nil when some of it has results, so that the worker has had it."""
        lease = self._engine.state.leases.get(said.token or 0)
        runtime = self._engine.runtimes.get(said.job or "")
        if lease is None or runtime is None or not runtime.window.has(lease.first, lease.count):
            return None
        return run_frame(lease, runtime)

    async def fragments(self, worker: str, token: int, job: str, first: int, count: int) -> Streamed:
        """One Run frame with fragments of a lease. Raises `Conflict` unless the worker holds it, `Invalid`, `TooLarge`."""
        await self._here(worker)
        return fragments_of(self._engine.state.leases.get(token), self._engine.runtimes.get(job), worker, job, first, count)

    async def processor(self, worker: str, digest: str) -> bytes:
        """The frame of a signed processor. Raises `NotFound`."""
        await self._here(worker)
        message, archive = await self._library.processor(_digest_untrusted(digest))
        head, body = encode_frame_of(message.as_array(), [archive])
        return head + body

    async def wheel_list(self, worker: str, job: str) -> bytes:
        """The frame of the signed list of a job's wheels. Raises `NotFound`, `Unavailable`, `PeerError`, `UsageError`."""
        await self._here(worker)
        listed = await self._wheels.of_job(self._engine.runtimes, job)
        head, body = encode_frame_of(m.WheelsAre(listed.signature).as_array(), [listed.body])
        return head + body

    async def wheel(self, worker: str, job: str, digest: str) -> StoredFile:
        """One wheel of that list. Raises as `wheel_list`."""
        await self._here(worker)
        wheel = await self._wheels.wheel_of(self._engine.runtimes, job, _digest_untrusted(digest))
        return StoredFile(wheel.path, wheel.size, wheel.sha256, wheel.file, "application/octet-stream")


def messages_untrusted(body: bytes) -> list[tuple[Message, Frame]]:
    """The messages of one body. Raises only `MalformedMessage`."""
    parser = FrameParser()
    frames = parser.feed_untrusted(body)
    if not parser.is_idle:
        raise MalformedMessage("the body ends inside a frame")
    found = [(parse_any_untrusted(m.MESSAGES, frame.header), frame) for frame in frames]
    for message, _ in found:
        if not isinstance(message, FROM_WORKER):
            raise MalformedMessage(f"a worker may not send {type(message).__name__} here")
    return found


async def _all_set(events: list[trio.Event]) -> None:
    with trio.move_on_after(COMMIT_DEADLINE_S):
        for event in events:
            await event.wait()
        return
    raise Unavailable("storage-busy", "The results are not on disk yet; send them again.")


def _digest(frame: Frame) -> bytes:
    hashed = hashlib.blake2b(msgpack.packb(frame.header), digest_size=32)
    hashed.update(np.ascontiguousarray(frame.sizes).tobytes())
    hashed.update(frame.body)
    return hashed.digest()


def _body(said: list[Said]) -> bytes | None:
    return b"".join(s.data for s in said) if said else None


def _digest_untrusted(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Invalid("digest-malformed", "A digest is written with 64 hex digits.", errors=[]) from None


def _key(worker: str) -> str:
    return f"rest-worker:{worker}"
