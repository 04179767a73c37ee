"""The page: login, reading, submitting and changing, all without JavaScript."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from company import views
from company.chief.facade import Invalid
from company.web import web_routes
from company.web.grouping import groups_of
from company.web.heatmap import strip_of
from company.web.login import secret_of
from company.web.pages import is_local
from company.web.submit import _Read, _request_of
from company.web.trees import TarSpool
from p2p.base.errors import ParallelError
from tests.support.fake_chief import NOW, TOKENS
from tests.support.fake_network import FakeNetwork
from tests.support.fake_request import Answer, FakePart, FakeServer
from tests.unit.test_api_access import COOKIE, World

HOSTILE = "<script>alert(1)</script>\"'&"


class Browser:
    """Somebody in front of a browser: keeps the cookie, finds the CSRF token in pages."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.routes = web_routes(world.chief, world.auth)
        self.server = FakeServer(self.routes)
        self.cookies: dict[str, str] = {}

    async def log_in(self, role: str = "owner") -> None:
        secret = await self.world.chief.create_login(await self.world.chief.authenticate(TOKENS[role]))
        answer = await self.post("/login", {"secret": secret})
        assert answer.status == 303, answer.text
        self.cookies = {COOKIE: answer.cookies[0].split("=", 1)[1].split(";")[0]}

    async def get(self, url: str, **rest: Any) -> Answer:
        return await self.server.call("GET", url, cookies=self.cookies, **rest)

    async def post(self, url: str, fields: Mapping[str, str]) -> Answer:
        from urllib.parse import urlencode

        form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://127.0.0.1:8470"}
        return await self.server.call("POST", url, cookies=self.cookies, headers=form, data=urlencode(fields).encode())

    async def csrf(self, url: str = "/jobs/new") -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', (await self.get(url)).text)
        assert found
        return found.group(1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def browser(world: World) -> Browser:
    return Browser(world)


async def test_stranger_is_sent_to_the_login_and_back(browser: Browser) -> None:
    answer = await browser.get("/jobs")
    assert (answer.status, answer.headers["Location"]) == (303, "/login?next=/jobs")
    assert (await browser.get("/")).headers["Location"] == "/login"
    page = await browser.get("/login?next=/jobs")
    assert page.status == 200 and "Bio Lab" not in page.text and 'value="/jobs"' in page.text
    assert (await browser.get("/jobs", headers={"HX-Request": "true"})).status == 401


async def test_link_alone_does_not_use_the_secret_up(browser: Browser, world: World) -> None:
    secret = await world.chief.create_login(await world.chief.authenticate(TOKENS["owner"]))
    for _ in range(2):
        assert 'value="login 0"' in (await browser.get("/login?secret=login%200")).text
    answer = await browser.post("/login", {"secret": secret, "next": "/jobs"})
    assert (answer.status, answer.headers["Location"]) == (303, "/jobs")
    assert "HttpOnly" in answer.cookies[0] and "SameSite=Strict" in answer.cookies[0]
    again = await browser.post("/login", {"secret": secret})
    assert again.status == 403 and "used before" in again.text and not again.cookies


async def test_login_takes_a_pasted_link_or_a_token_and_limits_failures(browser: Browser, world: World) -> None:
    await world.chief.create_login(await world.chief.authenticate(TOKENS["owner"]))
    assert (await browser.post("/login", {"secret": "http://x/login?secret=login%200"})).status == 303
    assert (await browser.post("/login", {"secret": TOKENS["viewer"]})).status == 303
    statuses = [(await browser.post("/login", {"secret": "wrong"})).status for _ in range(22)]
    assert statuses[0] == 403 and statuses[-1] == 429


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil", "jobs", "", "/a\r\nSet-Cookie: x", "/ü"])
async def test_login_never_leads_elsewhere(browser: Browser, path: str) -> None:
    assert not is_local(path)
    answer = await browser.post("/login", {"secret": TOKENS["viewer"], "next": path})
    assert answer.headers["Location"] == "/"


def test_secret_is_found_in_a_link() -> None:
    assert secret_of(" http://h:1/login?secret=a%20b ") == "a b" and secret_of("tok") == "tok" and secret_of("https://h/") == ""


async def test_log_out_ends_the_session(browser: Browser) -> None:
    await browser.log_in()
    answer = await browser.post("/logout", {"csrf": await browser.csrf()})
    assert answer.status == 303 and "Max-Age=0" in answer.cookies[0]
    assert (await browser.get("/jobs")).headers["Location"] == "/login?next=/jobs", "a copy of the cookie is worthless too"


async def test_no_form_works_without_its_csrf_token(browser: Browser, world: World) -> None:
    await browser.log_in()
    world.chief.add_job("j-1", owner="owner")
    world.chief.workers["w-1"] = views.WorkerView(id="w-1", name="amber", state="idle")
    before = (dict(world.chief.jobs), dict(world.chief.workers), dict(world.chief.tokens))
    tried = 0
    for route in browser.routes:
        if route.method == "POST" and route.pattern != "/login":
            url = (
                route.pattern.replace("{id}", "w-1" if "workers" in route.pattern else "j-1")
                .replace("{action}", "pause")
                .replace("{company}", "co-1")
            )
            for given in ({}, {"csrf": "0" * 64}):
                if route.pattern == "/jobs/new":
                    parts = tuple(FakePart(k, None, v.encode()) for k, v in given.items())
                    answer = await browser.server.call(
                        "POST", url, cookies=browser.cookies, form=(*parts, FakePart("package_archive", "p.zip", b"PK"))
                    )
                else:
                    answer = await browser.post(url, given)
                assert answer.status in (400, 403), (route.pattern, given)
                tried += 1
    assert tried >= 10 and not world.chief.packages
    assert before == (world.chief.jobs, world.chief.workers, world.chief.tokens)


async def submit(browser: Browser, *parts: FakePart) -> Answer:
    form = (FakePart("csrf", None, (await browser.csrf()).encode()), *parts)
    return await browser.server.call("POST", "/jobs/new", cookies=browser.cookies, form=form)


def fields(**values: str) -> tuple[FakePart, ...]:
    return tuple(FakePart(name, None, value.encode()) for name, value in values.items())


EMPTY_FILE = FakePart("package_archive", "", b"")


async def test_archive_and_file_become_a_job(browser: Browser, world: World) -> None:
    await browser.log_in()
    answer = await submit(
        browser,
        FakePart("package_archive", "wc.zip", b"PK"),
        *fields(data_name=""),
        FakePart("data_file", "corpus.txt", b"words"),
        *fields(name="my job", params="n=5\nword=a b", priority="3", max_fails="10%", time_limit_s="", memory="1GiB", where="own"),
    )
    assert (answer.status, answer.headers["Location"]) == (303, "/jobs/j-1")
    job = world.chief.jobs["j-1"]
    assert (job.name, job.params, job.priority, job.max_fails) == ("my job", {"n": 5, "word": "a b"}, 3, "10%")
    assert (job.package_name, job.dataset_name, job.owner) == ("wc", "corpus.txt", "owner")


async def test_loose_files_become_package_and_directory(browser: Browser, world: World) -> None:
    await browser.log_in()
    answer = await submit(
        browser,
        EMPTY_FILE,
        *(FakePart("package_files", n, b"#") for n in ("split.py", "merge.py", "main.py")),
        *fields(data_name="tree"),
        FakePart("data_file", "", b""),
        FakePart("data_files", "a.txt", b"A" * 600),
        FakePart("data_files", "d/b.txt", b""),
    )
    assert answer.status == 303, answer.text
    job = world.chief.jobs["j-1"]
    assert [f["path"] for f in world.chief.packages[job.package].files] == ["merge.py", "processor/main.py", "split.py"]
    assert world.chief.datasets[job.dataset].kind == "tree"
    with tarfile.open(fileobj=io.BytesIO(world.chief.contents[job.dataset])) as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar} == {"a.txt": b"A" * 600, "d/b.txt": b""}  # type: ignore[union-attr]


