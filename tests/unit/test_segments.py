"""Result segments and logs: what was committed is read back exactly, what was not is gone, damage is never silent."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from company.chief import segments
from company.chief.segments import HEAD_BYTES, Location, LogEntry, LogStore, RecordHeader, SegmentStore, header_of_untrusted
from p2p.base.errors import InvariantBroken, Unavailable
from p2p.base.frames import Sizes

JOB = bytes(range(16))


def sizes_of(items: list[bytes]) -> Sizes:
    return np.array([len(i) for i in items], dtype="<u4")


def header_of(first: int, count: int, token: int = 1, blobs: tuple[tuple[int, int, bytes], ...] = ()) -> RecordHeader:
    return RecordHeader("j1", first, count, 1, token, b"i" * 16, b"o" * 16, blobs)


def put(store: SegmentStore, first: int, items: list[bytes], token: int = 1) -> Location:
    return store.append(header_of(first, len(items), token), sizes_of(items), b"".join(items))


def items_at(store: SegmentStore, location: Location) -> list[bytes]:
    return [bytes(item) for item in store.read(location).cut()]


def test_records_are_read_back_in_any_order(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path, JOB)
    batches = [[b"a", b"", b"ccc"], [b"x" * 100_000], [b"", b""]]
    places = [put(store, i * 10, batch) for i, batch in enumerate(batches)]
    store.sync()
    assert store.pending_bytes == 0
    for place, batch in reversed(list(zip(places, batches, strict=True))):
        assert items_at(store, place) == batch
    assert header_of_untrusted(store.read(places[0])) == header_of(0, 3)
    store.close()


def test_a_body_of_many_buffers_is_written_like_one(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path, JOB)
    items = [bytes([i % 256]) * (i % 7) for i in range(5000)]
    where = store.append(header_of(0, 5000), sizes_of(items), items)
    store.sync()
    assert items_at(store, where) == items
    store.close()


def test_sizes_that_contradict_the_body_are_refused_and_change_nothing(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path, JOB)
    with pytest.raises(InvariantBroken, match="adding up to 3, and a body of 4 bytes"):
        store.append(header_of(0, 1), sizes_of([b"abc"]), b"abcd")
    assert store.pending_bytes == 0
    with pytest.raises(InvariantBroken, match="16 bytes"):
        SegmentStore(tmp_path, b"short")


def test_a_full_segment_is_followed_by_the_next_and_a_record_is_never_split(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path, JOB, max_segment_bytes=1000)
    places = [put(store, i, [bytes([i]) * 300]) for i in range(7)] + [put(store, 9, [b"z" * 5000])]
    store.sync()
    assert {p.segment for p in places} == {0, 1, 2, 3, 4}
    assert all(path.stat().st_size <= 1000 for path in sorted(tmp_path.glob("*.seg"))[:-1])
    assert [items_at(store, p)[0][0] for p in places] == [0, 1, 2, 3, 4, 5, 6, ord("z")]
    assert [at for _, at in store.rebuild_rows()] == places
    store.close()


def test_feed_gives_portions_of_bounded_size_in_the_order_asked_for(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path, JOB)
    places = [put(store, i, [bytes([i]) * 1000]) for i in range(10)]
    store.sync()
    portions = list(store.feed(reversed(places), 2500))
    assert [len(portion) for portion in portions] == [2] * 5
    assert [frame.body[0] for portion in portions for frame in portion] == list(range(9, -1, -1))
    assert [len(portion) for portion in store.feed(places, 1)] == [1] * 10
    store.close()


def test_recovery_cuts_back_to_the_last_committed_record_and_goes_on_there(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path, JOB, max_segment_bytes=2000)
    places = [put(store, i, [b"x" * 500]) for i in range(9)]
    store.sync()
    store.close()
    last = places[4]
    with (tmp_path / f"{places[-1].segment:06d}.seg").open("ab") as file:
        file.write(b"torn write")
    (tmp_path / "spool-7-1").write_bytes(b"half a blob")
    ends: dict[int, int] = {}
    for place in places[:5]:
        ends[place.segment] = place.offset + place.length
    again = SegmentStore(tmp_path, JOB, max_segment_bytes=2000)
    report = again.recover(ends)
    assert report.damaged == ()
    assert report.truncated_bytes > 0
    assert again.numbers() == [0, 1]
    assert (tmp_path / "000001.seg").stat().st_size == ends[1]
    assert not (tmp_path / "spool-7-1").exists()
    new = put(again, 100, [b"new"])
    assert (new.segment, new.offset) == (last.segment, last.offset + last.length)
    again.sync()
    assert [at for _, at in again.rebuild_rows()] == [*places[:5], new]
    again.close()


def test_recovery_of_a_job_without_committed_results_begins_anew(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path, JOB)
    put(store, 0, [b"x"])
    store.sync()
    store.close()
    again = SegmentStore(tmp_path, JOB)
    assert again.recover({}).removed == (0,)
    assert put(again, 0, [b"y"]).offset == HEAD_BYTES
    again.sync()
    again.close()


def test_a_segment_that_lost_committed_bytes_is_named_and_never_written_to(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path, JOB)
    place = put(store, 0, [b"x" * 100])
    store.sync()
    store.close()
    os.truncate(tmp_path / "000000.seg", 50)
    again = SegmentStore(tmp_path, JOB)
    assert again.recover({0: place.offset + place.length, 3: 99}).damaged == (0, 3)
    with pytest.raises(Unavailable) as caught:
        again.read(place)
    assert caught.value.code == "result-damaged"
    assert put(again, 0, [b"y"]).segment == 4
    again.close()


def test_a_segment_of_another_job_is_damage(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path, JOB)
    place = put(store, 0, [b"x"])
    store.sync()
    store.close()
    other = SegmentStore(tmp_path, bytes(16))
    assert other.recover({0: place.offset + place.length}).damaged == (0,)


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=4), min_size=1, max_size=8),
    committed=st.integers(0, 8),
    cut=st.integers(0, 10_000),
    garbage=st.binary(max_size=60),
    limit=st.integers(200, 800),
)
def test_whatever_tail_a_crash_leaves_committed_records_come_back(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]], committed: int, cut: int, garbage: bytes, limit: int
) -> None:
    folder = tmp_path_factory.mktemp("seg")
    store = SegmentStore(folder, JOB, max_segment_bytes=limit)
    places = [put(store, i * 100, batch) for i, batch in enumerate(batches)]
    store.sync()
    store.close()
    kept = places[:committed]
    ends = {p.segment: p.offset + p.length for p in kept}
    tail = folder / f"{places[-1].segment:06d}.seg"
    os.truncate(tail, max(ends.get(places[-1].segment, 0), tail.stat().st_size - cut))
    with tail.open("ab") as file:
        file.write(garbage)
    again = SegmentStore(folder, JOB, max_segment_bytes=limit)
    assert again.recover(ends).damaged == ()
    new = put(again, 7, [b"new"])
    again.sync()
    assert [items_at(again, p) for p in [*kept, new]] == [*batches[:committed], [b"new"]]
    assert [at for _, at in again.rebuild_rows()] == [*kept, new]
    again.close()
    shutil.rmtree(folder)


@settings(max_examples=80, deadline=None)
@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_no_flipped_byte_in_a_record_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, position: int, flip: int) -> None:
    folder = tmp_path_factory.mktemp("flip")
    store = SegmentStore(folder, JOB)
    place = put(store, 5, [b"abc", b"defgh", b"x" * 50])
    store.sync()
    path = folder / "000000.seg"
    data = bytearray(path.read_bytes())
    data[place.offset + position % place.length] ^= flip
    path.write_bytes(data)
    with pytest.raises(Unavailable, match="damaged"):
        store.read(place)
    assert list(store.rebuild_rows()) == []
    store.close()
    shutil.rmtree(folder)


@pytest.mark.parametrize("position", [0, 20, 40, 60, -6, -1])
def test_a_record_of_an_earlier_release_is_read_by_its_own_sum(position: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SegmentStore(tmp_path, JOB)
    monkeypatch.setattr(segments, "_sum", segments._crc)
    old = put(store, 0, [b"old", b"x"])
    monkeypatch.undo()
    new = put(store, 2, [b"new"])
    store.sync()
    assert type(store.read(old).header[-1]) is int
    assert type(store.read(new).header[-1]) is bytes
    assert items_at(store, old) == [b"old", b"x"]
    assert items_at(store, new) == [b"new"]
    path = tmp_path / "000000.seg"
    data = bytearray(path.read_bytes())
    data[old.offset + position % old.length] ^= 1
    path.write_bytes(data)
    with pytest.raises(Unavailable, match="damaged"):
        store.read(old)
    assert items_at(store, new) == [b"new"]


def test_a_large_result_is_spooled_per_attempt_and_adopted_once(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path, JOB)
    first, second = store.blob_writer(1, 42), store.blob_writer(2, 42)
    for part in (b"a" * 1000, b"b"):
        first.write(part)
    second.write(b"other attempt")
    size, digest = first.finish()
    assert (size, len(digest)) == (1001, 32)
    store.adopt_blob(1, 42)
    second.abort()
    assert store.blob_path(42).read_bytes() == b"a" * 1000 + b"b"
    where = store.append(header_of(42, 1, blobs=((0, size, digest),)), sizes_of([b""]), b"")
    store.sync()
    assert header_of_untrusted(store.read(where)).blobs == ((0, size, digest),)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000.seg", "blob-42"]
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_records_refused_by_a_full_disk_are_kept_and_written_when_there_is_room(small_disk: Path) -> None:
    store = SegmentStore(small_disk, JOB)
    log = LogStore(small_disk)
    kept = put(store, 0, [b"k" * 1000])
    store.sync()
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 500_000)
    again = put(store, 1, [b"y" * 900_000])
    at, length = log.append(entry(0, b"printed"))
    with pytest.raises(Unavailable) as caught:
        store.sync()
    assert caught.value.code == "storage-full"
    assert store.pending_bytes > 900_000
    with pytest.raises(Unavailable):
        store.sync()
    later = put(store, 2, [b"z"])
    ballast.unlink()
    store.sync()
    log.sync()
    assert store.pending_bytes == 0
    assert items_at(store, later) == [b"z"]
    assert at is not None
    assert [e.data for e in log.read(at, length)] == [b"printed"]
    assert again.offset == kept.offset + kept.length
    assert items_at(store, kept) == [b"k" * 1000]
    assert items_at(store, again) == [b"y" * 900_000]
    store.close()
    log.close()


# ---- logs
def entry(fragment: int, text: bytes, stream: int = 1) -> bytes:
    return bytes([0x93, fragment, stream, 0xC4, len(text)]) + text


def test_logs_are_found_by_fragment_from_the_start_and_from_the_end(tmp_path: Path) -> None:
    log = LogStore(tmp_path)
    assert log.tail(100) == ([], 0)
    assert log.append(b"") == (None, 0)
    places = [log.append(entry(i, b"line %d\n" % i) + entry(i + 1, b"err", 2)) for i in range(10)]
    log.sync()
    at, length = places[3]
    assert at is not None
    assert log.read(at, length, fragment=4) == [LogEntry(4, 2, b"err", at)]
    everything, cursor = log.read_from(0, 1 << 20)
    assert [e.fragment for e in everything[::2]] == list(range(10))
    assert log.read_from(cursor, 1 << 20) == ([], cursor)
    first, cursor = log.read_from(0, 1)
    assert first == everything[:2]
    assert log.read_from(cursor, 1)[0] == everything[2:4]
    last, end = log.tail(1)
    assert (last, log.read_from(end, 100)) == (everything[-2:], ([], end))
    assert log.tail(1 << 20)[0] == everything
    log.close()


def test_a_log_is_bounded_and_counts_what_it_drops(tmp_path: Path) -> None:
    log = LogStore(tmp_path, max_bytes=100)
    assert log.append(entry(1, b"x" * 60))[0] is not None
    assert log.append(entry(2, b"x" * 60)) == (None, 0)
    assert log.dropped_bytes == 65
    log.close()


def test_log_recovery_cuts_back_to_the_last_committed_block(tmp_path: Path) -> None:
    log = LogStore(tmp_path)
    at, length = log.append(entry(1, b"kept"))
    assert at is not None
    log.append(entry(2, b"not committed"))
    log.sync()
    log.close()
    again = LogStore(tmp_path)
    assert again.recover(at + length) > 0
    again.append(entry(3, b"later"))
    again.sync()
    assert [e.data for e in again.tail(1000)[0]] == [b"kept", b"later"]
    again.close()
    empty = LogStore(tmp_path)
    empty.recover(0)
    assert empty.tail(1000)[0] == []


@given(st.binary(max_size=200))
def test_a_block_of_anything_is_readable_or_said_not_to_be(tmp_path_factory: pytest.TempPathFactory, payload: bytes) -> None:
    log = LogStore(tmp_path_factory.mktemp("log"))
    at, length = log.append(payload)
    log.sync()
    if at is not None:
        assert all(e.stream in (1, 2) for e in log.read(at, length))
    log.close()
