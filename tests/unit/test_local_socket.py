"""Rules of channels within a machine, on real sockets: both keys are proved, no other user is answered, nothing is left behind."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

from company import messages as m
from company.worker.dialling import Dialler
from p2p.base.errors import MalformedMessage, PeerError, Unavailable
from p2p.net import channel as channel_module
from p2p.net import local
from p2p.net.channel import Channel, ExactReader, RefusedByPeer, encode_message
from p2p.net.endings import Endings
from p2p.net.hello import NONCE_BYTES, PROTOCOL, Challenge, Hello, Prove, ProveServer, Refused, Welcome, local_proof_bytes, proof_bytes
from p2p.net.rpc import PORT, RpcLimits
from p2p.net.stream import PlainStream
from tests.unit.test_rpc import CHIEF, MESSAGES, OTHER, WORKER, Say, echo, sizes_of
from tests.unit.test_rpc import serving as serving_port
from tests.unit.test_rpc_hostile import frame, read_to_end

call = partial(local.dial_local, identity=WORKER, expected_key=CHIEF.public, purpose="worker", registry=MESSAGES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A name of more than the 108 bytes that a socket's address has."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir(mode=0o700)
    return folder / "rpc.sock"


@asynccontextmanager
async def serving(path: Path, on_channel: Callable[[Channel], Awaitable[None]] = echo, **options: Any) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        options = {"identity": CHIEF, "registry": MESSAGES, **options}
        await nursery.start(partial(local.serve_local, path=path, on_channel=on_channel, **options))
        with trio.fail_after(20):
            yield
        nursery.cancel_scope.cancel()


async def connect(path: Path) -> trio.SocketStream:
    with local._short_name(path) as name:
        return await trio.open_unix_socket(name)


@asynccontextmanager
async def answering(path: Path, answer: Callable[[Hello], list[Any]]) -> AsyncIterator[trio.MemoryReceiveChannel[bytes]]:
    """A server that is not ours; yields what else the caller sent it."""
    put, heard = trio.open_memory_channel[bytes](1)

    async def serve(stream: trio.SocketStream) -> None:
        hello = await ExactReader(PlainStream(stream)).read_frame_untrusted()
        assert hello is not None
        await stream.send_all(b"".join(part for message in answer(Hello.parse_untrusted(hello.header)) for part in encode_message(message)))
        put.send_nowait(await read_to_end(stream))

    async with trio.open_nursery() as nursery:
        listening = trio.SocketListener(await local._listen(path))
        nursery.start_soon(trio.serve_listeners, serve, [listening])
        with trio.fail_after(20):
            yield heard
        nursery.cancel_scope.cancel()


async def test_what_is_sent_comes_back_both_know_the_others_key_and_the_file_goes_with_its_server(path: Path) -> None:
    seen: list[tuple[bytes, str, str]] = []

    async def on_channel(channel: Channel) -> None:
        seen.append((channel.peer_key, channel.purpose, channel.peer_address))
        await echo(channel)

    body = np.random.default_rng(1).bytes(8 << 20)
    async with serving(path, on_channel):
        assert path.stat().st_mode & 0o777 == 0o600
        channel = await call(path)
        assert channel.peer_key == CHIEF.public
        for number in range(3000):  # more buffers than one system call takes
            await channel.send(Say(number), sizes_of(1), b"x")
        await channel.send(Say(3000), sizes_of(5, len(body) - 5), [memoryview(body)[:5], memoryview(body)[5:]])
        got = [await channel.receive() for _ in range(3001)]
        assert [message.number for message, _ in got if isinstance(message, Say)] == list(range(3001))
        assert bytes(got[-1][1].body) == body
        await channel.aclose()
    assert seen == [(WORKER.public, "worker", "127.0.0.1:0")]
    assert not path.exists()


async def test_a_server_with_another_key_is_told_from_the_one_that_is_expected(path: Path) -> None:
    ran: list[Channel] = []

    async def on_channel(channel: Channel) -> None:
        ran.append(channel)

    async with serving(path, on_channel, identity=OTHER):
        with pytest.raises(PeerError) as raised:
            await call(path)
        assert raised.value.code == "wrong-key"
    assert ran == []


@pytest.mark.parametrize("what", ["signed by another", "for other nonces", "for another purpose", "as a caller's", "none"])
async def test_what_does_not_prove_the_servers_key_gets_no_proof_of_ours(path: Path, what: str) -> None:
    nonce = b"n" * NONCE_BYTES

    def answer(hello: Hello) -> list[Any]:
        said = {
            "signed by another": (OTHER, local_proof_bytes(hello.purpose, hello.nonce, nonce, CHIEF.public)),
            "for other nonces": (CHIEF, local_proof_bytes(hello.purpose, nonce, hello.nonce, CHIEF.public)),
            "for another purpose": (CHIEF, local_proof_bytes("join", hello.nonce, nonce, CHIEF.public)),
            "as a caller's": (CHIEF, proof_bytes(hello.purpose, hello.nonce, nonce, CHIEF.public)),
        }.get(what)
        shown = [] if said is None else [ProveServer(said[0].sign(said[1]))]
        return [Challenge(PROTOCOL, nonce), *shown, Welcome(1)]

    async with answering(path, answer) as heard:
        with pytest.raises((PeerError, MalformedMessage)) as raised:
            await call(path)
        assert what == "none" or raised.value.code == "wrong-key"
        assert await heard.receive() == b""


async def test_a_caller_that_cannot_prove_its_key_is_not_let_in(path: Path) -> None:
    async with serving(path):
        stream = await connect(path)
        await stream.send_all(b"".join(encode_message(Hello(PROTOCOL, "worker", WORKER.public, b"n" * NONCE_BYTES))))
        await stream.send_all(b"".join(encode_message(Prove(OTHER.sign(b"x")))))
        assert b"bad-proof" in await read_to_end(stream)
        await (await call(path)).aclose()


@pytest.mark.parametrize("side", ["caller", "server"])
async def test_a_process_of_another_user_is_told_nothing(path: Path, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endings = Endings()
    monkeypatch.setattr(local, "_uid_of", lambda _: os.geteuid() + 1)
    if side == "caller":
        async with serving(path, endings=endings):
            assert await read_to_end(await connect(path)) == b""
            assert endings.counts[PORT, "another-user"] == 1
    else:
        async with answering(path, lambda _: []):
            with pytest.raises(PeerError) as raised:
                await call(path)
            assert raised.value.code == "another-user"


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o777])
async def test_a_folder_that_others_may_enter_is_used_by_neither_side(path: Path, mode: int) -> None:
    async with serving(path):
        path.parent.chmod(mode)
        with pytest.raises(PeerError) as raised:
            await call(path)
        assert raised.value.code == "folder-not-private"
    with trio.fail_after(5), pytest.raises(Unavailable) as refused:
        await local.serve_local(identity=CHIEF, path=path, registry=MESSAGES, on_channel=echo)
    assert refused.value.code == "local-socket"


async def test_a_link_in_place_of_the_folder_is_not_followed(path: Path, tmp_path: Path) -> None:
    async with serving(path):
        (tmp_path / "link").symlink_to(path.parent)
        with pytest.raises((PeerError, Unavailable)):
            await call(tmp_path / "link" / path.name)


@pytest.mark.parametrize("left", ["nothing", "socket", "file", "no folder"])
async def test_where_nobody_serves_the_caller_hears_it_at_once_and_a_server_takes_the_place(path: Path, left: str) -> None:
    if left == "socket":
        with local._short_name(path) as name, socket.socket(socket.AF_UNIX) as dead:
            dead.bind(name)  # of a process that was killed
    elif left == "file":
        path.write_text("x")
    elif left == "no folder":
        path = path.parent / "none" / "rpc.sock"
    with trio.fail_after(2), pytest.raises(Unavailable):
        await call(path)
    if left != "no folder":
        async with serving(path):
            await (await call(path)).aclose()


@pytest.mark.parametrize(
    "raw", [b"", b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 70_000, frame([1, 2]), frame([100, 1])], ids=range(6)
)
async def test_garbage_ends_that_connection_only(path: Path, raw: bytes) -> None:
    async with serving(path, limits=RpcLimits(handshake_s=1.0)):
        good = await call(path)
        stream = await connect(path)
        if raw:
            try:
                await stream.send_all(raw)
            except trio.BrokenResourceError:
                pass
        await read_to_end(stream)  # ends, at the latest by the deadline
        await good.send(Say(9))
        assert (await good.receive())[0] == Say(9)
        await good.aclose()


async def test_no_more_connections_are_held_than_the_limit(path: Path) -> None:
    async with serving(path, limits=RpcLimits(connections=2, per_address=2)):
        held = [await call(path) for _ in range(2)]
        with pytest.raises(Unavailable):
            await call(path)
        for channel in held:
            await channel.aclose()


async def test_a_send_that_was_cancelled_ends_the_stream() -> None:
    left, right = trio.socket.socketpair()
    stream, reader = PlainStream(trio.SocketStream(left)), trio.SocketStream(right)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, b"x" * (32 << 20))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with trio.fail_after(5), pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        await stream.send_all(b"more")
    assert set(await read_to_end(reader)) == {ord("x")}
    await reader.aclose()


async def test_a_dialler_takes_the_socket_whenever_it_is_there_and_the_port_else(path: Path) -> None:
    async with serving_port(echo, registry=m.MESSAGES) as address:
        dialler = Dialler(WORKER, chief_key=CHIEF.public, addresses=(address,), via=None, socket=path)

        async def way() -> str:
            channel = await dialler.open("worker")
            await channel.aclose()
            return channel.peer_address

        assert await way() == address
        async with serving(path):
            assert await way() == str(path)
        assert await way() == address
        async with serving(path, identity=OTHER):  # another chief's
            assert await way() == address
        async with serving(path):
            assert await way() == str(path)


async def test_a_refusal_by_the_socket_is_the_chiefs_word(path: Path) -> None:
    async with serving_port(echo, registry=m.MESSAGES) as address, answering(path, lambda _: [Refused("worker-removed", "go", b"")]):
        dialler = Dialler(WORKER, chief_key=CHIEF.public, addresses=(address,), via=None, socket=path)
        with pytest.raises(RefusedByPeer):
            await dialler.open("worker")


async def test_a_channel_whose_other_end_reads_nothing_can_be_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "CLOSE_DEADLINE_S", 0.1)

    async def deaf(_: Channel) -> None:
        await trio.sleep_forever()

    async with serving(path, deaf):
        channel = await call(path)
        await channel.send(Say(1), sizes_of(15 << 20), bytes(15 << 20))
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            await channel.aclose()
        assert not channel.is_open


async def test_a_system_that_does_not_name_the_other_end_has_no_such_channels(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with trio.fail_after(5), pytest.raises(Unavailable):
        await local.serve_local(identity=CHIEF, path=path, registry=MESSAGES, on_channel=echo)
    with pytest.raises(Unavailable):
        await call(path)
