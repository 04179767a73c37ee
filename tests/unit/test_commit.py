"""Results reach the disk in groups, in order, and nobody is told before."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import trio
import trio.testing

import company.chief.segments as segments_module
from company.chief import commit
from company.chief.commit import Committer, Piece
from company.chief.events import Range
from company.chief.segments import Location, LogStore, SegmentStore
from company.chief.store import jobs, outcomes
from company.chief.store.datasets import DatasetRow
from company.chief.store.datasets import save as save_dataset
from company.chief.store.jobs import JobRow
from company.chief.store.packages import PackageRow
from company.chief.store.packages import save as save_package
from company.chief.store.store import Store
from p2p.base.errors import PeerError


@dataclass
class World:
    store: Store
    committer: Committer
    segments: SegmentStore
    logs: LogStore
    told: list[tuple[str, tuple[Range, ...]]] = field(default_factory=list)
    full: list[bool] = field(default_factory=list)

    def piece(self, first: int, count: int, token: int = 1, log: bytes = b"") -> Piece:
        body = bytes(range(count))
        return Piece(
            job="j-1", segments=self.segments, logs=self.logs, token=token, worker="w", attempt=0, first=first, count=count,
            sizes=np.ones(count, dtype="<u4"), body=memoryview(body), input_digest=b"i" * 16, run_us=1, cpu_us=1, log=log,
        )  # fmt: skip


@asynccontextmanager
async def world(path: Path) -> AsyncIterator[World]:
    store = Store.open(path / "company.sqlite")
    for folder in ("results", "logs"):
        (path / folder).mkdir()
    segments, logs = SegmentStore(path / "results", b"j" * 16), LogStore(path / "logs")
    told: list[tuple[str, tuple[Range, ...]]] = []
    full: list[bool] = []
    committer = Committer(store, on_committed=lambda job, ranges: told.append((job, ranges)), on_full=full.append)
    await store.write(
        lambda conn: save_package(
            conn,
            PackageRow(digest=b"p" * 32, name="p", size=1, processor=b"q" * 32, manifest=b"{}", signer=b"", signature=b"", uploaded=0.0),
        ),
        lambda conn: save_dataset(conn, DatasetRow(digest=b"d" * 32, kind="file", name="d", size=1, uploaded=0.0)),
        lambda conn: jobs.save(
            conn, JobRow(id="j-1", name="j", package=b"p" * 32, dataset=b"d" * 32, owner="o", params=b"", options=b"{}", created=0.0)
        ),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        yield World(store, committer, segments, logs, told, full)
        nursery.cancel_scope.cancel()
    await store.aclose()


async def test_an_acknowledgement_comes_after_the_row(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        seen: list[int] = []
        done = trio.Event()

        def acknowledged() -> None:
            seen.append(len(w.told))
            done.set()

        w.committer.add(pieces=[w.piece(0, 5)], then=acknowledged)
        await done.wait()
        assert seen == [1]
        rows = await w.store.read(lambda conn: outcomes.load(conn, "j-1"))
        assert [(r.first, r.count) for r in rows] == [(0, 5)]
        frame = w.segments.read(Location(rows[0].segment, rows[0].offset, rows[0].length))
        assert bytes(frame.body) == bytes(range(5))


async def test_what_comes_while_a_group_is_written_shares_the_next_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        before = w.store.transactions
        for k in range(200):
            w.committer.add(pieces=[w.piece(10 * k, 10, token=k + 1)])
        await w.committer.wait_idle()
        assert w.store.transactions - before <= 3
        assert sum(n for _, ranges in w.told for _, n in ranges) == 2000


async def test_what_was_queued_before_a_flush_is_on_disk_after_it_also_while_a_group_is_written(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for k in range(3):
            w.committer.add(pieces=[w.piece(10 * k, 10, token=k + 1)])
            await trio.lowlevel.checkpoint()
            await w.committer.flushed()
            assert [r.first for r in await w.store.read(lambda conn: outcomes.load(conn, "j-1"))] == [10 * n for n in range(k + 1)]


async def test_a_second_result_for_a_range_is_an_error_of_ours_and_is_not_hidden(tmp_path: Path) -> None:
    store_error: list[BaseException] = []
    try:
        async with world(tmp_path) as w:
            w.committer.add(pieces=[w.piece(0, 5)])
            await w.committer.wait_idle()
            w.committer.add(pieces=[w.piece(0, 5, token=2)])
            await w.committer.wait_idle()
    except BaseException as error:  # noqa: BLE001 - which of sqlalchemy's classes is not the point
        store_error.append(error)
    assert store_error


async def test_a_worker_that_waits_for_no_acknowledgement_is_stopped_until_the_disk_has_what_it_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "MAX_WAITING_BYTES", 8)
    async with world(tmp_path) as w:
        w.committer.add(pieces=[w.piece(0, 5)])
        w.committer.check_room("w")
        w.committer.add(pieces=[w.piece(5, 5)])
        with pytest.raises(PeerError, match="wait for the disk"):
            w.committer.check_room("w")
        w.committer.check_room("another")
        await w.committer.wait_idle()
        w.committer.check_room("w")
        written = trio.Event()
        w.committer.add(pieces=[w.piece(10, 5)], then=written.set)
        await trio.testing.wait_all_tasks_blocked()
        nothing = replace(w.piece(15, 1), sizes=np.zeros(1, dtype="<u4"), body=memoryview(b""))
        w.committer.add(pieces=[nothing])  # an empty result in the group behind
        await written.wait()
        await w.committer.wait_idle()
        assert [ranges for _, ranges in w.told[1:]] == [((10, 5),), ((15, 1),)], "two groups"


async def test_a_disk_that_is_full_between_a_large_result_and_its_record_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "RETRY_FULL_S", 0.01)
    full = [True, True]

    def sync_directory(path: Path) -> None:
        if full:
            full.pop()
            raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(segments_module, "sync_directory", sync_directory)
    async with world(tmp_path) as w:
        blob = w.segments.blob_writer(1, 5)
        blob.write(b"large")
        blob.finish()
        large = replace(w.piece(5, 1), sizes=np.zeros(1, dtype="<u4"), body=memoryview(b""), blobs=((0, 5, b"d" * 32),))
        w.committer.add(pieces=[w.piece(0, 5), large])
        await w.committer.wait_idle()
        assert w.full == [True, False] and not full
        rows = await w.store.read(lambda conn: outcomes.load(conn, "j-1"))
        assert [(r.first, r.count) for r in rows] == [(0, 5), (5, 1)]
        assert [header.first for header, _ in w.segments.rebuild_rows()] == [0, 5]
        assert w.segments.blob_path(5).read_bytes() == b"large"


async def test_logs_lie_where_the_row_says(tmp_path: Path) -> None:
    import msgpack

    async with world(tmp_path) as w:
        w.committer.add(pieces=[w.piece(0, 2, log=msgpack.packb([1, 1, b"hello\n"]))])
        await w.committer.wait_idle()
        row = (await w.store.read(lambda conn: outcomes.with_logs(conn, "j-1")))[0]
        assert [(e.fragment, e.data, e.at) for e in w.logs.tail(1 << 20)[0]] == [(1, b"hello\n", row.log_offset)]
        assert w.full == []
