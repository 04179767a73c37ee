"""The pages Network, Contracts and Reputation in a real browser, in front of two real companies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.test_browser import tab_to
from tests.support.companies import Companies
from tests.support.company_processes import until, write_package
from tests.support.web_browser import WAIT_MS, Visitor, chromium_running

pytestmark = [pytest.mark.browser, pytest.mark.slow]
expect.set_options(timeout=WAIT_MS)
HOSTILE = "first <img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def companies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Companies]:
    """``first`` lends a slot under a name that would like to be markup; ``second`` has no worker."""
    with Companies(tmp_path_factory.mktemp("two")) as both:
        both.start("first", "--name", HOSTILE)
        both.start("second", "--bootstrap", both.dht("first"), workers=0)
        both.lend("first")
        both.sees("second", "first", timeout_s=60)
        yield both


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with chromium_running(chromium) as running:
        yield running


def look(v: Visitor, *paths: str, schemes: tuple[str, ...] = ("light", "dark")) -> list[str]:
    """What breaks accessibility or is too wide, in each colour scheme."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the package axe-playwright-python of the test extra")
    faults = []
    for scheme in schemes:
        v.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # both are of its words
        for path in paths:
            v.go(path)
            v.page.wait_for_load_state("networkidle")
            found = axe.Axe().run(v.page).response["violations"]
            faults += [f"{path} {scheme}: {one['id']} {[node['html'][:100] for node in one['nodes']]}" for one in found]
            v.page.set_viewport_size({"width": 390, "height": 800})
            faults += [f"{path}: {v.overflow()} pixels too wide for a phone"] if v.overflow() > 0 else []
            v.page.set_viewport_size({"width": 1280, "height": 900})
    return faults


def test_the_other_company_its_offer_and_ones_own_are_seen_and_changed_by_keyboard(companies: Companies, browser: Browser) -> None:
    until(lambda: companies.client("second").network.status()["state"] == "public", "a peer dialled back", timeout_s=60)
    v = Visitor(browser, companies.of["second"])
    v.log_in()
    v.page.get_by_role("link", name="Network", exact=True).click()
    expect(v.page.get_by_role("heading", name="Network", exact=True)).to_be_visible()
    expect(v.page.get_by_role("table", name="Ports")).to_contain_text("Others")
    expect(v.page.get_by_role("table", name="Companies seen")).to_contain_text("first")  # it comes by itself
    expect(v.page.get_by_role("table", name="Offers")).to_contain_text("1 advertised")  # fetched after the page
    v.page.get_by_role("button", name="Reach first").click()
    expect(v.page.get_by_role("status")).to_contain_text("its key proved")
    # lending by keyboard: what cannot be lent is said
    tab_to(v, "document.activeElement.id === 'max_workers'")
    v.page.keyboard.type("2")
    tab_to(v, "document.activeElement.innerText.startsWith('Only show')")
    v.page.keyboard.press("Enter")
    expect(v.page.get_by_text("Preview:")).to_be_visible()
    v.page.get_by_role("button", name="Lend", exact=True).click()
    expect(v.page.get_by_role("button", name="Stop lending")).to_be_visible()
    v.page.get_by_role("button", name="Stop lending").click()
    expect(v.page.get_by_text("Nothing is lent.")).to_be_visible()
    v.page.get_by_label("Another node").fill("127.0.0.1:9")
    v.page.get_by_role("button", name="Add", exact=True).click()
    expect(v.page.get_by_role("button", name="Remove 127.0.0.1:9")).to_be_visible()
    v.page.get_by_role("link", name="See what others lend").click()
    v.page.get_by_role("button", name="Ask what is idle now").click()
    expect(v.page.get_by_role("table", name="Offers")).to_contain_text("1 idle now")
    faults = look(v, "/network", "/network/offers")
    assert not faults and not v.faults, "\n".join([*faults, *v.faults])
    v.close()
    no_script = Visitor(browser, companies.of["second"], java_script_enabled=False)
    no_script.log_in()
    no_script.go("/network")
    no_script.page.get_by_role("link", name="Look for what others lend now").click()
    assert "1 advertised" in no_script.text("table")
    no_script.close()


def press(page: Page, condition: str, *keys: str) -> None:
    """Go there with Tab, and press."""
    for _ in range(120):
        if page.evaluate(f"Boolean({condition})"):
            break
        page.keyboard.press("Tab")
    else:
        raise AssertionError(f"120 times Tab and never {condition}")
    for key in keys:
        page.keyboard.press(key)


def on(word: str) -> str:
    return f"document.activeElement.innerText.trim().startsWith('{word}')"


