"""Rules of the TLS pump, over trio's memory streams and real sockets."""

import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from p2p.base.keys import Identity
from p2p.net.stream import Buffer, ByteStream, TlsStream, open_tls_client, open_tls_server
from p2p.net.tls import WrongKey, client_context, server_context

ONE, TWO = Identity(b"1" * 32), Identity(b"2" * 32)


@asynccontextmanager
async def pair(left: ByteStream, right: ByteStream) -> AsyncIterator[tuple[TlsStream, TlsStream]]:
    opened: list[TlsStream] = []
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            opened.append(await open_tls_server(right, server_context(ONE)))

        nursery.start_soon(serve)
        client = await open_tls_client(left, client_context(ONE.public))
    try:
        yield client, opened[0]
    finally:
        await client.aclose()
        await opened[0].aclose()


async def read_exactly(stream: TlsStream, count: int, max_bytes: int | None = None) -> bytes:
    parts = b""
    while len(parts) < count:
        data = await stream.receive_some(max_bytes)
        assert data, "ended early"
        parts += data
    return parts


async def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    left, right = trio.socket.socketpair()
    return trio.SocketStream(left), trio.SocketStream(right)


async def test_large_and_small_buffers_arrive_in_order_both_ways_at_once() -> None:
    import random

    rng = random.Random(5)
    buffers: list[Buffer] = [rng.randbytes(n) for n in (0, 1, 70_000, 5, 0, 300_000, 16_384, 3, 3, 1 << 20, 65_536)]
    whole = b"".join(buffers)
    async with pair(*await socket_pair()) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, [buffers[0], memoryview(buffers[1]), bytearray(buffers[2]), *buffers[3:]])
        nursery.start_soon(server.send_all, buffers)
        for stream in (server, client):
            got = await read_exactly(stream, len(whole))
            assert hashlib.sha256(got).digest() == hashlib.sha256(whole).digest()


async def test_one_receive_gives_many_records() -> None:
    async with pair(*await socket_pair()) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(1 << 20))
        biggest = 0
        left = 1 << 20
        while left:
            data = await server.receive_some()
            left -= len(data)
            biggest = max(biggest, len(data))
        assert biggest > 64 << 10


async def test_receive_some_gives_no_more_than_asked_for_and_loses_nothing() -> None:
    async with pair(*trio.testing.memory_stream_pair()) as (client, server):
        await client.send_all(b"abcdefgh")
        assert await server.receive_some(3) == b"abc"
        assert await read_exactly(server, 5, 2) == b"defgh"


async def test_a_cancelled_receive_loses_nothing() -> None:
    async with pair(*trio.testing.memory_stream_pair()) as (client, server):
        with trio.move_on_after(0):
            await server.receive_some()
        await client.send_all(b"kept")
        assert await server.receive_some() == b"kept"


async def test_the_end_is_seen_as_no_bytes() -> None:
    async with pair(*trio.testing.memory_stream_pair()) as (client, server):
        await client.send_all(b"last")
        await client.aclose()
        assert await server.receive_some() == b"last"
        assert await server.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await client.send_all(b"x")


async def test_a_cancelled_send_breaks_the_stream_for_good() -> None:
    async with pair(*await socket_pair()) as (client, server):
        with trio.move_on_after(0.05) as scope:
            await client.send_all(bytes(32 << 20))  # nobody reads
        assert scope.cancelled_caught
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        await read_until_end(server)


async def read_until_end(stream: TlsStream) -> None:
    while await stream.receive_some():
        pass


async def test_garbage_after_the_handshake_breaks_only_this_stream() -> None:
    left, right = trio.testing.memory_stream_pair()
    async with pair(left, right) as (_client, server):
        await left.send_all(b"not a TLS record at all")
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()


async def test_a_wrong_key_ends_the_handshake_and_the_server_gets_no_second_flight() -> None:
    left, right = trio.testing.memory_stream_pair()
    sent: list[bytes] = []
    seen_by_server: list[BaseException] = []

    class Watched:
        async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
            sent.append(bytes(data))
            await left.send_all(data)

        async def receive_some(self, max_bytes: int | None = None, /) -> bytes | bytearray:
            return await left.receive_some(max_bytes)

        async def aclose(self) -> None:
            await left.aclose()

    async def serve() -> None:
        try:
            await open_tls_server(right, server_context(TWO))
        except (ssl.SSLError, trio.BrokenResourceError) as error:
            seen_by_server.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(WrongKey):
            await open_tls_client(Watched(), client_context(ONE.public))
    assert len(sent) == 1 and len(seen_by_server) == 1  # the ClientHello, and nothing after it


async def test_tls_runs_inside_tls() -> None:
    async with (
        pair(*trio.testing.memory_stream_pair()) as (outer_client, outer_server),
        pair(outer_client, outer_server) as (client, server),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.send_all, bytes(200_000))
        assert await read_exactly(server, 200_000) == bytes(200_000)
