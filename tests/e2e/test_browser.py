"""The page in a real browser on a real company: the whole path with and without JavaScript, by keyboard, and its fences."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from company.client import Job
from tests.support.company_processes import RunningCompany, until, write_package
from tests.support.web_browser import WAIT_MS, Visitor, chromium_running

pytestmark = [pytest.mark.browser, pytest.mark.slow]

expect.set_options(timeout=WAIT_MS)

COUNT = """
    def split(data, n=10):
        yield from range(n)

    def count(data, n=10):
        return n
"""
PLATES = """
    from company import task

    def process(fragment, work=1):
        print(f"reading plate {fragment}")
        task.status(f"fitting plate {fragment}")
        for _ in range(work):
            sum(range(1_000_000))
        return parse(fragment)

    def parse(row):
        if row % 7 == 3:
            raise ValueError(f"row {row}: expected 7 columns")
        return row
"""
SLOW = 20  # rounds of work for fragments that are to be seen running


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with chromium_running(chromium) as running:
        yield running


Visit = Callable[..., Visitor]


@pytest.fixture
def visit(browser: Browser, company: RunningCompany) -> Iterator[Visit]:
    """Visitors that are logged in, unless ``logged_in=False``."""
    visitors: list[Visitor] = []

    def make(*, logged_in: bool = True, **options: Any) -> Visitor:
        visitor = Visitor(browser, company, **options)
        visitors.append(visitor)
        if logged_in:
            visitor.log_in()
        return visitor

    yield make
    for visitor in visitors:
        visitor.close()


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of which every seventh fragment fails."""
    return write_package(tmp_path_factory.mktemp("browser") / "plates", PLATES, split=COUNT, manifest='name = "plates"\nversion = "1.0"\n')


@pytest.fixture
def slow_job(company: RunningCompany, plates: Path, numbers: Path) -> Iterator[Job]:
    """A job that does not end while the test looks at it."""
    job = company.client.submit(plates, numbers, params={"n": 5000, "work": SLOW}, max_fails="50%")
    yield job
    if job.status()["state"] != "cancelled":
        job.cancel()
    job.wait(60)


def zipped(package: Path, folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder / package.name), "zip", package))


def test_login_link_works_once_and_the_second_use_is_refused_in_words(visit: Visit) -> None:
    first = visit(logged_in=False)
    link = first.log_in()
    expect(first.page.get_by_role("navigation", name="Main")).to_be_visible()
    second = visit(logged_in=False)
    second.log_in(link)
    assert "used" in second.text("[role=alert]") and "company open" in second.text()
    assert second.go("/") == 200 and second.page.url.endswith("/login"), "still nobody"


def test_from_upload_to_download_with_live_progress(visit: Visit, plates: Path, tmp_path: Path) -> None:
    v = visit()
    data = tmp_path / "plates.csv"
    data.write_text("a\nb\n")
    v.page.get_by_role("link", name="Submit", exact=True).click()
    v.page.set_input_files("#package_archive", zipped(plates, tmp_path))
    v.page.set_input_files("#data_file", data)
    v.page.fill("#params", f"n=40\nwork={SLOW // 2}")
    v.page.get_by_text("Limits and place").click()
    v.page.fill("#max_fails", "50%")
    v.page.get_by_role("button", name="Submit").click()
    v.page.wait_for_url("**/jobs/j-*")
    v.page.evaluate(
        "() => { window.sameDocument = true; window.percents = new Set();"
        " setInterval(() => percents.add(document.querySelector('.percent')?.innerText), 20) }"
    )
    expect(v.page.locator(".headline .state-running")).to_be_visible()
    v.page.locator("#error-1 summary").click()
    expect(v.page.locator("#error-1")).to_have_attribute("open", "")
    assert "ValueError: row 3: expected 7 columns" in v.text("#error-1") and "in parse" in v.text("#error-1 pre")
    expect(v.page.locator(".headline .state-done")).to_be_visible()
    assert v.page.evaluate("window.sameDocument"), "the page was never loaded anew"
    assert v.page.evaluate("percents.size") > 1, "how far it is was said while it ran"
    assert v.page.title().startswith("plates: done")
    assert "took" in v.text(".headline") and "download the result" in v.text(".headline")
    assert v.page.locator("#live").get_attribute("hx-get") is None, "asks no more"
    expect(v.page.locator("#error-1")).to_have_attribute("open", "")
    v.page.locator("#strip-table summary").click()
    failed = v.page.locator("#strip-table tr").filter(has_text="failed").locator("td:first-child").all_inner_texts()
    assert failed == [str(n) for n in range(40) if n % 7 == 3], "the table says the same as the strip"
    with v.page.expect_download() as download:
        v.page.locator("a.download").click()
    assert json.loads(download.value.path().read_bytes()) == [n for n in range(40) if n % 7 != 3]
    v.page.get_by_role("link", name="The whole log").click()
    expect(v.page.locator("pre.log")).to_contain_text("reading plate 39")
    v.page.fill("#fragment", "7")
    v.page.get_by_role("button", name="Show").click()
    assert "reading plate 7" in v.text("pre.log") and "reading plate 8" not in v.text("pre.log")
    assert not v.faults


