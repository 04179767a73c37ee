"""Rules of the HTTP server, on real loopback sockets. Requests are written by hand, so that they can be wrong."""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
import trio.testing

from p2p.base.clock import UnixTime
from p2p.base.errors import Unavailable, UsageError
from p2p.net import http_server
from p2p.net.addresses import split_address
from p2p.net.asyncio_bridge import open_bridge
from p2p.net.http_server import serve_http
from p2p.net.http_types import FileSlice, Handler, Request, Response, Route
from p2p.net.tls import browser_certificate, browser_context


@asynccontextmanager
async def serving(*routes: Route, **options: Any) -> AsyncIterator[str]:
    async with open_bridge(), trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve_http, routes, host="127.0.0.1", port=0, **options))
        with trio.fail_after(30):
            yield address
        nursery.cancel_scope.cancel()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def connect(address: str) -> trio.SocketStream:
    return await trio.open_tcp_stream(*split_address(address))


async def read_answer(stream: trio.SocketStream, *, is_head: bool = False) -> Answer:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await stream.receive_some()
        assert piece, data
        data += piece
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
    while "content-length" in headers and len(body) < int(headers["content-length"]) and not is_head:
        piece = await stream.receive_some()
        assert piece, "cut off"
        body += piece
    if "content-length" not in headers and not is_head:
        while piece := await stream.receive_some():
            body += piece
    return Answer(int(first.split()[1]), headers, body)


