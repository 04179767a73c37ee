"""REST and pages behind the real server on a loopback socket, driven by curl and by the public tus client."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from tusclient import client as tus

from company.chief.api import api_routes
from company.chief.api.routes import make_gate
from company.web import web_routes
from p2p.net.asyncio_bridge import open_bridge
from p2p.net.http_server import serve_http
from tests.support.fake_chief import TOKENS
from tests.unit.test_api_access import World

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[tuple[World, str]]:
    world = World(tmp_path)
    gate = make_gate(world.chief, world.auth)
    routes = api_routes(world.chief, auth=world.auth, gate=gate) + web_routes(world.chief, world.auth, gate=gate, scratch=tmp_path)
    async with open_bridge(), trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve_http, routes, host="127.0.0.1", port=0))
        with trio.fail_after(60):
            yield world, f"http://{address}"
        nursery.cancel_scope.cancel()


async def curl(*args: str, role: str | None = "submitter", **files: bytes) -> str:
    token = ["-H", f"Authorization: Bearer {TOKENS[role]}"] if role else []
    run = await trio.run_process(["curl", "-sS", "--max-time", "20", *token, *args], capture_stdout=True, stdin=files.get("stdin", b""))
    return run.stdout.decode()


async def status(*args: str, role: str | None = "submitter") -> int:
    return int(await curl("-o", "/dev/null", "-w", "%{http_code}", *args, role=role))


async def test_whole_way_by_curl_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as (world, url):
        (tmp_path / "pkg.zip").write_bytes(b"PK" * 1000)
        (tmp_path / "corpus").write_bytes(bytes(900_000))
        package = json.loads(await curl("--data-binary", f"@{tmp_path}/pkg.zip", f"{url}/upload/module-package"))
        dataset = json.loads(await curl("-T", str(tmp_path / "corpus"), "-X", "POST", f"{url}/upload/data?name=corpus"))
        assert (package["size"], dataset["size"]) == (2000, 900_000)
        form = json.loads(await curl("-F", "split.py=@-;filename=s.py", f"{url}/upload/module-package", stdin=b"def split(): ..."))
        assert form["files"][0]["path"] == "split.py"
        body = json.dumps({"package": package["digest"], "dataset": "corpus"})
        assert json.loads(await curl("-d", body, f"{url}/api/v1/jobs"))["id"] == "j-1"
        made = await curl("-d", f"package={package['digest'][:12]}", "-d", "dataset=corpus", "-d", "params.n=5", f"{url}/api/v1/jobs")
        assert json.loads(made)["params"] == {"n": 5}
        assert await status(f"{url}/final-result?job=j-1") == 409
        world.chief.files["j-1"] = world.chief.store_file("result.bin", bytes(range(256)) * 1000)
        (tmp_path / "out").write_bytes(bytes(range(256)) * 10)
        await curl("-C", "-", "-o", str(tmp_path / "out"), f"{url}/final-result?job=j-1")
        assert (tmp_path / "out").read_bytes() == bytes(range(256)) * 1000
        stale = ["-H", 'If-Range: "stale"', "-r", "0-9"]
        assert await status(*stale, f"{url}/final-result?job=j-1") == 200 and await status(*stale[2:], f"{url}/final-result?job=j-1") == 206
        head = await curl("-I", f"{url}/final-result?job=j-1")
        assert "200" in head.splitlines()[0] and "Content-Length: 256000" in head
        logs = await curl("-N", f"{url}/api/v1/jobs/j-1/logs?follow&format=text")
        assert logs == "job done\n"


async def test_doors_are_shut_for_real(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, url):
        assert await status(f"{url}/api/v1/jobs", role=None) == 401
        assert await status(f"{url}/api/v1/jobs", role="worker") == 403
        assert await status("-H", "Host: evil.example", f"{url}/api/v1/jobs") == 421
        assert await status("-H", "Origin: https://evil.example", "-d", "{}", f"{url}/api/v1/jobs") == 403
        assert await status(f"{url}/api/v1/health/live", role=None) == 200


async def test_public_tus_client_uploads_and_resumes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    async with serving(tmp_path) as (world, url):
        my = tus.TusClient(f"{url}/upload/data", headers={"Authorization": f"Bearer {TOKENS['submitter']}"})

        def begin() -> str:
            first = my.uploader(file_stream=io.BytesIO(data), chunk_size=100_000, metadata={"name": "corpus"}, upload_checksum=True)
            first.upload_chunk()  # type: ignore[no-untyped-call]
            assert first.offset == 100_000 and first.url
            return str(first.url)

        def go_on(address: str) -> int:  # another client, later, that knows the address alone
            second = my.uploader(file_stream=io.BytesIO(data), chunk_size=100_000, url=address)
            assert second.offset == 100_000
            second.upload()
            return int(second.offset)

        assert await trio.to_thread.run_sync(go_on, await trio.to_thread.run_sync(begin)) == len(data)
        (dataset,) = world.chief.datasets.values()
        assert (dataset.name, hashlib.sha256(world.chief.contents[dataset.digest]).digest()) == ("corpus", hashlib.sha256(data).digest())
        options = await curl("-X", "OPTIONS", "-i", f"{url}/upload/data", role=None)
        assert "Tus-Version: 1.0.0" in options


async def test_browser_logs_in_submits_and_downloads(tmp_path: Path) -> None:
    async with serving(tmp_path) as (world, url):
        await world.chief.create_login(await world.chief.authenticate(TOKENS["owner"]))
        jar = ["-b", f"{tmp_path}/jar", "-c", f"{tmp_path}/jar"]
        assert await status(*jar, "-d", "secret=login 0", f"{url}/login", role=None) == 303
        page = await curl(*jar, f"{url}/jobs/new", role=None)
        csrf = page.split('name="csrf" value="')[1][:64]
        (tmp_path / "a.txt").write_bytes(b"A" * 3_000_000)
        (tmp_path / "p.zip").write_bytes(b"PK")
        world.chief.max_bytes["dataset_max_bytes"] = 10 << 20
        files = ["-F", f"package_archive=@{tmp_path}/p.zip", "-F", "data_name=tree", "-F", f"data_files=@{tmp_path}/a.txt"]
        assert await status(*jar, "-F", "csrf=wrong", *files, f"{url}/jobs/new", role=None) == 403 and not world.chief.packages
        empty = ["-F", 'data_file=@/dev/null;filename=""', "-F", "name=mine"]
        assert await status(*jar, "-F", f"csrf={csrf}", *files, *empty, f"{url}/jobs/new", role=None) == 303
        dataset = world.chief.datasets[world.chief.jobs["j-1"].dataset]
        assert (dataset.kind, world.chief.jobs["j-1"].name) == ("tree", "mine") and dataset.size > 3_000_000
        world.chief.jobs["j-1"].state = "done"
        world.chief.files["j-1"] = world.chief.store_file("result.txt", b"42")
        assert "mine" in await curl(*jar, f"{url}/jobs/j-1", role=None)
        assert await curl(*jar, f"{url}/final-result?job=j-1", role=None) == "42"
        assert await status(*jar, "-X", "POST", f"{url}/api/v1/jobs/j-1/cancel", role=None) == 403


async def test_events_arrive_while_the_stream_is_open(tmp_path: Path) -> None:
    async with serving(tmp_path) as (world, url):
        world.chief.emit("job.state", state="running")
        command = ["curl", "-sSN", "-H", f"Authorization: Bearer {TOKENS['viewer']}", f"{url}/api/v1/events"]
        async with trio.open_nursery() as nursery:
            process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, check=False))
            got = b""
            while b"event: job.state" not in got:
                got += await process.stdout.receive_some()
            process.terminate()
