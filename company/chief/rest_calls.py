"""The chief's calls to workers that speak REST: processors, work, and whether they live (I/O).

One task per worker. What waits goes with the answer to the worker's own call where one is under way; else the worker is activated. A
call that failed is made again, for a Run that came twice is the same Run; who cannot be reached for a while is gone, and is looked for
ever more rarely.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from company import messages as m
from company.chief import events as ev
from company.chief.engine import Engine
from company.chief.facade import Refused
from company.chief.rest_join import Held, JoinAsked, held_untrusted
from company.chief.rest_outbox import Outbox, Said
from company.chief.sessions import Processors, Session
from p2p.base.errors import ParallelError, PeerError, Reason, Unavailable
from p2p.base.frames import encode_frame_of
from p2p.net.http_client import HttpClient, HttpReply, open_http_client

PING_BUSY_S = 2.0  # while it holds leases
PING_IDLE_S = 15.0
PING_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 30.0
GONE_AFTER_S = 4.0  # of calls that fail
SILENT_AFTER_S = 60.0  # for a worker without an address, which must call
FIRST_RETRY_S, LAST_RETRY_S = 0.1, 1.0
SEEK_S = (0.5, 2.0, 5.0, 10.0, 30.0, 60.0)  # pauses between looks for one that is gone; the last one again and again
SEEK_FOR_S = 3600.0
MAX_ANSWER_BYTES = 512 << 10
MAX_DELIVERED = 8192
MAX_ANSWERED = 256  # frames remembered, to tell a repeated one
MAX_KEPT_ANSWERS = 8  # of these, how many with what was answered
MAX_LOOKED_AT = 200
MEND_ADDRESS = "open its port there, or name another address with --http-public; --transport rpc needs no address, for it calls out only"
BYTES = "application/octet-stream"
_log = logging.getLogger("company.chief.rest")


@dataclass(slots=True, eq=False)
class RestWorker:
    """One worker that speaks REST. ``address``: where it is called; nil: it asks for work itself. ``key``: what it shows there over TLS."""

    id: str
    address: str | None
    callback: str
    machine: m.Machine
    key: bytes | None = None
    trouble: str = ""  # why the last call of it failed
    outbox: Outbox = field(default_factory=Outbox)
    session: Session | None = None
    heard_at: float = 0.0
    calls_open: int = 0  # of its own calls, how many are being answered
    has: set[bytes] = field(default_factory=set)  # processors
    answered: OrderedDict[bytes, Sequence[Said]] = field(default_factory=OrderedDict)  # frame that came -> what its answer carried
    recent: deque[bytes] = field(default_factory=deque)
    pending: dict[bytes, trio.Event] = field(default_factory=dict)  # frames that are being put on disk
    given: tuple[float, Sequence[Said]] = (0.0, ())
    lock: trio.Lock = field(default_factory=trio.Lock)
    delivered: set[int] = field(default_factory=set)  # tokens of Runs that it has, as far as one can tell
    is_of_before: bool = False  # remembered from before this chief's start, and not heard since
    claims: Held | None = None  # what it said last that it holds; nil: it did not say
    shown: Held = ()  # leases whose results it brought, when it had not said what it holds
    is_served: bool = False  # a task looks after it
    is_over: bool = False  # it left, was removed, or joined anew

    @property
    def is_here(self) -> bool:
        return self.session is not None and not self.outbox.closed.is_set()

    def note_delivered(self, said: Sequence[Said]) -> None:
        """These frames reached it."""
        if len(self.delivered) > MAX_DELIVERED:
            self.delivered = set(sorted(self.delivered)[-MAX_DELIVERED // 2 :])  # tokens only grow: the oldest are long over
        self.delivered.update(s.token for s in said if s.token is not None)

    def remember(self, digests: Sequence[bytes], said: Sequence[Said]) -> None:
        """Frames with these digests were dealt with; when one comes again its answer was lost."""
        kept = [s.without_run() for s in said]
        for digest in digests:
            self.answered[digest] = kept
            self.answered.move_to_end(digest)
            self.recent.append(digest)
        while len(self.recent) > MAX_KEPT_ANSWERS:
            old = self.recent.popleft()
            if old in self.answered and old not in self.recent:
                self.answered[old] = ()
        while len(self.answered) > MAX_ANSWERED:
            self.answered.popitem(last=False)


class RestCalls:
    """Serves workers with one client. ``leave``: the worker is gone; ``revive``: it answers again."""

    def __init__(
        self, engine: Callable[[], Engine], processors: Processors, *, leave: Callable[[RestWorker], Awaitable[None]],
        revive: Callable[[RestWorker], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._engine = engine
        self._processors = processors
        self._leave = leave
        self._revive = revive

    async def serve(self, client: HttpClient, worker: RestWorker) -> None:
        """Look after one worker until it is over."""
        try:
            while not worker.is_over:
                if worker.is_here:
                    await self._while_here(client, worker)
                    await self._leave(worker)
                elif worker.address is None or not await self._seek(client, worker):
                    return
                else:
                    await self._revive(worker)
        finally:
            worker.is_served = False

    async def _while_here(self, client: HttpClient, worker: RestWorker) -> None:
        failing_since: float | None = None
        retry_s = FIRST_RETRY_S
        while worker.is_here and not worker.is_over:
            changed, now = worker.outbox.changed, trio.current_time()
            if worker.calls_open:
                worker.heard_at = now
            if worker.address is None:
                with trio.move_on_at(worker.heard_at + SILENT_AFTER_S):
                    await changed.wait()
                    continue
                if not worker.calls_open:
                    return
                continue
            if worker.outbox.is_empty or worker.calls_open:
                with trio.move_on_at(worker.heard_at + self._ping_s(worker)):
                    await changed.wait()
                    continue
                if worker.calls_open:
                    continue
            try:
                if not await self._call(client, worker):
                    return
                worker.heard_at = trio.current_time()
                failing_since, retry_s = None, FIRST_RETRY_S
            except (Unavailable, PeerError) as error:
                failing_since = now if failing_since is None else failing_since
                if trio.current_time() - failing_since >= GONE_AFTER_S:
                    _log.warning("worker %s cannot be called: %s", worker.id, error.text)
                    return
                await trio.sleep(retry_s)
                retry_s = min(LAST_RETRY_S, 2 * retry_s)

    def _ping_s(self, worker: RestWorker) -> float:
        return PING_BUSY_S if self._engine().state.leases.of_worker(worker.id) else PING_IDLE_S

    async def _call(self, client: HttpClient, worker: RestWorker) -> bool:
        """One call of whatever is due. Returns False when the worker does not know us. Raises `Unavailable`, `PeerError`."""
        processor = worker.outbox.next_processor(worker.has.__contains__)
        if processor is not None:
            return await self._send_processor(client, worker, processor)
        taken = worker.outbox.take(worker.has.__contains__)
        try:
            status = (await self._post(client, worker, "/activate/data-fragment", b"".join(s.data for s in taken))).status
            if status >= 500:
                raise Unavailable("worker-not-ready", f"it answered {status}")
        except BaseException:
            worker.outbox.put_back(taken)
            raise
        if status not in (200, 204):
            _log.warning("worker %s answered an activation with %d", worker.id, status)
            return False
        worker.note_delivered(taken)
        for said in taken:
            if said.job is not None:
                worker.outbox.knows_job(said.job)
        return True

    async def _send_processor(self, client: HttpClient, worker: RestWorker, digest: bytes) -> bool:
        message, archive = await self._processors.processor(digest)
        head, body = encode_frame_of(message.as_array(), [archive])
        status = (await self._post(client, worker, "/processor", head + body)).status
        if status in (200, 204):
            worker.has.add(digest)
            return True
        if status == 401 or status == 404:
            return False
        if status >= 500:
            raise Unavailable("worker-not-ready", f"it answered {status}")
        name = worker.machine.name
        reason = Reason("processor-refused", f"{name} refuses the package's processor.", {"worker": name, "status": status})
        for job in worker.outbox.drop_jobs_of(digest):
            self._engine().post(ev.WorkerBlocked(worker=worker.id, job=job, reason=reason))
        return True

    async def _post(self, client: HttpClient, worker: RestWorker, path: str, body: bytes) -> HttpReply:
        headers = {"Authorization": f"Bearer {worker.callback}", "Content-Type": BYTES}
        try:
            reply = await client.request(
                "POST", f"{worker.address}{path}", headers=headers, body=body, timeout_s=CALL_TIMEOUT_S if body else PING_TIMEOUT_S,
                max_bytes=MAX_ANSWER_BYTES, pin_key=worker.key,
            )  # fmt: skip
        except ParallelError as error:
            worker.trouble = error.text
            raise
        worker.trouble = "" if reply.status in (200, 204) else f"it answers {reply.status}"
        return reply

    async def probe(self, client: HttpClient, worker: RestWorker) -> str:
        """Why the chief cannot call it; nothing when it can, also where it is only starting."""
        try:
            reply = await self._post(client, worker, "/activate/data-fragment", b"")
        except ParallelError:
            return worker.trouble
        return "" if reply.status in (200, 204, 503) else worker.trouble

    async def check_address(self, asked: JoinAsked) -> None:
        """Call a newcomer before its token is used up: somebody is there to mend what is wrong. Raises `Refused`."""
        if asked.address is None:
            return
        async with open_http_client() as client:
            trouble = await self.probe(client, RestWorker("", asked.address, asked.callback, asked.machine, asked.key))
        if trouble:
            text = f"The chief cannot call this worker at {asked.address}: {trouble}"
            raise Refused("worker-unreachable", text, hint=MEND_ADDRESS, address=asked.address)

    async def look(self, workers: Sequence[RestWorker]) -> None:
        """Call each once, all at the same time."""
        async with open_http_client() as client, trio.open_nursery() as nursery:
            for worker in workers[:MAX_LOOKED_AT]:
                nursery.start_soon(self.probe, client, worker)

    async def _seek(self, client: HttpClient, worker: RestWorker) -> bool:
        """Ask ever more rarely whether it is there again; True as soon as it is here, by its answer or its own call."""
        until = trio.current_time() + SEEK_FOR_S
        number = 0
        while trio.current_time() < until and not worker.is_over:
            pause_s = SEEK_S[min(number, len(SEEK_S) - 1)]
            with trio.move_on_after(0 if worker.is_of_before and not number else pause_s):  # after a start work waits for it
                await worker.outbox.changed.wait()
            number += 1
            if worker.is_here or worker.is_over:
                return True
            try:
                reply = await self._post(client, worker, "/activate/data-fragment", b"")
                worker.claims = held_untrusted(reply.body) if reply.status == 200 else None
            except ParallelError:
                continue
            if reply.status == 401:
                return False  # another process has got the address
            if reply.status in (200, 204):
                return True
        return False
