"""Datasets on disk: whole under their digest or not there, the same once however they came, hostile archives refused."""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from company.chief.datasets import DatasetStore
from company.chief.facade import Invalid, Principal, TooLarge
from company.chief.quota import Quota
from company.chief.share import Shares
from company.chief.spool import BUFFER_BYTES, SYNC_BYTES, Spool
from company.chief.tree import TreeFile, extract_tar_untrusted, manifest_of, parse_manifest
from p2p.base.errors import MalformedMessage, Unavailable

SHARE = Shares(Quota()).of(Principal("t-1", "submitter", "ann"))


async def stream(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def broken_stream(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    raise Unavailable("gone", "the client went away")


Entry = tarfile.TarInfo | tuple[str, bytes]


def tar(*entries: Entry, mtime: int = 0) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size, info.mtime = len(entry[1]), mtime
                archive.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "uploads").mkdir()
    return DatasetStore(tmp_path / "datasets", tmp_path / "uploads", max_bytes=10 << 20, max_files=50)


def left_behind(tmp_path: Path) -> list[str]:
    return [p.name for folder in ("datasets", "uploads") for p in (tmp_path / folder).iterdir()]


async def test_a_file_is_stored_under_the_digest_of_its_bytes(store: DatasetStore, tmp_path: Path) -> None:
    parts = [bytes([i]) * (700_001) for i in range(9)]  # crosses the 2 MiB buffers at odd places
    stored = await store.receive(stream(*parts, b""), kind="file", share=SHARE, expected_size=9 * 700_001)
    assert stored.digest == hashlib.sha256(b"".join(parts)).digest()
    assert (stored.kind, stored.size, stored.files, stored.created) == ("file", 9 * 700_001, 1, True)
    assert store.data_path(stored.digest).read_bytes() == b"".join(parts)
    assert left_behind(tmp_path) == [stored.digest.hex()]
    assert store.verify(stored.digest)


async def test_the_same_bytes_again_are_the_same_dataset(store: DatasetStore, tmp_path: Path) -> None:
    first = await store.receive(stream(b"abc"), kind="file", share=SHARE)
    again = await store.receive(stream(b"a", b"bc"), kind="file", share=SHARE)
    assert (again.digest, first.created, again.created) == (first.digest, True, False)
    assert store.digests() == [first.digest]
    await store.delete(first.digest)
    await store.delete(first.digest)
    assert left_behind(tmp_path) == []


async def test_a_tree_is_one_dataset_however_it_was_packed(store: DatasetStore) -> None:
    files = [("a/b.txt", b"bee"), ("c", b""), ("ü/x", b"1" * 5000)]
    first = await store.receive(stream(tar(*files)), kind="tree", share=SHARE)
    again = await store.receive(
        stream(gzip.compress(tar(*((f"./{n}", d) for n, d in reversed(files)), mtime=99))), kind="tree", share=SHARE
    )
    assert (again.digest, again.created) == (first.digest, False)
    assert (first.size, first.files, first.manifest_digest) == (5003, 3, first.digest)
    root = store.data_path(first.digest)
    assert {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()} == dict(files)
    assert [f.path for f in store.manifest(first.digest)] == ["a/b.txt", "c", "ü/x"]
    assert store.verify(first.digest)
    (root / "c").write_bytes(b"changed")
    assert not store.verify(first.digest)


async def test_a_sandbox_of_another_uid_can_read_what_is_bound_for_it(store: DatasetStore) -> None:
    stored = await store.receive(stream(tar(("a/b", b"x"))), kind="tree", share=SHARE)
    data = store.data_path(stored.digest)
    modes = [p.stat().st_mode & 0o777 for p in (data.parent, data, data / "a", data / "a" / "b")]
    assert modes == [0o755, 0o755, 0o755, 0o644]


LINK = "only files and folders are taken"


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (tar(("/etc/passwd", b"x")), "absolute"),
        (tar(("../x", b"x")), r"'\.\.'"),
        (tar(("a/../../x", b"x")), r"'\.\.'"),
        (tar(special("l", tarfile.SYMTYPE, "/etc/passwd")), LINK),
        (tar(("f", b"x"), special("l", tarfile.LNKTYPE, "f")), LINK),
        (tar(special("d", tarfile.SYMTYPE, "/tmp"), ("d/x", b"x")), LINK),
        (tar(special("fifo", tarfile.FIFOTYPE)), LINK),
        (tar(special("dev", tarfile.CHRTYPE)), LINK),
        (tar(special("dev", tarfile.BLKTYPE)), LINK),
        (tar(("a", b"x"), ("./a", b"y")), "twice"),
        (tar(("a", b"x"), ("a/b", b"y")), "as a file and as a folder"),
        (tar(("a/b", b"x"), ("a", b"y")), "twice"),
        (tar(("x" * 256, b"")), "255 in one name"),
        (tar(("/".join("a" * 65), b"")), "64 levels"),
        (tar(("a", b"x" * 5000))[:2000], "unexpected end|ends within|not a readable"),
        (b"not a tar at all" * 100, "not a readable tar"),
        (gzip.compress(tar(("a", b"x")))[:30], "not a readable tar"),
        (b"", "not a readable tar"),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else "archive"
    ),  # a gzip header holds the time, and all processes must collect the same
)
async def test_a_hostile_or_broken_archive_is_refused_whole(store: DatasetStore, tmp_path: Path, archive: bytes, said: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        await store.receive(stream(archive), kind="tree", share=SHARE)
    assert caught.value.code == "archive-refused"
    assert left_behind(tmp_path) == []


async def test_bounds_hold_for_what_an_archive_unpacks_to(store: DatasetStore, tmp_path: Path) -> None:
    bomb = gzip.compress(tar(("zeros", bytes(11 << 20))))
    assert len(bomb) < 100_000
    with pytest.raises(TooLarge) as caught:
        await store.receive(stream(bomb), kind="tree", share=SHARE)
    assert caught.value.facts == {"limit": 10 << 20, "actual": 11 << 20}
    with pytest.raises(TooLarge, match="more than 50 files"):
        await store.receive(stream(tar(*((str(i), b"") for i in range(51)))), kind="tree", share=SHARE)
    with pytest.raises(TooLarge, match="more than 50 files"):
        await store.receive(stream(tar(*(special(f"d{i}", tarfile.DIRTYPE) for i in range(60)))), kind="tree", share=SHARE)
    assert left_behind(tmp_path) == []


def test_a_hidden_header_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, 3 << 30
        with pytest.raises(MalformedMessage, match="header of"):
            extract_tar_untrusted(io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)), tmp_path, max_bytes=1 << 40)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=30), st.booleans())