async def test_refused_form_says_why_and_keeps_what_was_stored(browser: Browser, world: World) -> None:
    await browser.log_in()
    answer = await submit(browser, FakePart("package_archive", "wc.zip", b"PK"), *fields(name="my job"))
    digest = next(iter(world.chief.packages))
    assert answer.status == 400 and "Choose a dataset" in answer.text
    assert f'value="{digest}" selected' in answer.text and 'value="my job"' in answer.text
    wrong = await submit(browser, FakePart("package_archive", "wc.zip", b"syntax error"))
    assert wrong.status == 422 and "split.py, line 3: invalid syntax" in wrong.text
    assert (await submit(browser, *fields(package=digest, dataset="x"))).status == 404
    assert (await submit(browser, *fields(package=digest, dataset="x", params="1x=2"))).status == 400
    assert not world.chief.jobs


@pytest.mark.parametrize(("chosen", "asked"), [("never", "never"), ("ask", "ask"), ("automatically", "automatically"), ("", None)])
def test_the_form_says_how_slots_are_borrowed_and_that_foreign_eyes_are_confirmed(chosen: str, asked: str | None) -> None:
    given = {"package": "p", "dataset": "d", "where": "any", "borrow": chosen}
    request = _request_of(_Read(fields={**given, "yes_foreign": "1"}))
    assert (request.where, request.borrow, request.yes_foreign) == ("any", asked, True)
    assert not _request_of(_Read(fields=given)).yes_foreign
    with pytest.raises(ParallelError):
        _request_of(_Read(fields={**given, "borrow": "always"}))


