"""The stream of changes: numbered, replayable, never held up by a slow reader."""

from __future__ import annotations

import trio
import trio.testing

from company.chief.feed import COALESCE_S, KEPT, Feed


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def take(feed: Feed, after: int, count: int) -> list[int]:
    out: list[int] = []
    async for event in feed.read(after):
        out.append(event["id"])
        if len(out) == count:
            break
    return out


async def test_a_reader_gets_what_it_missed_and_then_what_comes() -> None:
    clock = Clock()
    feed = Feed(clock)
    feed.put("job", "j-1")
    feed.put("job", "j-2")
    got: list[int] = []
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            got.extend(await take(feed, 0, 3))

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        clock.now += 1
        feed.put("worker", "w-1")
    assert got == [1, 2, 3]


async def test_the_same_object_changes_at_most_so_often() -> None:
    clock = Clock()
    feed = Feed(clock)
    for _ in range(10):
        feed.put("job", "j-1")
    clock.now += COALESCE_S
    feed.put("job", "j-1")
    assert await take(feed, 0, 2) == [1, 2]


async def test_only_the_newest_are_kept() -> None:
    clock = Clock()
    feed = Feed(clock)
    for n in range(KEPT + 5):
        feed.put("job", f"j-{n}")
    assert (await take(feed, 0, 1)) == [6]


async def test_readers_end_when_the_chief_does() -> None:
    feed = Feed(Clock())
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert [e async for e in feed.read(0)] == []

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        feed.close()