def test_a_mutated_archive_raises_only_what_it_may_and_writes_only_inside(
    tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes, resum: bool
) -> None:
    data = bytearray(tar(("a/b", b"hello"), ("c" * 120, b"x" * 600), special("e", tarfile.DIRTYPE)))
    data[at : at + len(junk)] = junk
    if resum:  # make the header's own checksum right again, so that the parser looks further
        block = at // 512 * 512
        data[block + 148 : block + 156] = b" " * 8
        data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
    outer = tmp_path_factory.mktemp("tar")
    (outer / "in").mkdir()
    try:
        extract_tar_untrusted(io.BytesIO(bytes(data)), outer / "in", max_bytes=100_000, max_files=20)
    except MalformedMessage:
        pass
    assert [p.name for p in outer.iterdir()] == ["in"]
    assert not any(p.is_symlink() for p in outer.rglob("*"))
    shutil.rmtree(outer)


async def test_sizes_are_checked_while_they_come_and_nothing_stays(store: DatasetStore, tmp_path: Path) -> None:
    with pytest.raises(TooLarge) as caught:
        await store.receive(stream(*[bytes(1 << 20)] * 11), kind="file", share=SHARE)
    assert caught.value.facts["limit"] == 10 << 20
    with pytest.raises(TooLarge):
        await store.receive(stream(), kind="file", share=SHARE, expected_size=11 << 20)
    with pytest.raises(Invalid, match="4 bytes was announced, 3 came"):
        await store.receive(stream(b"abc"), kind="file", share=SHARE, expected_size=4)
    with pytest.raises(Invalid, match="kind"):
        await store.receive(stream(b"abc"), kind="zip", share=SHARE)
    with pytest.raises(Unavailable, match="went away"):
        await store.receive(broken_stream(b"abc"), kind="file", share=SHARE)
    assert left_behind(tmp_path) == []


