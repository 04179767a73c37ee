"""Resumable uploads: the offset never says more than the disk holds, whatever breaks."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from company.chief.facade import Conflict, Invalid, NotFound, Refused, TooLarge
from company.chief.quota import Quota
from company.chief.share import Shares
from company.chief.store import Store
from company.chief.uploads import ChecksumMismatch, Uploads
from p2p.base.errors import Unavailable

NOW = 1000.0


async def stream(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def broken_stream(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    raise Unavailable("gone", "the client went away")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "company.sqlite")
    yield opened
    await opened.aclose()


@pytest.fixture
def uploads(tmp_path: Path, store: Store) -> Uploads:
    (tmp_path / "uploads").mkdir()
    return Uploads(tmp_path / "uploads", store, Shares(Quota()), max_bytes=1000, max_per_principal=3)


async def begin(uploads: Uploads, length: int | None = 10) -> str:
    return (await uploads.create(length=length, meta={"name": "ü"}, principal="p", now=NOW)).id


async def test_pieces_add_up_to_the_file(uploads: Uploads) -> None:
    upload = await begin(uploads)
    assert (await uploads.append(upload, 0, stream(b"abc", b"d"), now=NOW)).offset == 4
    assert await uploads.finish(upload, now=NOW) is None
    state = await uploads.append(upload, 4, stream(b"efghij"), now=NOW + 5)
    assert state.is_complete
    assert (state.meta, state.expires) == ({"name": "ü"}, NOW + 5 + 86_400)
    path = await uploads.finish(upload, now=NOW)
    assert path is not None
    assert path.read_bytes() == b"abcdefghij"
    await uploads.forget(upload)
    assert not path.exists()
    with pytest.raises(NotFound, match="no upload"):
        uploads.state(upload, now=NOW)


async def test_an_upload_survives_a_restart_with_only_its_durable_bytes(uploads: Uploads, store: Store, tmp_path: Path) -> None:
    upload = await begin(uploads)
    await uploads.append(upload, 0, stream(b"abc"), now=NOW)
    with (tmp_path / "uploads" / upload).open("ab") as file:
        file.write(b"written and never acknowledged")
    (tmp_path / "uploads" / ("f" * 32)).write_bytes(b"an orphan")
    again = Uploads(tmp_path / "uploads", store, Shares(Quota()), max_bytes=1000)
    await again.load(now=NOW)
    assert again.state(upload, now=NOW).offset == 3
    assert not (tmp_path / "uploads" / ("f" * 32)).exists()
    await again.append(upload, 3, stream(b"defghij"), now=NOW)
    path = await again.finish(upload, now=NOW)
    assert path is not None
    assert path.read_bytes()[:10] == b"abcdefghij"


async def test_an_upload_whose_bytes_the_disk_lost_begins_again(uploads: Uploads, store: Store, tmp_path: Path) -> None:
    upload = await begin(uploads)
    await uploads.append(upload, 0, stream(b"abc"), now=NOW)
    os.unlink(tmp_path / "uploads" / upload)
    again = Uploads(tmp_path / "uploads", store, Shares(Quota()), max_bytes=1000)
    await again.load(now=NOW)
    assert again.state(upload, now=NOW).offset == 0
    assert (await again.append(upload, 0, stream(b"ab"), now=NOW)).offset == 2


async def test_what_came_before_a_broken_line_counts(uploads: Uploads) -> None:
    upload = await begin(uploads)
    with pytest.raises(Unavailable, match="went away"):
        await uploads.append(upload, 0, broken_stream(b"abc"), now=NOW)
    assert uploads.state(upload, now=NOW).offset == 3


async def test_what_came_before_a_cancellation_counts(uploads: Uploads) -> None:
    upload = await begin(uploads)
    given = trio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield b"abcd"
        given.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: uploads.append(upload, 0, hanging(), now=NOW))
        await given.wait()
        with pytest.raises(Conflict, match="another request"):
            await uploads.append(upload, 0, stream(b"x"), now=NOW)
        with pytest.raises(Conflict):
            await uploads.forget(upload)
        nursery.cancel_scope.cancel()
    assert uploads.state(upload, now=NOW).offset == 4


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
async def test_a_piece_with_a_wrong_checksum_does_not_count(uploads: Uploads, algorithm: str) -> None:
    upload = await begin(uploads)
    right = hashlib.new(algorithm, b"abc").digest()
    with pytest.raises(ChecksumMismatch):
        await uploads.append(upload, 0, stream(b"abX"), now=NOW, checksum=(algorithm, right))
    with pytest.raises(Unavailable):
        await uploads.append(upload, 0, broken_stream(b"ab"), now=NOW, checksum=(algorithm, right))
    assert uploads.state(upload, now=NOW).offset == 0
    assert (await uploads.append(upload, 0, stream(b"abc"), now=NOW, checksum=(algorithm, right))).offset == 3
    with pytest.raises(Invalid, match="checksum must be"):
        await uploads.append(upload, 3, stream(b"d"), now=NOW, checksum=("md5", b""))


async def test_a_wrong_offset_is_a_conflict_that_says_the_right_one(uploads: Uploads) -> None:
    upload = await begin(uploads)
    with pytest.raises(Conflict) as caught:
        await uploads.append(upload, 5, stream(b"x"), now=NOW)
    assert (caught.value.code, caught.value.facts) == ("offset-mismatch", {"offset": 0})


async def test_no_upload_grows_past_its_length_or_the_limit(uploads: Uploads) -> None:
    upload = await begin(uploads)
    with pytest.raises(TooLarge) as caught:
        await uploads.append(upload, 0, stream(b"abcdefgh", b"ijk"), now=NOW)
    assert caught.value.facts == {"limit": 10}
    assert uploads.state(upload, now=NOW).offset == 8
    with pytest.raises(TooLarge):
        await begin(uploads, 1001)
    with pytest.raises(Invalid):
        await begin(uploads, -1)
    with pytest.raises(Invalid, match="metadata"):
        await uploads.create(length=1, meta={"x": "y" * 5000}, principal="p", now=NOW)


async def test_a_deferred_length_is_said_once(uploads: Uploads) -> None:
    upload = await begin(uploads, None)
    await uploads.append(upload, 0, stream(b"abc"), now=NOW)
    assert not uploads.state(upload, now=NOW).is_complete
    assert (await uploads.set_length(upload, 3, now=NOW)).is_complete
    with pytest.raises(Conflict):
        await uploads.set_length(upload, 4, now=NOW)


async def test_one_principal_holds_a_bounded_number_and_the_expired_do_not_count(uploads: Uploads, tmp_path: Path) -> None:
    held = [await begin(uploads) for _ in range(3)]
    with pytest.raises(Refused) as caught:
        await begin(uploads)
    assert caught.value.code == "too-many-uploads"
    await uploads.create(length=1, meta={}, principal="other", now=NOW)
    later = NOW + 86_400
    with pytest.raises(NotFound, match="expired"):
        uploads.state(held[0], now=later)
    assert set(held) <= set(await uploads.expire(now=later))
    assert list((tmp_path / "uploads").iterdir()) == []
    await begin(uploads)


async def test_a_file_is_hashed_as_it_comes_whatever_broke_in_between(uploads: Uploads) -> None:
    upload = await begin(uploads)
    with pytest.raises(Unavailable, match="went away"):
        await uploads.append(upload, 0, broken_stream(b"abc"), now=NOW)
    with pytest.raises(ChecksumMismatch):
        await uploads.append(upload, 3, stream(b"XXXX"), now=NOW, checksum=("sha1", hashlib.sha1(b"defg", usedforsecurity=False).digest()))
    assert uploads.digest_of(upload) is None
    await uploads.append(upload, 3, stream(b"defg"), now=NOW)
    await uploads.append(upload, 7, stream(b"hij"), now=NOW)
    assert uploads.digest_of(upload) == hashlib.sha256(b"abcdefghij").digest()
    await uploads.settle(upload, {"digest": "", "kind": "dataset"})
    assert uploads.digest_of(upload) is None


async def test_a_file_whose_beginning_came_before_a_restart_is_not_hashed_from_its_middle(
    uploads: Uploads, store: Store, tmp_path: Path
) -> None:
    upload = await begin(uploads)
    await uploads.append(upload, 0, stream(b"abc"), now=NOW)
    again = Uploads(tmp_path / "uploads", store, Shares(Quota()), max_bytes=1000)
    await again.load(now=NOW)
    assert (await again.append(upload, 3, stream(b"defghij"), now=NOW)).is_complete
    assert again.digest_of(upload) is None
