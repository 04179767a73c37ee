"""What a user may keep at the chief: counted from what is stored, held to while it comes, given back when it goes."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from company.chief.facade import Principal, StorageFull
from company.chief.library import Library
from company.chief.quota import Key, Quota, parse_quota, quota_bytes
from company.chief.store import Store
from company.paths import Home
from p2p.base.errors import UsageError
from p2p.base.keys import Identity
from tests.unit.test_datasets_disk import stream, tar
from tests.unit.test_library import FILES, archive

ANN, BOB = Principal("t-1", "submitter", "ann"), Principal("t-2", "operator", "bob")
OWNER = Principal("t-3", "owner", "owner")
LIMIT = 10_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(Home(tmp_path).chief.create().database)
    yield opened
    await opened.aclose()


async def library_of(tmp_path: Path, store: Store, limit: int | None = LIMIT) -> Library:
    """The library as a start of the chief finds it."""
    opened = Library(Home(tmp_path).chief, store, Identity(b"c" * 32), Quota(limit))
    await opened.load()
    return opened


@pytest.fixture
async def library(tmp_path: Path, store: Store) -> Library:
    return await library_of(tmp_path, store)


async def send(library: Library, content: bytes, *, by: Principal = ANN, kind: str = "file", said: bool = True) -> str:
    size = len(content) if said else None
    return (await library.add_dataset(stream(content), by=by, name="x", kind=kind, expected_size=size))[0].digest


def on_disk(tmp_path: Path) -> int:
    home = Home(tmp_path).chief
    return sum(p.stat().st_size for folder in (home.datasets, home.uploads) for p in folder.rglob("*") if p.is_file())


def test_a_limit_is_a_size_a_share_of_the_disk_or_none() -> None:
    assert quota_bytes("20GiB", 1) == 20 << 30
    assert quota_bytes("25%", 1000) == 250
    assert quota_bytes("off", 1000) is None
    for wrong in ("0%", "101%", "-1%", "x%", "much", "nan%"):
        with pytest.raises(UsageError):
            parse_quota(wrong)


def test_what_is_put_twice_counts_once_and_what_is_dropped_not_at_all() -> None:
    quota = Quota(100)
    quota.put(Key("dataset", "a"), "ann", 60)
    quota.put(Key("dataset", "a"), "ann", 70)
    assert (quota.used("ann"), quota.room(ANN), quota.room(BOB)) == (70, 30, 100)
    quota.put(Key("dataset", "a"), "bob", 70)  # it is another's now
    quota.drop(Key("dataset", "b"))
    assert (quota.used("ann"), quota.used("bob"), quota.largest()) == (0, 70, {"bob": 70})
    quota.drop(Key("dataset", "a"))
    assert quota.largest() == {}


@pytest.mark.parametrize("said", [True, False])
async def test_a_dataset_that_does_not_fit_is_refused_with_what_takes_the_room(library: Library, tmp_path: Path, said: bool) -> None:
    first = await send(library, b"a" * 7000)
    with pytest.raises(StorageFull) as caught:
        await send(library, b"b" * 3001, said=said)
    error = caught.value
    assert error.code == "quota-exceeded"
    assert (error.facts["limit_bytes"], error.facts["needed_bytes"]) == (LIMIT, 3001)
    assert error.facts["largest"] == [{"kind": "dataset", "id": first, "size_bytes": 7000}]
    assert "company data rm" in error.hint
    assert (library.quota.used("ann"), on_disk(tmp_path)) == (7000, 7000)
    await send(library, b"b" * 3000, said=said)
    await send(library, b"c" * 9999, by=BOB, said=said)  # others have room of their own
    await library.remove_dataset(first, by=ANN)
    await send(library, b"d" * 7000, said=said)


async def test_owners_are_counted_and_not_limited(library: Library) -> None:
    await send(library, b"a" * 3 * LIMIT, by=OWNER)
    assert library.quota.used("owner") == 3 * LIMIT
    assert library.limits(OWNER)["quota_used_bytes"] == 3 * LIMIT and "quota_bytes" not in library.limits(OWNER)
    assert library.limits(ANN) | {"quota_bytes": LIMIT, "quota_left_bytes": LIMIT, "quota_used_bytes": 0} == library.limits(ANN)


async def test_what_somebody_has_sent_already_costs_nobody_else(library: Library) -> None:
    await send(library, b"a" * 7000)
    await send(library, b"a" * 7000, by=BOB)
    assert library.quota.largest() == {"ann": 7000}


async def test_two_streams_at_once_do_not_get_the_same_room(library: Library, tmp_path: Path) -> None:
    peak = 0

    async def slow(byte: bytes) -> AsyncIterator[bytes]:
        nonlocal peak
        for _ in range(8):
            yield byte * 1000
            await trio.lowlevel.checkpoint()
            peak = max(peak, library.quota.used("ann"))

    refused = 0

    async def one(byte: bytes) -> None:
        nonlocal refused
        try:
            await library.add_dataset(slow(byte), by=ANN, name="x", kind="file")
        except StorageFull:
            refused += 1

    async with trio.open_nursery() as nursery:
        for byte in (b"a", b"b", b"c"):
            nursery.start_soon(one, byte)
    assert refused >= 2 and peak <= LIMIT
    assert library.quota.used("ann") == on_disk(tmp_path) == 8000 * (3 - refused)


@pytest.mark.parametrize("packed", [False, True])
async def test_what_an_archive_unpacks_to_is_what_counts(tmp_path: Path, store: Store, packed: bool) -> None:
    library = await library_of(tmp_path, store, 2 * LIMIT)  # tar fills up to 10 KiB

    def of(size: int) -> bytes:
        plain = tar(("a", b"x" * size))
        return gzip.compress(plain) if packed else plain

    with pytest.raises(StorageFull) as caught:
        await send(library, of(2 * LIMIT + 1), kind="tree", said=packed)
    assert caught.value.facts["needed_bytes"] > 0
    assert (library.quota.used("ann"), on_disk(tmp_path)) == (0, 0)
    made = await library.finish_upload(await upload_of(library, of(4000), kind="tree"))
    assert made is not None and library.quota.used("ann") == 4000


async def test_two_archives_of_one_user_are_not_unpacked_into_the_same_room(library: Library) -> None:
    found: list[object] = []

    async def one(name: str) -> None:
        try:
            found.append(await send(library, gzip.compress(tar((name, b"x" * 6000))), kind="tree"))
        except StorageFull as error:
            found.append(error.code)

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(one, name)
    assert found.count("quota-exceeded") == 2 and library.quota.used("ann") == 6000


async def upload_of(library: Library, content: bytes, **meta: str) -> str:
    upload = await library.create_upload(length=len(content), meta=meta, by=ANN)
    await library.append_upload(upload, 0, stream(content), None)
    return upload


async def test_an_upload_counts_whole_from_its_beginning_over_restarts_until_it_is_given_up(
    library: Library, store: Store, tmp_path: Path
) -> None:
    upload = await library.create_upload(length=6000, meta={"by": "bob", "role": "owner"}, by=ANN)  # a client's words change nothing
    await library.append_upload(upload, 0, stream(b"a" * 100), None)
    again = await library_of(tmp_path, store)
    for one in (library, again):
        assert one.quota.largest() == {"ann": 6000}
        with pytest.raises(StorageFull):
            await one.create_upload(length=4001, meta={}, by=ANN)
        with pytest.raises(StorageFull):
            await send(one, b"x" * 4001)
    await again.append_upload(upload, 100, stream(b"a" * 5900), None)  # what has begun can end, though nothing more fits
    await again.finish_upload(upload)
    assert again.quota.largest() == {"ann": 6000}
    assert (await library_of(tmp_path, store)).quota.largest() == {"ann": 6000}
    other = await again.create_upload(length=4000, meta={}, by=ANN)
    await again.abort_upload(other)
    assert again.quota.largest() == {"ann": 6000}


async def test_packages_count_too(library: Library, store: Store, tmp_path: Path) -> None:
    files = FILES | {"processor/table.txt": b"x" * 6000}
    made, _ = await library.add_package(stream(archive(files)), by=ANN)
    kept = library.quota.used("ann")
    assert kept > 6000
    with pytest.raises(StorageFull):
        await library.add_package(stream(archive(files | {"a.txt": b"y"})), by=ANN)
    assert (await library.add_package(stream(archive(files)), by=ANN))[1] is False  # it is there: that is no new room
    with pytest.raises(StorageFull):
        await library.finish_upload(await upload_of(library, archive(files | {"a.txt": b"y"}), kind="package"))
    assert (await library_of(tmp_path, store)).quota.used("ann") >= kept
    await library.remove_package(made.digest, by=ANN)
    assert library.quota.used("ann") < kept