async def test_chosen_package_and_data_become_a_job(browser: Browser, world: World) -> None:
    await browser.log_in("submitter")
    await submit(browser, FakePart("package_archive", "wc.zip", b"PK"), FakePart("data_file", "c.txt", b"w"))
    job = world.chief.jobs["j-1"]
    assert (await submit(browser, *fields(package=job.package, dataset=job.dataset))).status == 303
    await browser.log_in("viewer")
    assert (await browser.get("/jobs/new")).status == 403


def full_job(world: World, state: str = "running") -> None:
    chief = world.chief
    chief.add_job(
        "j-1",
        name=HOSTILE,
        state=state,
        package_name=HOSTILE,
        dataset_name=HOSTILE,
        owner="owner",
        params={HOSTILE: HOSTILE},
        reason=views.ReasonView(
            code="no-worker",
            text=f"No worker {HOSTILE}",
            actions=[{"label": "Add", "cli": "company worker join", "href": "/workers"}, {"label": "Bad", "href": "javascript:alert(1)"}],
        ),
        eta=views.EtaView(low_s=60, high_s=180, basis="from 5 fragments"),
        fragments=views.CountsView(total=10, done=5, failed=1, leased=2, waiting=2),
        cpu_s=3.5,
        rate_per_s=2.5,
        started=NOW,
        finished=NOW if state == "done" else None,
        result_bytes=5,
        result_digest="d" * 64,
        result_name="r",
        results_own=2,
        borrowed=[
            views.BorrowedView(company="co-abc", contract="6b" * 32, slots=1, results=3, ends_in_s=90.0, run_s=4.0),
            views.BorrowedView(company="co-def", contract="6c" * 32),
        ],
    )
    chief.failed["j-1"] = [
        views.FailureView(
            job="j-1",
            fragment=n,
            tries=3,
            infra_tries=0,
            final=True,
            cause="exception",
            exc_type="ValueError",
            message=f"bad line {n} {HOSTILE}",
            traceback=f"Traceback {HOSTILE}",
            log_tail=HOSTILE,
            preview=HOSTILE,
            worker="w-1",
            reproducible=True,
        )
        for n in (3, 7)
    ]
    chief.lines["j-1"] = [views.LogLine(fragment=n, stream="stdout", text=f"line {n} {HOSTILE}\n") for n in range(700)]
    chief.left["j-1", 3, "plots/a b.png"] = chief.store_file("a.png", b"P")
    chief.needs_you = [views.ReasonView(code="job-failed", text=f"A job failed {HOSTILE}")]
    chief.workers["w-1"] = views.WorkerView(id="w-1", name=HOSTILE, state="busy", slots=2, slots_busy=1, jobs=["j-1"], last_seen=NOW)
    chief.network = FakeNetwork(HOSTILE)
    chief.reasons = [views.ReasonView(code="retry", text="2 fragments wait for another try.")]


