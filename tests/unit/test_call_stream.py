"""The file of calls of an executor's job: what was acknowledged is there again after a crash, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from company.chief.call_stream import INLINE_BYTES, CallStream
from company.chief.facade import Conflict
from p2p.base.errors import MalformedMessage
from p2p.base.frames import encode_frame_of


def frame(*items: bytes, header: str = "calls") -> bytes:
    return b"".join(encode_frame_of([header], items))


def opened(folder: Path) -> CallStream:
    stream = CallStream(folder / "calls", folder / "spool")
    stream.open()
    return stream


def everything(stream: CallStream) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    while (piece := stream.read(at, len(found))) is not None:
        found += [bytes(item) for item in piece.frame.cut()]
        at = piece.after
    return found


def test_calls_come_back_in_order_also_after_a_restart(tmp_path: Path) -> None:
    stream = opened(tmp_path)
    assert stream.append_untrusted(0, frame(b"a", b"bb")) == 2
    assert stream.append_untrusted(2, frame(b"")) == 3
    assert everything(stream) == [b"a", b"bb", b""]
    again = opened(tmp_path)
    assert (again.end, again.is_over) == (3, False)
    assert everything(again) == [b"a", b"bb", b""]


def test_the_same_frame_again_changes_nothing_and_a_gap_is_refused(tmp_path: Path) -> None:
    stream = opened(tmp_path)
    stream.append_untrusted(0, frame(b"a"))
    assert stream.append_untrusted(0, frame(b"a")) == 1
    with pytest.raises(Conflict) as refused:
        stream.append_untrusted(2, frame(b"c"))
    assert refused.value.code == "calls-out-of-order"
    assert everything(stream) == [b"a"]


def test_after_its_end_nothing_is_taken_also_after_a_restart(tmp_path: Path) -> None:
    stream = opened(tmp_path)
    stream.append_untrusted(0, frame(b"a"))
    stream.finish()
    stream.finish()
    for one in (stream, opened(tmp_path)):
        assert one.is_over
        with pytest.raises(Conflict, match="no more calls"):
            one.append_untrusted(1, frame(b"b"))
        assert everything(one) == [b"a"]


@pytest.mark.parametrize("lost", [1, 5, 16, 20])
def test_a_frame_that_a_crash_left_half_written_is_cut_off(tmp_path: Path, lost: int) -> None:
    stream = opened(tmp_path)
    stream.append_untrusted(0, frame(b"a"))
    whole = stream.size_bytes
    stream.append_untrusted(1, frame(b"bcd"))
    path = tmp_path / "calls"
    path.write_bytes(path.read_bytes()[:-lost])
    again = opened(tmp_path)
    assert (again.end, again.size_bytes, path.stat().st_size) == (1, whole, whole)
    assert again.append_untrusted(1, frame(b"x")) == 2
    assert everything(again) == [b"a", b"x"]


def test_a_large_call_is_handed_on_as_a_file(tmp_path: Path) -> None:
    stream = opened(tmp_path)
    large = bytes(INLINE_BYTES + 1)
    stream.append_untrusted(0, frame(b"a", large, b"c"))
    piece = stream.read(0, 10)
    assert piece is not None
    assert piece.frame.sizes.tolist() == [1, 0, 1]
    assert bytes(piece.frame.body) == b"ac"
    assert list(piece.large) == [11]
    assert piece.large[11].path.read_bytes() == large


@settings(max_examples=100, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), st.sampled_from([frame(), frame(b"a", header="end"), frame(b"a") + b"x"])))
def test_what_is_no_frame_of_calls_is_refused_and_leaves_nothing(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    stream = opened(tmp_path_factory.mktemp("stream"))
    with pytest.raises(MalformedMessage):
        stream.append_untrusted(0, data)
    assert (stream.end, stream.size_bytes) == (0, 0)
    stream.close()
