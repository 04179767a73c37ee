"""Rules of the HTTP client, against our server on real loopback sockets."""

from __future__ import annotations

import hashlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from p2p.base.clock import UnixTime
from p2p.base.errors import PeerError, Unavailable
from p2p.base.keys import Identity
from p2p.net import http_client
from p2p.net.http_client import open_http_client
from p2p.net.http_types import Request, Response, Route
from p2p.net.tls import also_show_key, browser_certificate, browser_context, server_context
from tests.unit.test_http_server import get, post, serving

ONE, TWO = Identity(b"1" * 32), Identity(b"2" * 32)


async def echo(request: Request) -> Response:
    seen = {"headers": {k.lower(): v for k, v in request.headers.items()}, "size": len(await request.body(32 << 20))}
    return Response(201, {"X-Reply": "y"}, json.dumps(seen).encode())


async def test_status_headers_and_body_come_back() -> None:
    async with serving(post(echo)) as address, open_http_client() as client:
        token = {"Authorization": "Bearer t"}
        status, headers, body = await client.request("POST", f"http://{address}/x", headers=token, body=bytes(3 << 20))
        seen = json.loads(body)
        assert (status, headers["x-reply"], seen["size"]) == (201, "y", 3 << 20)
        assert seen["headers"]["authorization"] == "Bearer t" and "accept-encoding" not in seen["headers"]
        assert (await client.request("GET", f"http://{address}/none")).status == 404


async def test_redirects_are_not_followed() -> None:
    async def redirect(_request: Request) -> Response:
        return Response(302, {"Location": "/other"})

    async with serving(get(redirect), get(echo, "/other")) as address, open_http_client() as client:
        assert (await client.request("GET", f"http://{address}/x")).status == 302


@pytest.mark.parametrize("kind", ["announced", "endless"])
async def test_an_answer_larger_than_its_bound_is_refused(kind: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100_000)

    async def handler(_request: Request) -> Response:
        return Response(body=bytes(2000) if kind == "announced" else endless())

    async with serving(get(handler)) as address, open_http_client() as client:
        with pytest.raises(PeerError) as raised:
            await client.request("GET", f"http://{address}/x", max_bytes=1999 if kind == "announced" else 1 << 20)
        assert raised.value.code == "answer-too-large"


async def test_a_pinned_key_is_compared_before_the_request_is_sent() -> None:
    requests: list[str] = []

    async def handler(request: Request) -> Response:
        requests.append(request.path)
        return Response(body=b"in")

    async with serving(get(handler), ssl_context=server_context(ONE)) as address, open_http_client() as client:
        ask = partial(client.request, "GET", f"https://{address}/x")
        assert (await ask(pin_key=ONE.public)).body == b"in"
        assert (await ask(pin_key=ONE.public)).body == b"in"
        with pytest.raises(PeerError) as raised:
            await ask(pin_key=TWO.public)
        assert raised.value.code == "wrong-key" and raised.value.facts["actual"] == ONE.public.hex()
        with pytest.raises(PeerError):
            await ask()  # no authority has signed it
    assert requests == ["/x", "/x"]


async def test_a_page_for_browsers_shows_its_key_to_who_asks_for_it_and_its_certificate_to_all_others() -> None:
    seen: list[str] = []

    async def handler(request: Request) -> Response:
        seen.append(request.headers["Host"])
        return Response(body=b"in")

    pem, key = browser_certificate(["127.0.0.1"], now=UnixTime(int(time.time())))
    context = browser_context(pem, key)
    also_show_key(context, ONE)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).digest()
    async with serving(get(handler), ssl_context=context) as address, open_http_client() as client:
        ask = partial(client.request, "GET", f"https://{address}/x")
        assert (await ask(pin_key=ONE.public)).body == b"in"
        assert (await ask(pin_sha256=digest)).body == b"in"
        for wrong in ({"pin_key": TWO.public}, {"pin_sha256": bytes(32)}, {}):
            with pytest.raises(PeerError) as raised:
                await ask(**wrong)
            assert raised.value.code == "wrong-key"
    assert seen == [address, address]  # the name is asked for in TLS alone


async def test_who_is_not_named_by_a_key_needs_an_authority_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp's own contexts know no authority (`p2p.net.lean_aiohttp`); that of a request does."""

    async def handler(_request: Request) -> Response:
        return Response(body=b"in")

    pem, key = browser_certificate(["127.0.0.1"], now=UnixTime(int(time.time())))
    (tmp_path / "authorities.pem").write_bytes(pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authorities.pem"))
    http_client._authorities.cache_clear()
    try:
        async with serving(get(handler), ssl_context=browser_context(pem, key)) as address, open_http_client() as client:
            assert (await client.request("GET", f"https://{address}/x")).body == b"in"
    finally:
        http_client._authorities.cache_clear()


async def test_nobody_there_and_no_answer_are_unavailable() -> None:
    async def never(_request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    async with serving(Route("GET", "/x", never)) as address, open_http_client() as client:
        with pytest.raises(Unavailable) as raised:
            await client.request("GET", f"http://{address}/x", timeout_s=0.2)
        assert raised.value.code == "timeout"
    async with open_http_client() as client:
        with pytest.raises(Unavailable) as raised:
            await client.request("GET", f"http://{address}/x", timeout_s=5)
        assert raised.value.code == "unreachable"


async def test_what_is_not_http_is_the_peers_fault() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"SSH-2.0-x\r\n\r\n")
        await stream.aclose()

    async with trio.open_nursery() as nursery, open_http_client() as client:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        with pytest.raises(PeerError) as raised:
            await client.request("GET", f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/")
        assert raised.value.code == "bad-answer"
        nursery.cancel_scope.cancel()


async def test_a_request_may_be_cancelled_and_the_client_goes_on() -> None:
    async def never(_request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    async with serving(get(never), get(echo, "/echo")) as address, open_http_client() as client:
        with trio.move_on_after(0.05) as scope:
            await client.request("GET", f"http://{address}/x")
        assert scope.cancelled_caught
        assert (await client.request("GET", f"http://{address}/echo")).status == 201
