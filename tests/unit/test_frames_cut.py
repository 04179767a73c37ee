"""Cutting a frame into its byte strings, and frames out of a stream."""

import os
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest

from company.sandbox.inside import pipe
from p2p.base.frames import Frame, FrameParser, encode_frame, encode_frame_of, parse_frame_untrusted


@pytest.mark.parametrize("items", [[], [b""], [b"", b""], [b"abc"], [b"a", b"", b"bc"]])
def test_a_frame_is_cut_into_just_the_items_it_was_made_of(items: list[bytes]) -> None:
    frame = parse_frame_untrusted(b"".join(encode_frame_of([1], items)))
    assert [bytes(item) for item in frame.cut()] == items


def test_a_frame_without_items_is_cut_into_none() -> None:
    assert parse_frame_untrusted(b"".join(encode_frame([1], np.empty(0, dtype="<u4")))).cut() == []


@pytest.mark.parametrize("step", [1, 15, 16, 17, 4095, 4096, 70_000, 1 << 20])
@pytest.mark.parametrize("kind", [bytes, memoryview, bytearray])
def test_frames_come_out_of_any_pieces_whole_and_of_their_own_whatever_becomes_of_those(step: int, kind: type) -> None:
    items = [[], [b"abc", b""], [bytes(range(256)) * 1200], [b"x"], [b"y" * 5000, b"z" * 100_000]]
    raw = b"".join(b"".join(encode_frame_of([number], part)) for number, part in enumerate(items))
    raw = raw if step > 20 else raw[: len(raw) // 20]
    parser = FrameParser()
    frames: list[Frame] = []
    for at in range(0, len(raw), step):
        piece = bytearray(raw[at : at + step])
        given = memoryview(piece) if kind is bytearray else kind(bytes(piece))
        missing = parser.missing_bytes
        new = parser.feed_untrusted(given)
        assert not new or missing <= len(given)
        frames += new
        piece[:] = bytes(len(piece))  # a reader may use its buffer again
    assert [frame.header for frame in frames] == [[number] for number in range(len(frames))]
    assert [[bytes(item) for item in frame.cut()] for frame in frames] == items[: len(frames)]
    assert all(frame.body.readonly for frame in frames)
    assert step <= 20 or (parser.is_idle and len(frames) == len(items))


@pytest.mark.parametrize("step", [1, 100, 5000])
def test_an_unfinished_frame_takes_little_more_memory_than_came_of_it(step: int) -> None:
    head, body = encode_frame_of([1], [bytes(8 << 20)])
    raw = (head + body)[: 1 << 18 if step > 1 else 1 << 15]
    tracemalloc.start()
    try:
        parser = FrameParser()
        for at in range(0, len(raw), step):
            assert parser.feed_untrusted(raw[at : at + step]) == []
        assert tracemalloc.get_traced_memory()[0] < 1.5 * len(raw) + 20_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("rest", [0, 5000])
def test_a_few_bytes_of_the_next_frame_do_not_keep_the_ones_before_alive(rest: int) -> None:
    head, body = encode_frame_of([1], [bytes(8 << 20)])
    parser = FrameParser()
    tracemalloc.start()
    try:
        parser.feed_untrusted(head + body + head + body[:rest])
        assert not parser.is_idle
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("items", [[b"a" * 70_000], [b"a", b"b" * 300_000, b"", b"c" * 200_000], [b"d" * 1000] * 300])
def test_a_childs_message_is_whole_however_little_the_kernel_takes_at_once(items: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    got = bytearray()

    def some(_: int, parts: Sequence[bytes]) -> int:
        taken = b"".join(parts)[:90_001]
        got.extend(taken)
        return len(taken)

    monkeypatch.setattr(os, "writev", some)
    monkeypatch.setattr(os, "write", lambda fd, part: some(fd, [part]))
    reading = os.open(os.devnull, os.O_RDONLY)
    try:
        pipe.Pipe(reading, -1).write([7, 8], items)
        monkeypatch.undo()
    finally:
        os.close(reading)
    frame = parse_frame_untrusted(bytes(got))
    assert frame.header == [7, 8]
    assert [bytes(item) for item in frame.cut()] == items