async def test_a_cancelled_upload_leaves_nothing(store: DatasetStore, tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"abc"
        await trio.sleep_forever()

    with trio.move_on_after(0.05):
        await store.receive(endless(), kind="file", share=SHARE)
    assert left_behind(tmp_path) == []


async def test_what_a_crash_left_is_swept_at_start(store: DatasetStore, tmp_path: Path) -> None:
    kept = await store.receive(stream(b"abc"), kind="file", share=SHARE)
    (tmp_path / "datasets" / ".new-1" / "data").mkdir(parents=True)
    (tmp_path / "datasets" / (".old-" + "0" * 64)).mkdir()
    (tmp_path / "uploads" / "dataset-x").write_bytes(b"half")
    store.sweep()
    assert left_behind(tmp_path) == [kept.digest.hex()]


async def test_a_finished_upload_is_adopted_without_a_copy(store: DatasetStore, tmp_path: Path) -> None:
    path = tmp_path / "uploads" / "u"
    path.write_bytes(b"abc")
    inode = path.stat().st_ino
    stored = await store.adopt(path, kind="file", share=SHARE)
    assert store.data_path(stored.digest).stat().st_ino == inode
    assert not path.exists()
    path.write_bytes(b"no tar")
    with pytest.raises(Invalid):
        await store.adopt(path, kind="tree", share=SHARE)
    assert path.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


async def test_a_full_disk_refuses_a_dataset_and_takes_the_next_small_one(small_disk: Path) -> None:
    (small_disk / "datasets").mkdir()
    (small_disk / "uploads").mkdir()
    store = DatasetStore(small_disk / "datasets", small_disk / "uploads")
    with pytest.raises(Unavailable) as caught:
        await store.receive(stream(*[bytes(1 << 20)] * 40), kind="file", share=SHARE)
    assert caught.value.code == "storage-full"
    with pytest.raises(Unavailable, match="no space"):
        await store.receive(stream(), kind="file", share=SHARE, expected_size=5 << 20)
    assert left_behind(small_disk) == []
    assert (await store.receive(stream(b"small"), kind="file", share=SHARE)).created


async def test_what_came_before_a_broken_line_is_written(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    spool = Spool(fd, max_bytes=1 << 30, offset=3)
    whole = os.urandom(BUFFER_BYTES + 5)
    with pytest.raises(Unavailable, match="went away"):
        await spool.take(broken_stream(whole[:7], whole[7:]))
    assert spool.written == len(whole)
    assert os.pread(fd, len(whole), 3) == whole
    os.close(fd)


async def test_a_long_stream_is_synced_and_leaves_memory_while_it_comes(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    spool = Spool(fd, max_bytes=1 << 30)
    whole = os.urandom(SYNC_BYTES + BUFFER_BYTES + 5)
    digest = hashlib.sha256()
    spool_hashed = Spool(fd, max_bytes=1 << 30, updates=(digest.update,))
    for each in (spool, spool_hashed):
        assert await each.take(stream(whole[:11], whole[11:])) == len(whole)
    assert os.pread(fd, len(whole) + 1, 0) == whole
    assert (spool_hashed.hashed, digest.digest()) == (len(whole), hashlib.sha256(whole).digest())
    os.close(fd)


async def test_what_a_disk_could_not_sync_does_not_count_as_written() -> None:
    fd = os.open("/dev/null", os.O_WRONLY)  # takes every write and no sync
    spool = Spool(fd, max_bytes=1 << 30)
    with pytest.raises(OSError, match="Invalid argument"):
        await spool.take(stream(bytes(SYNC_BYTES)))
    assert spool.written == 0
    os.close(fd)


def test_a_manifest_is_the_same_for_any_order_and_reads_back() -> None:
    files = [TreeFile("b", 1, b"\1" * 32), TreeFile('a\n"', 2, b"\2" * 32)]
    assert manifest_of(files) == manifest_of(files[::-1])
    assert parse_manifest(manifest_of(files)) == [files[1], files[0]]
