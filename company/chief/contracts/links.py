"""Channels to the companies one has contracts with: one each, either side's, kept while it is used (I/O).

A message that cannot be sent is dropped, for the contract's machine sends again what was not confirmed. So everything is bounded here:
messages that wait, channels that we opened, and how fast one company is listened to. Whoever sends faster is read later, not refused.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import trio

from company import peer_messages as pm
from company.chief.network.contact import Contact
from p2p.base.errors import MalformedMessage, ParallelError
from p2p.base.keys import company_id_text
from p2p.base.schema import Message
from p2p.dht.limits import Buckets
from p2p.net.channel import Channel

PURPOSE = "contract"
MAX_WAITING = 256  # messages for one company; the oldest is dropped, and sent again by its contract
MAX_PEERS = 1024  # companies with messages that wait or a channel
MAX_DIALLED = 64  # channels that this chief opened
IDLE_S = 120.0  # a channel on which nothing was said for so long is closed
DIAL_S = 20.0
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 30.0  # after a company could not be reached
MESSAGES_PER_S, MESSAGES_BURST = 50.0, 300.0  # of one company that are read
_log = logging.getLogger("company.chief.contracts")


@dataclass(slots=True, eq=False)
class _Peer:
    """One company."""

    key: bytes
    waiting: deque[Message] = field(default_factory=lambda: deque(maxlen=MAX_WAITING))
    channel: Channel | None = None
    is_ours: bool = False  # we opened it
    is_busy: bool = False  # a task of ours dials or sends
    used_at: float = 0.0
    pause_s: float = 0.0
    not_before: float = 0.0


class Links:
    """Sends to companies by key; hands on what they say."""

    def __init__(
        self, dial: Callable[[Contact, str, float], Awaitable[Channel]], find: Callable[[bytes], Awaitable[Contact | None]], *,
        on_message: Callable[[bytes, Message], None], on_connected: Callable[[bytes], None], kept: int = 4096,
    ) -> None:  # fmt: skip
        self._dial = dial
        self._find = find
        self._on_message = on_message
        self._on_connected = on_connected
        self._peers: dict[bytes, _Peer] = {}
        self._rate = Buckets(MESSAGES_PER_S, MESSAGES_BURST, kept)
        self._nursery: trio.Nursery | None = None
        self._sent = trio.Event()
        self._scope = trio.CancelScope(shield=True)

    async def run(self) -> None:
        """Until `stop`: what is said at the very end is to leave, too."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await trio.sleep_forever()

    def stop(self) -> None:
        """Close everything now."""
        self._scope.cancel()

    def send(self, peer: bytes, message: Message) -> None:
        """Send, soon; or drop."""
        found = self._peer(peer)
        if found is None or self._nursery is None:
            return
        found.waiting.append(message)
        if found.channel is None and trio.current_time() < found.not_before:
            return  # its contract tries again; so does the next message after the pause
        if not found.is_busy:
            found.is_busy = True
            self._nursery.start_soon(self._flush, found)

    async def serve(self, channel: Channel) -> None:
        """A channel that another company opened, to its end."""
        found = self._peer(channel.peer_key)
        if found is None:
            return
        await self._read(found, channel, is_ours=False)

    async def drain(self) -> None:
        """Return when nothing waits any more; the caller gives the deadline."""
        while any(p.waiting or p.is_busy for p in self._peers.values()):
            self._sent = trio.Event()
            await self._sent.wait()
        for peer in list(self._peers.values()):
            if peer.channel is not None:
                await peer.channel.aclose()

    def is_connected(self, peer: bytes) -> bool:
        """Whether a channel is open now."""
        found = self._peers.get(peer)
        return found is not None and found.channel is not None

    @property
    def dialled(self) -> int:
        """Channels that this chief opened and keeps."""
        return sum(p.is_ours and p.channel is not None for p in self._peers.values())

    def _peer(self, key: bytes) -> _Peer | None:
        found = self._peers.get(key)
        if found is None:
            if len(self._peers) >= MAX_PEERS:
                for idle in [k for k, p in self._peers.items() if p.channel is None and not p.is_busy][: MAX_PEERS // 4]:
                    del self._peers[idle]
            if len(self._peers) >= MAX_PEERS:
                return None
            found = self._peers[key] = _Peer(key)
        return found

    async def _flush(self, peer: _Peer) -> None:
        """Send what waits, over the channel there is or a new one."""
        try:
            while peer.waiting:
                channel = peer.channel
                if channel is None or not channel.is_open:
                    channel = await self._open(peer)
                    if channel is None:
                        return
                message = peer.waiting.popleft()
                try:
                    await channel.send(message)
                    peer.used_at = trio.current_time()
                except ParallelError as error:
                    _log.info("sending to %s: %s", company_id_text(peer.key), error.text)
                    if peer.channel is channel:
                        peer.channel = None
        finally:
            peer.is_busy = False
            self._sent.set()

    async def _open(self, peer: _Peer) -> Channel | None:
        if self.dialled >= MAX_DIALLED and not await self._close_idlest():
            peer.waiting.clear()
            return None
        try:
            contact = await self._find(peer.key)
            if contact is None:
                raise MalformedMessage("no address of it is known")
            channel = await self._dial(contact, PURPOSE, DIAL_S)
        except ParallelError as error:
            peer.pause_s = min(LAST_PAUSE_S, max(FIRST_PAUSE_S, 2 * peer.pause_s))
            peer.not_before = trio.current_time() + peer.pause_s
            peer.waiting.clear()
            _log.info("reaching %s: %s", company_id_text(peer.key), error.text)
            return None
        peer.channel, peer.is_ours = channel, True
        if self._nursery is not None:
            self._nursery.start_soon(self._read_ours, peer, channel)
        return channel

    async def _close_idlest(self) -> bool:
        """Make room for one more; False where all are in use."""
        now = trio.current_time()
        idle = [p for p in self._peers.values() if p.is_ours and p.channel is not None and not p.is_busy and now - p.used_at > 5.0]
        if not idle:
            return False
        first = min(idle, key=lambda p: (p.used_at, p.key))
        channel, first.channel = first.channel, None
        if channel is not None:
            await channel.aclose()
        return True

    async def _read_ours(self, peer: _Peer, channel: Channel) -> None:
        try:
            with contextlib.suppress(ParallelError):  # it ended; what was not confirmed is sent again
                await self._read(peer, channel, is_ours=True)
        finally:
            await channel.aclose()

    async def _read(self, peer: _Peer, channel: Channel, *, is_ours: bool) -> None:
        with self._held(peer, channel, is_ours):
            self._on_connected(peer.key)
            while True:
                message: Message | None = None
                with trio.move_on_after(IDLE_S):
                    message, _ = await channel.receive()
                if message is None:
                    if trio.current_time() - peer.used_at < IDLE_S:
                        continue
                    await channel.aclose()
                    return
                peer.used_at = trio.current_time()
                if not isinstance(message, (pm.ContractWire, pm.ContractTurned)):
                    raise MalformedMessage(f"a channel of contracts carries no {type(message).__name__}")
                if not self._rate.take(peer.key, trio.current_time()):
                    await trio.sleep(1 / MESSAGES_PER_S)  # it is read as fast as it may send; what it has sent waits in its own socket
                self._on_message(peer.key, message)
                await trio.lowlevel.checkpoint()  # one that sends much must not keep the others waiting

    @contextlib.contextmanager
    def _held(self, peer: _Peer, channel: Channel, is_ours: bool) -> Iterator[None]:
        """This is the channel to that company from now on, unless another comes."""
        peer.channel, peer.is_ours, peer.used_at = channel, is_ours, trio.current_time()
        peer.pause_s = peer.not_before = 0.0
        try:
            yield
        finally:
            if peer.channel is channel:
                peer.channel = None
