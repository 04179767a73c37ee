"""The one outbound channel to the chief: join or resume, heartbeat, send what is held, and come back after every loss (I/O).

What is sent decides nothing: `company.worker.state` does. Control messages live as long as their channel, because a Resume tells
the chief everything that still matters; parts of outcomes are sent again until they are acknowledged.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Never, Protocol

import msgpack
import numpy as np
import trio

from company import messages as m
from company.worker.batch import Batch
from company.worker.bulk import STALE, BulkChannel
from company.worker.results import HeldResults, Part
from company.worker.retry import Heartbeat, wait_before_attempt_s
from p2p.base.clock import Monotonic
from p2p.base.errors import ParallelError, PeerError, Unavailable
from p2p.base.frames import NO_SIZES, Frame, Sizes
from p2p.base.record import record
from p2p.base.schema import Message
from p2p.net.channel import Channel, RefusedByPeer

log = logging.getLogger(__name__)
ANSWER_DEADLINE_S = 15.0
REFUSED_WAIT_S = 30.0
MAX_CONTROL = 8192
MAX_SKEW_S = 30
# a chief that says one of these will not change its mind
FINAL_REFUSALS = frozenset({"worker-unknown", "worker-removed", "version-mismatch"})


class Refusal(ParallelError):
    """The chief does not want this worker: dialling again is useless."""


class Ways(Protocol):
    """Where channels to the chief come from."""

    async def open(self, purpose: str) -> Channel:
        """Raises `Unavailable`, `PeerError`."""


class LinkPort(Protocol):
    """What the link asks of the worker around it."""

    def machine(self) -> m.Machine: ...
    def held(self) -> tuple[m.Held, ...]: ...
    def worker_id(self) -> str: ...
    def use(self) -> tuple[int | None, bool | None]:
        """What the owner of this machine does, for a heartbeat: permille of its cores, whether it is on mains."""

    def on_up(self, resumed: m.Resumed) -> None:
        """A channel is open; ``resumed`` says what still counts."""

    def on_down(self, why: str) -> None: ...
    async def on_message(self, message: Message, frame: Frame) -> None: ...
    def on_stale(self, token: int) -> None:
        """The chief wants nothing more of this token."""

    def on_failure_heard(self, token: int) -> None:
        """The chief has read the Failed of this token."""


@record
class _Control:
    message: Message
    sizes: Sizes
    body: bytes


class ChiefLink:
    """Keeps one channel to the chief."""

    purpose = "worker"
    final = FINAL_REFUSALS

    def __init__(
        self, dialler: Ways, results: HeldResults, port: LinkPort, rng: Random, *, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._dialler = dialler
        self._results = results
        results.on_acked = self.wake
        self._port = port
        self._rng = rng
        self._clock = clock
        self._channel: Channel | None = None
        self._control: deque[_Control] = deque()
        self._work = trio.Event()
        self._uploading: set[int] = set()
        self._failed: deque[tuple[int, int]] = deque()  # (token, ping serial after which it counts as heard)
        self._ping = 0
        self._is_leaving = False
        self.bulk = BulkChannel(lambda: dialler.open("bulk"))

    @property
    def wheels(self) -> BulkChannel:
        """Where wheels come from."""
        return self.bulk

    async def bulk_fetch(self, batch: Batch, offset: int, size: int, digest: bytes, path: Path) -> None:
        """Fetch one large fragment into ``path``. Raises `Unavailable`, `PeerError`, `OSError`."""
        await self.bulk.get(batch.token, batch.job, batch.first + offset, size=size, digest=digest, path=path)

    def tell(self, message: Message, sizes: Sizes = NO_SIZES, body: bytes = b"") -> None:
        """Send a control message if there is a channel; else it is lost, which a Resume makes good."""
        if self._channel is None:
            return
        if len(self._control) >= MAX_CONTROL:
            if isinstance(message, m.Status):
                return
            self._control.popleft()
        self._control.append(_Control(message, sizes, body))
        self.wake()

    def wake(self) -> None:
        """There may be something to send."""
        self._work.set()

    def check(self) -> None:
        """Find out soon whether the chief is there: the heartbeats do, all the time."""

    async def say_bye(self, reason: str) -> None:
        """Send what is queued, then Bye, and close."""
        self._is_leaving = True
        channel = self._channel
        if channel is None:
            return
        with trio.move_on_after(3):
            try:
                while self._control:
                    item = self._control.popleft()
                    await channel.send(item.message, item.sizes, item.body)
                await channel.send(m.Bye(reason[:64]))
            except Unavailable:
                pass
        await channel.aclose()

    async def run(self) -> None:
        """Dial, serve, dial again. Raises `Refusal` when that is useless."""
        attempt = 0
        while not self._is_leaving:
            served_s = 0.0
            try:
                channel = await self._dialler.open(self.purpose)
                began = self._clock()
                try:
                    await self._serve(channel)
                finally:
                    served_s = self._clock() - began
            except RefusedByPeer as error:
                code = str(error.facts.get("peer_code", ""))
                if code in self.final:
                    raise Refusal(code, error.text) from None
                log.warning("the chief refuses this worker: %s (%s)", error.text, code)
                await trio.sleep(REFUSED_WAIT_S)
            except (Unavailable, PeerError) as error:
                if self._is_leaving:
                    return
                log.log(logging.INFO if attempt < 2 else logging.DEBUG, "chief away: %s", error.text)
            attempt = 1 if served_s > 10 else attempt + 1
            await trio.sleep(wait_before_attempt_s(attempt, self._rng))

    # -- one channel
    async def _serve(self, channel: Channel) -> None:
        """From Resume to the end of this channel. Raises `Unavailable`, `PeerError`."""
        try:
            resumed = await self._resume(channel)
            self._control.clear()
            self._failed.clear()
            self._uploading.clear()
            self._results.rewind()
            self._channel = channel
            self._port.on_up(resumed)
            await self._pump(channel, resumed.heartbeat_ms / 1000)
        finally:
            if self._channel is not None:
                self._channel = None
                if not self._is_leaving:
                    self._port.on_down("channel closed")
            with trio.CancelScope(shield=True), trio.move_on_after(2):
                await self.bulk.aclose()
                await channel.aclose()

    def greeting(self) -> Message:
        """What opens the channel; the machine follows in the same frame."""
        return m.Resume(self._port.worker_id(), self._port.held(), int(time.time()))

    async def _resume(self, channel: Channel) -> m.Resumed:
        await channel.send(self.greeting(), *machine_item(self._port.machine()))
        with trio.move_on_after(ANSWER_DEADLINE_S):
            while True:
                message, _ = await channel.receive()
                if isinstance(message, m.Resumed):
                    warn_of_skew(message.server_time)
                    return message
                if isinstance(message, m.Refused):
                    raise refused_error(message, self.final)
                if not isinstance(message, (m.Ping, m.Pong)):
                    raise PeerError("chief-confused", f"{type(message).__name__} came before Resumed")
        raise Unavailable("chief-silent", f"no answer to Resume within {ANSWER_DEADLINE_S:g} s")

    async def _pump(self, channel: Channel, heartbeat_s: float) -> Never:
        """Read, write and ping until the channel ends. Raises what ended it."""
        heart = Heartbeat(heartbeat_s, self._now())
        ends: list[ParallelError] = []
        async with trio.open_nursery() as nursery:

            async def until_lost(task: Callable[[], Awaitable[None]]) -> None:
                try:
                    await task()
                except ParallelError as error:
                    ends.append(error)
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_lost, lambda: self._read(channel, heart))
            nursery.start_soon(until_lost, lambda: self._write(channel, nursery))
            nursery.start_soon(until_lost, lambda: self._beat(channel, heart))
        raise ends[0]

    async def _read(self, channel: Channel, heart: Heartbeat) -> None:
        while True:
            messages = await channel.receive_many()
            heart.on_heard(self._now())
            for message, frame in messages:
                if isinstance(message, m.Ping):
                    await channel.send(m.Pong(message.at))
                elif isinstance(message, m.Pong):
                    self._on_pong(message.at)
                elif isinstance(message, m.Refused):
                    raise refused_error(message, self.final)
                else:
                    await self._port.on_message(message, frame)

    def _on_pong(self, at: int) -> None:
        while self._failed and self._failed[0][1] <= at:
            self._port.on_failure_heard(self._failed.popleft()[0])

    async def _beat(self, channel: Channel, heart: Heartbeat) -> None:
        while not heart.is_dead(self._now()):
            if heart.is_ping_due(self._now()):
                # strictly growing, so that a Pong says which messages were read before it
                self._ping = max(self._ping + 1, time.monotonic_ns() // 1000)
                await channel.send(m.Ping(self._ping, *self._port.use()))
                await self.bulk.close_if_idle(self._now())
            await trio.sleep_until(heart.next_deadline())
        raise Unavailable("chief-silent", "the chief is silent")

    async def _write(self, channel: Channel, nursery: trio.Nursery) -> None:
        while True:
            while self._control:
                item = self._control.popleft()
                await channel.send(item.message, item.sizes, item.body)
            part = self._results.next_unsent(self._uploading)
            if part is None:
                self._work = trio.Event()
                await self._work.wait()
            elif part.blobs and not part.is_uploaded:
                self._uploading.add(part.token)
                nursery.start_soon(self._upload, part)
            else:
                self._results.mark_sent(part)
                await channel.send(part.message, part.sizes, self._results.body_of(part))
                if isinstance(part.message, m.Failed):
                    self._failed.append((part.token, self._ping + 1))

    async def _upload(self, part: Part) -> None:
        """Put the large results of a part; only then may the Outcome that names them go."""
        message = part.message
        assert isinstance(message, m.Outcome)
        try:
            for blob in part.blobs:
                await self.bulk.put(part.token, message.job, blob)
            part.is_uploaded = True
        except (Unavailable, PeerError, OSError) as error:
            if part.gone:
                return
            if isinstance(error, PeerError) and error.code == STALE:
                self._port.on_stale(part.token)
                return
            log.warning("large results of token %d could not be delivered: %s", part.token, error)
            await trio.sleep(wait_before_attempt_s(5, self._rng))
        finally:
            self._uploading.discard(part.token)
            self.wake()

    def _now(self) -> Monotonic:
        return Monotonic(self._clock())


def machine_item(machine: m.Machine) -> tuple[Sizes, bytes]:
    """Item 0 of Join and Resume."""
    packed: bytes = msgpack.packb(machine.as_array(), use_bin_type=True)
    return np.array([len(packed)], dtype="<u4"), packed


def refused_error(message: m.Refused, final: frozenset[str] = FINAL_REFUSALS) -> ParallelError:
    """A Refused inside an open channel, as an error: final or to be tried again."""
    if message.code_word in final:
        return Refusal(message.code_word, message.text or message.code_word)
    return Unavailable(message.code_word or "refused", message.text or "the chief refused")


def warn_of_skew(server_time: int) -> None:
    """Say so when the two clocks differ by more than anything here tolerates silently."""
    skew_s = server_time - int(time.time())
    if server_time and abs(skew_s) > MAX_SKEW_S:
        log.warning("this machine's clock differs from the chief's by %d s", skew_s)
