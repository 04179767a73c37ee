"""What is held until the chief has it, and what a child's frames may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

from company import messages as m
from company.sandbox import wire
from company.worker.frames import Expected, outcome_untrusted, preview_of, short_text, words_untrusted
from company.worker.large import LargeResults
from company.worker.results import PART_OVERHEAD_BYTES, WINDOW_BYTES, HeldBlob, HeldResults, Part
from p2p.base.codec import encode_value
from p2p.base.errors import MalformedMessage
from p2p.base.frames import Frame


def part(token: int, first: int, body: bytes = b"", *, last: bool = False) -> Part:
    sizes = np.array([len(body)], dtype="<u4")
    return Part(token, m.Outcome(token, "j", first, 1, last, 0, 0, 0, 0, ()), sizes, body)


def sent(results: HeldResults) -> list[tuple[int, int | None]]:
    out: list[tuple[int, int | None]] = []
    while (found := results.next_unsent()) is not None:
        results.mark_sent(found)
        out.append((found.token, found.first))
    return out


def test_parts_are_sent_in_order_and_again_after_a_rewind(tmp_path: Path) -> None:
    results = HeldResults(tmp_path)
    for key in ((1, 0), (2, 5), (1, 3)):
        results.add(part(*key))
    assert sent(results) == [(1, 0), (2, 5), (1, 3)]
    results.forget_part(1, 0)
    results.rewind()
    assert sent(results) == [(1, 3), (2, 5)]
    results.forget_lease(1)
    results.forget_lease(2)
    results.rewind()
    assert sent(results) == [] and results.memory_bytes == 0
    results.validate()


def test_a_forgotten_part_that_was_not_sent_is_never_sent(tmp_path: Path) -> None:
    results = HeldResults(tmp_path)
    results.add(part(1, 0))
    results.add(part(1, 1))
    results.forget_part(1, 0)
    assert sent(results) == [(1, 1)]


def test_so_much_is_sent_ahead_of_acknowledgements_and_a_larger_part_goes_alone(tmp_path: Path) -> None:
    results = HeldResults(tmp_path)
    woken: list[int] = []
    results.on_acked = lambda: woken.append(results.in_flight_bytes)
    half = bytes(WINDOW_BYTES // 2 - PART_OVERHEAD_BYTES - 4)
    for first, body in ((0, half), (1, half), (2, b"small"), (3, bytes(WINDOW_BYTES + 1)), (4, b"last")):
        results.add(part(1, first, body))
    assert sent(results) == [(1, 0), (1, 1)]
    results.forget_part(1, 0)
    assert woken == [WINDOW_BYTES // 2]
    assert sent(results) == [(1, 2)]
    results.forget_part(1, 1)
    assert sent(results) == []
    results.forget_part(1, 2)
    assert sent(results) == [(1, 3)]
    results.validate()
    results.rewind()
    assert results.in_flight_bytes == 0
    assert sent(results) == [(1, 3)]
    results.forget_lease(1)
    assert sent(results) == [] and results.in_flight_bytes == 0
    results.validate()


def test_parts_of_a_lease_whose_blobs_are_on_their_way_wait_and_others_pass(tmp_path: Path) -> None:
    results = HeldResults(tmp_path)
    for key in ((1, 0), (1, 1), (2, 0)):
        results.add(part(*key))
    found = results.next_unsent({1})
    assert found is not None and found.token == 2
    results.mark_sent(found)
    assert results.next_unsent({1}) is None
    assert sent(results) == [(1, 0), (1, 1)]


def test_past_its_memory_results_go_to_files_and_come_back_whole(tmp_path: Path) -> None:
    results = HeldResults(tmp_path / "results", memory_limit=3000)
    bodies = [bytes([n]) * 1000 for n in range(5)]
    for first, body in enumerate(bodies):
        results.add(part(1, first, body))
    results.validate()
    assert results.memory_bytes <= 3000 and len(list((tmp_path / "results").iterdir())) == 4
    assert [bytes(results.body_of(p)) for p in results.parts_of(1)] == bodies
    results.forget_lease(1)
    assert list((tmp_path / "results").iterdir()) == [] and results.spool_bytes == results.memory_bytes == 0


async def test_with_memory_and_files_full_the_slots_wait_until_something_is_acknowledged(tmp_path: Path) -> None:
    results = HeldResults(tmp_path, memory_limit=1, spool_limit=2500)
    results.add(part(1, 0, b"x" * 1500))
    await results.wait_room()
    results.add(part(1, 1, b"x" * 1500))
    passed = trio.Event()

    async def wait() -> None:
        await results.wait_room()
        passed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not passed.is_set()
        results.forget_part(1, 0)
        with trio.fail_after(1):
            await passed.wait()


def test_a_full_disk_keeps_results_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    results = HeldResults(tmp_path / "file" / "no-folder", memory_limit=10)
    results.add(part(1, 0, b"x" * 1000))
    assert results.memory_bytes == 1000 + 4 + PART_OVERHEAD_BYTES
    assert bytes(results.body_of(results.parts_of(1)[0])) == b"x" * 1000


def test_a_forgotten_lease_takes_its_large_results_with_it(tmp_path: Path) -> None:
    path = tmp_path / "blob-1"
    path.write_bytes(b"12345")
    results = HeldResults(tmp_path)
    one = part(1, 0)
    one.blobs = (HeldBlob(0, 5, b"", path),)
    results.add(one)
    results.validate()
    results.forget_lease(1)
    assert not path.exists() and results.spool_bytes == 0


# ---- a child's frames ---------------------------------------------------------------------------------------------------------
WANT = Expected(7, 12, 20)


def outcome(
    token: Any = 7, first: Any = 12, count: Any = 2, last: Any = False, *, status: bytes | None = None, blobs: Any = (), **more: Any
) -> Frame:
    n = count if type(count) is int and 0 <= count < 100 else 0
    status = bytes(n) if status is None else status
    items = [status, bytes(more.get("durations", 4 * n)), b"", *[b"r"] * n]
    items = more.get("items", items)
    for blob in blobs if isinstance(blobs, list) else []:
        items[3 + blob[0]] = b""
    header = [wire.OUTCOME, token, first, count, last, more.get("run_us", 0), 0, 0, 0, list(blobs) if isinstance(blobs, tuple) else blobs]
    sizes = np.array([len(i) for i in items], dtype="<u4")
    return Frame(more.get("header", header), sizes, memoryview(b"".join(items)))


def test_a_good_outcome_is_read() -> None:
    got = outcome_untrusted(outcome(count=8, last=True, blobs=[[1, 5 << 20]]), WANT)
    assert (got.first, got.count, got.last, got.blobs) == (12, 8, True, ((1, 5 << 20),))


@pytest.mark.parametrize(
    "frame",
    [
        outcome(token=8),
        outcome(first=11),
        outcome(first=13),
        outcome(count=9),
        outcome(count=2, last=True),  # ends before the batch does
        outcome(count=-1),
        outcome(count=True),
        outcome(last=1),
        outcome(run_us=-1),
        outcome(run_us=2**64),
        outcome(status=b"\0\2"),
        outcome(status=b"\0"),
        outcome(durations=7),
        outcome(items=[b"\0\0", bytes(8), b""]),
        outcome(header=[wire.OUTCOME]),
        outcome(header=[wire.OUTCOME, *[0] * 12]),
        outcome(blobs=None),
        outcome(blobs=[[0, -1]]),
        outcome(blobs=[[0, 2**32]]),
        outcome(blobs=[[1, 5], [0, 5]]),
        outcome(blobs=[[0, 5], [0, 5]]),
    ],
)  # fmt: skip
def test_an_outcome_that_is_not_what_the_lease_allows_is_refused(frame: Frame) -> None:
    with pytest.raises(MalformedMessage):
        outcome_untrusted(frame, WANT)


def test_a_blob_whose_item_is_not_empty_is_refused() -> None:
    frame = outcome(count=2)
    frame.header[9] = [[0, 5]]
    with pytest.raises(MalformedMessage):
        outcome_untrusted(frame, WANT)


@pytest.mark.parametrize("words", [[1], [1, 2, 3], ["x", "y"], [1, True], [-1, "y"], [2**64, "y"], [True, "y"]])
def test_small_frames_have_exact_types(words: list[Any]) -> None:
    with pytest.raises(MalformedMessage):
        words_untrusted(Frame([23, *words], np.empty(0, dtype="<u4"), memoryview(b"")), (int, str), 0)


def chunk(number: int, data: bytes, *, last: bool) -> Frame:
    return Frame([wire.CHUNK, number, last], np.array([len(data)], dtype="<u4"), memoryview(data))


def spools(folder: Path) -> LargeResults:
    names = iter(range(100))
    return LargeResults(lambda: folder / f"blob-{next(names)}")


async def test_large_results_are_those_that_came(tmp_path: Path) -> None:
    large = spools(tmp_path)
    await large.on_chunk_untrusted(chunk(0, b"abc", last=False))
    await large.on_chunk_untrusted(chunk(0, b"de", last=True))
    await large.on_chunk_untrusted(chunk(1, b"f", last=True))
    held = large.take_untrusted(outcome_untrusted(outcome(blobs=[[0, 5], [1, 1]]), WANT))
    assert [(h.index, h.size, h.path.read_bytes()) for h in held] == [(12, 5, b"abcde"), (13, 1, b"f")]


@pytest.mark.parametrize("blobs", [[], [[0, 4]], [[0, 5], [1, 1]]])
async def test_an_outcome_that_names_other_blobs_is_refused(tmp_path: Path, blobs: list[Any]) -> None:
    large = spools(tmp_path)
    await large.on_chunk_untrusted(chunk(0, b"abcde", last=True))
    with pytest.raises(MalformedMessage):
        large.take_untrusted(outcome_untrusted(outcome(blobs=blobs), WANT))
    large.drop()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("numbers", [(1,), (0, 0), (0, 2)])
async def test_chunks_out_of_order_are_refused(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    large = spools(tmp_path)
    with pytest.raises(MalformedMessage):
        for number in numbers:
            await large.on_chunk_untrusted(chunk(number, b"x", last=True))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1, "1"), ("text", "'text'"), ((1, "a"), "(1, 'a')"), ({"k": [None, True]}, "{'k': [None, True]}"),
        (np.arange(3), "<value of kind 11, "), (2**100, "<value of kind 2, "),
    ],
)  # fmt: skip
def test_a_preview_shows_plain_values_and_names_the_others(value: Any, shown: str) -> None:
    assert preview_of(encode_value(value)).startswith(shown)


def test_a_preview_of_anything_is_a_short_text() -> None:
    for data in (b"", b"\xc1", b"\x91" * 5000, encode_value("x" * 100_000), encode_value("ü" * 3000)):
        assert len(preview_of(data).encode()) <= 512
    assert short_text("\ud800abc", 3) == "?ab"
