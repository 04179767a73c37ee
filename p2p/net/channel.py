"""One authenticated connection that carries frames: many senders, one receiver (I/O).

Senders put whole frames into a bounded queue; one task writes everything that is queued at once, so that a thousand small
messages cost one write, and frames never interleave. Being cancelled while sending takes nothing back and breaks nothing.
What comes in is parsed against the registry of this channel; the first malformed message ends it.
"""

from __future__ import annotations

import logging
import ssl
from collections import deque
from collections.abc import Sequence

import msgpack
import numpy as np
import trio

from p2p.base.errors import MalformedMessage, PeerError, Unavailable, UsageError
from p2p.base.frames import (
    MAX_BODY_BYTES,
    MAX_COUNT,
    MAX_HEADER_BYTES,
    NO_SIZES,
    PREAMBLE,
    Frame,
    FrameParser,
    Sizes,
    parse_frame_untrusted,
)
from p2p.base.schema import Message, parse_any_untrusted
from p2p.net.hello import Refused, refusal, refusal_facts_untrusted
from p2p.net.stream import Buffer, FrameStream

Registry = dict[int, type[Message]]
MAX_QUEUED_MESSAGES = 4096
MAX_QUEUED_BYTES = 16 << 20  # what is being written comes on top, so a channel holds at most twice this
CLOSE_DEADLINE_S = 3.0  # for what is still queued when a channel is closed
LINGER_S = 0.5
LINGER_BYTES = 32 << 20
EXACT_PURPOSE = "relay"  # frames of such a channel are read one by one, so that the raw stream can be taken over between two
_log = logging.getLogger("parallel.rpc")
STREAM_ERRORS = (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError)


class RefusedByPeer(PeerError):
    """The other side answered with `Refused`: ``code`` is its code word, facts are its facts."""

    def __init__(self, refused: Refused, peer: str) -> None:
        try:
            facts = dict(refusal_facts_untrusted(refused))
        except MalformedMessage:
            facts = {}
        text = refused.text or f"refused with {refused.code_word}"
        super().__init__("refused", text, peer=peer, peer_code=refused.code_word, peer_facts=facts)
        self.refused = refused


class ExactReader:
    """Reads one frame at a time and knows which bytes came after it. For the hello, and for channels that are taken over."""

    def __init__(self, stream: FrameStream) -> None:
        self.stream = stream
        self.buffer = bytearray()

    async def read_at_least(self, count: int) -> bool:
        """Fill ``buffer`` to ``count`` bytes; False when the stream ended before."""
        while len(self.buffer) < count:
            data = await self.stream.receive_some()
            if not data:
                return False
            self.buffer += data
        return True

    async def read_frame_untrusted(self, *, max_header: int = MAX_HEADER_BYTES, max_body: int = MAX_BODY_BYTES) -> Frame | None:
        """The next frame, None at the end of the stream. Raises `MalformedMessage`, also for an end inside a frame."""
        if not await self.read_at_least(PREAMBLE.size):
            if self.buffer:
                raise MalformedMessage("the stream ended inside a frame")
            return None
        header_len, count, body_len = PREAMBLE.unpack_from(self.buffer)
        if not 1 <= header_len <= max_header or body_len > max_body or count > MAX_COUNT or 4 * count > max_body + 4:
            raise MalformedMessage(f"frame of {header_len} + {count} x 4 + {body_len} bytes is larger than allowed here")
        need = PREAMBLE.size + header_len + 4 * count + body_len
        if not await self.read_at_least(need):
            raise MalformedMessage("the stream ended inside a frame")
        frame = parse_frame_untrusted(bytes(self.buffer[:need]), max_body=max_body)
        del self.buffer[:need]
        return frame


def encode_message(
    message: Message, sizes: Sizes = NO_SIZES, body: Buffer | Sequence[Buffer] = b"", *, max_body: int = MAX_BODY_BYTES
) -> list[Buffer]:
    """Return the buffers of one frame, nothing large copied. Raises `UsageError` when it would break the rules of frames."""
    parts: Sequence[Buffer] = [body] if isinstance(body, (bytes, bytearray, memoryview)) else body
    total = sum(memoryview(part).nbytes for part in parts)
    announced = int(sizes[0]) if len(sizes) == 1 else int(sizes.sum(dtype=np.uint64)) if len(sizes) else 0
    header = msgpack.packb(message.as_array(), use_bin_type=True)
    wrong = None
    if len(header) > MAX_HEADER_BYTES:
        wrong = f"its header has {len(header)} bytes, the limit is {MAX_HEADER_BYTES}"
    elif total > max_body:
        wrong = f"its body has {total} bytes, the limit is {max_body}"
    elif len(sizes) > MAX_COUNT:
        wrong = f"it holds {len(sizes)} items, the limit is {MAX_COUNT}"
    elif announced != total:
        wrong = f"its sizes add up to {announced}, its body has {total} bytes"
    if wrong is not None:
        raise UsageError("bad-frame", f"cannot send {type(message).__name__}: {wrong}")
    head = PREAMBLE.pack(len(header), len(sizes), total) + header
    if len(sizes):
        head += np.ascontiguousarray(sizes, dtype="<u4").tobytes()
    return [head, *parts] if total else [head]


