"""Children that wait for a split or a merge before their job is known: what they see, and when none is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import trio

from company.chief.blanks import Blanks
from company.chief.splitter import SplitPlan, run_split
from company.package import DEFAULT_MEMORY_BYTES
from company.sandbox import Child, Sandbox, wire
from p2p.base.codec import decode_value, encode_value

SPLIT = b"def split(data):\n    yield data.name\n    yield data.read_text()\n"
DEADLINE_S = 60


async def ready(blanks: Blanks, role: Literal["split", "merge"]) -> None:
    with trio.fail_after(DEADLINE_S):
        while role not in blanks._kept:  # noqa: ASYNC110 - it tells nobody when it is ready; a job takes what is there
            await trio.sleep(0.02)


async def test_a_blank_split_child_sees_the_data_of_the_job_it_gets_and_nothing_else(tmp_path: Path) -> None:
    root, data = tmp_path / "blanks", tmp_path / "datasets"
    data.mkdir(mode=0o755)
    (data / "stored").write_text("hello")
    (data / "stored").chmod(0o644)
    async with Sandbox.open(home=tmp_path, stage=[root, data]) as sandbox, trio.open_nursery() as nursery:
        (root / "left-by-a-killed-chief").mkdir()
        blanks = Blanks(sandbox, root)
        nursery.start_soon(blanks.run)
        await ready(blanks, "merge")  # the second of the two
        assert sorted(path.name for path in root.iterdir()) == ["merge-2", "split-1"]
        assert blanks.take("split", memory_bytes=DEFAULT_MEMORY_BYTES * 2, site=None) is None
        assert blanks.take_for_data(data, "folder", memory_bytes=DEFAULT_MEMORY_BYTES, site=None) is None
        blank = blanks.take_for_data(data / "stored", "numbers.txt", memory_bytes=DEFAULT_MEMORY_BYTES, site=None)
        assert blank is not None
        try:
            with trio.fail_after(DEADLINE_S):
                await blank.child.load(role="split", files={"split.py": SPLIT}, options={"data": "/data/numbers.txt"})
                frames = [await blank.child.receive() for _ in range(2)]
        finally:
            await blank.child.aclose()
        assert [frame.header[0] for frame in frames] == [wire.COUNT, wire.FRAGS]
        assert [decode_value(bytes(item)) for item in frames[1].cut()] == ["numbers.txt", "hello"]
        assert blanks.take_for_data(data / "stored", "numbers.txt", memory_bytes=DEFAULT_MEMORY_BYTES, site=None) is None
        blanks.job_over()
        await ready(blanks, "split")
        nursery.cancel_scope.cancel()
    assert [path.name for path in root.iterdir()] == ["split-1"], "blank children left their folders behind"


async def test_the_end_of_split_is_told_before_its_child_is_closed_and_a_cancelled_one_is_closed_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "datasets"
    folder.mkdir(mode=0o755)
    data = folder / "numbers.txt"
    data.write_text("3")
    left: list[Child] = []
    endless = b"def split(data):\n    n = 0\n    while True:\n        yield n\n        n += 1\n"

    async def nothing(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    async with Sandbox.open(home=tmp_path, stage=[folder]) as sandbox:
        plan = SplitPlan(
            job="j-1", files={"split.py": SPLIT}, params=encode_value({}), data=data, data_name=data.name,
            memory_bytes=DEFAULT_MEMORY_BYTES, spool=tmp_path / "spool",
        )  # fmt: skip
        with trio.fail_after(DEADLINE_S):
            assert await run_split(sandbox, plan, on_count=lambda _: None, on_fragments=nothing, leave=left.append) == 2
            (child,) = left
            assert child.is_alive, "its closing is somebody else's"
            await child.aclose()
            with trio.move_on_after(1):
                await run_split(
                    sandbox, replace(plan, files={"split.py": endless}), on_count=lambda _: None, on_fragments=nothing, leave=left.append
                )
        assert left == [child], "a cancelled one is not left to others"
