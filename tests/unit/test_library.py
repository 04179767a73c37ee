"""What clients upload: a finished upload stays known, a signature holds for the name it was made under, faults keep their class."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from company import views
from company.chief.facade import Invalid, NotFound, Principal, TooLarge
from company.chief.intake import MAX_ARCHIVE_BYTES
from company.chief.library import Library
from company.chief.store.store import Store
from company.package import check_package, claim_of, sign_package
from company.paths import Home
from p2p.base.keys import Identity

CHIEF, CLIENT = Identity(bytes(32)), Identity(bytes([1]) * 32)
BY = Principal("p1", "submitter", "ada")
FILES = {
    "split.py": b"def split(data):\n    yield 1\n",
    "merge.py": b"def merge(results, output):\n    return list(results)\n",
    "processor/main.py": b"def process(fragment):\n    return fragment\n",
}


async def stream(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(Home(tmp_path).chief.create().database)
    yield opened
    await opened.aclose()


@pytest.fixture
async def library(tmp_path: Path, store: Store) -> Library:
    return await again(tmp_path, store)


async def again(tmp_path: Path, store: Store) -> Library:
    """The library as the next start of the chief finds it."""
    opened = Library(Home(tmp_path).chief, store, CHIEF)
    await opened.load()
    return opened


async def uploaded(library: Library, content: bytes, **meta: str) -> str:
    upload = await library.create_upload(length=len(content), meta=meta, by=BY)
    await library.append_upload(upload, 0, stream(content), None)
    return upload


# ---- resumable uploads
async def test_a_finished_upload_still_says_its_offset_and_what_it_became(library: Library, store: Store, tmp_path: Path) -> None:
    upload = await uploaded(library, b"some data", name="data.txt")
    made = await library.finish_upload(upload)
    assert isinstance(made, views.DatasetView)
    for one in (library, await again(tmp_path, store)):  # after a restart too
        offset, length, _ = await one.upload_offset(upload)
        assert (offset, length) == (9, 9)
        assert await one.finish_upload(upload) == made
    assert list(Home(tmp_path).chief.uploads.iterdir()) == []


async def test_finishing_twice_at_once_takes_the_bytes_in_once(library: Library) -> None:
    upload = await uploaded(library, b"x" * 100_000, name="x")
    found: list[object] = []

    async def finish() -> None:
        found.append(await library.finish_upload(upload))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(finish)
    assert len(found) == 3
    assert found[0] == found[1] == found[2]
    assert len(await library.list_datasets()) == 1


async def test_a_caller_that_leaves_does_not_lose_the_bytes(library: Library) -> None:
    upload = await uploaded(library, b"some data", name="x")
    with trio.CancelScope() as scope:
        scope.cancel()
        await library.finish_upload(upload)
    assert len(await library.list_datasets()) == 1
    assert (await library.upload_offset(upload))[0] == 9


async def test_a_refused_package_is_refused_again_with_the_same_words_and_takes_no_room(library: Library, tmp_path: Path) -> None:
    upload = await uploaded(library, archive(FILES | {"split.py": b"def split(:\n"}), name="p", kind="package")
    texts = []
    for _ in range(2):
        with pytest.raises(Invalid) as caught:
            await library.finish_upload(upload)
        texts.append((caught.value.code, caught.value.text, caught.value.facts))
    assert texts[0] == texts[1]
    assert texts[0][2]["errors"][0]["path"] == "split.py"
    assert list(Home(tmp_path).chief.uploads.iterdir()) == []


async def test_finished_uploads_do_not_count_as_open_ones(library: Library) -> None:
    for number in range(40):
        assert await library.finish_upload(await uploaded(library, str(number).encode(), name="n"))


async def test_an_upload_given_up_is_unknown(library: Library) -> None:
    upload = await uploaded(library, b"abc", name="n")
    await library.finish_upload(upload)
    await library.abort_upload(upload)
    with pytest.raises(NotFound):
        await library.upload_offset(upload)
    assert len(await library.list_datasets()) == 1


async def test_a_package_that_is_too_large_is_refused_before_its_first_byte(library: Library) -> None:
    with pytest.raises(TooLarge):
        await library.create_upload(length=MAX_ARCHIVE_BYTES + 1, meta={"kind": "package"}, by=BY)


# ---- packages
@pytest.mark.parametrize("name", ["plain", "my package (2)", "größe", "a/b"])
async def test_a_clients_signature_holds_for_the_name_it_sent(library: Library, name: str) -> None:
    signature = sign_package(CLIENT, claim_of(check_package(FILES, default_name=name)))
    view, created = await library.add_package(stream(archive(FILES)), by=BY, name=name, signer=CLIENT.public, signature=signature)
    assert created
    assert (view.name, view.signer, view.signed_for) == (name, CLIENT.public.hex(), "")
    assert "/" not in (await library.package_archive(view.digest)).name


async def test_a_signature_over_another_name_is_refused(library: Library) -> None:
    signature = sign_package(CLIENT, claim_of(check_package(FILES, default_name="one")))
    with pytest.raises(Invalid):
        await library.add_package(stream(archive(FILES)), by=BY, name="two", signer=CLIENT.public, signature=signature)
    assert await library.list_packages() == []


@pytest.mark.parametrize("name", ["n" * 101, "line\nbreak"])
async def test_a_signed_name_that_no_message_can_carry_is_refused(library: Library, name: str) -> None:
    signature = sign_package(CLIENT, claim_of(check_package(FILES, default_name=name)))
    with pytest.raises(Invalid, match="name"):
        await library.add_package(stream(archive(FILES)), by=BY, name=name, signer=CLIENT.public, signature=signature)


async def test_what_came_unsigned_the_chief_signs_for_its_user(library: Library) -> None:
    view, _ = await library.add_package_files(dict(FILES), by=BY, name="p")
    assert (view.signer, view.signed_for) == (CHIEF.public.hex(), "ada")


async def test_an_archive_of_too_many_files_keeps_its_code(library: Library) -> None:
    many = FILES | {f"processor/f{i}.txt": b"" for i in range(20_000)}
    with pytest.raises(TooLarge, match="files") as caught:
        await library.add_package(stream(archive(many)), by=BY)
    assert caught.value.code == "package-too-many-files"
