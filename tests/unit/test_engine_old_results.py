"""A result of before a restart counts only if it belongs to the fragments that split yields now."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from company.chief.digests import range_digest
from company.chief.engine import Engine
from company.chief.window import MIN_WINDOW_BYTES, WINDOW_BYTES, FragmentWindow, window_limit
from company.messages import Outcome

SIZES = np.array([3, 3], dtype="<u4")


def digest_of(body: bytes) -> bytes:
    return range_digest(SIZES, [memoryview(body)])


@pytest.mark.parametrize(
    ("first", "digest", "verdict"),
    [
        (0, digest_of(b"abcdef"), "same"), (0, digest_of(b"abcxyz"), "differs"), (0, b"", "unverifiable"),
        (7, digest_of(b"abcdef"), "later"),
    ],
)  # fmt: skip
def test_what_the_worker_was_sent_is_compared_with_what_split_yields_now(first: int, digest: bytes, verdict: str) -> None:
    window = FragmentWindow()
    window.add(0, SIZES, memoryview(b"abcdef"))
    message = Outcome(5, "j-1", first, 2, True, 1, 1, 1, 0, (), digest)
    assert Engine._check_old(None, SimpleNamespace(window=window), message) == verdict  # type: ignore[arg-type]


def test_a_fragment_released_twice_does_not_take_others_with_it() -> None:
    """Released by the comparison with what split makes again, and by the commit that ends a moment later."""
    window = FragmentWindow()
    window.add(0, SIZES, memoryview(b"abcdef"))
    window.release(0, 1)
    window.release(0, 1)
    assert window.has(1, 1)
    assert bytes(window.cut(1, 1)[1][0]) == b"def"
    window.release(0, 2)
    assert not window.has(1, 1)
    assert window.held_bytes == 0


def test_a_window_is_as_wide_as_its_slots_need_and_all_jobs_share_it() -> None:
    assert window_limit(2, 1) == 16 << 20
    assert window_limit(100, 1) == WINDOW_BYTES
    assert window_limit(100, 4) == WINDOW_BYTES // 4
    assert window_limit(0, 0) == window_limit(2, 1) // 2
    assert window_limit(1, 1000) == MIN_WINDOW_BYTES
