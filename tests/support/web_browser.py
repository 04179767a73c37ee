"""A real browser in front of a real chief: Debian's chromium, driven by Playwright, with an empty profile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Error, Page, sync_playwright

from tests.support.company_processes import RunningCompany

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # a name that a stranger's page could point at this machine (DNS rebinding)
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
)
ZONE = "Europe/Berlin"
WAIT_MS = 20_000


@contextmanager
def asyncios_own_loops() -> Iterator[None]:
    """Where trio-asyncio was imported by another test, new loops are its own, and Playwright needs asyncio's."""
    given, policy = asyncio.new_event_loop, asyncio.get_event_loop_policy()
    asyncio.new_event_loop = asyncio.SelectorEventLoop
    watcher = asyncio.ThreadedChildWatcher()
    seen = type(policy).get_child_watcher
    type(policy).get_child_watcher = lambda self: watcher  # type: ignore[method-assign]
    try:
        yield
    finally:
        asyncio.new_event_loop = given
        type(policy).get_child_watcher = seen  # type: ignore[method-assign]


@contextmanager
def chromium_running(path: str) -> Iterator[Browser]:
    """One browser process with a profile of its own; contexts in it share nothing."""
    with asyncios_own_loops(), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


class Visitor:
    """Somebody with a browser of their own. ``faults``: what the console complained about."""

    def __init__(self, browser: Browser, company: RunningCompany, **options: Any) -> None:
        self.company = company
        self.at = str(company.ready["chief"]["http"])
        self.context: BrowserContext = browser.new_context(**{"timezone_id": ZONE, "viewport": {"width": 1280, "height": 900}} | options)
        self.context.set_default_timeout(WAIT_MS)
        self.page: Page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("console", lambda said: self.faults.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))

    def log_in(self, link: str | None = None) -> str:
        """Follow a one-time link and press its button; returns the link."""
        link = link or self.company.client.login_link()
        self.page.goto(link)
        self.page.get_by_role("button", name="Log in").click()
        return link

    def go(self, path: str) -> int:
        """Open a page of the chief; returns its status. A page that goes on by itself just then may get in between."""
        for _ in range(10):
            try:
                answer = self.page.goto(self.at + path)
            except Error as error:
                if "interrupted by another navigation" not in error.message:
                    raise
            else:
                assert answer is not None
                return answer.status
        raise AssertionError(f"{path}: the page goes on by itself without end")

    def text(self, selector: str = "main") -> str:
        return self.page.locator(selector).first.inner_text()

    def overflow(self) -> int:
        """How many pixels the page is wider than its window."""
        found: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return found

    def close(self) -> None:
        self.context.close()
