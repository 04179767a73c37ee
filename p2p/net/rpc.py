"""Opening channels: dial, and the server that other processes dial (I/O).

TLS 1.3 with the server's key compared by the caller, then Hello, Challenge, Prove, Welcome (`p2p.net.hello`). Before Welcome a
stranger may cost us a few kilobytes and ten seconds, never more; what one connection does never touches another. The same
port answers a plain ``GET``, because a machine that is about to join has nothing but Python.
"""

from __future__ import annotations

import errno
import logging
import os
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Never, TypeVar

import trio

from p2p.base.errors import MalformedMessage, ParallelError, PeerError, Unavailable
from p2p.base.keys import Identity, is_signed_by
from p2p.base.schema import Message
from p2p.net import http_get as plain_http
from p2p.net.addresses import join_address as join_address
from p2p.net.addresses import split_address as split_address
from p2p.net.channel import STREAM_ERRORS, Channel, ExactReader, RefusedByPeer, Registry, encode_message
from p2p.net.clock import read_unix
from p2p.net.endings import ENDINGS, Endings
from p2p.net.hello import (
    NONCE_BYTES,
    PROTOCOL,
    Challenge,
    Hello,
    Prove,
    ProveServer,
    Refused,
    Welcome,
    local_proof_bytes,
    proof_bytes,
    refusal,
)
from p2p.net.stream import ByteStream, FrameStream, PlainStream, close_at_once, open_tls_client, open_tls_server
from p2p.net.throttle import Pace, Throttled
from p2p.net.tls import WrongKey, client_context, server_context

HELLO_HEADER_BYTES = 8 << 10
PORT = "rpc"  # what endings are counted under
_log = logging.getLogger("parallel.rpc")
VERSION_MISMATCH = "version-mismatch"
M = TypeVar("M", bound=Message)
OnChannel = Callable[[Channel], Awaitable[None]]
HttpGet = Callable[[str], Awaitable[tuple[int, str, bytes]]]  # path -> (status, media type, body)


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcLimits:
    """What strangers may take. Counts are connections, authenticated or not."""

    connections: int = 1024
    per_address: int = 256
    handshake_s: float = 10.0


# ---- calling -----------------------------------------------------------------------------------------------------------------
async def dial(
    address: str,
    *,
    identity: Identity,
    expected_key: bytes,
    purpose: str,
    registry: Registry,
    deadline_s: float = 10,
    through: ByteStream | None = None,
    pace: Pace | None = None,
) -> Channel:
    """Open a channel to the server that holds ``expected_key``; ``through``: over a relay's stream; ``pace``: no faster than that.

    Raises: `Unavailable` "unreachable" or "handshake-timeout"; `PeerError` "wrong-key" (only a ClientHello was sent) or "version-mismatch";
    `RefusedByPeer` with code "refused"; `MalformedMessage`.
    """
    deadline = trio.current_time() + deadline_s
    transport = through if through is not None else await _connect(address, deadline_s)
    transport = Throttled(transport, pace) if pace is not None else transport
    with trio.CancelScope(deadline=deadline):
        stage = "TLS handshake"
        try:
            stream = await open_tls_client(transport, client_context(expected_key))
            stage = "greeting"
            return await greet(stream, address, identity, expected_key, purpose, registry)
        except WrongKey as error:
            raise PeerError(
                "wrong-key",
                f"{address} holds another key than the one expected: it was installed anew, or somebody stands in between",
                peer=address,
                expected=expected_key.hex(),
                actual=error.actual.hex() if error.actual else "not an Ed25519 key",
            ) from None
        except STREAM_ERRORS as error:
            raise Unavailable("unreachable", f"{address} ended the connection during the {stage}: {error}", peer=address) from error
    raise Unavailable("handshake-timeout", f"{address} did not finish the handshake within {deadline_s:g} s", peer=address)


async def _connect(address: str, deadline_s: float) -> ByteStream:
    host, port = split_address(address)
    try:
        with trio.fail_after(deadline_s):
            return await trio.open_tcp_stream(host, port)
    except (OSError, trio.TooSlowError) as error:
        why = f"no answer within {deadline_s:g} s" if isinstance(error, trio.TooSlowError) else str(error)
        raise Unavailable("unreachable", f"cannot connect to {address}: {why}", peer=address) from None