def test_failed_job_shows_errors_grouped_with_traceback_and_can_be_retried(
    visit: Visit, company: RunningCompany, plates: Path, numbers: Path
) -> None:
    job = company.run(plates, numbers, params={"n": 20})
    assert job.state == "failed"
    v = visit()
    assert "plates" in v.text(".attention"), "home says what needs somebody"
    v.go(f"/jobs/{job.id}")
    assert "failed" in v.text(".headline") and "see what failed" in v.text(".headline")
    assert v.page.locator("details.error").count() == 1
    assert "Traceback" in v.text("details.error pre") and "ValueError" in v.text("details.error summary")
    assert f"company job reproduce {job.id}/" in v.text("details.error")
    v.page.get_by_role("button", name="Retry what failed").click()
    until(lambda: job.status()["state"] == "failed", "it fails again")
    v.page.get_by_text("Remove…").click()
    v.page.get_by_role("button", name="Remove this job").click()
    v.page.wait_for_url("**/jobs")
    assert job.id not in v.text()


def test_without_javascript_everything_works_too(visit: Visit, company: RunningCompany, plates: Path, tmp_path: Path) -> None:
    v = visit(java_script_enabled=False)
    assert v.page.locator("time").count() == 0 or "UTC" in v.text("time")
    v.go("/jobs/new")
    v.page.set_input_files("#package_files", [plates / "split.py", plates / "merge.py", plates / "processor" / "main.py"])
    (tmp_path / "one.txt").write_text("1")
    (tmp_path / "two.txt").write_text("2")
    v.page.set_input_files("#data_files", [tmp_path / "one.txt", tmp_path / "two.txt"])
    v.page.fill("#data_name", "two files")
    v.page.fill("#params", f"n=3\nwork={SLOW * 5}")
    v.page.get_by_role("button", name="Submit").click()
    job = company.client.job(v.page.url.rpartition("/")[2])
    assert job.status()["dataset_name"] == "two files"
    v.page.get_by_role("button", name="Pause").click()
    assert "paused" in v.text(".headline") and v.page.url.endswith(job.id)
    v.page.get_by_role("button", name="Resume").click()
    job.wait(60)
    v.page.get_by_role("link", name="Load the page again").click()
    assert "done" in v.text(".headline") and "UTC" in v.text("time")
    with v.page.expect_download() as download:
        v.page.locator("a.download").click()
    assert json.loads(download.value.path().read_bytes()) == [0, 1, 2]


def test_list_filters_and_changes_jobs(visit: Visit, slow_job: Job) -> None:
    v = visit()
    v.go("/jobs?state=running")
    row = v.page.locator(f"#row-{slow_job.id}")
    expect(row).to_contain_text("running")
    row.get_by_role("button", name="Pause").click()
    expect(row).to_contain_text("paused")
    row.get_by_role("button", name="Resume").click()
    expect(row.get_by_role("button", name="Pause")).to_be_visible()
    row.locator("summary").click()
    row.get_by_role("button", name="Cancel this job").click()
    expect(row).to_contain_text("cancelled")
    v.page.get_by_role("link", name="done", exact=False).first.click()
    v.page.wait_for_url("**state=done")
    expect(row).to_have_count(0)
    v.go("/jobs?state=merging")
    assert "No job is merging" in v.text()


