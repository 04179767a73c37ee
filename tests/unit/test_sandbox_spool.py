"""Large items on their way to files."""

from pathlib import Path

import numpy as np
import pytest

from company.sandbox import BlobSpool, wire
from p2p.base.errors import MalformedMessage
from p2p.base.frames import Frame


def _chunk(number: object, data: bytes, last: object) -> Frame:
    return Frame([wire.CHUNK, number, last], np.array([len(data)], dtype="<u4"), memoryview(data))


def test_chunks_become_files_by_the_offset_that_the_message_names(tmp_path: Path) -> None:
    spool = BlobSpool(tmp_path)
    spool.add_untrusted(_chunk(0, b"ab", False))
    spool.add_untrusted(_chunk(0, b"c", True))
    spool.add_untrusted(_chunk(1, b"", True))
    taken = spool.take([[5, 3], [9, 0]])
    assert {offset: blob.path.read_bytes() for offset, blob in taken.items()} == {5: b"abc", 9: b""}
    assert spool.take([]) == {}


@pytest.mark.parametrize("named", [[], [[5, 2]], [[5, 3], [6, 1]], "x", [["a", 3]], [[5]]])
def test_a_message_that_names_other_blobs_is_refused(tmp_path: Path, named: object) -> None:
    spool = BlobSpool(tmp_path)
    spool.add_untrusted(_chunk(0, b"abc", True))
    with pytest.raises(MalformedMessage):
        spool.take(named)
    spool.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frame", [_chunk(1, b"", True), _chunk("0", b"", True), _chunk(0, b"", 1), _chunk(-1, b"", True)])
def test_a_chunk_out_of_turn_is_refused(tmp_path: Path, frame: Frame) -> None:
    with pytest.raises(MalformedMessage):
        BlobSpool(tmp_path).add_untrusted(frame)


def test_an_unfinished_blob_cannot_be_taken(tmp_path: Path) -> None:
    spool = BlobSpool(tmp_path)
    spool.add_untrusted(_chunk(0, b"abc", False))
    with pytest.raises(MalformedMessage):
        spool.take([[0, 3]])
    spool.discard()
