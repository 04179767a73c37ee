"""Rules of channels, on real loopback sockets: what a friend can do."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import pytest
import trio
import trio.testing

from p2p.base.errors import MalformedMessage, PeerError, Unavailable, UsageError
from p2p.base.keys import Identity
from p2p.base.schema import U64, Length, Message, registry
from p2p.net import channel as channel_module
from p2p.net import stream as stream_module
from p2p.net.channel import MAX_QUEUED_MESSAGES, Channel, RefusedByPeer
from p2p.net.hello import Refused, refusal
from p2p.net.rpc import dial, join_address, serve_rpc, split_address
from p2p.net.splice import Spliced, splice
from p2p.net.throttle import BURST_S, Pace

CHIEF, WORKER, OTHER = Identity(b"c" * 32), Identity(b"w" * 32), Identity(b"o" * 32)


@dataclass(frozen=True, slots=True)
class Say(Message, code=100):
    """A number, and any items."""

    number: U64


@dataclass(frozen=True, slots=True)
class Ask(Message, code=101):
    """A word."""

    word: Annotated[str, Length(1, 10)]


MESSAGES = registry(Say, Ask)
call = partial(dial, identity=WORKER, expected_key=CHIEF.public, purpose="worker", registry=MESSAGES)


@asynccontextmanager
async def serving(on_channel: Callable[[Channel], Awaitable[None]], **options: Any) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        options = {"identity": CHIEF, "registry": MESSAGES, **options}
        address = await nursery.start(partial(serve_rpc, host="127.0.0.1", port=0, on_channel=on_channel, **options))
        with trio.fail_after(20):
            yield address
        nursery.cancel_scope.cancel()


async def echo(channel: Channel) -> None:
    while True:
        for message, frame in await channel.receive_many():
            await channel.send(message, frame.sizes, frame.body)


def sizes_of(*sizes: int) -> Any:
    return np.array(sizes, dtype="<u4")


async def test_a_message_and_its_items_come_back_and_both_sides_know_the_others_key() -> None:
    seen: list[tuple[bytes, str]] = []

    async def on_channel(channel: Channel) -> None:
        seen.append((channel.peer_key, channel.purpose))
        await echo(channel)

    async with serving(on_channel) as address:
        channel = await call(address)
        assert channel.peer_key == CHIEF.public and channel.peer_address == address and channel.server_time > 1_700_000_000
        await channel.send(Say(7), sizes_of(1, 0, 3), [b"a", memoryview(b"bcd")])
        message, frame = await channel.receive()
        assert message == Say(7)
        assert [bytes(item) for item in frame.cut()] == [b"a", b"", b"bcd"]
        await channel.aclose()
    assert seen == [(WORKER.public, "worker")]


async def test_a_wrong_key_is_named_and_the_servers_handler_never_runs() -> None:
    ran: list[Channel] = []

    async def on_channel(channel: Channel) -> None:
        ran.append(channel)

    async with serving(on_channel) as address:
        with pytest.raises(PeerError) as raised:
            await call(address, expected_key=OTHER.public)
        assert raised.value.code == "wrong-key"
        assert raised.value.facts["actual"] == CHIEF.public.hex()
    assert ran == []


async def test_a_thousand_small_messages_share_few_writes_and_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    original = stream_module.TlsStream.send_all

    async def counted(self: Any, data: Any, /) -> None:
        nonlocal writes
        writes += 1
        await original(self, data)

    got: list[int] = []
    done = trio.Event()

    async def on_channel(channel: Channel) -> None:
        while len(got) < 1000:
            got.extend(m.number for m, _ in await channel.receive_many() if isinstance(m, Say))
        done.set()

    async with serving(on_channel) as address:
        channel = await call(address)
        monkeypatch.setattr(stream_module.TlsStream, "send_all", counted)
        for number in range(1000):
            await channel.send(Say(number))
        await done.wait()
        await channel.aclose()
    assert got == list(range(1000))
    assert writes <= 5


async def test_eight_mebibyte_frames_travel_both_ways_at_once() -> None:
    body = np.random.default_rng(1).bytes(8 << 20)
    async with serving(echo) as address:
        channel = await call(address)
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for number in range(4):
                    await channel.send(Say(number), sizes_of(len(body) - 5, 5), body)

            nursery.start_soon(send)
            for number in range(4):
                message, frame = await channel.receive()
                assert message == Say(number) and frame.body == body
        await channel.aclose()


async def test_a_channel_with_a_pace_is_no_faster_than_that() -> None:
    async with serving(echo) as address:
        channel = await call(address, pace=Pace(200_000))
        began = trio.current_time()
        await channel.send(Say(1), sizes_of(100_000), [bytes(100_000)])
        message, _ = await channel.receive()
        assert message == Say(1)
        assert trio.current_time() - began > 200_000 / 200_000 - 2 * BURST_S, "there and back, at a rate for both together"
        await channel.aclose()


async def test_many_senders_never_interleave_their_frames() -> None:
    async with serving(echo) as address:
        channel = await call(address)
        async with trio.open_nursery() as nursery:

            async def send(number: int) -> None:
                for _ in range(10):
                    await channel.send(Say(number), sizes_of(50_000), bytes([number]) * 50_000)

            for number in range(20):
                nursery.start_soon(send, number)
            for _ in range(200):
                message, frame = await channel.receive()
                assert isinstance(message, Say) and frame.body == bytes([message.number]) * 50_000
        await channel.aclose()


async def test_a_full_queue_says_would_block_and_a_waiting_send_may_be_cancelled() -> None:
    release = trio.Event()

    async def on_channel(channel: Channel) -> None:
        await release.wait()
        await echo(channel)

    async with serving(on_channel) as address:
        channel = await call(address)
        with pytest.raises(trio.WouldBlock):
            for _ in range(MAX_QUEUED_MESSAGES + 1):
                channel.send_nowait(Say(1))
        with trio.move_on_after(0.01):
            await channel.send(Say(2), sizes_of(16 << 20), bytes(16 << 20))
            await channel.send(Say(2), sizes_of(16 << 20), bytes(16 << 20))
            await channel.send(Say(2), sizes_of(16 << 20), bytes(16 << 20))
        release.set()
        message, _ = await channel.receive()
        assert message == Say(1) and channel.is_open
        await channel.aclose()


async def test_the_queue_is_bounded_in_bytes_too_but_takes_any_one_frame() -> None:
    async with serving(echo) as address:
        channel = await call(address)
        channel.send_nowait(Say(1), sizes_of(16 << 20), bytes(16 << 20))
        with pytest.raises(trio.WouldBlock):
            channel.send_nowait(Say(2), sizes_of(1 << 20), bytes(1 << 20))
        assert (await channel.receive())[0] == Say(1)
        channel.send_nowait(Say(2), sizes_of(1 << 20), bytes(1 << 20))
        assert (await channel.receive())[0] == Say(2)
        await channel.aclose()


async def test_a_frame_against_the_rules_is_refused_before_it_is_sent() -> None:
    async with serving(echo) as address:
        channel = await call(address)
        for sizes, body in ((sizes_of(2), b"x"), (sizes_of(), b"x"), (sizes_of((16 << 20) + 1), bytes((16 << 20) + 1))):
            with pytest.raises(UsageError):
                await channel.send(Say(1), sizes, body)
        await channel.send(Say(1))
        assert (await channel.receive())[0] == Say(1)
        await channel.aclose()


async def test_a_message_out_of_bounds_closes_the_channel_and_says_why() -> None:
    errors: list[MalformedMessage] = []

    async def on_channel(channel: Channel) -> None:
        try:
            await echo(channel)
        except MalformedMessage as error:
            errors.append(error)
            raise

    async with serving(on_channel) as address:
        channel = await call(address)
        await channel.send(Say(1))
        await channel.send(Ask("much too long"))
        await channel.send(Say(2))
        assert (await channel.receive())[0] == Say(1)
        with pytest.raises(RefusedByPeer) as raised:
            await channel.receive()
        assert raised.value.facts["peer_code"] == "malformed-message" and "word must be" in raised.value.text
        with pytest.raises(Unavailable):
            await channel.send(Say(3))
    assert len(errors) == 1


async def test_closing_with_a_reason_delivers_what_was_queued_and_then_the_reason() -> None:
    async def on_channel(channel: Channel) -> None:
        for number in range(3):
            await channel.send(Say(number))
        await channel.aclose(refusal("token-expired", "this token has expired", since=5))

    async with serving(on_channel) as address:
        channel = await call(address)
        assert [(await channel.receive())[0] for _ in range(3)] == [Say(0), Say(1), Say(2)]
        with pytest.raises(RefusedByPeer) as raised:
            await channel.receive()
        assert raised.value.refused.code_word == "token-expired" and raised.value.facts["peer_facts"] == {"since": 5}
        channel_2 = await call(address, registry=registry(Say, Refused))
        many: list[Message] = []
        while len(many) < 4:
            many += [m for m, _ in await channel_2.receive_many()]
        assert isinstance(many[3], Refused) and many[3].code_word == "token-expired"
        await channel_2.aclose()


async def test_the_end_of_a_connection_is_unavailable_for_receivers_and_senders() -> None:
    async def on_channel(channel: Channel) -> None:
        await channel.receive()

    async with serving(on_channel) as address:
        channel = await call(address)
        await channel.send(Say(1))
        with pytest.raises(Unavailable) as raised:
            await channel.receive()
        assert raised.value.code == "channel-closed"
        with pytest.raises(Unavailable):
            await channel.send(Say(2))
        await channel.aclose()
        await channel.aclose()


async def test_closing_does_not_wait_for_a_peer_that_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "CLOSE_DEADLINE_S", 0.2)

    async def on_channel(_channel: Channel) -> None:
        await trio.sleep_forever()

    async with serving(on_channel) as address:
        channel = await call(address)
        await channel.send(Say(1), sizes_of(16 << 20), bytes(16 << 20))
        started = trio.current_time()
        await channel.aclose()
        assert trio.current_time() - started < 2


async def test_nobody_listening_is_unreachable() -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(Unavailable) as raised:
            await call(f"127.0.0.1:{port}")
    assert raised.value.code == "unreachable"


async def test_a_server_that_says_nothing_is_a_handshake_timeout() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(Unavailable) as raised:
        await call(f"127.0.0.1:{port}", deadline_s=0.1)
    assert raised.value.code == "handshake-timeout"
    await listeners[0].aclose()


async def test_a_handler_that_fails_ends_its_own_connection_only() -> None:
    async def on_channel(channel: Channel) -> None:
        message, _ = await channel.receive()
        if message == Ask("fail"):
            raise RuntimeError("a bug in a handler")
        await channel.send(message)
        await echo(channel)

    async with serving(on_channel) as address:
        good, bad = await call(address), await call(address)
        await good.send(Say(1))
        await bad.send(Ask("fail"))
        with pytest.raises(Unavailable):
            await bad.receive()
        await good.send(Say(2))
        assert [(await good.receive())[0] for _ in range(2)] == [Say(1), Say(2)]
        await good.aclose()
        await bad.aclose()


async def test_a_newcomers_channel_runs_through_a_relay_that_cannot_read_it() -> None:
    carried: list[Spliced] = []

    async with serving(echo) as chief_address:

        async def relay(channel: Channel) -> None:
            assert channel.purpose == "relay"
            assert (await channel.receive())[0] == Ask("through")
            await channel.send(Say(0))
            stream, leftover = await channel.detach()
            host, port = split_address(chief_address)
            onward = await trio.open_tcp_stream(host, port)
            await onward.send_all(leftover)
            carried.append(await splice(stream, onward, 64 << 20))

        async with serving(relay, identity=OTHER) as relay_address:
            outer = await call(relay_address, expected_key=OTHER.public, purpose="relay")
            await outer.send(Ask("through"))
            assert (await outer.receive())[0] == Say(0)
            stream, leftover = await outer.detach()
            assert leftover == b""
            channel = await call(chief_address, through=stream)
            assert channel.peer_key == CHIEF.public
            await channel.send(Say(5), sizes_of(2 << 20), bytes(2 << 20))
            message, frame = await channel.receive()
            assert message == Say(5) and len(frame.body) == 2 << 20
            await channel.aclose()
            # The relay is no chief: a newcomer who expects the chief's key inside notices.
            outer = await call(relay_address, expected_key=OTHER.public, purpose="relay")
            await outer.send(Ask("through"))
            await outer.receive()
            stream, _ = await outer.detach()
            with pytest.raises(PeerError):
                await call(chief_address, through=stream, expected_key=OTHER.public)
    assert carried[0].ended == "closed" and carried[0].a_to_b > 2 << 20


async def test_a_relay_stops_at_its_cap() -> None:
    left_a, left_b = trio.testing.memory_stream_pair()
    right_a, right_b = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left_a.send_all, bytes(700))
        result = await splice(left_b, right_a, 500)
    assert result == Spliced(ended="cap")
    assert await right_b.receive_some() == b""


async def test_only_a_relay_channel_can_be_taken_over() -> None:
    async with serving(echo) as address:
        channel = await call(address)
        with pytest.raises(UsageError):
            await channel.detach()
        await channel.aclose()


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:-1", "host:1x"])
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        split_address(text)


def test_addresses_of_both_families_are_split_and_joined() -> None:
    for text in ("127.0.0.1:80", "[::1]:8468", "chief.example:1"):
        assert join_address(*split_address(text)) == text


def test_tls_context_is_never_shared_between_expected_keys() -> None:
    from p2p.net.tls import client_context

    one, two = client_context(CHIEF.public), client_context(OTHER.public)
    assert one is not two and one.sslobject_class is not ssl.SSLObject and one.sslobject_class is not two.sslobject_class