class Outline(HTMLParser):
    """Collects what accessibility rests on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


PAGES = [
    "/",
    "/jobs",
    "/jobs?state=running",
    "/jobs?offset=9",
    "/jobs/new",
    "/jobs/j-1",
    "/jobs/j-1/log",
    "/jobs/j-1/log?fragment=3",
    "/workers",
    "/network",
    "/network/offers",
]


@pytest.mark.parametrize("url", PAGES)
@pytest.mark.parametrize("state", ["running", "done", "failed"])
async def test_every_page_is_sound_html_with_labels_and_landmarks(browser: Browser, world: World, url: str, state: str) -> None:
    await browser.log_in()
    full_job(world, state)
    page = await browser.get(url)
    assert page.status == 200 and page.media_type.startswith("text/html")
    assert "<script>alert" not in page.text and "javascript:" not in page.text
    outline = Outline(page.text)
    assert (
        outline.of("html") == [{"lang": "en"}]
        and len(outline.of("main")) == 1
        and len(outline.of("h1")) == 1
        and len(outline.of("title")) >= 1
    )
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    labelled = {attrs.get("for") for attrs in outline.of("label")}
    for tag in ("input", "select", "textarea"):
        for attrs in outline.of(tag):
            assert attrs.get("type") == "hidden" or attrs["id"] in labelled, attrs
    for _, attrs in outline.tags:
        assert attrs.get("aria-labelledby", ids[0]) in ids and attrs.get("aria-describedby", ids[0]) in ids
        assert "style" not in attrs and not any(name.startswith("on") for name in attrs), "the content security policy forbids it"
    # nothing comes from anywhere else
    for _, attrs in outline.tags:
        for name in ("src", "href", "action"):
            assert (attrs.get(name) or "/").startswith(("/", "#")) and not (attrs.get(name) or "").startswith("//"), attrs
    assert all(attrs.get("src") for attrs in outline.of("script"))


async def test_job_page_says_state_why_when_and_what_next(browser: Browser, world: World) -> None:
    await browser.log_in()
    full_job(world)
    text = (await browser.get("/jobs/j-1")).text
    for words in (
        "running",
        "No worker",
        "2 fragments wait",
        "1 min",
        "from 5 fragments",
        "50 %",
        "5 of 10 fragments",
        "Pause",
        "Cancel this job",
        "×2</span> ValueError",
        "company job reproduce j-1/3",
        "plots/a%20b.png",
        "line 699",
        "results so far",
        "The whole log",
    ):
        assert words in text, words
    assert "Download the result" not in text
    live = (await browser.get("/jobs/j-1?live")).text
    assert live.lstrip().startswith('<div id="live"') and "<html" not in live and "every 2s" in live
    full_job(world, "done")
    done = (await browser.get("/jobs/j-1")).text
    assert "Who works on it" in text and "1 slot of co-abc: 3 results" in text and "ends in" in text
    for words in ("Who worked on it", "own slots: 2 results (40 %)", "3 results (60 %), 4.0 s of run time", "no result of it counts"):
        assert words in done, words
    assert "Who works on it" not in done and f'href="/contracts/{"6b" * 8}"' in done
    assert 'href="/final-result?job=j-1" download' in done and "every 2s" not in done and "Remove this job" in done


async def test_buttons_do_what_they_say(browser: Browser, world: World) -> None:
    await browser.log_in()
    full_job(world)
    csrf = await browser.csrf("/jobs/j-1")
    answer = await browser.post("/jobs/j-1/pause", {"csrf": csrf})
    assert (answer.status, answer.headers["Location"]) == (303, "/jobs/j-1") and world.chief.jobs["j-1"].paused
    assert ">Resume<" in (await browser.get("/jobs/j-1")).text
    assert (await browser.post("/jobs/j-1/explode", {"csrf": csrf})).status == 400
    await browser.post("/jobs/j-1/cancel", {"csrf": csrf})
    refused = await browser.post("/jobs/j-1/cancel", {"csrf": csrf})
    assert refused.status == 409 and "has ended" in refused.text
    assert (await browser.post("/jobs/j-1/rm", {"csrf": csrf})).headers["Location"] == "/jobs" and not world.chief.jobs
    await browser.post("/workers/w-1/drain", {"csrf": csrf})
    assert world.chief.workers["w-1"].state == "draining" and ">Resume<" in (await browser.get("/workers")).text


async def test_viewer_sees_no_buttons(browser: Browser, world: World) -> None:
    await browser.log_in("viewer")
    full_job(world)
    assert "Cancel" not in (await browser.get("/jobs/j-1")).text
    workers = (await browser.get("/workers")).text
    assert "Drain" not in workers and "Add a worker" not in workers


async def test_adding_a_worker_shows_both_lines_once(browser: Browser) -> None:
    await browser.log_in("operator")
    answer = await browser.post("/workers/add", {"csrf": await browser.csrf("/workers"), "label": "lab", "uses": "5", "ttl_s": "3600"})
    assert answer.status == 201 and "company worker join t-1" in answer.text and "pip install" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


async def test_log_is_paged(browser: Browser, world: World) -> None:
    await browser.log_in()
    full_job(world)
    first = (await browser.get("/jobs/j-1/log")).text
    assert "line 0 " in first and "line 500 " not in first and "after=500" in first
    second = (await browser.get("/jobs/j-1/log?after=500")).text
    assert "line 500 " in second and "Earlier" in second and "Later" not in second


async def test_list_is_paged_and_says_of_how_many(browser: Browser, world: World) -> None:
    await browser.log_in()
    for index in range(120):
        world.chief.add_job(f"j-{index}")
    text = (await browser.get("/jobs?offset=50")).text
    assert "51–100 of 120" in text and "Newer" in text and "Older" in text
    assert (await browser.get("/jobs?state=nonsense")).status == 400


async def test_empty_company_shows_the_first_steps(browser: Browser) -> None:
    await browser.log_in()
    home = (await browser.get("/")).text
    assert "First steps" in home and "company package init" in home and "Submit your first job" in home


async def test_static_files_are_a_closed_list_with_licences(browser: Browser) -> None:
    css = await browser.get("/static/vendor/pico/pico.min.css")
    assert css.status == 200 and css.media_type.startswith("text/css")
    assert (
        await browser.get("/static/style.css", headers={"If-None-Match": (await browser.get("/static/style.css")).headers["ETag"]})
    ).status == 304
    assert b"<svg" in (await browser.get("/static/icon.svg")).body
    for path in ("/static/../pages.py", "/static/vendor/htmx/../../../routes.py", "/static/nothing"):
        assert (await browser.get(path)).status == 404
    assert b"Zero-Clause BSD" in (await browser.get("/static/vendor/htmx/LICENSE")).body
    assert b"MIT License" in (await browser.get("/static/vendor/pico/LICENSE.md")).body


def test_strip_joins_runs_and_ends_at_the_last_fragment() -> None:
    strip = strip_of({"cells": [["done", 2], ["done", 1], ["failed", 1], ["odd", 0]], "per_cell": 10, "total": 37})
    assert [(r.state, r.first, r.last, r.x, r.width) for r in strip.runs] == [("done", 0, 29, 0, 3), ("failed", 30, 36, 3, 1)]
    assert strip_of({}).cells == 0


def test_failures_that_differ_in_numbers_only_are_one_group() -> None:
    def failure(fragment: int, message: str, cause: str = "exception") -> views.FailureView:
        return views.FailureView(job="j", fragment=fragment, tries=1, infra_tries=0, final=True, cause=cause, exc_type="E", message=message)

    groups = groups_of([failure(9, "other"), failure(1, "line 5"), failure(2, "line 77"), failure(3, "line 1", "memory")])
    assert [(g.count, g.fragments) for g in groups] == [(2, (1, 2)), (1, (3,)), (1, (9,))]


async def test_tar_of_parts_refuses_bad_and_repeated_names() -> None:
    spool = TarSpool(io.BytesIO(), 1 << 20)
    await spool.add(FakePart("f", "x" * 150 + ".txt", b"12345"))
    for name in ("../x", "/x", "x" * 150 + ".txt"):
        with pytest.raises(Invalid):
            await spool.add(FakePart("f", name, b""))
    data = b"".join([chunk async for chunk in spool.chunks()])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(m.name, m.size) for m in tar] == [("x" * 150 + ".txt", 5)]
