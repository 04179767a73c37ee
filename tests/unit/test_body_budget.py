"""Bodies of many callers together have a bound, and what streams needs no memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from company import messages as m
from company.chief.facade import Conflict, Invalid
from company.chief.leases import Lease
from company.chief.rest_fragments import PIECE_BYTES, fragments_of, run_frame
from company.chief.runtime import JobRuntime
from company.chief.window import FragmentWindow, Large
from company.worker.blob_sink import BlobSink
from p2p.base.clock import Monotonic
from p2p.base.errors import MalformedMessage, Unavailable
from p2p.base.frames import encode_frame_of, parse_frame_untrusted
from p2p.net.body_budget import BodyBudget
from p2p.net.http_types import BodyTooLarge


def test_a_body_has_a_bound_and_all_together_have_one() -> None:
    budget = BodyBudget(max_body_bytes=10, total_bytes=25)
    with pytest.raises(BodyTooLarge):
        budget.reserve(11)
    with budget.reserve(10) as first, budget.reserve(None):  # whoever does not say how much may bring all that is allowed
        with pytest.raises(Unavailable) as caught:
            budget.reserve(6)
        assert caught.value.code == "bodies-full"
        with budget.reserve(5):
            assert budget.used_bytes == 25
        first.release()
        assert budget.used_bytes == 10
    assert budget.used_bytes == 0


LEASE = Lease(
    token=5, slot=("w", 0), job="j", first=0, count=4, attempt=1, granted_at=Monotonic(0.0), running_since=None, expires_at=None
)  # fmt: skip


def window_with_a_large_one(path: Path, size: int) -> tuple[JobRuntime, list[bytes]]:
    big = bytes(range(256)) * (size // 256)
    path.write_bytes(big)
    window = FragmentWindow()
    window.add(0, np.array([3, 0], dtype="<u4"), memoryview(b"abc"), {1: Large(path, len(big), b"d" * 32)})
    window.add(2, np.array([2, 1], dtype="<u4"), memoryview(b"dee"))
    return cast(JobRuntime, SimpleNamespace(window=window)), [b"abc", big, b"de", b"e"]


async def test_fragments_are_sent_piece_by_piece_and_spooled_ones_read_on_the_way(tmp_path: Path) -> None:
    runtime, items = window_with_a_large_one(tmp_path / "big", 3 * PIECE_BYTES)
    for first, count in ((0, 4), (1, 1), (2, 2), (0, 2)):
        made = fragments_of(LEASE, runtime, "w", "j", first, count)
        pieces = [piece async for piece in made.pieces]
        assert max(map(len, pieces)) <= PIECE_BYTES
        whole = b"".join(pieces)
        assert len(whole) == made.size
        frame = parse_frame_untrusted(whole)
        assert [bytes(item) for item in frame.cut()] == items[first : first + count]
        assert m.Run.parse_untrusted(frame.header).first == first
    again = parse_frame_untrusted(run_frame(LEASE, runtime).data)  # the Run as it was sent names what is spooled
    assert [len(item) for item in again.cut()] == [3, 0, 2, 1]


async def test_a_spooled_fragment_that_shrank_cuts_the_answer(tmp_path: Path) -> None:
    runtime, _ = window_with_a_large_one(tmp_path / "big", 512)
    made = fragments_of(LEASE, runtime, "w", "j", 1, 1)
    (tmp_path / "big").write_bytes(b"short")
    with pytest.raises(OSError, match="shorter"):
        [piece async for piece in made.pieces]


@pytest.mark.parametrize(("given", "error"), [(("x", "j", 0, 1), Conflict), (("w", "x", 0, 1), Conflict), (("w", "j", 3, 2), Invalid)])
def test_only_the_holder_of_a_lease_gets_its_fragments(tmp_path: Path, given: tuple[str, str, int, int], error: type[Exception]) -> None:
    runtime, _ = window_with_a_large_one(tmp_path / "big", 512)
    with pytest.raises(error):
        fragments_of(LEASE, runtime, *given)
    with pytest.raises(Conflict):
        fragments_of(None, runtime, "w", "j", 0, 1)


def frame(*items: bytes) -> bytes:
    head, body = encode_frame_of(m.Run(5, 0, "j", 1, len(items), 1, ()).as_array(), list(items))
    return head + body


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_large_fragment_goes_to_its_file_in_whatever_pieces_it_comes(tmp_path: Path, step: int) -> None:
    item = bytes(range(250)) * 4
    data = frame(item)
    with BlobSink(tmp_path / "f", len(item)) as sink:
        for at in range(0, len(data), step):
            sink.feed_untrusted(data[at : at + step])
        assert sink.digest() == hashlib.blake2b(item, digest_size=32).digest()
    assert (tmp_path / "f").read_bytes() == item


@pytest.mark.parametrize("data", [frame(b"abcd"), frame(b"a", b"b"), frame(b"abc") + b"x", b"\0" * 40])
def test_another_frame_than_announced_is_refused(tmp_path: Path, data: bytes) -> None:
    with BlobSink(tmp_path / "f", 3) as sink, pytest.raises(MalformedMessage):
        sink.feed_untrusted(data)


def test_a_fragment_cut_short_has_no_digest(tmp_path: Path) -> None:
    with BlobSink(tmp_path / "f", 3) as sink:
        sink.feed_untrusted(frame(b"abc")[:-1])
        assert sink.digest() == b""
