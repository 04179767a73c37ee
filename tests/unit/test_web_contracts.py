"""The pages Contracts and Reputation without JavaScript: what they say, what their forms do, that only what was read is signed."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from company import contract_views as cv
from company.chief.contracts.off import ContractsOff
from company.chief.facade import Conflict
from company.views import ReasonView
from company.web.trust_graph import graph_of
from tests.support.fake_contracts_port import DIGEST, NEAR, OTHER, FakeContractsPort
from tests.support.fake_network import FakeNetwork
from tests.unit.test_api_access import World
from tests.unit.test_web_pages import HOSTILE, Browser, Outline

INBOX, DRAFT, SENT, ACTIVE = "c-inbox00000000000", "c-drafts0000000000", "c-sent000000000000", "c-active0000000000"
ALL = (INBOX, DRAFT, SENT, ACTIVE, "c-settled000000000", "c-ended00000000000")


@pytest.fixture
def contracts() -> FakeContractsPort:
    return FakeContractsPort()


@pytest.fixture
async def browser(tmp_path: Path, contracts: FakeContractsPort) -> Browser:
    world = World(tmp_path)
    world.chief.network, world.chief.contracts = FakeNetwork(), contracts
    world.chief.needs_you = [ReasonView(code="offers-wait", text="An offer waits for your answer.", facts={"offers": 1})]
    found = Browser(world)
    await found.log_in()
    return found


async def test_the_list_puts_first_what_waits_and_the_badge_counts_it(browser: Browser) -> None:
    text = (await browser.get("/contracts")).text
    assert 'id="inbox"' in text and text.index(INBOX) < text.index(DRAFT) < text.index(ACTIVE)
    assert '<span class="badge" title="An offer waits for your answer.">1</span>' in text
    assert "Read and answer" in text and "lapses in 1 min 30 s" in text and "10 min left" in text


async def test_a_contract_is_plain_language_beside_exactly_what_is_signed(browser: Browser) -> None:
    text = (await browser.get(f"/contracts/{INBOX}")).text
    assert "The lender gives" in text and ">assumed_bad_ppm<" in text and DIGEST in text and "Error bound" in text
    assert "What differs from the text before" in text and 'class="differs"' in text
    live = (await browser.get(f"/contracts/{ACTIVE}?live=1")).text
    assert "Silence ends it in" in live and "42 s" in live and "7 fragments, 7.0 core-seconds" in live and "<form" not in live
    settled = (await browser.get("/contracts/c-settled000000000")).text
    assert "20 passed, 0 failed" in settled and "/api/v1/contracts/c-settled000000000/export" in settled
    assert 'hx-get="/contracts/' not in settled, "what is over does not change"


async def test_the_part_that_renews_itself_never_changes_the_text_but_says_that_it_did(
    browser: Browser, contracts: FakeContractsPort
) -> None:
    page = (await browser.get(f"/contracts/{INBOX}")).text
    again = page.partition('hx-get="')[2].partition('"')[0].replace("&amp;", "&")
    assert "It has changed since" not in (await browser.get(again)).text
    contracts.changed = True
    text = (await browser.get(again)).text
    assert "It has changed since this page was opened" in text and "<form" not in text and DIGEST not in text
    later = text.partition('hx-get="')[2].partition('"')[0].replace("&amp;", "&")
    assert later == again and "It has changed since" in (await browser.get(later)).text, "until its reader has read it, not once"
    contracts.changed = False
    answer = await browser.get(again.replace("offered-", "accepted-"))
    assert answer.headers["HX-Refresh"] == "true", "the same text under other buttons: the page may be loaded again by itself"


async def test_each_button_does_what_it_says(browser: Browser, contracts: FakeContractsPort) -> None:
    csrf = await browser.csrf(f"/contracts/{INBOX}")

    async def press(ref: str, action: str, **fields: str) -> str:
        answer = await browser.post(f"/contracts/{ref}/{action}", {"csrf": csrf} | fields)
        assert answer.status == 303, answer.text
        return answer.headers["Location"]

    assert await press(INBOX, "accept", digest=DIGEST, slots="2") == f"/contracts/{INBOX}"
    assert await press(INBOX, "reject", reason="not now", retry_after="2h") == f"/contracts/{INBOX}"
    assert await press(INBOX, "later") == "/contracts#inbox"
    assert await press(INBOX, "block") == "/contracts#inbox"
    assert f'action="/contracts/{OTHER}/unblock"' in (await browser.get("/contracts")).text
    assert await press(OTHER, "unblock") == "/contracts"
    assert await press(INBOX, "counter", slots="1", time_frame="90m", memory="1GiB", price="0.5", reason="less") == f"/contracts/{INBOX}"
    assert await press(DRAFT, "send", digest=DIGEST) == f"/contracts/{DRAFT}"
    assert await press(DRAFT, "discard") == "/contracts"
    await press(SENT, "withdraw")
    await press(ACTIVE, "renew", more="1h")
    await press(ACTIVE, "revoke", reason="done", now="1")
    assert [(what, asked) for what, _, asked in contracts.done] == [
        ("accept", cv.ContractAccept(digest=DIGEST, slots=2)),
        ("reject", cv.ContractReject(reason="not now", retry_after_s=7200)),
        ("later", None),
        ("block", None),
        ("unblock", None),
        ("counter", cv.ContractCounter(slots=1, time_frame_s=5400, memory_mib=1024, price_milli=500, reason="less")),
        ("send", DIGEST),
        ("discard", None),
        ("reject", cv.ContractReject()),
        ("renew", cv.ContractRenew(more_s=3600)),
        ("revoke", cv.ContractRevoke(notice_s=0, text="done")),
    ]


async def test_an_offer_is_written_as_a_draft_and_what_is_wrong_is_said_beside_what_was_typed(
    browser: Browser, contracts: FakeContractsPort
) -> None:
    page = (await browser.get(f"/contracts/new?company={OTHER}")).text
    assert f'value="{OTHER}"' in page and "Show me the text" in page
    csrf = await browser.csrf("/contracts/new")
    fields = {"csrf": csrf, "company": OTHER, "slots": "4", "time_frame": "2h", "check": "none", "lease": "30s", "valid": "1h", "price": ""}
    answer = await browser.post("/contracts/new", fields)
    assert answer.headers["Location"] == f"/contracts/{DRAFT}"
    wanted = cv.ContractRequest(company=OTHER, slots=4, time_frame_s=7200, check="none", lease_s=30, valid_s=3600, draft=True)
    assert contracts.done == [("request", DRAFT, wanted)]
    wrong = (
        {"time_frame": "soon"},
        {"slots": "many"},
        {"price": "nan"},
        {"memory": "9" * 400 + "GiB"},
        {"lease": "9" * 400 + "d"},
        {"check": "all"},
    )
    for bad in wrong:
        answer = await browser.post("/contracts/new", fields | bad)
        assert answer.status in (400, 422) and 'role="alert"' in answer.text and f'value="{OTHER}"' in answer.text, bad
    assert len(contracts.done) == 1


async def test_what_is_borrowed_by_itself_is_said_and_changed(browser: Browser, contracts: FakeContractsPort) -> None:
    text = (await browser.get("/contracts")).text
    assert "Left today: 19 contracts, 98.5 core-hours" in text and '<option value="ask" selected>' in text
    csrf = await browser.csrf("/contracts")
    fields = {"csrf": csrf, "mode": "automatically", "max_slots": "4", "price": "0.5", "time_frame": "30m", "core_hours_per_day": "2.5"}
    assert (await browser.post("/contracts/policy", fields)).headers["Location"] == "/contracts#policy"
    asked = cv.BorrowPolicyRequest(mode="automatically", max_slots=4, max_price_milli=500, time_frame_s=1800, core_hours_per_day=2.5)
    assert contracts.done == [("policy", "", asked)]
    assert (await browser.post("/contracts/policy", fields | {"mode": "sometimes"})).status == 422


async def test_a_text_that_has_changed_is_not_signed_but_shown_again(browser: Browser, contracts: FakeContractsPort) -> None:
    csrf = await browser.csrf(f"/contracts/{INBOX}")
    contracts.changed = True  # while it is being read
    for ref, action in ((INBOX, "accept"), (DRAFT, "send")):
        answer = await browser.post(f"/contracts/{ref}/{action}", {"csrf": csrf, "digest": DIGEST})
        assert answer.status == 409 and "not the text that was shown" in answer.text and "Exactly what is signed" in answer.text
        assert f'value="{DIGEST}"' not in answer.text, "the buttons sign the new text"
    for digest in ("", "00"):
        answer = await browser.post(f"/contracts/{DRAFT}/send", {"csrf": csrf, "digest": digest})
        assert answer.status == 409
    assert contracts.done == []


async def test_what_is_refused_is_said_above_the_contract_and_what_was_typed_stays(browser: Browser, contracts: FakeContractsPort) -> None:
    csrf = await browser.csrf(f"/contracts/{INBOX}")
    contracts.refusal = Conflict("no-free-slots", "All slots that are lent are promised.")
    answer = await browser.post(f"/contracts/{INBOX}/reject", {"csrf": csrf, "do": "reject", "reason": "too long"})
    assert answer.status == 409 and "All slots that are lent are promised." in answer.text and 'value="too long"' in answer.text
    assert (await browser.post(f"/contracts/{INBOX}/sing", {"csrf": csrf})).status == 400
    contracts.refusal = None
    assert (await browser.post("/contracts/c-0000/accept", {"csrf": csrf, "digest": DIGEST})).status == 404
    assert (await browser.get("/contracts/c-0000")).status == 404


@pytest.mark.parametrize(
    "path", [f"contracts/{INBOX}/{a}" for a in ("accept", "reject", "counter", "later", "block", "revoke", "renew", "send", "discard")]
    + ["contracts/new", "contracts/policy", f"contracts/{OTHER}/unblock", f"reputation/{OTHER}/ask"],
)  # fmt: skip
async def test_no_form_works_without_its_token_or_for_a_viewer(browser: Browser, contracts: FakeContractsPort, path: str) -> None:
    fields = {"digest": DIGEST, "company": OTHER, "slots": "1", "more": "1h"}
    answer = await browser.post(f"/{path}", {"csrf": "0" * 64} | fields)
    assert answer.status == 403 and "too old or came from another page" in answer.text
    await browser.log_in("submitter")
    answer = await browser.post(f"/{path}", {"csrf": await browser.csrf("/contracts")} | fields)
    assert answer.status == 403 and "This needs the role" in answer.text
    assert contracts.done == []


async def test_a_viewer_sees_no_forms_and_a_chief_without_network_shows_empty_pages(browser: Browser) -> None:
    await browser.log_in("viewer")
    for path in ("/contracts", *(f"/contracts/{id_}" for id_ in ALL), "/reputation", f"/reputation/{OTHER}"):
        assert [form["action"] for form in Outline((await browser.get(path)).text).of("form")] == ["/logout"], path
    assert (await browser.get("/contracts/new")).status == 403
    browser.world.chief.contracts = ContractsOff()
    assert "No contract is in force." in (await browser.get("/contracts")).text
    assert "No receipt names anybody yet" in (await browser.get("/reputation")).text
    assert (await browser.get(f"/contracts/{INBOX}")).status == 409


async def test_words_of_strangers_stay_words(browser: Browser, contracts: FakeContractsPort) -> None:
    contracts.text = HOSTILE
    paths = ["/contracts", *(f"/contracts/{id_}" for id_ in ALL), f"/contracts/new?company={'%3Cscript%3Ealert(1)%3C/script%3E'}"]
    for path in [*paths, "/reputation", f"/reputation/{OTHER}"]:
        page = await browser.get(path)
        assert page.status == 200 and "<script>alert" not in page.text and 'href="javascript' not in page.text, path
        assert "style=" not in page.text and " onclick" not in page.text, "the policy allows no inline style or script"


async def test_reputation_is_a_table_first_then_why_and_a_picture(browser: Browser, contracts: FakeContractsPort) -> None:
    text = (await browser.get("/reputation")).text
    assert text.index("<table") < text.index('class="graph"') and "3 of 3 kept" in text and "40 checks passed" in text
    assert "signed two contradicting things" in text and "2.00 for you" in text and f"/reputation/{NEAR}" in text
    picture = ElementTree.fromstring(text[text.index('<svg class="graph"') : text.index("</svg>", text.index('class="graph"')) + 6])
    assert len(picture.findall(".//text")) == 4 and len(picture.findall("line")) == 3
    text = (await browser.get(f"/reputation/{NEAR}")).text
    assert (
        "Why this score" in text and "bad result" in text and "It computed for you" in text and 'href="/contracts/abababababababab"' in text
    )
    assert "Favours owed to it" in text and "it computed for you 7.0 core-seconds" in text
    csrf = await browser.csrf(f"/reputation/{NEAR}")
    assert (await browser.post(f"/reputation/{NEAR}/ask", {"csrf": csrf})).headers["Location"] == f"/reputation/{NEAR}"
    assert contracts.done[-1][0] == "ask"
    assert (await browser.get("/reputation/nobody")).status == 404


def test_the_picture_draws_sixty_at_most_each_at_its_distance() -> None:
    port = FakeContractsPort()
    found = [port._view(f"co-{n}", hops=1 + n % 3, computed_for_us_core_ms=n) for n in range(200)]
    graph = graph_of(found)
    assert (len(graph.nodes), graph.left_out) == (61, 140)
    radii = {round(((n.x - 320) ** 2 + (n.y - 320) ** 2) ** 0.5) for n in graph.nodes}
    assert radii == {0, 110, 190, 260} and all(0 < n.x < 640 and 0 < n.y < 640 for n in graph.nodes)
