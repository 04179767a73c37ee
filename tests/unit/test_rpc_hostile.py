"""Rules of the RPC port, on real loopback sockets: what a stranger cannot do, and the plain GET."""

from __future__ import annotations

import ssl
import struct
import urllib.error
import urllib.request
from functools import partial

import msgpack
import pytest
import trio

from p2p.base.errors import PeerError, Unavailable
from p2p.base.frames import PREAMBLE, FrameParser
from p2p.net.channel import Channel, encode_message
from p2p.net.hello import PROTOCOL, Challenge, Hello, Prove, Refused, proof_bytes
from p2p.net.rpc import RpcLimits, dial, split_address
from p2p.net.stream import TlsStream, open_tls_client, open_tls_server
from p2p.net.tls import client_context, server_context
from tests.unit.test_rpc import CHIEF, MESSAGES, OTHER, WORKER, Say, call, echo, serving

QUICK = RpcLimits(handshake_s=1.0)


async def connect(address: str) -> trio.SocketStream:
    return await trio.open_tcp_stream(*split_address(address))


async def connect_tls(address: str) -> TlsStream:
    return await open_tls_client(await connect(address), client_context(CHIEF.public))


async def read_to_end(stream: trio.SocketStream | TlsStream) -> bytes:
    got = b""
    try:
        while data := await stream.receive_some():
            got += data
    except trio.BrokenResourceError:
        pass
    return got


async def assert_serves(address: str) -> None:
    """A friend is still served."""
    channel = await call(address)
    await channel.send(Say(1))
    assert (await channel.receive())[0] == Say(1)
    await channel.aclose()


def frame(header: list[object]) -> bytes:
    packed: bytes = msgpack.packb(header)
    return PREAMBLE.pack(len(packed), 0, 0) + packed


@pytest.mark.parametrize(
    "raw", [b"", b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b"SSH-2.0-x\r\n"], ids=range(5)
)
async def test_garbage_instead_of_tls_ends_that_connection_only(raw: bytes) -> None:
    async with serving(echo, limits=QUICK) as address:
        good = await call(address)
        stream = await connect(address)
        if raw:
            try:
                await stream.send_all(raw)
            except trio.BrokenResourceError:
                pass
        await read_to_end(stream)  # ends, at the latest by the deadline
        await good.send(Say(9))
        assert (await good.receive())[0] == Say(9)
        await good.aclose()
        await assert_serves(address)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff" * 64,
        PREAMBLE.pack(1 << 30, 0, 0),
        PREAMBLE.pack(10, 0, 1 << 40),
        PREAMBLE.pack(10, 1 << 31, 0),
        PREAMBLE.pack(0, 0, 0),
        frame([99]),
        frame([1, PROTOCOL, "worker", b"short", bytes(32)]),
        frame([1]),
        frame([30, 1, 2]),
        frame([]),
        PREAMBLE.pack(5, 0, 0) + b"\xc1\xc1\xc1\xc1\xc1",
    ],
    ids=range(11),
)
async def test_garbage_instead_of_a_hello_is_refused_readably(raw: bytes) -> None:
    async with serving(echo, limits=QUICK) as address:
        stream = await connect_tls(address)
        await stream.send_all(raw)
        frames = FrameParser().feed_untrusted(await read_to_end(stream))
        assert [f.header[:2] for f in frames] == [[Refused.code, "malformed-message"]]
        await stream.aclose()
        await assert_serves(address)


@pytest.mark.parametrize("sent", [b"", frame([1, PROTOCOL, "worker", bytes(32), bytes(32)])[:-5]], ids=["nothing", "half a hello"])
async def test_a_slow_or_truncated_greeting_ends_at_the_deadline(sent: bytes) -> None:
    async with serving(echo, limits=QUICK) as address:
        stream = await connect_tls(address)
        if sent:
            await stream.send_all(sent)
        started = trio.current_time()
        await read_to_end(stream)
        assert trio.current_time() - started < 5
        await stream.aclose()
        await assert_serves(address)


async def test_the_key_must_be_proved() -> None:
    async with serving(echo, limits=QUICK) as address:
        for signer, purpose in ((OTHER, "worker"), (WORKER, "bulk")):
            stream = await connect_tls(address)
            await stream.send_all(encode_message(Hello(PROTOCOL, "worker", WORKER.public, bytes(32))))
            challenge = Challenge.parse_untrusted(FrameParser().feed_untrusted(await stream.receive_some())[0].header)
            await stream.send_all(encode_message(Prove(signer.sign(proof_bytes(purpose, bytes(32), challenge.nonce, CHIEF.public)))))
            answer = FrameParser().feed_untrusted(await read_to_end(stream))
            assert answer[0].header[:2] == [Refused.code, "bad-proof"]
            await stream.aclose()


async def test_a_caller_of_another_version_reads_which() -> None:
    async with serving(echo, limits=QUICK) as address:
        stream = await connect_tls(address)
        await stream.send_all(frame([1, PROTOCOL + 1, "worker", bytes(32), bytes(32), "a field of the future"]))
        refused = Refused.parse_untrusted(FrameParser().feed_untrusted(await read_to_end(stream))[0].header)
        assert refused.code_word == "version-mismatch" and f"you speak {PROTOCOL + 1}" in refused.text
        await stream.aclose()


