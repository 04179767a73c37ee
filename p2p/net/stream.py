"""TLS over any byte stream: an own pump between `ssl.SSLObject` and trio; and the same without TLS, within a machine (I/O).

`trio.SSLStream` yields one 16 KiB record per call, which made large frames 1.5 times slower (research/feasibility.md). One task
may send while another receives; a send that is cancelled or fails has lost its place in the stream, which is then closed.
Nests: the transport of one may be another (a relay carries the newcomer's own TLS, unread).
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import trio

Buffer = bytes | bytearray | memoryview
READ_BYTES = 256 << 10  # asked of the transport at once
RECORD_BYTES = 16 << 10  # most that TLS has decrypted without giving it out
PIECE_BYTES = 256 << 10  # encrypted at once
MAX_UNSENT_BYTES = 64 << 10  # what TLS itself may want to answer while nobody sends; more is an attack by key updates
CLOSE_DEADLINE_S = 1.0
SOCKET_BYTES = 1 << 20  # of a local socket's buffer, or what the system allows
IOV_MAX = 1024  # buffers in one system call; Linux's limit


class ByteStream(Protocol):
    """What carries bytes: `trio.SocketStream`, `TlsStream`, or a test's memory stream."""

    async def send_all(self, data: Buffer, /) -> None: ...

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes | bytearray: ...

    async def aclose(self) -> None: ...


class FrameStream(Protocol):
    """What carries frames: `TlsStream`, or a `PlainStream` within a machine."""

    async def send_all(self, data: Buffer | Sequence[Buffer], /) -> None: ...

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes: ...

    async def aclose(self) -> None: ...


class PlainStream:
    """A socket between two processes of one machine (`p2p.net.local`): the kernel keeps others out, so nothing is encrypted."""

    def __init__(self, transport: trio.SocketStream) -> None:
        self._transport = transport
        self._send_lock = trio.Lock()
        self._is_broken = False
        for option in (trio.socket.SO_SNDBUF, trio.socket.SO_RCVBUF):
            transport.setsockopt(trio.socket.SOL_SOCKET, option, SOCKET_BYTES)

    async def send_all(self, data: Buffer | Sequence[Buffer], /) -> None:
        """Send everything, nothing copied here. Raises: `trio.BrokenResourceError`, `trio.ClosedResourceError`."""
        buffers: Sequence[Buffer] = [data] if isinstance(data, (bytes, bytearray, memoryview)) else data
        async with self._send_lock:
            if self._is_broken:
                raise trio.BrokenResourceError("an earlier send broke this stream")
            try:
                await self._send(deque(memoryview(buffer).cast("B") for buffer in buffers if len(buffer)))
            except BaseException as error:
                # Half a frame may be out: nothing that follows could be read.
                self._is_broken = True
                await close_at_once(self._transport)
                if isinstance(error, OSError):
                    raise trio.BrokenResourceError(f"send failed: {error}") from error
                raise

    async def _send(self, left: deque[memoryview]) -> None:
        while left:
            sent = await self._transport.socket.sendmsg([left[at] for at in range(min(len(left), IOV_MAX))])
            while left and sent >= len(left[0]):
                sent -= len(left.popleft())
            if sent:
                left[0] = left[0][sent:]

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes:
        """Return what is there, at least one byte, or b"" at the end. Loses nothing when cancelled. Raises `trio.BrokenResourceError`."""
        return bytes(await self._transport.receive_some(max_bytes or READ_BYTES))

    async def aclose(self) -> None:
        """Close. Idempotent."""
        await self._transport.aclose()