class Channel:
    """One authenticated, framed connection. Made by `p2p.net.rpc.dial` and `serve_rpc`; close it with `aclose`."""

    def __init__(
        self,
        stream: FrameStream,
        leftover: bytes,
        *,
        registry: Registry,
        peer_key: bytes,
        peer_address: str,
        purpose: str,
        max_body: int = MAX_BODY_BYTES,
    ) -> None:
        self.peer_key = peer_key
        self.peer_address = peer_address
        self.purpose = purpose
        self.server_time = 0  # Unix seconds, from Welcome; 0 on the server's side
        self._stream = stream
        self._registry = registry
        self._max_body = max_body
        self._parser = FrameParser(max_body=max_body)
        self._exact: ExactReader | None = ExactReader(stream) if purpose == EXACT_PURPOSE else None
        self._unparsed: bytes | None = leftover
        if self._exact is not None:
            self._exact.buffer += leftover
            self._unparsed = None
        self._arrived: deque[Frame] = deque()
        self._queue: list[Buffer] = []
        self._queued_messages = 0
        self._queued_bytes = 0
        self._room = trio.lowlevel.ParkingLot()
        self._work = trio.lowlevel.ParkingLot()
        self._failure: Unavailable | None = None
        self._is_closing = False
        self._is_detached = False
        self._pump_ended = trio.Event()
        # A dialled channel has no nursery of its own to put the writer in, and the writer lives exactly as long as the
        # channel: so it is a system task, which outlives every nursery and lets no error out.
        trio.lowlevel.spawn_system_task(self._pump, name=f"rpc writer to {peer_address}")

    @property
    def is_open(self) -> bool:
        """Whether messages may still be sent."""
        return self._failure is None and not self._is_closing

    # -- sending
    async def send(self, message: Message, sizes: Sizes = NO_SIZES, body: Buffer | Sequence[Buffer] = b"") -> None:
        """Queue one message; waits only while the queue is full. ``body`` must not change until it is written.

        Raises: `Unavailable` when the channel is closed, `UsageError` for a frame against the rules.
        """
        buffers = encode_message(message, sizes, body, max_body=self._max_body)
        size = sum(memoryview(b).nbytes for b in buffers)
        await trio.lowlevel.checkpoint_if_cancelled()  # no schedule point: neighbours in a loop shall share one write
        while not self._has_room(size):
            await self._room.park()
        self._put(buffers, size)

    def send_nowait(self, message: Message, sizes: Sizes = NO_SIZES, body: Buffer | Sequence[Buffer] = b"") -> None:
        """Queue one message. Raises `trio.WouldBlock` when the queue is full, else as `send`."""
        buffers = encode_message(message, sizes, body, max_body=self._max_body)
        size = sum(memoryview(b).nbytes for b in buffers)
        if not self._has_room(size):
            raise trio.WouldBlock
        self._put(buffers, size)

    def _has_room(self, size: int) -> bool:
        self._check_open()
        return not self._queue or (self._queued_messages < MAX_QUEUED_MESSAGES and self._queued_bytes + size <= MAX_QUEUED_BYTES)

    def _check_open(self) -> None:
        if self._failure is not None:
            raise Unavailable(self._failure.code, self._failure.text, peer=self.peer_address) from self._failure
        if self._is_closing:
            raise Unavailable("channel-closed", f"the channel to {self.peer_address} was closed here", peer=self.peer_address)

    def _put(self, buffers: list[Buffer], size: int) -> None:
        self._queue += buffers
        self._queued_messages += 1
        self._queued_bytes += size
        self._work.unpark()

    async def _pump(self) -> None:
        """Write whatever is queued, all of it at once, until the channel closes."""
        try:
            while True:
                if self._queue:
                    batch, self._queue = self._queue, []
                    self._queued_messages = self._queued_bytes = 0
                    self._room.unpark_all()
                    await self._stream.send_all(batch)
                    del batch
                elif self._is_closing or self._failure is not None:
                    break
                else:
                    await self._work.park()
        except STREAM_ERRORS as error:
            self._fail(f"the connection to {self.peer_address} broke while sending: {error}")
        except Exception:  # noqa: BLE001 - a bug here must not end the process, as it would in a system task
            _log.exception("the writer to %s failed", self.peer_address)
            self._fail(f"the writer to {self.peer_address} failed")
        finally:
            self._pump_ended.set()

    def _fail(self, text: str) -> None:
        if self._failure is None:
            self._failure = Unavailable("channel-closed", text, peer=self.peer_address)
        self._queue.clear()
        self._room.unpark_all()
        self._work.unpark_all()

    # -- receiving
    async def receive(self) -> tuple[Message, Frame]:
        """The next message. Loses nothing when cancelled.

        Raises: `Unavailable` when the connection ended; `MalformedMessage` when the peer broke the protocol, the channel is then
        closed and the peer told; `RefusedByPeer` when it sent `Refused` and that is not in the registry.
        """
        while not self._arrived:
            await self._read_more()
        return await self._parsed(self._arrived.popleft())

    async def receive_many(self) -> list[tuple[Message, Frame]]:
        """All messages that are already here, at least one. Raises as `receive`, after what came before was handed out."""
        while not self._arrived:
            await self._read_more()
        messages: list[tuple[Message, Frame]] = []
        while self._arrived:
            frame = self._arrived.popleft()
            try:
                messages.append((parse_any_untrusted(self._registry, frame.header), frame))
            except MalformedMessage:
                if messages:
                    self._arrived.appendleft(frame)
                    break
                messages.append(await self._parsed(frame))
        return messages

    async def _parsed(self, frame: Frame) -> tuple[Message, Frame]:
        try:
            return parse_any_untrusted(self._registry, frame.header), frame
        except MalformedMessage as error:
            if frame.header[0] == Refused.code and Refused.code not in self._registry:
                refused = Refused.parse_untrusted(frame.header)
                await self.aclose()
                raise RefusedByPeer(refused, self.peer_address) from None
            await self._refuse(error)
            raise

    async def _refuse(self, error: MalformedMessage) -> None:
        _log.warning("closing the channel to %s: %s", self.peer_address, error)
        self._arrived.clear()
        await self.aclose(refusal(error.code, error.text))

    async def _read_more(self) -> None:
        """Take bytes from the stream once, and the frames they complete into ``_arrived``."""
        if self._is_detached:
            raise UsageError("channel-detached", "this channel's stream was taken over")
        try:
            if self._exact is not None:
                frame = await self._exact.read_frame_untrusted(max_body=self._max_body)
                data: bytes = b"" if frame is None else b"-"
                if frame is not None:
                    self._arrived.append(frame)
            else:
                data, self._unparsed = self._unparsed or await self._stream.receive_some(), None
                self._arrived.extend(self._parser.feed_untrusted(data))
        except MalformedMessage as error:
            await self._refuse(error)
            raise
        except STREAM_ERRORS as error:
            self._fail(f"the connection to {self.peer_address} broke: {error}")
            data = b""
        if not data:
            where = "" if self._parser.is_idle else " in the middle of a message"
            self._fail(f"{self.peer_address} closed the connection{where}")
            self._check_open()

    # -- ending
    async def detach(self) -> tuple[FrameStream, bytes]:
        """Take the raw stream over, with the bytes that were already read from it. For purpose "relay" only.

        Everything sent before is written first. The caller then owns and closes the stream. Raises: `UsageError` for another purpose.
        """
        if self._exact is None:
            raise UsageError("not-detachable", f'only a channel of purpose "{EXACT_PURPOSE}" can be taken over, this is "{self.purpose}"')
        self._is_detached = self._is_closing = True
        self._work.unpark_all()
        await self._pump_ended.wait()
        if self._failure is not None:
            raise self._failure
        leftover = bytes(self._exact.buffer)
        self._exact.buffer.clear()
        return self._stream, leftover

    async def aclose(self, reason: Refused | None = None) -> None:
        """Write what is queued, then ``reason`` if any, and close; takes at most 4 s. Idempotent."""
        if self._is_closing:
            if not self._is_detached:
                await self._pump_ended.wait()
                await self._stream.aclose()
            return
        if reason is not None and self._failure is None:
            buffers = encode_message(reason)
            self._put(buffers, sum(memoryview(b).nbytes for b in buffers))
        self._is_closing = True
        self._work.unpark_all()
        self._room.unpark_all()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(CLOSE_DEADLINE_S):
                await self._pump_ended.wait()
                if reason is not None and self._failure is None:
                    await self._linger()
            await self._stream.aclose()  # a writer that is still stuck fails now
            await self._pump_ended.wait()

    async def _linger(self) -> None:
        """Read on a little: closing with unread bytes resets the connection, and the peer would lose the reason."""
        left = LINGER_BYTES
        try:
            with trio.move_on_after(LINGER_S):
                while left > 0 and (data := await self._stream.receive_some()):
                    left -= len(data)
        except (*STREAM_ERRORS, trio.BusyResourceError):
            return
