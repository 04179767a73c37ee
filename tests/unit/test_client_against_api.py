"""The client speaks to the real routes on the real server: addresses, fields and codes of the two sides agree."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from company import views
from company.chief.api import Auth, api_routes
from company.client import Client
from company.client import upload as upload_module
from company.client.address import parse_url
from company.errors import CompanyError, InvalidError, NotFoundError, NotReadyError
from p2p.base.clock import Monotonic
from p2p.base.codec import encode_value
from p2p.net.asyncio_bridge import open_bridge
from p2p.net.http_server import serve_http
from tests.support.fake_chief import TOKENS, FakeChief
from tests.support.fake_chief_http import tree_digest


@dataclass
class NamingChief(FakeChief):
    """Names datasets by the digests that a real chief gives them."""

    def _keep_dataset(self, data: bytes, name: str, kind: str) -> tuple[views.DatasetView, bool]:
        digest = hashlib.sha256(data).hexdigest() if kind == "file" else tree_digest(data)
        created = digest not in self.datasets
        self.datasets[digest] = views.DatasetView(digest=digest, name=name, kind="tree" if kind == "tree" else "file", size=len(data))
        self.contents[digest] = data
        return self.datasets[digest], created


Ask = Callable[..., Any]


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[tuple[NamingChief, Callable[[Callable[[Client], Any]], Any]]]:
    """A chief behind its real server, and a way to use a client in a thread beside it."""
    chief = NamingChief(tmp_path)
    auth = Auth(chief, monotonic=lambda: Monotonic(trio.current_time()), csrf_key=bytes(32))
    async with open_bridge(), trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve_http, api_routes(chief, auth=auth), host="127.0.0.1", port=0))

        async def use(what: Callable[[Client], Any]) -> Any:
            def in_thread() -> Any:
                with Client(parse_url(f"http://{address}", TOKENS["owner"]), state=tmp_path / "state") as client:
                    return what(client)

            return await trio.to_thread.run_sync(in_thread)

        with trio.fail_after(30):
            yield chief, use
        nursery.cancel_scope.cancel()


async def refused(use: Ask, what: Callable[[Client], Any]) -> CompanyError:
    with pytest.raises(CompanyError) as caught:
        await use(what)
    return caught.value


async def test_data_goes_up_whole_and_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "WHOLE_MAX_BYTES", 100_000)
    monkeypatch.setattr(upload_module, "PATCH_BYTES", 150_000)
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "a").write_bytes(b"a" * 400_000)
    (tmp_path / "small").write_bytes(b"small")
    async with serving(tmp_path) as (chief, use):
        for path in (tmp_path / "small", tmp_path / "tree"):
            first = await use(lambda client, path=path: client.upload_data(path))
            again = await use(lambda client, path=path: client.upload_data(path))
            assert (first["new"], again["new"]) == (True, False)
        assert [d["name"] for d in (await use(lambda c: c.datasets()))["items"]] == ["small", "tree"]
        await use(lambda c: c.remove_dataset(first["digest"]))
        assert len(chief.datasets) == 1


async def test_jobs_live_their_whole_life(tmp_path: Path) -> None:
    async with serving(tmp_path) as (chief, use):
        from company.package_init import init_package

        await trio.to_thread.run_sync(init_package, tmp_path / "pkg")
        (tmp_path / "data").write_bytes(b"x")
        options = {"params": {"n": 5}, "time_limit_s": 60.0, "max_fails": "10%", "batching": "none"}
        job = await use(lambda c: c.submit(tmp_path / "pkg", tmp_path / "data", **options).view)
        ref = job["id"]
        assert (await use(lambda c: c.job(ref).pause().view))["paused"] is True
        assert (await use(lambda c: c.job(ref).resume().view))["paused"] is False
        assert (await use(lambda c: c.job(ref).edit(priority=3).view))["id"] == ref
        assert (await use(lambda c: c.jobs(owner="me")))["total"] == 1
        assert isinstance(await refused(use, lambda c: c.job(ref).edit()), InvalidError)
        assert isinstance(await refused(use, lambda c: c.job("j-nope")), NotFoundError)
        assert isinstance(await refused(use, lambda c: c.job(ref).download(tmp_path / "out")), NotReadyError)
        await use(lambda c: c.job(ref).retry(fragments=[1]).view)
        assert (await use(lambda c: c.job(ref).status(wait_s=0.01)))["state"] == "done"  # waiting ends this fake's jobs
        await use(lambda c: c.job(ref).remove())
        assert not chief.jobs


async def test_what_a_job_has_made_is_read(tmp_path: Path) -> None:
    async with serving(tmp_path) as (chief, use):
        chief.add_job("j-a", state="done")
        chief.results["j-a"] = [encode_value((n, 2**80)) for n in range(3)]
        chief.files["j-a"] = replace(chief.store_file("result.txt", b"final"), name="out.txt")
        chief.lines["j-a"] = [views.LogLine(fragment=1, stream="stdout", text="hello\n")]
        chief.failed["j-a"] = [views.FailureView(job="j-a", fragment=1, tries=1, infra_tries=0, final=True, cause="exception")]
        assert await use(lambda c: [(r.index, r.value) for r in c.job("j-a").as_completed()]) == [(n, (n, 2**80)) for n in range(3)]
        assert [line["fragment"] for line in await use(lambda c: list(c.job("j-a").result_lines(start=1)))][-1] == 2
        assert await use(lambda c: c.job("j-a").result(2)) == (2, 2**80)
        assert [p.read_bytes() for p in await use(lambda c: c.job("j-a").download(tmp_path / "out"))] == [b"final"]
        for follow in (False, True):
            assert [line["text"] for line in await use(lambda c, follow=follow: list(c.job("j-a").logs(follow=follow)))] == ["hello\n"]
        assert (await use(lambda c: c.job("j-a").errors()))[0]["count"] == 1
        assert "cells" in await use(lambda c: c.job("j-a").heatmap())
        assert await use(lambda c: c.job("j-a").artifacts()) == []
        assert isinstance(await use(lambda c: c.explain("j-a/1")), list)


async def test_the_company_its_tokens_and_its_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as (chief, use):
        assert (await use(lambda c: c.company()))["id"]
        made = await use(lambda c: c.create_token("worker", ttl_s=60.0, uses=2, label="x"))
        assert made["info"]["id"] in [t["id"] for t in (await use(lambda c: c.tokens()))["items"]]
        await use(lambda c: c.revoke_token(made["info"]["id"]))
        assert "/login?secret=" in await use(lambda c: c.login_link())
        assert isinstance(await use(lambda c: c.doctor()), list)
        await use(lambda c: c.backup(tmp_path / "b.tar"))
        assert (await use(lambda c: c.workers()))["items"] == []
        await use(lambda c: c.stop())
        assert chief.is_stopping