class TlsStream:
    """An encrypted stream. Made by `open_tls_client` and `open_tls_server`."""

    def __init__(self, transport: ByteStream, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._send_lock = trio.Lock()
        self._is_broken = False
        self._is_closed = False

    async def handshake(self) -> None:
        """Finish the handshake. Raises `ssl.SSLError` (so `WrongKey`), `trio.BrokenResourceError`, `OSError`."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill(None)
        await self._flush()

    async def send_all(self, data: Buffer | Sequence[Buffer], /) -> None:
        """Encrypt and send everything; ``data`` must not change meanwhile.

        Raises: `trio.BrokenResourceError`, `trio.ClosedResourceError`.
        """
        buffers: Sequence[Buffer] = [data] if isinstance(data, (bytes, bytearray, memoryview)) else data
        async with self._send_lock:
            self._check()
            try:
                for piece in _pieces(buffers):
                    self._tls.write(piece)
                    if self._outgoing.pending >= PIECE_BYTES:
                        await self._transport.send_all(self._outgoing.read())
                await self._flush()
            except BaseException as error:
                # Half a record may be out: nothing that follows could be read.
                self._is_broken = True
                await close_at_once(self._transport)
                if isinstance(error, (OSError, ssl.SSLError)):
                    raise trio.BrokenResourceError(f"TLS send failed: {error}") from error
                raise

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes:
        """Return what is there, at least one byte, or b"" at the end. Loses nothing when cancelled. Raises `trio.BrokenResourceError`."""
        self._check()
        size = max_bytes or READ_BYTES
        while True:
            try:
                data = self._read_ready(size)
                if data is not None:
                    return data
                await self._fill(size)
            except (ssl.SSLError, OSError) as error:
                self._is_broken = True
                raise trio.BrokenResourceError(f"TLS receive failed: {error}") from error

    def _read_ready(self, size: int) -> bytes | None:
        """Decrypt what the transport gave so far, many records at once; None when there is nothing whole yet."""
        size = min(size, self._incoming.pending + RECORD_BYTES)  # no buffer is kept: a chief has many idle channels
        view = memoryview(bytearray(size))
        filled = 0
        try:
            while filled < size:
                count = self._tls.read(size - filled, view[filled:size])
                if not count:
                    break
                filled += int(count)
        except ssl.SSLWantReadError:
            if not filled:
                if self._outgoing.pending > MAX_UNSENT_BYTES:
                    raise
                return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass  # frames say their length, so an end without close_notify is told from a truncated frame by the reader
        return bytes(view[:filled])

    async def _fill(self, size: int | None) -> None:
        data = await self._transport.receive_some(max(size or 0, READ_BYTES))
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._transport.send_all(self._outgoing.read())

    def _check(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this TLS stream was closed")
        if self._is_broken:
            raise trio.BrokenResourceError("an earlier send or receive broke this TLS stream")

    def peer_certificate(self) -> bytes | None:
        """The peer's certificate as DER, if it sent one."""
        return self._tls.getpeercert(binary_form=True)

    async def aclose(self) -> None:
        """Say goodbye if that takes no time, and close. Idempotent."""
        if self._is_closed:
            return
        was_broken = self._is_broken
        self._is_closed = True
        try:
            with trio.move_on_after(CLOSE_DEADLINE_S):
                if not was_broken and not self._send_lock.locked():
                    await self._send_close_notify()
        finally:
            await self._transport.aclose()

    async def _send_close_notify(self) -> None:
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # wants the peer's close_notify, which we do not wait for; ours is in the outgoing buffer if it may be sent
        except ValueError:
            return
        try:
            await self._flush()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return


def _pieces(buffers: Sequence[Buffer]) -> list[Buffer]:
    """Join small buffers and cut large ones, so that each piece fills its records without copying what is large."""
    pieces: list[Buffer] = []
    small: list[Buffer] = []
    small_bytes = 0
    for buffer in buffers:
        size = memoryview(buffer).nbytes
        if size < PIECE_BYTES // 4:
            small.append(buffer)
            small_bytes += size
            if small_bytes >= PIECE_BYTES:
                pieces.append(b"".join(small))
                small, small_bytes = [], 0
            continue
        if small:
            pieces.append(b"".join(small))
            small, small_bytes = [], 0
        view = memoryview(buffer).cast("B")
        pieces.extend(view[at : at + PIECE_BYTES] for at in range(0, size, PIECE_BYTES))
    if small:
        pieces.append(b"".join(small))
    return [piece for piece in pieces if len(piece)]


async def close_at_once(stream: ByteStream) -> None:
    """Close without a goodbye and without waiting, also while being cancelled."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.aclose()


async def open_tls_client(transport: ByteStream, context: ssl.SSLContext) -> TlsStream:
    """Shake hands as the caller. The transport is closed when that fails. Raises as `TlsStream.handshake`."""
    return await _open(TlsStream(transport, context, server_side=False), transport)


async def open_tls_server(transport: ByteStream, context: ssl.SSLContext) -> TlsStream:
    """Shake hands as the server. The transport is closed when that fails. Raises as `TlsStream.handshake`."""
    return await _open(TlsStream(transport, context, server_side=True), transport)


async def _open(stream: TlsStream, transport: ByteStream) -> TlsStream:
    try:
        await stream.handshake()
    except BaseException:
        await close_at_once(transport)
        raise
    return stream
