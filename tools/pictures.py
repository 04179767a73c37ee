"""Make the pictures of the documentation from a real company with real jobs: ``python -m tools.pictures [FOLDER [network | contracts]]``.

Needs chromium.
Every run is a real one, so the numbers differ from run to run; what the pictures show is what a visitor sees, at a size that loads fast.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser

from tests.conftest import find_chromium
from tests.support.companies import Companies
from tests.support.company_processes import RunningCompany, until, write_package
from tests.support.web_browser import Visitor, chromium_running

ROOT = Path(__file__).parents[1]
MAX_BYTES = 150_000
SIZE = {"width": 1120, "height": 720}
TALL = {"width": 1000, "height": 980}
TEXT = {"width": 1000, "height": 860}  # a page that is mostly words

SURVEY = """
    from company import task

    def process(fragment):
        print(f"reading plate {fragment}")
        task.status(f"plate {fragment}: fitting")
        if fragment % 29 == 7:
            raise ValueError(f"plate {fragment}: expected 96 wells, got {fragment % 5}")
        return sum(range(2_000_000)) % 1000 + fragment
"""
COUNTED = "def split(data, n=10):\n    yield from range(n)\n\ndef count(data, n=10):\n    return n\n"


def fill(company: RunningCompany, root: Path) -> str:
    """Give the company a history and a job that runs; returns that job's id."""
    client = company.client
    company.start_workers("amber", "cedar", slots=1)
    limit = root / "limit.txt"
    limit.write_text("30000000\n")
    client.submit(ROOT / "examples" / "primes", limit).wait(120)
    client.submit(ROOT / "examples" / "wordcount", Path(tempfile.__file__).parent / "json", params={}).wait(120)
    survey = write_package(root / "survey", SURVEY, split=COUNTED, manifest='name = "survey"\nversion = "1.0"\n')
    plates = root / "plates-2026-11.csv"
    plates.write_text("plate,wells\n")
    client.submit(survey, plates, params={"n": 60}, name="survey without a tolerance").wait(120)
    client.submit(survey, plates, params={"n": 60}, name="survey of October", max_fails="10%").wait(120)
    running = client.submit(survey, plates, params={"n": 900}, name="survey of November", max_fails="10%")
    client.submit(ROOT / "examples" / "raytracer", ROOT / "examples" / "raytracer" / "scene.json", priority=-1)
    until(lambda: (running.status()["fraction"] or 0) > 0.4, "the job is half way", timeout_s=300)
    return running.id


def take(browser: Browser, company: RunningCompany, job: str, folder: Path) -> None:
    """One picture of each page."""
    visitor = Visitor(browser, company, viewport=SIZE)
    visitor.log_in()
    for name, path in (("job", f"/jobs/{job}"), ("home", "/"), ("workers", "/workers"), ("submit", "/jobs/new")):
        visitor.go(path)
        visitor.page.wait_for_load_state("networkidle")
        shoot(visitor, folder / f"{name}.png")
    visitor.close()


def shoot(visitor: Visitor, to: Path) -> None:
    """What the visitor sees now."""
    visitor.page.screenshot(path=to)
    size = to.stat().st_size
    print(f"{to}  {size // 1000} kB")
    if size > MAX_BYTES:
        raise SystemExit(f"{to} has {size} bytes; at most {MAX_BYTES} are wanted in the repository")


def take_network(browser: Browser, root: Path, folder: Path) -> None:
    """The page Network of one of four companies, all of which lend."""
    names = ("Bio Lab", "Faculty of Physics", "Survey Office", "City Library")
    with Companies(root) as companies:
        for slots, name in enumerate(names, 1):
            given = ("--bootstrap", companies.dht(names[0])) if slots > 1 else ()
            companies.start(name, *given, workers=slots)
            companies.client(name).network.lend(20, schedule="mon-fri 18:00-08:00, sat-sun" if slots == 2 else "")
        own = companies.client(names[0]).network
        until(lambda: own.status()["state"] == "public", "others dialled back", timeout_s=120)
        until(lambda: {c["name"] for c in own.list("companies")["items"]} == {*names[1:]}, "all are known by name", timeout_s=120)
        visitor = Visitor(browser, companies.of[names[0]], viewport=TALL)
        visitor.log_in()
        visitor.go("/network")
        visitor.page.wait_for_selector("#offers table")
        visitor.page.wait_for_load_state("networkidle")
        shoot(visitor, folder / "network.png")
        visitor.close()


def take_contracts(browser: Browser, root: Path, folder: Path) -> None:
    """A counter-proposal as its borrower reads it, and the page Reputation after a contract that was kept."""
    lender, borrower = "Faculty of Physics", "Bio Lab"
    with Companies(root) as companies:
        companies.start(lender, workers=2)
        companies.client(lender).network.lend(2)
        companies.start(borrower, "--bootstrap", companies.dht(lender), workers=0)
        companies.sees(borrower, lender, timeout_s=120)
        one, other = companies.client(borrower).contracts, companies.client(lender).contracts
        digest = companies.client(borrower).upload_package(ROOT / "examples" / "raytracer")["digest"]
        asked = {"package": digest, "slots": 2, "time_frame_s": 7200}
        kept = str(one.request(str(companies.of[lender].ready["chief"]["company"]), **asked)["id"])
        until(lambda: other.list("inbox")["items"], "the offer is there")
        other.act(kept, "accept", digest=other.show(kept)["digest"])
        until(lambda: one.show(kept)["state"] == other.show(kept)["state"] == "active", "both are bound")
        one.act(kept, "revoke", notice_s=0)
        until(lambda: one.show(kept)["state"] == other.show(kept)["state"] == "rated", "both halves are there", timeout_s=60)
        second = str(one.request(str(companies.of[lender].ready["chief"]["company"]), **asked)["id"])
        until(lambda: other.list("inbox")["items"], "the second offer is there")
        other.act(second, "counter", time_frame_s=3600, reason="only until noon")
        until(lambda: one.show(second)["differences"], "the counter-proposal is there")
        visitor = Visitor(browser, companies.of[borrower], viewport=TEXT)
        visitor.log_in()
        for name, path in (("contract", f"/contracts/{second}"), ("reputation", "/reputation")):
            visitor.go(path)
            visitor.page.wait_for_load_state("networkidle")
            shoot(visitor, folder / f"{name}.png")
        visitor.close()


def main() -> int:
    """Start a company, fill it, look at it, stop it."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    chromium = find_chromium()
    if chromium is None:
        print("no chromium on this machine; as root on Debian: apt-get install chromium", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, RunningCompany(Path(name)) as company, chromium_running(chromium) as browser:
        company.start_chief("--name", "Bio Lab")
        if sys.argv[2:] != ["contracts"]:
            take_network(browser, Path(name) / "network", folder)
        if sys.argv[2:] != ["network"]:
            take_contracts(browser, Path(name) / "contracts", folder)
        if not sys.argv[2:]:
            job = fill(company, Path(name))
            take(browser, company, job, folder)
            company.client.job(job).cancel()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