def test_an_offer_is_written_countered_signed_and_revoked_in_two_browsers_by_keyboard(
    companies: Companies, browser: Browser, tmp_path: Path
) -> None:
    package = write_package(tmp_path / "p", "def process(fragment):\n    return fragment\n")
    companies.client("second").upload_package(package)
    b, v = Visitor(browser, companies.of["second"]), Visitor(browser, companies.of["first"])  # borrower, lender
    b.log_in()
    v.log_in()
    began = time.monotonic()
    # the borrower finds the offer and writes one of its own; nothing is signed before the text was read
    b.go("/network/offers")
    press(b.page, on("Borrow from it"), "Enter")
    expect(b.page.get_by_label("Of which company")).to_have_value(str(companies.of["first"].ready["chief"]["company"]))
    press(b.page, on("Show me the text"), "Enter")
    expect(b.page.get_by_text("The lender gives 1 slot for 2 h.")).to_be_visible()
    expect(b.page.get_by_role("table", name="Exactly what is signed")).to_contain_text("time_frame_s")
    assert companies.client("second").contracts.list("sent")["items"] == [], "a draft is not sent"
    press(b.page, on("Sign this text"), "Enter")
    expect(b.page.get_by_role("status")).to_contain_text("offered")
    # the lender's first page says so by itself; it reads, and proposes half the time
    v.page.get_by_role("link", name="read", exact=True).click()
    expect(v.page.get_by_role("heading", name="Inbox")).to_be_visible()
    expect(v.page.locator(".badge")).to_have_text("1")
    press(v.page, on("Read and answer"), "Enter")
    expect(v.page.get_by_role("heading", name="Your answer")).to_be_visible()
    press(v.page, on("Propose other terms"), "Enter")
    press(v.page, "document.activeElement.id === 'counter-time'", "Control+a", "1", "h", "Enter")
    expect(v.page.get_by_role("status")).to_contain_text("offered")
    # the borrower's page says so without changing the text under its reader, and shows what differs
    expect(b.page.get_by_text("It has changed since this page was opened")).to_be_visible()
    expect(b.page.get_by_text("The lender gives 1 slot for 2 h.")).to_be_visible()
    press(b.page, on("Read it as it is now"), "Enter")
    expect(b.page.get_by_role("table", name="What differs")).to_contain_text("7200")
    press(b.page, on("Accept: sign this text"), "Enter")
    expect(b.page.get_by_role("status")).to_contain_text("active")  # it goes on by itself: the text is the same
    print(f"written, countered and signed in {time.monotonic() - began:.1f} s")
    # either side ends it, with a reason that the other reads
    at = b.page.url.removeprefix(b.at)
    until(lambda: companies.client("first").contracts.show(at.rpartition("/")[2])["state"] == "active", "the lender knows, too")
    expect(v.page.get_by_role("status")).to_contain_text("active")  # by itself, too
    press(v.page, on("Revoke"), "Enter")
    press(v.page, "document.activeElement.id === 'revoke-reason'", *"mine", "Tab", "Space")
    press(v.page, on("Revoke this contract"), "Enter")
    for visitor in (b, v):
        visitor.go(at)
        expect(visitor.page.get_by_role("status")).to_contain_text("rated", timeout=60_000)
        expect(visitor.page.get_by_role("table", name="Halves of the receipt")).to_be_visible()
    with b.page.expect_download() as download:
        b.page.get_by_role("link", name="Download every signed message").click()
    download.value.save_as(tmp_path / "x.contract")
    assert companies.of["second"].command("contract", "verify", str(tmp_path / "x.contract")).returncode == 0
    b.page.get_by_role("link", name="Reputation", exact=True).click()
    expect(b.page.get_by_role("table", name="Reputation")).to_contain_text(HOSTILE)
    b.page.get_by_role("link", name="Why this score").click()
    expect(b.page.get_by_role("table", name="Receipts")).to_contain_text("this company")
    faults = look(b, "/contracts", at, schemes=("light",)) + look(b, "/reputation", schemes=("dark",))
    assert not faults and not b.faults and not v.faults, "\n".join([*faults, *b.faults, *v.faults])
    b.close()
    v.close()


def test_what_was_not_read_is_not_signed_and_without_javascript_it_all_works(
    companies: Companies, browser: Browser, tmp_path: Path
) -> None:
    package = write_package(tmp_path / "p", "def process(fragment):\n    return fragment\n")
    borrower = companies.client("second")
    digest = borrower.upload_package(package)["digest"]
    lender = str(companies.of["first"].ready["chief"]["company"])
    id_ = str(borrower.contracts.request(lender, package=digest, slots=1, time_frame_s=600)["id"])
    until(lambda: companies.client("first").contracts.list("inbox")["items"], "the offer is there")
    v = Visitor(browser, companies.of["first"], java_script_enabled=False)
    v.log_in()
    v.go("/contracts")
    v.page.get_by_role("link", name="Read and answer").click()
    text = v.text("#digest")
    borrower.contracts.act(id_, "counter", time_frame_s=6000)  # while the lender reads
    until(lambda: companies.client("first").contracts.show(id_)["digest"] != text, "the revised offer is there")
    with v.page.expect_response(lambda answer: answer.request.method == "POST") as posted:
        v.page.get_by_role("button", name="Accept: sign this text").click()
    assert posted.value.status == 409
    assert "not the text that was shown" in v.text("[role=alert]") and "6000" in v.text("#differences ~ table")
    assert companies.client("first").contracts.list("active")["items"] == []
    v.page.get_by_role("button", name="Accept: sign this text").click()  # this time it is what is shown
    # the side whose page is opened next: the other one is bound a message earlier
    until(lambda: companies.client("first").contracts.show(id_)["state"] == "active", "the lender knows that both are bound")
    v.go(f"/contracts/{id_}")
    v.page.get_by_text("Revoke…").click()
    v.page.get_by_role("button", name="Revoke this contract").click()
    until(lambda: borrower.contracts.show(id_)["state"] == "rated", "it is over", timeout_s=60)
    v.close()