@pytest.mark.parametrize("reply", [encode_message(Challenge(PROTOCOL + 1, bytes(32)))[0], None], ids=["challenge", "refusal"])
async def test_a_server_of_another_version_is_told_readably(reply: bytes | None) -> None:
    from p2p.net.hello import refusal

    async def serve_once(transport: trio.SocketStream) -> None:
        stream = await open_tls_server(transport, server_context(CHIEF))
        await stream.receive_some()
        await stream.send_all(reply or encode_message(refusal("version-mismatch", "this side speaks 2", protocol=PROTOCOL + 1)))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve_once, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(PeerError) as raised:
            await dial(f"127.0.0.1:{port}", identity=WORKER, expected_key=CHIEF.public, purpose="worker", registry=MESSAGES)
        assert raised.value.code == "version-mismatch"
        assert f"speaks protocol {PROTOCOL + 1}, this side speaks {PROTOCOL}" in raised.value.text and raised.value.hint
        nursery.cancel_scope.cancel()


async def test_an_authenticated_peer_may_not_exceed_a_frame_either() -> None:
    async with serving(echo) as address:
        channel = await call(address)
        await channel._stream.send_all(struct.pack("<IIQ", 3, 0, 1 << 40) + b"\x92\x64\x01")
        with pytest.raises(PeerError) as raised:
            await channel.receive()
        assert raised.value.facts["peer_code"] == "malformed-message"
        await assert_serves(address)


async def test_a_frame_cut_off_by_the_end_is_unavailable_not_a_message() -> None:
    ended: list[str] = []
    done = trio.Event()

    async def on_channel(channel: Channel) -> None:
        try:
            await channel.receive()
        except Unavailable as error:
            ended.append(error.text)
            done.set()

    async with serving(on_channel) as address:
        channel = await call(address)
        await channel._stream.send_all(struct.pack("<IIQ", 3, 0, 100) + b"\x92\x64\x01")
        await channel.aclose()
        await done.wait()
    assert "in the middle of a message" in ended[0]


async def test_connections_over_the_limit_are_closed_and_places_come_back() -> None:
    async with serving(echo, limits=RpcLimits(per_address=2, handshake_s=5)) as address:
        one, two = await call(address), await call(address)
        with pytest.raises(Unavailable) as raised:
            await call(address)
        assert raised.value.code == "unreachable"
        await one.aclose()
        with trio.fail_after(5):
            while True:
                try:
                    three = await call(address)
                    break
                except Unavailable:
                    await trio.lowlevel.checkpoint()
        await two.aclose()
        await three.aclose()


async def test_a_port_in_use_is_named() -> None:
    async with serving(echo) as address:
        with pytest.RaisesGroup(pytest.RaisesExc(Unavailable, match=address), allow_unwrapped=True, flatten_subgroups=True):
            from p2p.net.rpc import serve_rpc

            host, port = split_address(address)
            await serve_rpc(identity=CHIEF, host=host, port=port, registry=MESSAGES, on_channel=echo)


# ---- the plain GET -----------------------------------------------------------------------------------------------------------
async def wheelhouse(path: str) -> tuple[int, str, bytes]:
    if path == "/big":
        return 200, "application/octet-stream", bytes(range(256)) * 4096
    if path == "/fail":
        raise RuntimeError("a bug")
    return (200, "text/plain", path.encode()) if path.startswith("/install/") else (404, "text/plain", b"no such file\n")


def fetch(address: str, path: str, method: str = "GET") -> tuple[int, bytes]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(f"https://{address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


async def test_a_plain_get_over_the_rpc_port_is_answered_and_channels_go_on() -> None:
    async with serving(echo, http_get=wheelhouse) as address:
        for path, method, want in (
            ("/install/a%2Bb.whl?x=1", "GET", (200, b"/install/a+b.whl")),
            ("/big", "GET", (200, bytes(range(256)) * 4096)),
            ("/big", "HEAD", (200, b"")),
            ("/none", "GET", (404, b"no such file\n")),
            ("/fail", "GET", (500, b"internal error\n")),
        ):
            assert await trio.to_thread.run_sync(fetch, address, path, method) == want
        assert (await trio.to_thread.run_sync(fetch, address, "/install/..%2f..%2fetc"))[0] == 400
        await assert_serves(address)


async def test_a_request_that_is_too_large_or_never_ends_is_refused() -> None:
    async with serving(echo, http_get=wheelhouse, limits=QUICK) as address:
        for sent in (b"GET /" + b"x" * 20_000, b"GET /install/x HTTP/1.1\r\nSlow: "):
            stream = await connect_tls(address)
            await stream.send_all(sent)
            assert (await read_to_end(stream)).startswith(b"HTTP/1.1 400 ")
            await stream.aclose()
        await assert_serves(address)


async def test_without_http_get_a_plain_get_is_no_hello() -> None:
    async with serving(echo, limits=QUICK) as address:
        stream = await connect_tls(address)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert FrameParser().feed_untrusted(await read_to_end(stream))[0].header[0] == Refused.code
        await stream.aclose()


def test_the_proof_names_purpose_nonces_and_server() -> None:
    base = ("worker", b"1" * 32, b"2" * 32, CHIEF.public)
    others = [("bulk", *base[1:]), ("worker", b"3" * 32, *base[2:]), (*base[:2], b"3" * 32, base[3]), (*base[:3], OTHER.public)]
    assert len({proof_bytes(*parts) for parts in (base, *others)}) == 5
