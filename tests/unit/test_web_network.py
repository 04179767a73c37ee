"""The page Network, without JavaScript: what it says, and that its forms do what they say."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from company import network_views as nv
from company.config import format_count
from tests.support.fake_network import OTHER, FakeNetwork
from tests.unit.test_api_access import World
from tests.unit.test_web_pages import HOSTILE, Browser, Outline


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork()


@pytest.fixture
async def browser(tmp_path: Path, network: FakeNetwork) -> Browser:
    world = World(tmp_path)
    world.chief.network = network
    found = Browser(world)
    await found.log_in()
    return found


async def test_it_says_who_is_reached_how_and_what_mends_it(browser: Browser) -> None:
    text = (await browser.get("/network")).text
    words = (
        "closed", "2 companies tried", "To mend it: forward port 8468", "outbound-only", "-3 s", "14 of 20 places taken", OTHER,
        format_count(1234), "2.5/s", "no valid token", "42 ms", "seen from outside as 192.0.2.1", "through 198.51.100.7:8468",
        "dht.example:8468", "41",
    )  # fmt: skip
    assert [word for word in words if word not in text] == []


async def test_what_others_lend_is_a_page_of_its_own_and_asking_is_a_form(browser: Browser, network: FakeNetwork) -> None:
    text = (await browser.get("/network/offers")).text
    assert "5 idle now" in text and "8 advertised" in text and "1.5 favours for one" in text and "30 ms away" in text
    csrf = await browser.csrf("/network")
    page = await browser.post("/network/offers", {"csrf": csrf, "slots": "3", "memory": "2GiB", "python": "3.11"})
    assert "4 offers found, 3 companies asked" in page.text and "idle slots: mean 5 ± 1.5, 1 outlier set aside" in page.text
    assert network.done == [nv.SearchRequest(slots=3, memory_bytes=2 << 30, python="3.11")]


async def test_lending_is_previewed_begun_and_stopped(browser: Browser, network: FakeNetwork) -> None:
    csrf = await browser.csrf("/network")
    fields = {"csrf": csrf, "max_workers": "8", "duration": "2h", "schedule": "sat-sun", "min_trust": "0.2", "only_to": f"{OTHER}, x"}
    page = await browser.post("/network/lend", fields | {"do": "preview"})
    assert page.status == 200 and "8 slots on 1 machine are offered." in page.text and network.lent.state == "not-lending"
    assert 'value="sat-sun"' in page.text, "what was typed stays"
    assert (await browser.post("/network/lend", fields | {"do": "lend"})).headers["Location"] == "/network#lend"
    asked = network.done[-1]
    assert isinstance(asked, nv.LendRequest) and asked.only_to == [OTHER, "x"] and asked.min_trust == 0.2
    assert asked.until is not None and 7000 < asked.until - time.time() <= 7200
    assert "only to co-bbbbbbbbbbbbbbbb, x" in (await browser.get("/network")).text
    network.lent.max_memory_bytes, network.lent.only_on_mains = 1 << 30, True  # said on the command line
    await browser.post("/network/lend", fields | {"do": "lend", "auto_accept": "any", "max_load": "0.3"})
    changed = network.done[-1]
    assert isinstance(changed, nv.LendRequest) and (changed.max_memory_bytes, changed.only_on_mains) == (1 << 30, True)
    assert (changed.auto_accept, changed.max_load) == ("any", 0.3)
    page = await browser.get("/network")
    assert 'value="any" selected' in page.text and "What a guest can never reach" in page.text
    network.lent.supply_why = "70% of what may be lent is offered, because favours were not returned"
    assert "70% of what may be lent is offered, because favours were not returned." in (await browser.get("/network")).text
    await browser.post("/network/lend/stop", {"csrf": csrf, "now": "1"})
    assert network.done[-1] == "stop now"
    await browser.post("/network/lend/stop", {"csrf": csrf})
    assert network.done[-1] == "stop"
    assert "Nothing is lent." in (await browser.get("/network")).text
    assert (await browser.post("/network/lend", {"csrf": csrf, "max_workers": "many"})).status == 422


async def test_nodes_are_added_removed_and_tested(browser: Browser, network: FakeNetwork) -> None:
    csrf = await browser.csrf("/network")
    answer = await browser.post("/network/bootstrap/add", {"csrf": csrf, "address": " n.example:1 "})
    assert (answer.status, network.added) == (303, ["dht.example:8468", "n.example:1"])
    await browser.post("/network/bootstrap/rm", {"csrf": csrf, "address": "dht.example:8468"})
    assert network.added == ["n.example:1"]
    assert "no answer by UDP" in (await browser.post("/network/bootstrap/test", {"csrf": csrf})).text
    refused = await browser.post("/network/bootstrap/add", {"csrf": csrf, "address": "nowhere"})
    assert refused.status >= 400 and "is no address" in refused.text
    said = await browser.post("/network/ping", {"csrf": csrf, "company": OTHER})
    assert f"{OTHER} was not reached" in said.text


@pytest.mark.parametrize("path", ["offers", "ping", "bootstrap/add", "bootstrap/rm", "bootstrap/test", "lend", "lend/stop"])
async def test_no_form_works_without_its_token_or_for_a_viewer(browser: Browser, network: FakeNetwork, path: str) -> None:
    fields = {"max_workers": "1", "address": "dht.example:8468", "company": OTHER, "slots": "1"}
    answer = await browser.post(f"/network/{path}", {"csrf": "0" * 64} | fields)
    assert answer.status == 403 and "too old or came from another page" in answer.text
    await browser.log_in("viewer")
    answer = await browser.post(f"/network/{path}", {"csrf": await browser.csrf("/network")} | fields)
    assert answer.status == 403 and "This needs the role" in answer.text
    assert network.done == [] and network.added == ["dht.example:8468"]


async def test_a_viewer_sees_no_forms_and_a_chief_without_network_says_so(browser: Browser) -> None:
    await browser.log_in("viewer")
    for path in ("/network", "/network/offers"):
        forms = Outline((await browser.get(path)).text).of("form")
        assert [form["action"] for form in forms] == ["/logout"]
    browser.world.chief.network = type(browser.world.chief)(browser.world.chief.directory).network
    page = await browser.get("/network")
    assert page.status == 200 and "--dht off" in page.text and 'id="lend"' not in page.text


async def test_words_of_strangers_stay_words(browser: Browser, network: FakeNetwork) -> None:
    network.text = HOSTILE
    csrf = await browser.csrf("/network")
    pages = [await browser.get("/network"), await browser.get("/network/offers")]
    pages += [await browser.post(f"/network/{path}", {"csrf": csrf, "company": HOSTILE}) for path in ("ping", "offers")]
    for page in pages:
        assert page.status == 200 and "<script>alert" not in page.text and 'href="javascript' not in page.text