async def greet(stream: FrameStream, address: str, identity: Identity, expected_key: bytes, purpose: str, registry: Registry) -> Channel:
    """The caller's half of the hello. Closes the stream when it fails. Raises as `dial`."""
    try:
        reader = ExactReader(stream)
        nonce = os.urandom(NONCE_BYTES)
        await _send(stream, Hello(PROTOCOL, purpose, identity.public, nonce))
        challenge = await _expect(reader, Challenge, address)
        if challenge.protocol != PROTOCOL:
            raise _version_mismatch(address, challenge.protocol)
        if isinstance(stream, PlainStream):
            shown = await _expect(reader, ProveServer, address)
            if not is_signed_by(expected_key, local_proof_bytes(purpose, nonce, challenge.nonce, expected_key), shown.signature):
                raise PeerError("wrong-key", f"{address} cannot prove the key that is expected", peer=address, expected=expected_key.hex())
        proof = identity.sign(proof_bytes(purpose, nonce, challenge.nonce, expected_key))
        await _send(stream, Prove(proof))
        welcome = await _expect(reader, Welcome, address)
        channel = Channel(stream, bytes(reader.buffer), registry=registry, peer_key=expected_key, peer_address=address, purpose=purpose)
        channel.server_time = welcome.server_time
        return channel
    except BaseException:
        await close_at_once(stream)
        raise


async def _expect(reader: ExactReader, wanted: type[M], address: str) -> M:
    """The server's next message, which must be ``wanted``. Raises `RefusedByPeer`, `PeerError` "version-mismatch", `Unavailable`."""
    frame = await reader.read_frame_untrusted(max_header=HELLO_HEADER_BYTES, max_body=0)
    if frame is None:
        raise Unavailable("unreachable", f"{address} ended the connection during the greeting", peer=address)
    if frame.header[0] == Refused.code:
        refused = RefusedByPeer(Refused.parse_untrusted(frame.header), address)
        if refused.refused.code_word == VERSION_MISMATCH:
            facts = refused.facts.get("peer_facts", {})
            raise _version_mismatch(address, facts.get("protocol"))
        raise refused
    return wanted.parse_untrusted(frame.header)


def _version_mismatch(address: str, theirs: object) -> PeerError:
    theirs = theirs if type(theirs) is int else "another version"
    return PeerError(
        VERSION_MISMATCH,
        f"{address} speaks protocol {theirs}, this side speaks {PROTOCOL}",
        hint="install the same release of company-compute on both machines",
        peer=address,
        ours=PROTOCOL,
        theirs=theirs,
    )


async def _send(stream: FrameStream, message: Message) -> None:
    await stream.send_all(encode_message(message))


# ---- serving -----------------------------------------------------------------------------------------------------------------
async def serve_rpc(
    *,
    identity: Identity,
    host: str | None,
    port: int,
    registry: Registry,
    on_channel: OnChannel,
    http_get: HttpGet | None = None,
    limits: RpcLimits = RpcLimits(),
    endings: Endings = ENDINGS,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> Never:
    """Serve until cancelled. ``on_channel`` runs in a task of each connection, which is closed when it returns or fails.

    ``host``: None listens on all interfaces. Reports the bound address as ``host:port``. Raises `Unavailable` "port-taken".
    """
    try:
        listeners = await _open_listeners(host, port)
    except OSError as error:
        where = join_address(host or "*", port)
        raise Unavailable("port-taken", f"cannot listen on {where}: {error.strerror or error}", port=port) from error
    server = RpcServer(identity, registry, on_channel, http_get, limits, endings)
    bound = listeners[0].socket.getsockname()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, server.serve_connection, listeners))
        task_status.started(join_address(bound[0], bound[1]))
        await trio.sleep_forever()
    raise AssertionError("unreachable")


async def _open_listeners(host: str | None, port: int) -> list[trio.SocketListener]:
    """One listener per address of ``host``, all on the same port, also where the system picks it."""
    while True:
        listeners = await trio.open_tcp_listeners(port, host=host)
        if port or len(listeners) == 1:
            return listeners
        picked = listeners[0].socket.getsockname()[1]
        for listener in listeners:  # each has another free port; take the first one for all, unless somebody was faster
            await listener.aclose()
        try:
            return await trio.open_tcp_listeners(picked, host=host)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


