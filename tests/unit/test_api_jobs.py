"""Jobs, workers, REST workers, logs, partial results, events, repeats and the document of it all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from company import views
from company.chief.api.bodies import params_from_fields
from company.chief.api.idempotency import KEEP_S, MAX_ENTRIES, IdempotencyCache
from company.chief.api.live import stream
from company.chief.api.workers import MAX_FRAMES_AT_ONCE_BYTES
from p2p.base.clock import Monotonic
from p2p.base.codec import encode_value
from p2p.base.frames import FrameParser
from p2p.net.http_types import Response
from tests.support.fake_chief import TOKENS
from tests.support.fake_request import Answer
from tests.unit.test_api_access import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def ask(world: World, method: str, url: str, role: str = "submitter", **rest: Any) -> Answer:
    return await world.server.call(method, url, headers=world.bearer(role) | rest.pop("headers", {}), **rest)


async def uploaded(world: World) -> dict[str, str]:
    package = (await ask(world, "POST", "/upload/module-package?name=wc", data=b"PK")).json()["digest"]
    dataset = (await ask(world, "POST", "/upload/data?name=corpus", data=b"words")).json()["digest"]
    return {"package": package, "dataset": dataset}


async def test_job_is_made_of_json_and_of_form_fields(world: World) -> None:
    body = await uploaded(world) | {"params": {"n": 5}, "priority": 3}
    made = await ask(world, "POST", "/api/v1/jobs", data=json.dumps(body).encode())
    assert (made.status, made.headers["Location"], made.json()["params"]) == (201, "/api/v1/jobs/j-1", {"n": 5})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    fields = b"package=wc&dataset=corpus&params.n=5&params.word=a+b&priority=3&name="
    made = await ask(world, "POST", "/api/v1/jobs", data=fields, headers=form)
    assert (made.json()["params"], made.json()["priority"], made.json()["name"]) == ({"n": 5, "word": "a b"}, 3, "wc")
    # what curl -d '{…}' sends
    assert (await ask(world, "POST", "/api/v1/jobs", data=json.dumps(body).encode(), headers=form)).status == 201


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed-body"),
        (b"{", 400, "malformed-body"),
        (b"[]", 422, "invalid-body"),
        (b'{"package": "x"}', 422, "invalid-body"),
        (b'{"package": "wc", "dataset": "corpus", "priority": "high"}', 422, "invalid-body"),
        (b'{"package": "wc", "dataset": "corpus", "colour": 1}', 422, "invalid-body"),
        (b'{"package": "nope", "dataset": "corpus"}', 404, "package-unknown"),
        (b'{"x": "' + b"x" * (1 << 20) + b'"}', 413, "body-too-large"),
        (b"[" * 100_000, 400, "malformed-body"),
    ],
)
async def test_wrong_job_is_refused_and_nothing_is_made(world: World, body: bytes, status: int, code: str) -> None:
    await uploaded(world)
    answer = await ask(world, "POST", "/api/v1/jobs", data=body)
    assert (answer.status, answer.code) == (status, code)
    assert not world.chief.jobs


async def test_wrong_field_is_named_by_its_path(world: World) -> None:
    answer = await ask(world, "POST", "/api/v1/jobs", data=b'{"package": "wc", "dataset": "corpus", "priority": "high"}')
    assert answer.json()["errors"][0]["path"] == "$.priority"


def test_form_params_keep_text_that_is_not_json() -> None:
    assert params_from_fields({"params": '{"a": 1}', "params.b": "x y", "params.c": "[1]", "p": ""}) == {
        "params": {"a": 1, "b": "x y", "c": [1]}
    }


async def test_list_says_what_it_leaves_out(world: World) -> None:
    for index in range(5):
        world.chief.add_job(f"j-{index}", owner="me" if index == 1 else "submitter")
    listed = (await ask(world, "GET", "/api/v1/jobs?limit=2&offset=1", "viewer")).json()
    assert [j["id"] for j in listed["items"]] == ["j-3", "j-2"]
    assert (listed["total"], listed["returned"], listed["truncated"]) == (5, 2, True)
    assert (await ask(world, "GET", "/api/v1/jobs?limit=2&offset=3", "viewer")).json()["truncated"] is False
    assert (await ask(world, "GET", "/api/v1/jobs?owner=me", "submitter")).json()["total"] == 4
    assert (await ask(world, "GET", "/api/v1/jobs?state=done", "viewer")).json()["total"] == 0
    for bad in ("limit=0", "limit=x", "offset=-1", "limit=%D9%A3"):
        assert (await ask(world, "GET", f"/api/v1/jobs?{bad}", "viewer")).code == "query-malformed"


@pytest.mark.parametrize("what", ["", "/outcomes", "/logs", "/results", "/fragments", "/artifacts"])
async def test_a_job_nobody_has_is_a_404_and_not_a_stream_that_breaks_off(world: World, what: str) -> None:
    assert (await ask(world, "GET", f"/api/v1/jobs/0{what}")).status == 404


async def test_job_is_changed_by_its_owner_only(world: World) -> None:
    world.chief.add_job("j-1")
    world.chief.add_job("j-2", owner="somebody")
    assert (await ask(world, "POST", "/api/v1/jobs/j-1/pause")).json()["paused"] is True
    assert (await ask(world, "POST", "/api/v1/jobs/j-1/resume")).json()["paused"] is False
    assert (await ask(world, "POST", "/api/v1/jobs/j-2/cancel")).code == "not-your-job"
    assert (await ask(world, "PATCH", "/api/v1/jobs/j-1", data=b'{"priority": 7}')).json()["priority"] == 7
    assert (await ask(world, "PATCH", "/api/v1/jobs/j-1")).code == "nothing-to-edit"
    assert (await ask(world, "POST", "/api/v1/jobs/j-1/cancel")).json()["state"] == "cancelled"
    assert (await ask(world, "POST", "/api/v1/jobs/j-1/cancel")).status == 409
    assert (await ask(world, "POST", "/api/v1/jobs/j-1/retry", data=b'{"failed": true}')).status == 202
    assert (await ask(world, "DELETE", "/api/v1/jobs/j-1")).status == 204
    assert (await ask(world, "GET", "/api/v1/jobs/j-1")).status == 404


async def test_why_where_and_what_failed(world: World) -> None:
    world.chief.add_job("j-1")
    world.chief.reasons = [views.ReasonView(code="no-worker", text="No worker.", facts={"slots": 0})]
    world.chief.failed["j-1"] = [
        views.FailureView(job="j-1", fragment=n, tries=3, infra_tries=0, final=True, cause="exception") for n in range(3)
    ]
    for url in ("/api/v1/jobs/j-1/explain", "/api/v1/explain/j-1/17", "/api/v1/explain/w-1"):
        assert (await ask(world, "GET", url, "viewer")).json()["items"][0]["code"] == "no-worker"
    assert (await ask(world, "GET", "/api/v1/explain/j-9/17", "viewer")).status == 404
    assert (await ask(world, "GET", "/api/v1/jobs/j-1/failures?limit=2", "viewer")).json()["truncated"] is True
    assert (await ask(world, "GET", "/api/v1/jobs/j-1/heatmap?cells=64", "viewer")).json()["total"] == 10
    assert (await ask(world, "GET", "/api/v1/jobs/j-1/fragments", "viewer")).json()["done"] == 0


async def test_logs_are_lines_and_follow_ends_with_the_job(world: World) -> None:
    world.chief.add_job("j-1")
    world.chief.lines["j-1"] = [views.LogLine(fragment=n, stream="stdout", text=f"line {n}\n") for n in range(3)]
    answer = await ask(world, "GET", "/api/v1/jobs/j-1/logs?limit=2", "viewer")
    assert answer.media_type == "application/x-ndjson"
    assert [json.loads(line)["text"] for line in answer.text.splitlines()] == ["line 0\n", "line 1\n"]
    assert len((await ask(world, "GET", "/api/v1/jobs/j-1/logs?fragment=1", "viewer")).text.splitlines()) == 1
    followed = await ask(world, "GET", "/api/v1/jobs/j-1/logs?follow&format=text", "viewer")
    assert followed.text.splitlines() == ["line 0", "line 1", "line 2", "job done"]
    assert (await ask(world, "GET", "/api/v1/jobs/j-9/logs", "viewer")).status == 404


async def test_followed_lines_come_once_though_their_order_changes(world: World) -> None:
    world.chief.add_job("j-1")
    world.chief.lines["j-1"] = [views.LogLine(fragment=0, stream="stdout", text="same") for _ in range(2)]
    response = await world.server.open("GET", "/api/v1/jobs/j-1/logs?follow&format=text", headers=world.bearer("viewer"))
    assert not isinstance(response.body, bytes)
    pieces = aiter(response.body)  # type: ignore[arg-type]
    got = [await anext(pieces), await anext(pieces)]
    world.chief.lines["j-1"].insert(0, views.LogLine(fragment=None, stream="event", text="new event"))
    got += [piece async for piece in pieces]
    assert got == [b"same\n", b"same\n", b"new event\n", b"job done\n"]


async def test_partial_results_are_shown_or_framed(world: World) -> None:
    world.chief.add_job("j-1")
    world.chief.results["j-1"] = [encode_value({"a": (1, 2)}), b"\xc1", encode_value(b"x" * (2 << 20))]
    shown = [json.loads(line) for line in (await ask(world, "GET", "/api/v1/jobs/j-1/results", "viewer")).text.splitlines()]
    assert shown[0] == {"fragment": 0, "value": {"a": [1, 2]}} and "not JSON" in shown[1]["omitted"] and "1 MiB" in shown[2]["omitted"]
    raw = (await ask(world, "GET", "/api/v1/jobs/j-1/results?raw=1&start=1&limit=1", "viewer")).body
    (frame,) = FrameParser().feed_untrusted(raw)
    assert frame.header == [1] and bytes(frame.body) == b"\xc1"
    assert (await ask(world, "GET", "/api/v1/jobs/j-1/fragments/1/result", "viewer")).body == b"\xc1"
    assert (await ask(world, "GET", "/api/v1/jobs/j-1/fragments/9/input")).status == 404


async def test_workers_are_listed_and_changed(world: World) -> None:
    world.chief.workers["w-1"] = views.WorkerView(id="w-1", name="amber", state="idle", slots=2)
    assert (await ask(world, "GET", "/api/v1/workers", "viewer")).json()["items"][0]["name"] == "amber"
    assert (await ask(world, "POST", "/api/v1/workers/w-1/drain", "operator")).json()["state"] == "draining"
    assert (await ask(world, "DELETE", "/api/v1/workers/w-1", "operator")).status == 204
    assert (await ask(world, "GET", "/api/v1/workers/w-1", "viewer")).status == 404


async def test_results_of_all_rest_workers_together_have_a_bound_in_memory(world: World) -> None:
    """Nothing is on disk until it is released, so one more body of 20 MiB beside those that there is room for is refused."""
    bearer = {"Authorization": f"Bearer {TOKENS['worker']}"}
    release = trio.Event()

    async def keep(worker: str, frame: bytes, wait_s: float, on_taken: Callable[[], None]) -> bytes | None:
        await release.wait()
        on_taken()
        return None

    world.chief.rest_result = keep  # type: ignore[method-assign]
    size = {**bearer, "Content-Length": str(20 << 20)}
    answers: list[int] = []

    async def send() -> None:
        answers.append((await world.server.call("POST", "/upload/result-fragment", headers=size, data=b"x")).status)

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_FRAMES_AT_ONCE_BYTES // (20 << 20)):
            nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        refused = await world.server.call("POST", "/upload/result-fragment", headers=size, data=b"x")
        assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "bodies-full", "1")
        too_large = {**bearer, "Content-Length": str(1 << 30)}
        assert (await world.server.call("POST", "/upload/result-fragment", headers=too_large, data=b"x")).status == 413
        release.set()
    assert set(answers) == {204}
    assert (await world.server.call("POST", "/upload/result-fragment", headers=size, data=b"x")).status == 204


async def test_rest_worker_joins_takes_work_and_hands_it_in(world: World) -> None:
    joined = await world.server.call("POST", "/api/v1/workers/join", data=b'{"token": "join-me"}')
    assert joined.status == 201
    bearer = {"Authorization": f"Bearer {joined.json()['token']}"}
    assert (await world.server.call("POST", "/api/v1/workers/next", headers=bearer)).status == 204
    world.chief.runs = [b"first run", b"second run"]
    assert (await world.server.call("POST", "/api/v1/workers/next?wait=1", headers=bearer)).body == b"first run"
    answer = await world.server.call("POST", "/upload/result-fragment", headers=bearer, data=b"outcome")
    assert answer.body == b"second run" and world.chief.outcomes == [("worker", b"outcome")]
    assert (await world.server.call("POST", "/upload/result-fragment", headers=bearer, data=b"stale")).status == 409
    got = await world.server.call("GET", "/data-fragment/5?job=j-1&count=3", headers=bearer | {"Company-Lease": "42"})
    assert got.body == b"worker 42 j-1 5 3"
    assert (await world.server.call("GET", "/data-fragment/5?job=j-1", headers=bearer)).code == "lease-missing"


async def test_wrong_join_tokens_count_as_failed_logins(world: World) -> None:
    statuses = [(await world.server.call("POST", "/api/v1/workers/join", data=b'{"token": "x"}')).status for _ in range(22)]
    assert statuses[0] == 403 and statuses[-1] == 429


async def test_same_idempotency_key_makes_one_job(world: World) -> None:
    body = json.dumps(await uploaded(world)).encode()
    key = {"Idempotency-Key": "k1"}
    first = await ask(world, "POST", "/api/v1/jobs", data=body, headers=key)
    again = await ask(world, "POST", "/api/v1/jobs", data=body, headers=key)
    assert (first.status, again.status, again.body) == (201, 201, first.body)
    assert again.headers["Idempotency-Replayed"] == "true" and len(world.chief.jobs) == 1
    other = await ask(world, "POST", "/api/v1/jobs", data=body + b" ", headers=key)
    assert (other.status, other.code) == (422, "idempotency-reused")
    assert (await ask(world, "POST", "/api/v1/jobs", "owner", data=body, headers=key)).json()["id"] == "j-2"


async def test_key_in_flight_is_409_and_a_failed_request_frees_it(world: World) -> None:
    body = json.dumps(await uploaded(world)).encode()
    world.chief.gate = trio.Event()
    async with trio.open_nursery() as nursery:

        async def first() -> None:
            assert (await ask(world, "POST", "/api/v1/jobs", data=body, headers={"Idempotency-Key": "k"})).status == 201

        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        second = await ask(world, "POST", "/api/v1/jobs", data=body, headers={"Idempotency-Key": "k"})
        assert (second.status, second.code) == (409, "idempotency-in-flight")
        world.chief.gate.set()
    wrong = json.dumps({"package": "nope", "dataset": "corpus"}).encode()
    for _ in range(2):
        assert (await ask(world, "POST", "/api/v1/jobs", data=wrong, headers={"Idempotency-Key": "k2"})).status == 404


def test_idempotency_cache_forgets_after_a_day_and_is_bounded() -> None:
    cache, zero = IdempotencyCache(), Monotonic(0.0)
    assert cache.begin("a", "r", "k", b"", zero) is None
    cache.finish("a", "r", "k", Response(201), zero)
    assert cache.begin("a", "r", "k", b"", Monotonic(KEEP_S - 1)) is not None
    assert cache.begin("a", "r", "k", b"", Monotonic(KEEP_S + 1)) is None
    cache.abandon("a", "r", "k")
    for index in range(MAX_ENTRIES + 9):
        cache.begin("a", "r", str(index), b"", zero)
        cache.finish("a", "r", str(index), Response(201), zero)
    assert len(cache._answers) <= MAX_ENTRIES


async def test_events_go_on_after_the_last_id(world: World) -> None:
    for index in range(3):
        world.chief.emit("job.state", index=index)
    world.chief.has_ended = True
    answer = await ask(world, "GET", "/api/v1/events", "viewer", headers={"Last-Event-ID": "1"})
    assert answer.media_type == "text/event-stream"
    assert "id: 1\n" not in answer.text and "id: 2\nevent: job.state\ndata: {" in answer.text and "id: 3\n" in answer.text
    assert (await ask(world, "GET", "/api/v1/events", "viewer", headers={"Last-Event-ID": "x"})).status == 400


async def test_silent_stream_has_heartbeats_and_loses_nothing(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.chief.emit("a")
    pieces: AsyncIterator[bytes] = stream(world.chief, 0)
    assert b"retry" in await anext(pieces) and b"event: a" in await anext(pieces)
    assert await anext(pieces) == b": still here\n\n" and await anext(pieces) == b": still here\n\n"
    world.chief.emit("b")
    assert (await anext(pieces)).startswith(b"id: 2\nevent: b\n")


async def test_openapi_covers_every_route_and_its_references_resolve(world: World) -> None:
    document = json.loads((await world.server.call("GET", "/api/v1/openapi.json")).body)
    assert document["openapi"] == "3.1.0"
    operations = {(m.upper(), p) for p, ops in document["paths"].items() for m in ops}
    assert len(operations) == len(world.routes)
    for route in world.routes:
        path = route.pattern.replace(":.+}", "}")
        assert (route.method, path) in operations
        names = {p["name"] for p in document["paths"][path][route.method.lower()]["parameters"] if p["in"] == "path"}
        assert names == {piece.split("}")[0] for piece in path.split("{")[1:]}
    ids = [op["operationId"] for ops in document["paths"].values() for op in ops.values()]
    assert len(ids) == len(set(ids))
    text = json.dumps(document)
    for ref in {piece.split('"')[0] for piece in text.split('"#/components/schemas/')[1:]}:
        assert ref in document["components"]["schemas"]


async def test_metrics_have_bounded_labels(world: World) -> None:
    world.chief.add_job("j-1")
    for index in range(30):
        await ask(world, "GET", f"/api/v1/jobs/unknown-{index}", "viewer")
    await world.server.call("GET", "/api/v1/jobs", headers={"Host": "evil"})
    text = (await ask(world, "GET", "/metrics", "viewer")).text
    assert 'company_jobs{state="running"} 1.0' in text and 'company_auth_failures_total{kind="host"} 1.0' in text
    assert 'company_http_requests_total{code="404",method="GET",route="/api/v1/jobs/{id}"} 30.0' in text and "unknown-" not in text


async def test_system_calls_answer(world: World) -> None:
    assert (await world.server.call("GET", "/api/v1/health/live")).json() == {"status": "ok"}
    assert (await world.server.call("GET", "/api/v1/health/ready")).status == 200
    assert (await ask(world, "GET", "/api/v1/company", "viewer")).json()["name"] == "Bio Lab"
    assert (await ask(world, "GET", "/api/v1/limits", "viewer")).json()["package_max_bytes"] == 1 << 20
    assert (await ask(world, "GET", "/api/v1/doctor", "operator")).json()["total"] == 1
    assert (await ask(world, "POST", "/api/v1/admin/backup", "owner", data=b'{"path": "relative"}')).status == 400
    assert (await ask(world, "POST", "/api/v1/admin/backup", "owner", data=b'{"path": "/b"}')).json()["path"] == "/b"
    assert (await ask(world, "POST", "/api/v1/admin/stop", "owner")).status == 202 and world.chief.is_stopping


async def test_wheelhouse_is_what_pip_reads(world: World) -> None:
    world.chief.wheels = [world.chief.store_file("company_compute-0.1.0-py3-none-any.whl", b"wheel")]
    index = (await world.server.call("GET", "/wheelhouse/")).text
    assert '<a href="company_compute-0.1.0-py3-none-any.whl#sha256=' in index
    assert (await world.server.call("GET", "/wheelhouse/company_compute-0.1.0-py3-none-any.whl")).body == b"wheel"
    assert (await world.server.call("GET", "/wheelhouse/other.whl")).status == 404