async def ask(address: str, method: str, path: str, *, headers: str = "", body: bytes = b"") -> Answer:
    stream = await connect(address)
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    await stream.send_all(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{headers}\r\n".encode() + body)
    answer = await read_answer(stream, is_head=method == "HEAD")
    await stream.aclose()
    return answer


def get(handler: Handler, pattern: str = "/x") -> Route:
    return Route("GET", pattern, handler)


def post(handler: Handler, pattern: str = "/x") -> Route:
    return Route("POST", pattern, handler)


async def test_a_handler_sees_the_whole_request_and_its_answer_arrives() -> None:
    async def handler(request: Request) -> Response:
        seen = {
            "match": dict(request.match),
            "path": request.path,
            "query": dict(request.query),
            "header": request.headers["x-thing"],
            "cookie": request.cookies["a"],
            "remote": request.remote,
            "tls": request.is_tls,
            "length": request.content_length,
            "body": (await request.body(100)).decode(),
        }
        return Response(201, {"ETag": '"1"'}, json.dumps(seen).encode(), cookies=("s=1; HttpOnly", "t=2"))

    async with serving(post(handler, "/jobs/{id}/run")) as address:
        answer = await ask(address, "POST", "/jobs/a%20b/run?q=1", headers="X-Thing: y\r\nCookie: a=b\r\n", body=b"hello")
    assert answer.status == 201 and answer.headers["etag"] == '"1"' and answer.headers["content-type"] == "application/json"
    assert answer.headers["server"] == "company"
    assert answer.json == {
        "match": {"id": "a b"}, "path": "/jobs/a b/run", "query": {"q": "1"}, "header": "y", "cookie": "b", "remote": "127.0.0.1",
        "tls": False, "length": 5, "body": "hello",
    }  # fmt: skip


async def test_what_is_not_there_and_what_is_not_allowed_are_problems() -> None:
    async def handler(_request: Request) -> Response:
        return Response()

    async with serving(get(handler), Route("PUT", "/x", handler)) as address:
        missing = await ask(address, "GET", "/y")
        wrong = await ask(address, "POST", "/x")
        head = await ask(address, "HEAD", "/x")
    assert (missing.status, missing.headers["content-type"]) == (404, "application/problem+json")
    assert missing.json["code"] == "not-found" and missing.json["title"] == "Not found" and missing.json["status"] == 404
    assert missing.json["instance"] == "/y" and missing.json["type"] == "urn:company:problem:not-found" and not missing.json["retryable"]
    assert wrong.status == 405 and wrong.headers["allow"] == "GET, HEAD, PUT" and wrong.json["allowed"] == ["GET", "HEAD", "PUT"]
    assert (head.status, head.body) == (200, b"")


async def test_errors_of_handlers_are_problems_and_bugs_tell_nothing(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [UsageError("bad-name", "the name is bad"), Unavailable("disk-full", "no space"), RuntimeError("secret")]

    async def handler(request: Request) -> Response:
        raise errors[int(request.query["n"])]

    async with serving(get(handler)) as address:
        answers = [await ask(address, "GET", f"/x?n={n}") for n in range(3)]
    assert [(a.status, a.json["code"]) for a in answers] == [(400, "bad-name"), (503, "disk-full"), (500, "internal-error")]
    assert b"secret" not in answers[2].body and "secret" in caplog.text


async def test_before_sees_every_request_and_may_answer_it() -> None:
    seen: list[str] = []

    async def before(request: Request) -> Response | None:
        seen.append(request.path)
        return Response(401) if "Authorization" not in request.headers else None

    async def handler(_request: Request) -> Response:
        return Response(body=b"in")

    async with serving(get(handler), before=before) as address:
        assert (await ask(address, "GET", "/x")).status == 401
        assert (await ask(address, "GET", "/none")).status == 401
        assert (await ask(address, "GET", "/x", headers="Authorization: Bearer t\r\n")).body == b"in"
    assert seen == ["/x", "/none", "/x"]


async def send_body(stream: trio.SocketStream, path: str, size: int, sent: int) -> None:
    piece = bytes(1 << 20)
    await stream.send_all(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
    for at in range(0, sent, len(piece)):
        await stream.send_all(piece[: min(len(piece), sent - at)])


async def test_a_large_upload_is_streamed_in_pieces_with_flat_memory() -> None:
    process = psutil.Process()
    sizes: list[int] = []
    memory: list[int] = []

    async def handler(request: Request) -> Response:
        async for piece in request.chunks():
            sizes.append(len(piece))
            memory.append(process.memory_info().rss)
        return Response(body=b"done")

    async with serving(post(handler)) as address:
        stream = await connect(address)
        started = time.perf_counter()
        await send_body(stream, "/x", 64 << 20, 64 << 20)
        assert (await read_answer(stream)).body == b"done"
        seconds = time.perf_counter() - started
        await stream.aclose()
    assert sum(sizes) == 64 << 20 and max(sizes) <= 1 << 20
    assert len(sizes) < 4 * 64, "pieces are too small to be worth their crossing"
    assert max(memory) - memory[0] < 16 << 20
    print(f"upload: {64 / seconds:.0f} MiB/s in {len(sizes)} pieces")


async def test_small_packets_are_gathered_before_they_cross_to_trio() -> None:
    sizes: list[int] = []

    async def handler(request: Request) -> Response:
        async for piece in request.chunks():
            sizes.append(len(piece))
        return Response()

    async with serving(post(handler)) as address:
        stream = await connect(address)
        await stream.send_all(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
        for _ in range(60):
            await stream.send_all(bytes(1000))
            await trio.testing.wait_all_tasks_blocked()
        assert (await read_answer(stream)).status == 200
        await stream.aclose()
    assert sum(sizes) == 60_000 and len(sizes) < 20


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_larger_than_the_handler_wants_is_413_with_the_limit(framing: str) -> None:
    async def handler(request: Request) -> Response:
        await request.body(10)
        raise AssertionError

    async with serving(post(handler)) as address:
        if framing == "length":
            answer = await ask(address, "POST", "/x", body=bytes(11))
        else:
            answer = await ask(address, "POST", "/x", headers="Transfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n0\r\n")
    assert answer.status == 413 and answer.json["code"] == "body-too-large" and answer.json["limit"] == 10


async def test_a_client_that_leaves_halfway_is_unavailable_after_all_that_came() -> None:
    got = 0
    ended = trio.Event()

    async def handler(request: Request) -> Response:
        nonlocal got
        try:
            async for piece in request.chunks():
                got += len(piece)
        except Unavailable as error:
            assert error.code == "client-left"
            await trio.lowlevel.checkpoint()  # an upload may still write down what it has
            ended.set()
        return Response()

    async with serving(post(handler)) as address:
        stream = await connect(address)
        await send_body(stream, "/x", 10 << 20, (3 << 20) + 5)
        await stream.send_eof()
        await stream.aclose()
        await ended.wait()
    assert got == (3 << 20) + 5


async def test_a_client_that_waits_to_be_asked_is_refused_before_it_sends() -> None:
    async def refuse(_request: Request) -> Response:
        return Response(403)

    async def accept(request: Request) -> Response:
        return Response(body=await request.body(10))

    async with serving(post(refuse, "/no"), post(accept, "/yes")) as address:
        for path, first in (("/no", b"HTTP/1.1 403"), ("/yes", b"HTTP/1.1 100")):
            stream = await connect(address)
            await stream.send_all(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n".encode())
            assert (await stream.receive_some()).startswith(first)
            if path == "/yes":
                await stream.send_all(b"ok")
                assert (await read_answer(stream)).body == b"ok"
            await stream.aclose()


async def test_multipart_parts_are_streamed() -> None:
    async def handler(request: Request) -> Response:
        seen = []
        async for part in request.parts():
            size = 0
            async for piece in part.chunks():
                size += len(piece)
            seen.append([part.name, part.filename, size])
        return Response(body=json.dumps(seen).encode())

    big = os.urandom(3 << 20)
    body = b'--B\r\nContent-Disposition: form-data; name="name"\r\n\r\nword\r\n'
    body += b'--B\r\nContent-Disposition: form-data; name="file"; filename="d.bin"\r\n\r\n' + big + b"\r\n--B--\r\n"
    async with serving(post(handler)) as address:
        answer = await ask(address, "POST", "/x", headers="Content-Type: multipart/form-data; boundary=B\r\n", body=body)
        other = await ask(address, "POST", "/x", body=b"{}")
        broken = await ask(address, "POST", "/x", headers="Content-Type: multipart/form-data\r\n", body=b"{}")
    assert answer.json == [["name", None, 4], ["file", "d.bin", 3 << 20]]
    assert (other.status, other.json["code"]) == (400, "malformed-message")
    assert broken.status == 400


async def test_slices_of_a_file_are_sent_exactly(tmp_path: Path) -> None:
    data = os.urandom((3 << 20) + 17)
    (tmp_path / "f").write_bytes(data)

    async def handler(request: Request) -> Response:
        start, length = int(request.query["start"]), int(request.query["length"])
        return Response(206, {"Content-Range": "bytes x"}, FileSlice(tmp_path / "f", start, length), "application/octet-stream")

    async with serving(get(handler)) as address:
        for start, length in ((0, len(data)), (5, 1), (1 << 20, 1 << 20), (len(data) - 3, 3), (7, 0)):
            answer = await ask(address, "GET", f"/x?start={start}&length={length}")
            assert answer.status == 206 and answer.headers["content-length"] == str(length)
            assert answer.body == data[start : start + length]
        head = await ask(address, "HEAD", "/x?start=0&length=100")
        assert head.headers["content-length"] == "100" and head.body == b""
        stream = await connect(address)  # a file that shrank: the connection is cut, never kept waiting for bytes that do not exist
        await stream.send_all(f"GET /x?start=0&length={len(data) + 1} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with trio.fail_after(5), pytest.raises((AssertionError, trio.BrokenResourceError)):
            await read_answer(stream)
        await stream.aclose()


async def test_large_bytes_are_sent_whole() -> None:
    data = os.urandom(3 << 20)

    async def handler(_request: Request) -> Response:
        return Response(body=data, media_type="application/octet-stream")

    async with serving(get(handler)) as address:
        assert (await ask(address, "GET", "/x")).body == data


async def test_an_event_stream_is_sent_as_made_and_ends_when_the_client_leaves(caplog: pytest.LogCaptureFixture) -> None:
    ended = trio.Event()

    async def events() -> AsyncIterator[bytes]:
        try:
            yield b"data: 1\n\n"
            await trio.sleep_forever()
        finally:
            ended.set()

    async def handler(_request: Request) -> Response:
        return Response(body=events(), media_type="text/event-stream")

    async with serving(get(handler)) as address:
        stream = await connect(address)
        await stream.send_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while b"data: 1\n\n" not in data:
            data += await stream.receive_some()
        assert b"text/event-stream" in data and not ended.is_set()
        await stream.aclose()
        await ended.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert [r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []


async def test_a_long_poll_ends_when_the_client_leaves_and_a_post_does_not(caplog: pytest.LogCaptureFixture) -> None:
    cancelled, started, finish, finished = trio.Event(), trio.Event(), trio.Event(), trio.Event()

    async def poll(_request: Request) -> Response:
        try:
            started.set()
            await trio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    async def change(_request: Request) -> Response:
        started.set()
        await finish.wait()
        finished.set()
        return Response()

    async with serving(get(poll), post(change)) as address:
        for method, then in (("GET", cancelled.wait), ("POST", finished.wait)):
            started = trio.Event()
            stream = await connect(address)
            await stream.send_all(f"{method} /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            await started.wait()
            await stream.aclose()
            if method == "POST":
                await trio.testing.wait_all_tasks_blocked(0.05)
                finish.set()
            await then()
            await trio.testing.wait_all_tasks_blocked(0.05)
    assert [r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []


async def test_an_answer_that_fails_while_it_is_made_is_cut_not_ended() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("a bug")

    async def handler(_request: Request) -> Response:
        return Response(body=pieces())

    async with serving(get(handler)) as address:
        stream = await connect(address)
        await stream.send_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        try:
            while piece := await stream.receive_some():
                data += piece
        except trio.BrokenResourceError:
            pass
        assert not data.endswith(b"0\r\n\r\n")
        await stream.aclose()
        assert (await ask(address, "GET", "/none")).status == 404


async def test_a_stopping_server_ends_its_event_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "SHUTDOWN_S", 15.0)
    ended = trio.Event()

    async def events() -> AsyncIterator[bytes]:
        try:
            yield b"x"
            await trio.sleep_forever()
        finally:
            ended.set()

    async def handler(_request: Request) -> Response:
        return Response(body=events())

    started = trio.current_time()
    async with serving(get(handler)) as address:
        stream = await connect(address)
        await stream.send_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await stream.receive_some()
    assert ended.is_set() and trio.current_time() - started < 5
    await stream.aclose()


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"GET /x HTTP/1.1\r\nSlow: ",
        lambda: b"\x16\x03\x01 garbage\r\n\r\n",
        lambda: b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        lambda: b"GET /x HTTP/1.1\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
        lambda: b"POST /x HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ],
    ids=["nothing", "slow header", "garbage", "long line", "long header", "bad length"],
)
async def test_bad_or_slow_requests_end_their_connection_only(monkeypatch: pytest.MonkeyPatch, make: Callable[[], bytes]) -> None:
    monkeypatch.setattr(http_server, "HEADER_DEADLINE_S", 1.0)

    async def handler(_request: Request) -> Response:
        return Response(body=b"fine")

    async with serving(get(handler)) as address:
        stream = await connect(address)
        data = b""
        try:
            if raw := make():
                await stream.send_all(raw)
            while piece := await stream.receive_some():
                data += piece
        except trio.BrokenResourceError:
            pass
        assert b"aiohttp" not in data
        assert data == b"" or data.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
        await stream.aclose()
        assert (await ask(address, "GET", "/x")).body == b"fine"


async def test_a_body_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "BODY_IDLE_S", 0.3)

    async def handler(request: Request) -> Response:
        return Response(body=await request.body(100))

    async with serving(post(handler)) as address:
        stream = await connect(address)
        await stream.send_all(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        answer = await read_answer(stream)
        assert answer.status == 503 and answer.json["code"] == "upload-stalled"
        await stream.aclose()


async def test_tls_with_a_browser_certificate_and_handlers_know_it() -> None:
    async def handler(request: Request) -> Response:
        return Response(body=str(request.is_tls).encode())

    pem, key = browser_certificate(["127.0.0.1"], now=UnixTime(int(time.time())))
    client = ssl.create_default_context(cadata=pem.decode())
    async with serving(get(handler), ssl_context=browser_context(pem, key)) as address:
        stream = trio.SSLStream(await connect(address), client, server_hostname="127.0.0.1", https_compatible=True)
        await stream.send_all(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := await stream.receive_some():
            data += piece
        assert data.endswith(b"True")
        await stream.aclose()


async def test_a_port_in_use_is_named() -> None:
    async with serving() as address:
        with pytest.raises(Unavailable) as raised:
            await serve_http([], host="127.0.0.1", port=split_address(address)[1])
    assert raised.value.code == "port-taken"
