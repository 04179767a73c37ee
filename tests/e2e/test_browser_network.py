"""The page Network in a real browser, in front of two real companies."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.test_browser import tab_to
from tests.support.companies import Companies
from tests.support.company_processes import until
from tests.support.web_browser import WAIT_MS, Visitor, chromium_running

pytestmark = [pytest.mark.browser, pytest.mark.slow]
expect.set_options(timeout=WAIT_MS)


def test_the_other_company_its_offer_and_ones_own_are_seen_and_changed_by_keyboard(chromium: str, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the package axe-playwright-python of the test extra")
    with Companies(tmp_path) as companies, chromium_running(chromium) as browser:
        companies.start("first")
        companies.start("second", "--bootstrap", companies.dht("first"), workers=0)
        companies.lend("first")
        companies.sees("second", "first", timeout_s=60)
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
        faults = []
        for scheme in ("light", "dark"):
            v.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # both are of its words
            for path in ("/network", "/network/offers"):
                v.go(path)
                v.page.wait_for_load_state("networkidle")
                found = axe.Axe().run(v.page).response["violations"]
                faults += [f"{path} {scheme}: {one['id']} {[node['html'][:100] for node in one['nodes']]}" for one in found]
                v.page.set_viewport_size({"width": 390, "height": 800})
                faults += [f"{path}: {v.overflow()} pixels too wide for a phone"] if v.overflow() > 0 else []
                v.page.set_viewport_size({"width": 1280, "height": 900})
        assert not faults and not v.faults, "\n".join([*faults, *v.faults])
        v.page.set_viewport_size({"width": 1120, "height": 1500})
        v.close()
        no_script = Visitor(browser, companies.of["second"], java_script_enabled=False)
        no_script.log_in()
        no_script.go("/network")
        no_script.page.get_by_role("link", name="Look for what others lend now").click()
        assert "1 advertised" in no_script.text("table")
        no_script.close()