def test_keyboard_alone_goes_all_the_way(visit: Visit, company: RunningCompany, slow_job: Job) -> None:
    v = visit(logged_in=False)
    v.page.goto(company.client.login_link())
    # autofocus comes with the first frame that is drawn, which may be after the page has loaded
    expect(v.page.get_by_role("button")).to_be_focused()
    v.page.keyboard.press("Enter")
    v.page.wait_for_url(v.at + "/")
    v.page.keyboard.press("Tab")
    expect(v.page.get_by_role("link", name="Skip to content")).to_be_focused()
    v.page.keyboard.press("Enter")
    v.go(f"/jobs/{slow_job.id}")
    pause = v.page.get_by_role("button", name="Pause")
    tab_to(v, "document.activeElement.innerText === 'Pause'")
    expect(pause).to_be_focused()
    outline: str = pause.evaluate("e => getComputedStyle(e).outlineStyle")
    assert outline != "none", "the focus is to be seen"
    v.page.keyboard.press("Enter")
    expect(v.page.locator(".headline .state-paused")).to_be_visible()
    tab_to(v, "document.activeElement.innerText.startsWith('Cancel')")
    v.page.keyboard.press("Enter")
    tab_to(v, "document.activeElement.innerText === 'Cancel this job'")
    v.page.keyboard.press("Enter")
    expect(v.page.locator(".headline .state-cancelled")).to_be_visible()


def test_a_job_for_other_companies_is_submitted_by_keyboard_and_only_after_what_they_see_was_confirmed(
    visit: Visit, company: RunningCompany, plates: Path, numbers: Path
) -> None:
    package, dataset = company.client.upload_package(plates)["digest"], company.client.upload_data(numbers)["digest"]
    v = visit()
    v.go(f"/jobs/new?package={package}&dataset={dataset}")
    v.page.locator("#params").focus()
    v.page.keyboard.type("n=3")
    tab_to(v, "document.activeElement.matches('#limits summary')")
    v.page.keyboard.press("Enter")
    tab_to(v, "document.activeElement.id === 'where'")
    v.page.keyboard.type("any")
    tab_to(v, "document.activeElement.id === 'borrow'")
    v.page.keyboard.type("never")
    tab_to(v, "document.activeElement.innerText === 'Submit'")
    v.page.keyboard.press("Enter")
    expect(v.page.get_by_role("alert")).to_contain_text("fragments")  # who will see them, and how to confirm it
    chosen = [v.page.locator(f"#{name}").input_value() for name in ("where", "borrow")]
    assert chosen == ["any", "never"] and not v.page.locator("#yes_foreign").is_checked(), "nothing is confirmed for anybody"
    tab_to(v, "document.activeElement.id === 'yes_foreign'")
    v.page.keyboard.press("Space")
    tab_to(v, "document.activeElement.innerText === 'Submit'")
    v.page.keyboard.press("Enter")
    v.page.wait_for_url("**/jobs/j-*")
    job = company.client.job(v.page.url.rpartition("/")[2])
    assert job.view["where"] == "any"
    job.wait(60)


def tab_to(visitor: Visitor, condition: str) -> None:
    """Press Tab until the focus is where it should be."""
    for _ in range(60):
        if visitor.page.evaluate(condition):
            return
        visitor.page.keyboard.press("Tab")
    raise AssertionError(f"60 times Tab did not lead to: {condition}")


def test_adding_a_worker_gives_lines_that_can_be_copied(visit: Visit) -> None:
    v = visit(permissions=["clipboard-read", "clipboard-write"])
    v.go("/workers")
    assert "w1" in v.text("table") and "w2" in v.text("table") and "bubblewrap" in v.text("table")
    v.page.fill("#label", "lab")
    v.page.get_by_role("button", name="Make the lines").click()
    line = v.text("#join-line")
    assert line.startswith("company worker join ") and "python3" in v.text("#install-line")
    v.page.locator("#join-line + button").click()
    expect(v.page.locator("#join-line + button")).to_have_text("Copied")
    assert v.page.evaluate("navigator.clipboard.readText()") == line
    v.page.get_by_role("link", name="Watch it join").click()
    expect(v.page.get_by_role("heading", name="Workers")).to_be_visible()


def test_page_rests_while_nobody_looks_and_says_when_the_chief_is_away(visit: Visit) -> None:
    v = visit()
    v.page.clock.install()
    v.go("/")
    asked: list[str] = []
    # Chromium asks for the icon when it likes; what is counted is what the page itself asks for.
    v.page.on("request", lambda request: asked.append(request.url) if "/static/" not in request.url else None)
    with v.page.expect_response(v.at + "/"):
        v.page.clock.run_for(5000)
    v.page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
    seen = len(asked)
    v.page.clock.run_for(60_000)
    assert v.page.evaluate("document.hidden") and len(asked) == seen, "a hidden page asks nothing"
    with v.page.expect_response(v.at + "/"):
        v.page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    v.context.set_offline(True)
    v.page.clock.run_for(5000)
    expect(v.page.locator("#lost")).to_be_visible()
    v.context.set_offline(False)
    v.page.clock.run_for(5000)
    expect(v.page.locator("#lost")).to_be_hidden()


