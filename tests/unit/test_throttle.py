"""A stream with a rate: no faster, shared by several, and nothing is lost where a wait is cancelled."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from company.chief.network.lending import LEAST_BANDWIDTH, Policy, bandwidth_of, checked
from p2p.base.clock import UnixTime
from p2p.base.errors import UsageError
from p2p.net.throttle import BURST_S, Pace, Throttled

RATE = 100_000


@pytest.mark.parametrize("direction", ["send", "receive"])
async def test_no_more_goes_than_the_rate_and_all_of_it_goes(autojump_clock: trio.testing.MockClock, direction: str) -> None:
    near, far = trio.testing.memory_stream_pair()
    slow, data = Throttled(near, Pace(RATE)), bytes(range(256)) * 4000  # ten seconds of it
    source, sink = (slow, far) if direction == "send" else (far, slow)
    got = bytearray()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.send_all, data)
        while len(got) < len(data):
            got += await sink.receive_some(100_000)
            took_s = trio.current_time() - began
            assert len(got) <= RATE * (took_s + BURST_S) + 2 * RATE // 10, f"{len(got)} bytes after {took_s:.2f} s"
    assert got == data
    assert took_s == pytest.approx(len(data) / RATE, rel=0.1)


async def test_two_streams_share_a_pace_and_none_waits_without_one(autojump_clock: trio.testing.MockClock) -> None:
    pace, data = Pace(RATE), bytes(RATE)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            near, _ = trio.testing.memory_stream_pair()
            nursery.start_soon(Throttled(near, pace).send_all, data)
    assert trio.current_time() - began == pytest.approx(2.0, rel=0.25)
    pace.bytes_per_s = 0
    began = trio.current_time()
    near, _ = trio.testing.memory_stream_pair()
    await Throttled(near, pace).send_all(data * 10)
    assert trio.current_time() == began


async def test_a_receive_that_is_cancelled_while_it_waits_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    slow, data = Throttled(near, Pace(RATE)), bytes(range(256)) * 1000
    got = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far.send_all, data)
        while len(got) < len(data):
            with trio.move_on_after(0.03):
                got += await slow.receive_some()
    assert got == data


def test_each_contract_has_its_slots_share_of_the_cap() -> None:
    policy = Policy(max_slots=4, bandwidth_cap=1 << 20)
    assert [bandwidth_of(policy, n) for n in (1, 2, 4, 9)] == [1 << 18, 1 << 19, 1 << 20, 1 << 20]
    assert bandwidth_of(Policy(max_slots=4), 2) == bandwidth_of(None, 2) == 0
    assert checked(policy, UnixTime(0)) is policy
    with pytest.raises(UsageError, match="--max-bandwidth"):
        checked(Policy(max_slots=4, bandwidth_cap=LEAST_BANDWIDTH - 1), UnixTime(0))
