"""Contracts with other companies, and their reputation, over REST (I/O: through the chief)."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote

from company import contract_views as cv
from company.chief.api.bodies import read_object, read_struct
from company.chief.api.gate import Call, Endpoint
from company.chief.api.problem import BadRequest
from company.chief.api.replies import json_reply, list_reply
from company.chief.network.off import HINT, TEXT
from p2p.base.errors import Unavailable
from p2p.net.http_types import Response

_JSON: Final = "application/json"
_BYTES: Final = "application/octet-stream"
SECTIONS: Final = ("drafts", "inbox", "sent", "active", "settled", "ended")


async def list_contracts(call: Call) -> Response:
    """All, or one section."""
    section = call.request.query.get("section")
    if section is not None and section not in SECTIONS:
        raise BadRequest("query-malformed", f"section is one of {', '.join(SECTIONS)}")
    return list_reply(await call.chief.contracts.list_contracts(section))


async def show(call: Call) -> Response:
    """One, whole."""
    return json_reply(await call.chief.contracts.contract(call.arg("id")))


async def request(call: Call) -> Response:
    """Offer terms to another company, or draft them."""
    wanted = await read_struct(call.request, cv.ContractRequest, call.raw)
    return json_reply(await call.chief.contracts.request(wanted), 201)


async def send(call: Call) -> Response:
    """Sign a draft and send it."""
    wanted = await read_struct(call.request, cv.ContractAccept, call.raw)
    return json_reply(await call.chief.contracts.send(call.arg("id"), wanted.digest))


async def discard(call: Call) -> Response:
    """Forget a draft."""
    await call.chief.contracts.discard(call.arg("id"))
    return Response(204)


async def accept(call: Call) -> Response:
    """Sign what was read."""
    wanted = await read_struct(call.request, cv.ContractAccept, call.raw)
    return json_reply(await call.chief.contracts.accept(call.arg("id"), wanted))


async def reject(call: Call) -> Response:
    """Refuse, or take back."""
    return json_reply(await call.chief.contracts.reject(call.arg("id"), await read_struct(call.request, cv.ContractReject, call.raw)))


async def counter(call: Call) -> Response:
    """Other numbers."""
    return json_reply(await call.chief.contracts.counter(call.arg("id"), await read_struct(call.request, cv.ContractCounter, call.raw)))


async def revoke(call: Call) -> Response:
    """End it."""
    return json_reply(await call.chief.contracts.revoke(call.arg("id"), await read_struct(call.request, cv.ContractRevoke, call.raw)))


async def renew(call: Call) -> Response:
    """For longer."""
    return json_reply(await call.chief.contracts.renew(call.arg("id"), await read_struct(call.request, cv.ContractRenew, call.raw)))


async def later(call: Call) -> Response:
    """Not now."""
    return json_reply(await call.chief.contracts.look_later(call.arg("id")))


async def block(call: Call) -> Response:
    """Deal with this company no more."""
    return json_reply({"refused": await call.chief.contracts.block(unquote(call.arg("id")))})


async def blocked(call: Call) -> Response:
    """Who is dealt with no more."""
    return list_reply(call.chief.contracts.blocked())


async def unblock(call: Call) -> Response:
    """Deal with this company again."""
    return json_reply(await call.chief.contracts.unblock(unquote(call.arg("id"))))


async def receipts(call: Call) -> Response:
    """The halves."""
    return list_reply(await call.chief.contracts.receipts(call.arg("id")))


async def export(call: Call) -> Response:
    """The file that `company contract verify` reads."""
    data = await call.chief.contracts.export(call.arg("id"))
    headers = {"Cache-Control": "no-store", "Content-Disposition": 'attachment; filename="company.contract"'}
    return Response(200, headers, data, _BYTES)


async def borrow_policy(call: Call) -> Response:
    """What is borrowed without asking."""
    found = call.chief.contracts.borrow_policy()
    if found is None:
        raise Unavailable("network-off", TEXT, hint=HINT)
    return json_reply(found)


async def set_borrow_policy(call: Call) -> Response:
    """Change it."""
    return json_reply(await call.chief.contracts.set_borrow_policy(await read_struct(call.request, cv.BorrowPolicyRequest, call.raw)))


async def reputation(call: Call) -> Response:
    """Everybody that a receipt names."""
    return list_reply(call.chief.contracts.reputation())


async def explain(call: Call) -> Response:
    """One, with every input."""
    return json_reply(await call.chief.contracts.explain(unquote(call.arg("company")), ask=False))


async def ask(call: Call) -> Response:
    """The same after asking that company for its chain of receipts."""
    await read_object(call.request)
    return json_reply(await call.chief.contracts.explain(unquote(call.arg("company")), ask=True))


def contract_endpoints() -> list[Endpoint]:
    """The calls of this part."""

    def make(method: str, pattern: str, handler: Any, need: Any, summary: str, **more: Any) -> Endpoint:
        return Endpoint(method=method, pattern=f"/api/v1{pattern}", handler=handler, need=need, summary=summary, tag="contracts", **more)

    one, info = "/contracts/{id}", {"answer": cv.ContractInfo}
    return [
        make(
            "GET", "/contracts", list_contracts, "viewer", "Contracts, drafts and offers", query=("section",), answer=cv.ContractInfo,
            is_list=True,
        ),
        make("POST", "/contracts", request, "operator", "Offer terms, or draft them", body=cv.ContractRequest, status=201, **info),
        make("GET", one, show, "viewer", "One contract: plain language and exact text", **info),
        make("DELETE", one, discard, "operator", "Forget a draft", status=204),
        make("POST", f"{one}/send", send, "operator", "Sign a draft and send it", body=cv.ContractAccept, **info),
        make("POST", f"{one}/accept", accept, "operator", "Sign the text with this digest", body=cv.ContractAccept, **info),
        make("POST", f"{one}/reject", reject, "operator", "Refuse, or take back", body=cv.ContractReject, **info),
        make("POST", f"{one}/counter", counter, "operator", "Propose other numbers", body=cv.ContractCounter, **info),
        make("POST", f"{one}/revoke", revoke, "operator", "End it, in force at once", body=cv.ContractRevoke, **info),
        make("POST", f"{one}/renew", renew, "operator", "Propose the same for longer", body=cv.ContractRenew, **info),
        make("POST", f"{one}/later", later, "operator", "Leave it in the inbox, without the badge", **info),
        make("POST", f"{one}/block", block, "operator", "Deal with this company, or that of this contract, no more", answer=_JSON),
        make("POST", f"{one}/unblock", unblock, "operator", "Deal with this company again", answer=cv.BlockedView),
        make("GET", "/blocked", blocked, "viewer", "Companies that are dealt with no more", answer=cv.BlockedView, is_list=True),
        make("GET", f"{one}/receipts", receipts, "viewer", "Halves of the receipt", answer=cv.ReceiptView, is_list=True),
        make("GET", f"{one}/export", export, "viewer", "Every signed message, for verifying anywhere", answer=_BYTES),
        make("GET", "/borrow/policy", borrow_policy, "viewer", "What is borrowed for jobs by itself", answer=cv.BorrowPolicyView),
        make(
            "PUT", "/borrow/policy", set_borrow_policy, "operator", "Change what is borrowed by itself", body=cv.BorrowPolicyRequest,
            answer=cv.BorrowPolicyView,
        ),
        make("GET", "/reputation", reputation, "viewer", "What receipts say of companies", answer=cv.ReputationView, is_list=True),
        make("GET", "/reputation/{company}", explain, "viewer", "A score with its inputs", answer=cv.ReputationExplained),
        make(
            "POST", "/reputation/{company}/ask", ask, "operator", "Ask for its chain of receipts, then the same", body=_JSON,
            answer=cv.ReputationExplained,
        ),
    ]  # fmt: skip
