"""Cutting a frame into its byte strings."""

import numpy as np
import pytest

from p2p.base.frames import encode_frame, encode_frame_of, parse_frame_untrusted


@pytest.mark.parametrize("items", [[], [b""], [b"", b""], [b"abc"], [b"a", b"", b"bc"]])
def test_a_frame_is_cut_into_just_the_items_it_was_made_of(items: list[bytes]) -> None:
    frame = parse_frame_untrusted(b"".join(encode_frame_of([1], items)))
    assert [bytes(item) for item in frame.cut()] == items


def test_a_frame_without_items_is_cut_into_none() -> None:
    assert parse_frame_untrusted(b"".join(encode_frame([1], np.empty(0, dtype="<u4")))).cut() == []
