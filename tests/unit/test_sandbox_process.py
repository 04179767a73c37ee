"""The loop inside a child: fragments one by one and, where they are tiny, some hundred in one go, give the same."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from company.sandbox import wire
from company.sandbox.inside import process
from company.sandbox.inside.logs import Logs
from company.sandbox.inside.pipe import Pipe
from company.sandbox.page_slots import PAGE_SLOTS, PAGE_SPAN
from p2p.base.codec import decode_value, encode_value
from p2p.base.frames import FrameParser

FIRST = 70


def outcome_of(folder: Path, items: list[bytes], fn: Callable[[process.Runner, Any], Any], *, quick: bool) -> tuple[list[int], list[Any]]:
    """Status and result of each item, the results of a whole batch that begins at `FIRST`."""
    said, log = folder / f"said-{quick}", os.memfd_create("log")
    page = memoryview(bytearray(8 * PAGE_SLOTS)).cast("Q")
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    pipe = Pipe(os.open(os.devnull, os.O_RDONLY), out)
    runner = process.Runner(lambda x: fn(runner, x), pipe=pipe, page=page, logs=Logs(log, page), root="/", options={})
    runner.run([wire.RUN, 1, FIRST, [], quick], array("I", map(len, items)), memoryview(b"".join(items)))
    assert page[PAGE_SPAN] == 0 and page[wire.PAGE_IN_USER] == 0
    os.close(out), os.close(log)
    status, results = [], []
    for frame in FrameParser().feed_untrusted(said.read_bytes()):
        flags, _, _, *values = frame.cut()
        assert frame.header[2] == FIRST + len(results)
        status += list(bytes(flags))
        results += [decode_value(value) for value in values]
    return status, results


@pytest.fixture
def always_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "QUICK_COUNT", 0)


def mixed(runner: process.Runner, x: Any) -> Any:
    """Some of everything that may happen to a fragment; what it returns tells which one it believes to be."""
    if x % 97 == 5:
        raise ValueError(f"not {x}")
    if x % 193 == 7:
        return object()
    return [x, runner.index()]


@pytest.mark.usefixtures("always_quick")
def test_fragments_in_one_go_end_as_they_do_one_by_one(tmp_path: Path) -> None:
    in_spans = 0

    def watched(runner: process.Runner, x: Any) -> Any:
        nonlocal in_spans
        in_spans += runner._span is not None
        return mixed(runner, x)

    items = [encode_value(x) for x in range(3000)]
    for bad in (40, 41, 2999):
        items[bad] = b"\xc1"
    slow, quick = (outcome_of(tmp_path, items, watched, quick=q) for q in (False, True))
    assert in_spans > 1000
    for (status, result), (status_quick, result_quick) in zip(zip(*slow, strict=True), zip(*quick, strict=True), strict=True):
        assert status == status_quick
        if status:
            assert [result[k] for k in ("type", "message", "preview")] == [result_quick[k] for k in ("type", "message", "preview")]
        else:
            assert result == result_quick == [result[0], FIRST + result[0]]
    assert sum(slow[0]) == len({x for x in range(3000) if x % 97 == 5 or x % 193 == 7 or x in (40, 41, 2999)})


@pytest.mark.usefixtures("always_quick")
def test_large_results_among_tiny_ones_are_all_told(tmp_path: Path) -> None:
    items = [encode_value(x) for x in range(600)]
    status, results = outcome_of(tmp_path, items, lambda _, x: bytes(50_000 if x % 100 == 99 else x % 3), quick=True)
    assert not any(status) and [len(r) for r in results] == [50_000 if x % 100 == 99 else x % 3 for x in range(600)]


@pytest.mark.parametrize(
    ("ran", "took_ns", "longest", "left", "span"),
    [
        (1, 3000, 3, 10_000, 0),  # one call says little, and 3 us are not tiny
        (4000, 1_000_000, 3, 10_000, 1024),
        (600, 1_000_000, 3, 10_000, 300),
        (600, 1_000_000, 3, 200, 200),
        (511, 1_000_000, 3, 10_000, 0),
        (4000, 1_000_000, 4096, 10_000, 0),  # large results are counted one by one
        (1024, 250_000_000, 3, 10_000, 0),  # a slow one was among them
    ],
)
def test_only_tiny_fragments_run_in_one_go(ran: int, took_ns: int, longest: int, left: int, span: int) -> None:
    assert process.Runner._next_span(ran, took_ns, longest, left) == span
