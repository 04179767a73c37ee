"""The line that answers a look at a job, the steps of its way, and the bar of its fragments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from company import views
from company.web.headline import headline_of, phases_of, title_of, when_text
from company.web.pages import format_number, format_time
from company.web.shapes import bar_of, shape
from tests.unit.test_api_access import World
from tests.unit.test_web_pages import Browser, full_job


def job(state: str, **rest: object) -> views.JobView:
    return views.JobView(id="j-1", name="wc", state=state, package="p", dataset="d", **rest)  # type: ignore[arg-type]


def counts(**rest: int) -> views.CountsView:
    return views.CountsView(**rest)


def test_headline_has_why_when_and_next() -> None:
    running = job("running", eta=views.EtaView(low_s=40, high_s=42, basis="from 9 fragments"))
    line = headline_of(running, [views.ReasonView(code="c", text="Fragments are being computed.")])
    assert (line.why, line.when, line.next, line.href) == ("Fragments are being computed.", "40 s to 42 s left", "merge the results", "")
    failed = headline_of(job("failed", fragments=counts(failed=1), started=10.0, finished=12.0), [])
    assert (failed.why, failed.when, failed.href) == ("", "ended after 2.0 s", "#errors")
    assert headline_of(job("failed"), []).href == "#log"


@pytest.mark.parametrize("state", ["queued", "splitting", "running", "merging", "done", "failed", "cancelled"])
def test_every_state_has_a_next_step_a_shape_and_a_title(state: str) -> None:
    assert headline_of(job(state), []).next and state in title_of(job(state), None)
    assert shape(state) != shape("idle")


def test_paused_job_is_to_be_resumed_and_promises_no_time() -> None:
    paused = job("running", paused=True, eta=views.EtaView(low_s=1, high_s=2, basis="b"))
    assert when_text(paused) == "" and headline_of(paused, []).next == "resume it" and title_of(paused, 50) == "wc: paused"


def test_title_counts_only_while_the_job_runs() -> None:
    assert title_of(job("running"), 50) == "50 % wc" and title_of(job("done"), 100) == "wc: done"


def test_steps_stop_where_a_job_ended() -> None:
    assert [p.mark for p in phases_of(job("running"))] == ["done", "done", "now", "later", "later"]
    assert [p.mark for p in phases_of(job("done"))] == ["done"] * 5
    early = job("failed", started=1.0)
    assert [p.mark for p in phases_of(early)] == ["done", "stopped", "later", "later", "later"]
    assert phases_of(job("cancelled"))[0].mark == "stopped"
    late = job("failed", started=1.0, merge_attempt=1, fragments=counts(total=2, done=2))
    assert [p.mark for p in phases_of(late)] == ["done", "done", "done", "stopped", "later"]


def test_bar_never_overflows_and_shows_even_one_of_many() -> None:
    bar = bar_of(counts(total=1_000_000, done=999_999, failed=1))
    assert [(s.state, s.x, s.width) for s in bar] == [("done", 0, 999), ("failed", 999, 1)]
    one = bar_of(counts(total=1_000_000, failed=1))
    assert [(s.x, s.width) for s in one] == [(0, 6)]
    assert bar_of(counts()) == () and sum(s.width for s in bar_of(counts(at_least=1, done=5, leased=9))) <= 1000


def test_times_say_their_zone_and_numbers_their_plural() -> None:
    assert format_time(0.0) == "–"
    assert format_time(1e9) == '<time datetime="2001-09-09T01:46:40Z">2001-09-09 01:46:40 UTC</time>'
    assert (format_number(1, "job"), format_number(2, "job"), format_number(0, "entry", "entries")) == ("1 job", "2 jobs", "0 entries")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def browser(world: World) -> Browser:
    return Browser(world)


async def test_refusal_keeps_the_navigation_of_who_is_logged_in(browser: Browser) -> None:
    await browser.log_in()
    answer = await browser.get("/jobs/j-nothing")
    assert answer.status == 404 and 'aria-label="Main"' in answer.text and "Log out" in answer.text


async def test_open_page_whose_session_ended_goes_to_the_login(browser: Browser) -> None:
    answer = await browser.get("/jobs", headers={"HX-Request": "true"})
    assert answer.status == 401 and answer.headers["HX-Redirect"] == "/login"


async def test_button_of_a_list_comes_back_to_it_and_nowhere_else(browser: Browser, world: World) -> None:
    await browser.log_in()
    full_job(world)
    csrf = await browser.csrf("/jobs")
    for back, to in (("/jobs", "/jobs"), ("https://evil.example", "/jobs/j-1"), ("//evil", "/jobs/j-1")):
        action = "resume" if world.chief.jobs["j-1"].paused else "pause"
        assert (await browser.post(f"/jobs/j-1/{action}", {"csrf": csrf, "back": back})).headers["Location"] == to


async def test_static_addresses_change_with_the_file(browser: Browser) -> None:
    page = (await browser.get("/login")).text
    addresses = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(addresses) >= 5 and all(re.fullmatch(r"/static/[a-z/.]+\?v=[0-9a-f]{12}", a) for a in addresses)
    assert all([(await browser.get(address)).status == 200 for address in addresses])
