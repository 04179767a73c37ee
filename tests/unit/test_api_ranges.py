"""Parts of files, conditions on them, and the result that is not ready."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from company.chief.api.problem import NotAcceptable
from company.chief.api.ranges import is_listed, parse_range_untrusted
from tests.unit.test_api_access import World

DATA = bytes(range(100))
DIGEST = hashlib.sha256(DATA).hexdigest()
TAG = f'"{DIGEST}"'
STALE = '"' + "0" * 64 + '"'


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.chief.add_job("j-1", state="done")
    world.chief.files["j-1"] = world.chief.store_file("out “1”.bin", DATA)
    return world


CASES = [
    # request headers, status, Content-Range, body
    ({}, 200, None, DATA),
    ({"Range": "bytes=0-9"}, 206, "bytes 0-9/100", DATA[:10]),
    ({"Range": "bytes=90-"}, 206, "bytes 90-99/100", DATA[90:]),
    ({"Range": "bytes=90-1000"}, 206, "bytes 90-99/100", DATA[90:]),
    ({"Range": "bytes=-10"}, 206, "bytes 90-99/100", DATA[90:]),
    ({"Range": "bytes=-1000"}, 206, "bytes 0-99/100", DATA),
    ({"Range": "bytes=99-99"}, 206, "bytes 99-99/100", DATA[99:]),
    ({"Range": "bytes=100-"}, 416, "bytes */100", None),
    ({"Range": "bytes=-0"}, 416, "bytes */100", None),
    ({"Range": "bytes=0-1,5-6"}, 200, None, DATA),
    ({"Range": "bytes=9-1"}, 200, None, DATA),
    ({"Range": "bytes=-"}, 200, None, DATA),
    ({"Range": "lines=1-2"}, 200, None, DATA),
    ({"Range": "bytes=0-9", "If-Range": TAG}, 206, "bytes 0-9/100", DATA[:10]),
    ({"Range": "bytes=0-9", "If-Range": STALE}, 200, None, DATA),
    ({"Range": "bytes=0-9", "If-Range": f"W/{TAG}"}, 200, None, DATA),
    ({"Range": "bytes=0-9", "If-Range": "Sat, 21 Nov 2026 00:00:00 GMT"}, 200, None, DATA),
    ({"Range": "bytes=100-", "If-Range": STALE}, 200, None, DATA),
    ({"If-None-Match": TAG}, 304, None, b""),
    ({"If-None-Match": f"W/{TAG}"}, 304, None, b""),
    ({"If-None-Match": f"{STALE}, {TAG}"}, 304, None, b""),
    ({"If-None-Match": "*"}, 304, None, b""),
    ({"If-None-Match": STALE}, 200, None, DATA),
    ({"If-None-Match": TAG, "Range": "bytes=0-9"}, 304, None, b""),
    ({"If-Match": STALE}, 412, None, None),
    ({"If-Match": f"W/{TAG}"}, 412, None, None),
    ({"If-Match": TAG, "Range": "bytes=0-9"}, 206, "bytes 0-9/100", DATA[:10]),
]


@pytest.mark.parametrize(("headers", "status", "content_range", "body"), CASES)
async def test_final_result_follows_rfc_9110(
    world: World, headers: dict[str, str], status: int, content_range: str | None, body: bytes | None
) -> None:
    answer = await world.server.call("GET", "/final-result?job=j-1", headers=world.bearer("viewer") | headers)
    assert (answer.status, answer.headers.get("Content-Range")) == (status, content_range)
    if body is not None:
        assert answer.body == body
        assert answer.headers["ETag"] == TAG and answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(hashlib.sha256(DATA).digest()).decode()}:"


async def test_head_has_the_headers_of_get(world: World) -> None:
    answer = await world.server.call("HEAD", "/final-result?job=j-1", headers=world.bearer("viewer"))
    assert (answer.status, answer.body, answer.headers["ETag"]) == (200, b"", TAG)


async def test_name_of_the_download_survives_any_characters(world: World) -> None:
    answer = await world.server.call("GET", "/final-result?job=j-1", headers=world.bearer("viewer"))
    assert answer.headers["Content-Disposition"] == "attachment; filename=\"out _1_.bin\"; filename*=UTF-8''out%20%E2%80%9C1%E2%80%9D.bin"


async def test_unready_result_is_409_with_progress_and_not_202(world: World) -> None:
    world.chief.add_job("j-2", state="running")
    answer = await world.server.call("GET", "/final-result?job=j-2", headers=world.bearer("viewer"))
    assert (answer.status, answer.code, answer.json()["retryable"]) == (409, "result-not-ready", True)
    assert answer.json()["progress"] == {"done": 0, "total": None} and answer.headers["Retry-After"] == "5"


async def test_waiting_for_the_result_answers_when_it_is_there(world: World) -> None:
    world.chief.add_job("j-2", state="running")
    world.chief.files["j-2"] = world.chief.store_file("r", b"late")
    assert (await world.server.call("GET", "/final-result?job=j-2&wait=30", headers=world.bearer("viewer"))).body == b"late"


async def test_result_of_no_job_says_how_to_name_one(world: World) -> None:
    answer = await world.server.call("GET", "/final-result", headers=world.bearer("viewer"))
    assert (answer.status, answer.code) == (400, "job-missing")
    assert (await world.server.call("GET", "/final-result?job=j-9", headers=world.bearer("viewer"))).status == 404


def test_empty_file_has_no_satisfiable_range() -> None:
    with pytest.raises(NotAcceptable):
        parse_range_untrusted("bytes=0-", 0)


def test_tags_are_found_in_lists() -> None:
    assert is_listed('"a", W/"b"', "b", weak=True) and not is_listed('"a", W/"b"', "b", weak=False)


async def test_artifact_is_served_with_range(world: World) -> None:
    world.chief.left["j-1", 3, "plots/a.png"] = world.chief.store_file("a.png", b"PNGDATA")
    listed = (await world.server.call("GET", "/api/v1/jobs/j-1/artifacts", headers=world.bearer("viewer"))).json()
    assert (listed["total"], listed["items"][0]["name"]) == (1, "plots/a.png")
    answer = await world.server.call(
        "GET", "/api/v1/jobs/j-1/artifacts/3/plots/a.png", headers=world.bearer("viewer") | {"Range": "bytes=0-2"}
    )
    assert (answer.status, answer.body) == (206, b"PNG")
    assert (await world.server.call("GET", "/api/v1/jobs/j-1/artifacts/x/a", headers=world.bearer("viewer"))).status == 400
