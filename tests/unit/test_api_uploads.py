"""Packages and data as bodies and forms, and resumable uploads."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from company.chief.api.filenames import is_plain_path, package_files_untrusted
from company.chief.api.tus import CHUNK_TYPE, checksum_untrusted, metadata_untrusted
from company.chief.facade import Invalid
from p2p.base.errors import ParallelError
from tests.support.fake_chief import NOW
from tests.support.fake_request import Answer, FakePart
from tests.unit.test_api_access import World

TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def post(world: World, url: str, **rest: Any) -> Answer:
    headers = world.bearer("submitter") | rest.pop("headers", {})
    return await world.server.call("POST", url, headers=headers, **rest)


async def test_package_is_201_then_200_with_the_same_digest(world: World) -> None:
    first = await post(world, "/upload/module-package?name=wordcount", data=b"PK zip bytes")
    again = await post(world, "/upload/module-package", data=b"PK zip bytes")
    assert (first.status, again.status) == (201, 200)
    assert first.json()["digest"] == again.json()["digest"] and first.json()["name"] == "wordcount"
    assert first.headers["Location"] == f"/api/v1/packages/{first.json()['digest']}"


async def test_wrong_package_is_422_with_file_and_line(world: World) -> None:
    answer = await post(world, "/upload/module-package", data=b"syntax error")
    assert (answer.status, answer.json()["errors"]) == (422, [{"path": "split.py", "line": 3, "detail": "invalid syntax"}])


async def test_too_large_package_is_413_with_limit(world: World) -> None:
    world.chief.max_bytes["package_max_bytes"] = 10
    answer = await post(world, "/upload/module-package", data=b"x" * 11)
    assert (answer.status, answer.json()["limit"]) == (413, 10)
    form = (FakePart("split.py", "split.py", b"x" * 11),)
    assert (await post(world, "/upload/module-package", form=form)).status == 413


async def test_form_with_archive_or_with_files_makes_a_package(world: World) -> None:
    archive = await post(world, "/upload/module-package", form=(FakePart("package", "wc.zip", b"PK"),))
    assert archive.status == 201 and archive.json()["name"] == "wc"
    loose = (
        FakePart("name", None, b"wc2"),
        FakePart("f", "split.py", b"s"),
        FakePart("f", "merge.py", b"m"),
        FakePart("f", "main.py", b"p"),
    )
    answer = await post(world, "/upload/module-package", form=loose)
    assert answer.json()["name"] == "wc2"
    assert [f["path"] for f in answer.json()["files"]] == ["merge.py", "processor/main.py", "split.py"]
    named = (FakePart("split.py", "a.py", b"s"), FakePart("processor/main.py", "b.py", b"p"))
    assert [f["path"] for f in (await post(world, "/upload/module-package", form=named)).json()["files"]] == [
        "processor/main.py",
        "split.py",
    ]
    assert (await post(world, "/upload/module-package", form=(FakePart("name", None, b"x"),))).code == "package-missing"


def test_folder_of_a_browser_is_unwrapped() -> None:
    files = {"wc/split.py": b"", "wc/processor/main.py": b""}
    assert sorted(package_files_untrusted(files)) == ["processor/main.py", "split.py"]
    assert sorted(package_files_untrusted({"processor/main.py": b""})) == ["processor/main.py"]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "a/../b", "a\\b", "c:x", "a/\n", "", "x" * 600])
def test_forbidden_paths_are_refused_by_name(path: str) -> None:
    assert not is_plain_path(path)
    with pytest.raises(Invalid) as caught:
        package_files_untrusted({path: b"", "split.py": b""})
    assert caught.value.facts["errors"][0]["path"] == path[:200]


async def test_data_is_streamed_with_name_and_kind(world: World) -> None:
    answer = await post(world, "/upload/data?name=corpus.txt", data=b"hello world")
    assert (answer.status, answer.json()["name"], answer.json()["size"]) == (201, "corpus.txt", 11)
    assert (await post(world, "/upload/data?name=corpus.txt", data=b"hello world")).status == 200
    named = await post(world, "/upload/data?kind=tree", data=b"tar", headers={"Content-Disposition": 'attachment; filename="d.tar"'})
    assert (named.json()["name"], named.json()["kind"]) == ("d.tar", "tree")
    assert (await post(world, "/upload/data?kind=zip", data=b"x")).code == "kind-unknown"
    form = (FakePart("kind", None, b"file"), FakePart("data", "f.bin", b"123"))
    assert (await post(world, "/upload/data", form=form)).json()["name"] == "f.bin"
    assert (await post(world, "/upload/data", form=(*form, FakePart("data", "g.bin", b"4")))).code == "several-files"
    world.chief.max_bytes["dataset_max_bytes"] = 5
    assert (await post(world, "/upload/data", data=b"123456")).status == 413
    world.chief.free_bytes = 1
    assert (await post(world, "/upload/data", data=b"123")).status == 507


async def tus(world: World, method: str, url: str, **rest: Any) -> Answer:
    headers = world.bearer("submitter") | TUS | rest.pop("headers", {})
    return await world.server.call(method, url, headers=headers, **rest)


async def patch(world: World, url: str, offset: int, data: bytes, **headers: str) -> Answer:
    return await tus(world, "PATCH", url, headers={"Upload-Offset": str(offset), "Content-Type": CHUNK_TYPE} | headers, data=data)


async def test_tus_upload_goes_on_where_it_stopped(world: World) -> None:
    meta = f"name {base64.b64encode(b'c.txt').decode()},empty"
    made = await tus(world, "POST", "/upload/data", headers={"Upload-Length": "10", "Upload-Metadata": meta})
    assert made.status == 201 and made.headers["Tus-Resumable"] == "1.0.0" and made.headers["Upload-Expires"].endswith("GMT")
    url = made.headers["Location"]
    part = await patch(world, url, 0, b"01234")
    assert (part.status, part.headers["Upload-Offset"]) == (204, "5") and "Company-Digest" not in part.headers
    asked = await tus(world, "HEAD", url)
    assert (asked.status, asked.headers["Upload-Offset"], asked.headers["Upload-Length"]) == (200, "5", "10")
    assert asked.headers["Cache-Control"] == "no-store"
    assert (await world.server.call("GET", url, headers=world.bearer("submitter"))).json()["result"] is None
    last = await patch(world, url, 5, b"56789")
    digest = last.headers["Company-Digest"]
    assert world.chief.contents[digest] == b"0123456789" and last.headers["Company-Kind"] == "dataset"
    shown = (await world.server.call("GET", url, headers=world.bearer("submitter"))).json()
    assert (shown["offset"], shown["kind"], shown["result"]["name"]) == (10, "dataset", "c.txt")


async def test_tus_wrong_offset_is_409_and_changes_nothing(world: World) -> None:
    url = (await tus(world, "POST", "/api/v1/uploads", headers={"Upload-Length": "10"})).headers["Location"]
    await patch(world, url, 0, b"012")
    for offset in (0, 2, 4):
        answer = await patch(world, url, offset, b"9")
        assert (answer.status, answer.code, answer.headers["Tus-Resumable"]) == (409, "offset-mismatch", "1.0.0")
        assert answer.json()["offset"] == 3
    assert (await tus(world, "HEAD", url)).headers["Upload-Offset"] == "3"


async def test_tus_checksum_is_checked(world: World) -> None:
    url = (await tus(world, "POST", "/api/v1/uploads", headers={"Upload-Length": "3"})).headers["Location"]
    good = "sha1 " + base64.b64encode(hashlib.sha1(b"abc").digest()).decode()
    assert (await patch(world, url, 0, b"xyz", **{"Upload-Checksum": good})).status == 460
    assert (await patch(world, url, 0, b"abc", **{"Upload-Checksum": "md9 eA=="})).status == 400
    assert (await tus(world, "HEAD", url)).headers["Upload-Offset"] == "0"
    assert (await patch(world, url, 0, b"abc", **{"Upload-Checksum": good})).status == 204


async def test_tus_refusals_have_their_own_status(world: World) -> None:
    url = (await tus(world, "POST", "/api/v1/uploads", headers={"Upload-Length": "3"})).headers["Location"]
    wrong = await world.server.call("PATCH", url, headers=world.bearer("submitter") | {"Tus-Resumable": "0.2.2"})
    assert (wrong.status, wrong.headers["Tus-Version"]) == (412, "1.0.0")
    assert (await tus(world, "PATCH", url, headers={"Upload-Offset": "0"}, data=b"x")).status == 415
    assert (await patch(world, url, -1, b"x")).status == 400
    assert (await tus(world, "POST", "/upload/data", headers={"Upload-Length": "9999999999"})).status == 413
    assert (await tus(world, "POST", "/upload/data", headers={"Upload-Defer-Length": "1"})).status == 400
    assert (await tus(world, "HEAD", "/api/v1/uploads/u-99")).status == 404
    world.chief.uploads["u-1"].expires = NOW - 1
    assert (await tus(world, "HEAD", url)).status == 410


async def test_tus_creation_with_upload_empty_upload_and_package(world: World) -> None:
    made = await tus(world, "POST", "/upload/data", headers={"Upload-Length": "3", "Content-Type": CHUNK_TYPE}, data=b"abc")
    assert (made.status, made.headers["Upload-Offset"]) == (201, "3") and "Company-Digest" in made.headers
    empty = await tus(world, "POST", "/upload/data", headers={"Upload-Length": "0"})
    assert world.chief.contents[empty.headers["Company-Digest"]] == b""
    kind = f"kind {base64.b64encode(b'package').decode()}"
    package = await tus(
        world, "POST", "/upload/data", headers={"Upload-Length": "2", "Content-Type": CHUNK_TYPE, "Upload-Metadata": kind}, data=b"PK"
    )
    assert package.headers["Company-Kind"] == "package"


async def test_tus_termination_and_method_override(world: World) -> None:
    url = (await tus(world, "POST", "/api/v1/uploads", headers={"Upload-Length": "3"})).headers["Location"]
    override = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0", "Content-Type": CHUNK_TYPE}
    assert (await tus(world, "POST", url, headers=override, data=b"a")).headers["Upload-Offset"] == "1"
    assert (await tus(world, "POST", url)).status == 400
    assert (await tus(world, "DELETE", url)).status == 204
    assert (await tus(world, "HEAD", url)).status == 404


async def test_tus_options_names_what_is_offered_without_a_token(world: World) -> None:
    answer = await world.server.call("OPTIONS", "/upload/data")
    assert (answer.status, answer.headers["Tus-Version"], answer.headers["Tus-Max-Size"]) == (204, "1.0.0", str(1 << 20))
    assert set(answer.headers["Tus-Extension"].split(",")) == {"creation", "creation-with-upload", "termination", "expiration", "checksum"}


@pytest.mark.parametrize("header", ["name !!!", "name " + base64.b64encode(b"\xff").decode(), "x" * 9000])
def test_wrong_metadata_is_refused(header: str) -> None:
    with pytest.raises(ParallelError):
        metadata_untrusted(header)


@pytest.mark.parametrize("header", ["sha1", "sha1 x", "md5 1B2M2Y8AsgTpgAmY7PhCfg==", "sha256 " + base64.b64encode(b"x" * 20).decode()])
def test_wrong_checksum_header_is_refused(header: str) -> None:
    with pytest.raises(ParallelError):
        checksum_untrusted(header)


async def test_stored_things_can_be_listed_shown_downloaded_and_removed(world: World) -> None:
    package = (await post(world, "/upload/module-package?name=p", data=b"PK")).json()["digest"]
    dataset = (await post(world, "/upload/data", data=b"d")).json()["digest"]
    for kind, digest in (("packages", package), ("datasets", dataset)):
        listed = (await world.server.call("GET", f"/api/v1/{kind}", headers=world.bearer("viewer"))).json()
        assert (listed["total"], listed["returned"], listed["truncated"]) == (1, 1, False)
        assert (await world.server.call("GET", f"/api/v1/{kind}/{digest[:8]}", headers=world.bearer("viewer"))).json()["digest"] == digest
    archive = await world.server.call("GET", f"/api/v1/packages/{package}/archive", headers=world.bearer("viewer"))
    assert archive.body == b"PK" and "immutable" in archive.headers["Cache-Control"]
    job = world.chief.add_job("j-1", package=package)
    assert (await world.server.call("DELETE", f"/api/v1/packages/{package}", headers=world.bearer("submitter"))).code == "in-use"
    del world.chief.jobs[job.id]
    for url in (f"/api/v1/packages/{package}", f"/api/v1/datasets/{dataset}"):
        assert (await world.server.call("DELETE", url, headers=world.bearer("submitter"))).status == 204
        assert (await world.server.call("GET", url, headers=world.bearer("viewer"))).status == 404
