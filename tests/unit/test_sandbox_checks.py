"""A child's frames, well-formed and not."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from company.sandbox import wire
from company.sandbox.checks import check_frame_untrusted
from p2p.base.errors import MalformedMessage
from p2p.base.frames import Frame


def _frame(header: list[Any], items: list[bytes] | None = None) -> Frame:
    items = items or []
    return Frame(header, np.array([len(i) for i in items], dtype="<u4"), memoryview(b"".join(items)))


OUTCOME = [wire.OUTCOME, 1, 0, 2, True, 5, 5, 5, 0, []]
OUTCOME_ITEMS = [b"\0\1", bytes(8), b"", b"a", b"b"]
GOOD = [
    (OUTCOME, OUTCOME_ITEMS),
    ([*OUTCOME[:9], [[1, 1 << 30]]], [*OUTCOME_ITEMS[:4], b""]),
    ([wire.FRAGS, 0, [1.0, 2.5], []], [b"a", b"b"]),
    ([wire.FRAGS, 0, None, [[0, 5 << 20]]], [b""]),
    ([wire.CHUNK, 0, True], [b"x"]),
    ([wire.READY, ["split"], "3.11"], []),
    ([wire.COUNT, None], []),
    ([wire.SPLIT_END, 3], []),
    ([wire.FAILED, "load", "E", "m", "t"], []),
    ([wire.STATUS, 1, 2, "t", 0.5], []),
    ([wire.ARTIFACT, 1, 2, "a.png", True], [b"x"]),
    ([wire.MERGED, False], [b"\xc0"]),
]


@pytest.mark.parametrize(("header", "items"), GOOD)
def test_what_a_child_says_is_taken(header: list[Any], items: list[bytes]) -> None:
    check_frame_untrusted(_frame(header, items))


@pytest.mark.parametrize(
    ("header", "items"),
    [
        ([wire.RUN, 1, 0, []], []),  # a daemon's message
        (["x"], []),
        ([True], []),
        (OUTCOME, OUTCOME_ITEMS[:4]),
        (OUTCOME, [b"\0\2", *OUTCOME_ITEMS[1:]]),
        (OUTCOME, [b"\0", bytes(9), *OUTCOME_ITEMS[2:]]),
        ([*OUTCOME[:9], [[2, 5]]], OUTCOME_ITEMS),
        ([*OUTCOME[:9], [[1, 5], [0, 5]]], OUTCOME_ITEMS),
        ([*OUTCOME[:9], [[0, 5], [0, 5]]], OUTCOME_ITEMS),
        ([wire.OUTCOME, -1, *OUTCOME[2:]], OUTCOME_ITEMS),
        ([wire.FRAGS, 0, [1.0], []], [b"a", b"b"]),
        ([wire.FRAGS, 0, [float("nan")], []], [b"a"]),
        ([wire.STATUS, 1, 2, "t", 7], []),
        ([wire.ARTIFACT, 1, 2, "../a", True], [b"x"]),
        ([wire.ARTIFACT, 1, 2, "", True], [b"x"]),
        ([wire.MERGED, 1], [b"x"]),
        ([wire.MERGED, True], []),
        ([wire.SPLIT_END, 1 << 64], []),
    ],
)
def test_anything_else_is_malformed(header: list[Any], items: list[bytes]) -> None:
    with pytest.raises(MalformedMessage):
        check_frame_untrusted(_frame(header, items))


def test_random_headers_raise_nothing_but_malformed_message() -> None:
    chance = random.Random(7)
    values = [None, True, 0, -1, 1 << 70, "x", b"x", 1.5, float("nan"), [], [[0, 1]], [["a", None]], {}, "\ud800", [1.0]]
    for _ in range(20_000):
        header = [chance.choice([*range(30), *values]), *(chance.choice(values) for _ in range(chance.randrange(11)))]
        items = [bytes(chance.randrange(3)) for _ in range(chance.randrange(5))]
        try:
            check_frame_untrusted(_frame(header, items))
        except MalformedMessage:
            continue
