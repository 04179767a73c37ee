"""A worker by REST alone, against a chief that is nothing but HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from company import messages as m
from company.paths import Home
from company.sandbox import Sandbox
from company.tokens import JoinToken, encode_token
from company.worker.options import WorkerOptions, load_membership
from company.worker.rest import FORGOTTEN_AFTER_S, encode, messages_untrusted
from company.worker.service import Worker, wipe
from p2p.base.codec import decode_value, encode_value
from p2p.base.errors import MalformedMessage
from p2p.base.keys import Identity
from p2p.base.schema import Message
from p2p.net.asyncio_bridge import open_bridge
from p2p.net.http_client import HttpClient, HttpReply, open_http_client
from p2p.net.http_server import serve_http
from p2p.net.http_types import Request, Response, Route
from tests.support.scripted_chief import Package, blake, package, sizes_of

CHIEF, WORKER = Identity(b"C" * 32), Identity(b"W" * 32)
BEARER = "cmpx-bearer"
IDENTITY = package("def process(fragment):\n    return fragment\n")
BINARY = "application/octet-stream"


@dataclass
class HttpChief:
    """Answers what its fields say; keeps what it got."""

    joins: list[dict[str, Any]] = field(default_factory=list)
    said: list[tuple[Message, list[bytes]]] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)  # bodies for the next uploads
    fragments: dict[int, bytes] = field(default_factory=dict)
    leases: list[str] = field(default_factory=list)
    upload_status: int = 0  # to answer with, if not 0
    refused: int = 0
    packages: list[Package] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)
    client: HttpClient | None = None
    worker: Worker | None = None
    left: trio.Event = field(default_factory=trio.Event)

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/api/v1/workers/join", self.join), Route("POST", "/upload/result-fragment", self.upload),
            Route("GET", "/data-fragment/{n}", self.data), Route("GET", "/processor/{digest}", self.processor),
        ]  # fmt: skip

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def join(self, request: Request) -> Response:
        self.joins.append(json.loads(await request.body(1 << 20)))
        self.wake()
        return Response(201, {}, json.dumps({"worker": "w-1", "token": BEARER, "supervisor": "co-1"}).encode())

    async def upload(self, request: Request) -> Response:
        assert request.headers["Authorization"] == f"Bearer {BEARER}"
        body = await request.body(64 << 20)
        if self.upload_status:
            self.refused += 1
            self.wake()
            return Response(self.upload_status)
        self.said += [(message, [bytes(i) for i in frame.cut()]) for message, frame in messages_untrusted(body)]
        self.wake()
        return Response(200, {}, self.answers.pop(0), BINARY) if self.answers else Response(204)

    async def data(self, request: Request) -> Response:
        self.leases.append(request.headers["Company-Lease"])
        first, count = int(request.match["n"]), int(request.query["count"])
        items = [self.fragments[n] for n in range(first, first + count)]
        return Response(200, {}, run(int(self.leases[-1]), items, first=first), BINARY)

    async def processor(self, request: Request) -> Response:
        for found in self.packages:
            if found.processor.hex() == request.match["digest"]:
                return Response(200, {}, processor_frame(found), BINARY)
        return Response(404)

    async def wait_said(self, kind: type[Message]) -> tuple[Any, list[bytes]]:
        while True:
            for message, items in self.said:
                if isinstance(message, kind):
                    self.said.remove((message, items))
                    return message, items
            await self.changed.wait()

    async def wait_refused(self) -> None:
        while not self.refused:
            await self.changed.wait()

    async def call(self, path: str, body: bytes, *, callback: str | None = None) -> HttpReply:
        while not self.joins:
            await self.changed.wait()
        assert self.client is not None
        secret = callback or self.joins[-1]["callback"]
        return await self.client.request("POST", self.joins[-1]["http"] + path, headers={"Authorization": f"Bearer {secret}"}, body=body)

    async def activate(self, *frames: bytes) -> HttpReply:
        return await self.call("/activate/data-fragment", b"".join(frames))


def run(token: int, items: list[bytes], *, first: int = 0, count: int | None = None, blobs: m.Blobs = ()) -> bytes:
    return encode(m.Run(token, 0, "job", first, len(items) if count is None else count, 1, blobs), sizes_of(*items), b"".join(items))


def job(what: Package) -> bytes:
    params = encode_value({})
    return encode(m.JobIs("job", what.processor, 60_000, 512 << 20, ""), sizes_of(params), params)


def processor_frame(what: Package) -> bytes:
    return encode(what.message(CHIEF), sizes_of(what.archive), what.archive)


@asynccontextmanager
async def pair(home: Path, chief: HttpChief | None = None, *, token: bool = True) -> AsyncIterator[HttpChief]:
    chief = chief or HttpChief()
    with trio.fail_after(40):
        async with open_bridge(), open_http_client() as client, trio.open_nursery() as nursery:
            chief.client = client
            address = await nursery.start(partial(serve_http, chief.routes(), host="127.0.0.1", port=0))
            text = encode_token(
                JoinToken(addresses=("127.0.0.1:1",), chief_key=CHIEF.public, role="worker", expires=None, id="t", secret=b"s" * 32)
            )
            settings = WorkerOptions(
                home=Home(home), name="w", transport="rest", chief_http=f"http://{address}", token=text if token else None,
                handle_signals=False,
            )  # fmt: skip
            tree = settings.home.worker("w").create()
            wipe(tree.scratch)
            async with Sandbox.open(home=tree.root) as sandbox:
                worker = chief.worker = Worker(settings, tree, WORKER, sandbox, Random(1))

                async def live() -> None:
                    await worker.run()
                    chief.left.set()

                nursery.start_soon(live)
                yield chief
                nursery.cancel_scope.cancel()


def values(items: list[bytes]) -> list[Any]:
    return [decode_value(item) for item in items[3:]]


async def test_a_job_by_the_rest_calls_alone(tmp_path: Path) -> None:
    async with pair(tmp_path) as chief:
        assert (await chief.call("/processor", processor_frame(IDENTITY))).status == 200
        assert (await chief.call("/processor", processor_frame(IDENTITY))).status == 204
        chief.answers.append(run(2, [encode_value("next")], first=3))
        assert (await chief.activate(job(IDENTITY), run(1, [encode_value(n) for n in range(3)]))).status == 200
        outcome, items = await chief.wait_said(m.Outcome)
        assert (outcome.token, outcome.last, values(items)) == (1, True, [0, 1, 2])
        outcome, items = await chief.wait_said(m.Outcome)
        assert (outcome.token, values(items)) == (2, ["next"])
        body = chief.joins[0]
        assert body["name"] == "w" and body["key"] == WORKER.public.hex() and body["token"].startswith("cmpw1.")
        assert m.Machine.parse_untrusted(body["machine"]).slots == 1


async def test_fragments_that_were_not_inlined_are_fetched_with_the_lease(tmp_path: Path) -> None:
    async with pair(tmp_path) as chief:
        await chief.call("/processor", processor_frame(IDENTITY))
        big = encode_value(b"x" * (5 << 20))
        chief.fragments = {7: encode_value("seven"), 8: encode_value("eight"), 9: big}
        await chief.activate(job(IDENTITY), run(1, [], first=7, count=2))
        _, items = await chief.wait_said(m.Outcome)
        assert values(items) == ["seven", "eight"] and chief.leases == ["1"]
        await chief.activate(run(2, [b""], first=9, blobs=((0, len(big), blake(big)),)))
        outcome, items = await chief.wait_said(m.Outcome)
        assert items[3] == big and outcome.blobs == ()  # a large result travels inside


async def test_a_processor_that_was_not_pushed_is_fetched(tmp_path: Path) -> None:
    async with pair(tmp_path, HttpChief(packages=[IDENTITY])) as chief:
        await chief.activate(job(IDENTITY), run(1, [encode_value("a")]))
        _, items = await chief.wait_said(m.Outcome)
        assert values(items) == ["a"]


async def test_a_spoilt_processor_is_refused(tmp_path: Path) -> None:
    async with pair(tmp_path) as chief:
        reply = await chief.call("/processor", processor_frame(package("def process(f): return f\n", spoil=True)))
        assert reply.status == 403 and json.loads(reply.body)["code"] == "bad-signature"


async def test_nobody_but_the_chief_can_address_a_worker(tmp_path: Path) -> None:
    async with pair(tmp_path) as chief:
        await chief.activate()
        for path in ("/processor", "/activate/data-fragment"):
            reply = await chief.call(path, processor_frame(IDENTITY), callback="0" * 64)
            assert reply.status == 401
        assert (await chief.activate(encode(m.Joined("w", "c", 1, 1)))).status == 400
        assert (await chief.activate(b"\0" * 9)).status == 400
        assert (await chief.activate()).status == 200


async def test_a_stale_lease_is_dropped_and_the_next_batch_runs(tmp_path: Path) -> None:
    async with pair(tmp_path, HttpChief(packages=[IDENTITY], upload_status=409)) as chief:
        await chief.activate(job(IDENTITY), run(1, [encode_value("a")]))
        await chief.wait_refused()
        chief.upload_status = 0
        await chief.activate(run(2, [encode_value("b")]))
        outcome, _ = await chief.wait_said(m.Outcome)
        assert outcome.token == 2
        assert chief.client is not None
        assert json.loads((await chief.client.request("GET", chief.joins[0]["http"] + "/health")).body)["slots"] == 1


async def test_results_wait_for_a_chief_that_is_away(tmp_path: Path) -> None:
    async with pair(tmp_path, HttpChief(packages=[IDENTITY], upload_status=503)) as chief:
        await chief.activate(job(IDENTITY), run(1, [encode_value("a")]))
        await chief.wait_refused()
        chief.upload_status = 0
        _, items = await chief.wait_said(m.Outcome)
        assert values(items) == ["a"]


async def test_a_stopping_worker_does_not_wait_for_a_chief_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("company.worker.state.AWAY_GRACE_S", 0.2)
    async with pair(tmp_path, HttpChief(packages=[IDENTITY], upload_status=503)) as chief:
        await chief.activate(job(IDENTITY), run(1, [encode_value("a")]))
        await chief.wait_refused()
        assert chief.worker is not None
        chief.worker.stop(3600.0)
        await chief.left.wait()


async def test_after_a_pause_a_worker_says_what_it_holds(tmp_path: Path) -> None:
    """The chief may have started anew: what is held comes before the results, so that it is not run elsewhere."""
    async with pair(tmp_path, HttpChief(packages=[IDENTITY], upload_status=503)) as chief:
        await chief.activate(job(IDENTITY), run(1, [encode_value("a")], first=4))
        await chief.wait_refused()
        await trio.sleep(FORGOTTEN_AFTER_S)
        assert json.loads((await chief.activate()).body)["held"] == [[1, "job", 4, 1, "done"]]
        chief.upload_status = 0
        await chief.wait_said(m.Outcome)
        resumed, _ = await chief.wait_said(m.Resume)
        assert (resumed.worker, resumed.held) == ("w-1", ((1, "job", 4, 1, "done"),))


async def test_a_restarted_worker_says_where_it_is_now_without_a_token(tmp_path: Path) -> None:
    async with pair(tmp_path) as chief:
        await chief.activate()
    again = HttpChief()
    async with pair(tmp_path, again, token=False) as chief:
        assert (await chief.activate()).status == 200
        assert "token" not in chief.joins[0]
        assert (chief.joins[0]["worker"], chief.joins[0]["bearer"]) == ("w-1", BEARER)
    kept = load_membership(tmp_path / "workers/w")
    assert kept is not None and kept.transport == "rest" and kept.extra["bearer"] == BEARER


def test_a_body_that_ends_inside_a_frame_is_refused() -> None:
    whole = run(1, [b"abc"])
    assert [type(message) for message, _ in messages_untrusted(whole + whole)] == [m.Run, m.Run]
    with pytest.raises(MalformedMessage):
        messages_untrusted(whole[:-1])