def test_times_are_in_the_zone_of_the_reader(visit: Visit, company: RunningCompany, plates: Path, numbers: Path) -> None:
    job = company.run(plates, numbers, params={"n": 1})
    v = visit(timezone_id="Asia/Tokyo")
    v.go(f"/jobs/{job.id}")
    assert v.text("#zone") == "Asia/Tokyo" and "GMT+9" in v.text("time")
    assert v.page.locator("time").first.get_attribute("datetime", timeout=1000), "and the exact one is kept"


def test_logging_out_ends_the_session_everywhere(visit: Visit) -> None:
    v = visit()
    v.page.wait_for_url(v.at + "/")
    cookies = v.context.cookies()
    v.page.get_by_role("button", name="Log out").click()
    v.page.wait_for_url("**/login")
    v.context.add_cookies(cookies)  # type: ignore[arg-type]  # what was read is what is written
    v.go("/jobs")
    assert v.page.url.endswith("/login?next=/jobs")


def test_page_under_a_strange_name_is_refused(visit: Visit) -> None:
    v = visit()
    answer = v.page.goto(v.at.replace("127.0.0.1", "evil.example") + "/")
    assert answer is not None and answer.status == 421
    assert "does not answer to the name 'evil.example'" in v.text() and "--allow-host" in v.text()


def test_form_of_a_strange_page_changes_nothing(visit: Visit, slow_job: Job) -> None:
    v = visit()
    form = f'<form method=post action="{v.at}/jobs/{slow_job.id}/pause"><button>win</button></form>'
    v.page.route("http://evil.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
    v.page.goto("http://evil.example/")
    v.page.get_by_role("button", name="win").click()
    v.page.wait_for_url("**/pause")
    assert "may not change anything here" in v.text() and not slow_job.status()["paused"]


def test_form_with_a_wrong_token_is_refused_in_words(visit: Visit, slow_job: Job) -> None:
    v = visit()
    v.go(f"/jobs/{slow_job.id}")
    v.page.evaluate("document.querySelectorAll('[name=csrf]').forEach(field => field.value = '0'.repeat(64))")
    v.page.get_by_role("button", name="Pause").click()
    v.page.wait_for_url("**/pause")
    assert "too old or came from another page" in v.text() and not slow_job.status()["paused"]


def test_no_page_breaks_accessibility_or_overflows(
    visit: Visit, company: RunningCompany, slow_job: Job, plates: Path, numbers: Path
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the package axe-playwright-python of the test extra")

    done = company.run(plates, numbers, params={"n": 30}, max_fails="50%")
    failed = company.run(plates, numbers, params={"n": 30})
    until(lambda: slow_job.status()["fragments"]["failed"], "something failed in the running job")
    paths = ["/", "/jobs", "/jobs?state=merging", "/jobs/new", "/workers", "/jobs/none", f"/jobs/{done.id}/log", "/login"]
    paths += [f"/jobs/{job.id}" for job in (done, failed)]
    faults: list[str] = []

    def look(v: Visitor, path: str) -> None:
        v.go(path)
        v.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        # the second look is for the other colours only: the rest of the page is the same
        rules = {"runOnly": ["color-contrast"]} if v is visitors[1] else None
        found = axe.Axe().run(v.page, options=rules).response["violations"]
        faults.extend(f"{path}: {one['id']} {[node['html'][:100] for node in one['nodes']]}" for one in found)
        v.page.set_viewport_size({"width": 390, "height": 800})
        if v.overflow() > 0:
            faults.append(f"{path}: {v.overflow()} pixels too wide for a phone")
        v.page.set_viewport_size({"width": 1280, "height": 900})

    visitors = [visit(color_scheme=scheme) for scheme in ("light", "dark")]
    for visitor in visitors:
        look(visitor, f"/jobs/{slow_job.id}")
    slow_job.pause()  # two cores, and the browser wants them
    for path in paths:
        look(visitors[0], path)
    for path in ("/", "/jobs/new", "/workers", "/login", f"/jobs/{failed.id}"):
        look(visitors[1], path)
    assert not faults, "\n".join(faults)