class RpcServer:
    """Serves connections that somebody accepted: a listener's, or streams that a relay carries here."""

    def __init__(
        self,
        identity: Identity,
        registry: Registry,
        on_channel: OnChannel,
        http_get: HttpGet | None = None,
        limits: RpcLimits = RpcLimits(),
        endings: Endings = ENDINGS,
        *,
        is_local: bool = False,
    ) -> None:
        """``is_local``: for streams of `p2p.net.local`, which are not encrypted."""
        self._identity = identity
        self._context = None if is_local else server_context(identity)
        self._registry = registry
        self._on_channel = on_channel
        self._http_get = http_get
        self._limits = limits
        self._endings = endings
        self._by_address: Counter[str] = Counter()

    async def serve_connection(self, transport: trio.SocketStream) -> None:
        """Serve one connection to its end; lets nothing but cancellation out."""
        try:
            peer = transport.socket.getpeername()
        except OSError:  # gone before we looked
            await close_at_once(transport)
            return
        await self.serve_stream(transport, peer[0], join_address(peer[0], peer[1]))

    async def serve_stream(self, transport: ByteStream, host: str, address: str) -> None:
        """The same for any stream; ``host``: whose share of connections it takes, ``address``: what logs and channels call it."""
        if self._by_address.total() >= self._limits.connections or self._by_address[host] >= self._limits.per_address:
            self._endings.note(PORT, "too-many-connections", address, "too many are open")
            await close_at_once(transport)
            return
        self._by_address[host] += 1
        try:
            await self._serve(transport, address)
        except ParallelError as error:
            self._endings.note(PORT, error.code, address, error.text)
        except STREAM_ERRORS as error:
            is_tls = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError)
            level = logging.WARNING if is_tls else logging.INFO  # who leaves does no harm
            self._endings.note(PORT, "not-tls" if is_tls else "connection-lost", address, str(error), level=level)
        except Exception:  # noqa: BLE001 - the boundary between one connection and all others
            _log.exception("serving %s failed", address)
            self._endings.note(PORT, "internal-error", address, "see the lines before this one")
        finally:
            self._by_address[host] -= 1
            if not self._by_address[host]:
                del self._by_address[host]
            await close_at_once(transport)

    async def _open(self, transport: ByteStream) -> FrameStream:
        if self._context is not None:
            return await open_tls_server(transport, self._context)
        assert isinstance(transport, trio.SocketStream)
        return PlainStream(transport)

    async def _serve(self, transport: ByteStream, address: str) -> None:
        channel: Channel | None = None
        with trio.move_on_after(self._limits.handshake_s) as handshake:
            stream = await self._open(transport)
            reader = ExactReader(stream)
            if self._http_get is not None and await reader.read_at_least(4) and plain_http.is_http(reader.buffer):
                handshake.deadline = float("inf")  # has deadlines of its own
                await plain_http.answer(reader, self._http_get, handshake_s=self._limits.handshake_s)
                return
            channel = await self._admit(reader, address)
        if channel is None:
            text = f"it did not finish the handshake within {self._limits.handshake_s:g} s"
            self._endings.note(PORT, "handshake-timeout", address, text)
            return
        try:
            await self._on_channel(channel)
        finally:
            await channel.aclose()

    async def _admit(self, reader: ExactReader, address: str) -> Channel | None:
        """The server's half of the hello. A refusal is sent, then raised."""
        stream = reader.stream
        try:
            hello = await self._read_hello(reader)
            nonce = os.urandom(NONCE_BYTES)
            await _send(stream, Challenge(PROTOCOL, nonce))
            if isinstance(stream, PlainStream):
                shown = self._identity.sign(local_proof_bytes(hello.purpose, hello.nonce, nonce, self._identity.public))
                await _send(stream, ProveServer(shown))
            frame = await reader.read_frame_untrusted(max_header=HELLO_HEADER_BYTES, max_body=0)
            if frame is None:
                raise MalformedMessage("the caller left during the greeting")
            proof = Prove.parse_untrusted(frame.header)
            if not is_signed_by(hello.key, proof_bytes(hello.purpose, hello.nonce, nonce, self._identity.public), proof.signature):
                raise PeerError("bad-proof", "the signature does not prove the key of the Hello")
            if reader.buffer:
                raise MalformedMessage("bytes came before Welcome was sent")
        except PeerError as error:
            await _send(stream, refusal(error.code, error.text, **{k: v for k, v in error.facts.items() if k == "protocol"}))
            await stream.aclose()
            raise
        await _send(stream, Welcome(read_unix()))
        return Channel(stream, b"", registry=self._registry, peer_key=hello.key, peer_address=address, purpose=hello.purpose)

    async def _read_hello(self, reader: ExactReader) -> Hello:
        frame = await reader.read_frame_untrusted(max_header=HELLO_HEADER_BYTES, max_body=0)
        if frame is None:
            raise MalformedMessage("the caller left before its Hello")
        header = frame.header
        # Looked at before the rest: a later version may have other fields.
        if header[0] == Hello.code and len(header) > 1 and type(header[1]) is int and header[1] != PROTOCOL:
            text = f"this side speaks protocol {PROTOCOL}, you speak {header[1]}; install the same release on both"
            raise PeerError(VERSION_MISMATCH, text, protocol=PROTOCOL)
        return Hello.parse_untrusted(header)
