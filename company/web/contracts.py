"""The page Contracts: an inbox, offers that are written, read, answered and signed, what runs and what it left (I/O: through the chief).

What is signed is what was shown: the form carries the digest of the text beside it, and a text that has changed meanwhile is shown again
with 409 instead of being signed. So the text and its buttons never change under the reader's eyes; only the part with the clocks does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from company import contract_views as cv
from company.chief.api.bodies import convert_untrusted
from company.chief.api.gate import Call, Endpoint
from company.chief.api.problem import BadRequest, Problem, problem_of
from company.chief.facade import Conflict, NotFound
from company.config import parse_duration_s, parse_size_bytes
from company.web.pages import HTML, Pages, read_form, redirect
from p2p.base.errors import ParallelError, UsageError
from p2p.net.http_types import Response

AT: Final = "/contracts"
MAX_SHOWN: Final = 200  # rows of one section; what is left out is said
SECTIONS: Final = (
    ("inbox", "Inbox", "Nothing waits for your answer."),
    ("drafts", "Drafts", ""),
    ("sent", "Sent", ""),
    ("active", "In force", "No contract is in force."),
    ("settled", "Settled", ""),
    ("ended", "Refused, taken back or lapsed", ""),
)
POLICY_FIELDS: Final = ("mode", "max_slots", "contracts_per_day", "core_hours_per_day")
MIB: Final = 1 << 20
ACTIONS: Final = ("accept", "reject", "withdraw", "counter", "renew", "revoke", "send", "discard", "later", "block", "unblock")


class ContractPages:
    """What a browser sees of contracts."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def index(self, call: Call) -> Response:
        """All of them, those first that wait for an answer."""
        found = await call.chief.contracts.list_contracts(None)
        by_section = {name: [c for c in found if c.section == name] for name, _, _ in SECTIONS}
        policy, blocked = call.chief.contracts.borrow_policy(), call.chief.contracts.blocked()[:MAX_SHOWN]
        return self._pages.show(
            call, "contracts.html", contracts=by_section, sections=SECTIONS, max_shown=MAX_SHOWN, policy=policy, blocked=blocked
        )

    async def show(self, call: Call) -> Response:
        """One: what it says in plain language beside the exact text."""
        return await self._page(call, call.arg("id"))

    async def _page(self, call: Call, ref: str, problem: Problem | None = None, typed: Mapping[str, str] | None = None) -> Response:
        contract = await call.chief.contracts.contract(ref)
        now, query = seen(contract), call.request.query
        if "live" in query and query.get("seen", now) != now and query.get("seen", "").endswith(f"-{contract.digest[:16]}"):
            return Response(200, {"Cache-Control": "no-store", "HX-Refresh": "true"}, b"", HTML)  # same text, other buttons
        halves = await _receipts(call, contract)
        template = "contract_live.html" if "live" in query and problem is None else "contract.html"
        return self._pages.show(
            call, template, problem.status if problem is not None else 200, contract=contract, receipts=halves, problem=problem,
            typed=typed or {}, seen=query.get("seen", now), has_changed=query.get("seen", now) != now, terms=dict(contract.text),
            is_over=contract.section in ("settled", "ended") and contract.receipt != "one half alone",
        )  # fmt: skip

    async def write(self, call: Call) -> Response:
        """The form of a new offer."""
        return await self._form(call, {name: call.request.query.get(name, "")[:200] for name in ("company", "slots", "package")})

    async def _form(self, call: Call, typed: Mapping[str, str], problem: Problem | None = None) -> Response:
        packages = await call.chief.list_packages()
        companies = call.chief.network.companies()[:MAX_SHOWN]
        status = problem.status if problem is not None else 200
        return self._pages.show(call, "contract_new.html", status, typed=typed, problem=problem, packages=packages, companies=companies)

    async def draft(self, call: Call) -> Response:
        """Make the text of an offer; it is read before it is signed."""
        fields = await read_form(call)
        try:
            view = await call.chief.contracts.request(request_of(fields))
        except ParallelError as error:
            return await self._form(call, fields, problem_of(error, call.request.path))
        return redirect(f"{AT}/{quote(view.id, safe='')}")

    async def policy(self, call: Call) -> Response:
        """What is borrowed for jobs by itself."""
        fields = await read_form(call)
        wanted: dict[str, Any] = {name: fields[name] for name in POLICY_FIELDS if fields.get(name)}
        if fields.get("price"):
            wanted["max_price_milli"] = _milli(fields["price"])
        if fields.get("time_frame"):
            wanted["time_frame_s"] = _seconds(fields["time_frame"])
        await call.chief.contracts.set_borrow_policy(convert_untrusted(wanted, cv.BorrowPolicyRequest, strict=False))
        return redirect(f"{AT}#policy")

    async def act(self, call: Call) -> Response:
        """Do what a button of a contract's page says; what is refused is said above the page as it is now."""
        fields = await read_form(call)
        ref, action = unquote(call.arg("id")), call.arg("action")
        if action not in ACTIONS:
            raise BadRequest("action-unknown", f"No action {action[:40]!r}.")
        try:
            await _ACTS[action](call.chief.contracts, ref, fields)
        except NotFound:
            raise
        except ParallelError as error:
            return await self._page(call, ref, problem_of(error, call.request.path), fields)
        at = f"{AT}/{quote(ref, safe='')}"
        return redirect({"discard": AT, "later": f"{AT}#inbox", "block": f"{AT}#inbox", "unblock": AT}.get(action, at))

    def endpoints(self) -> list[Endpoint]:
        """The routes."""

        def get(path: str, handler: Any, need: Any = "viewer") -> Endpoint:
            return Endpoint(method="GET", pattern=f"{AT}{path}", handler=handler, need=need, summary="Contracts", is_hidden=True)

        def form(path: str, handler: Any) -> Endpoint:
            return Endpoint(
                method="POST", pattern=f"{AT}{path}", handler=handler, need="operator", summary="Change", is_hidden=True, csrf="later"
            )  # fmt: skip

        return [
            get("", self.index),
            get("/new", self.write, "operator"),
            get("/{id}", self.show),
            form("/new", self.draft),
            form("/policy", self.policy),
            form("/{id}/{action}", self.act),
        ]


def seen(contract: cv.ContractInfo) -> str:
    """What a page that shows this contract has shown: where it stands and which text."""
    return f"{contract.state}-{contract.digest[:16]}"


async def _receipts(call: Call, contract: cv.ContractInfo) -> list[cv.ReceiptView]:
    if contract.receipt == "none yet":
        return []
    return await call.chief.contracts.receipts(contract.id)


def request_of(fields: Mapping[str, str]) -> cv.ContractRequest:
    """The form of a new offer as a draft. Raises `UsageError`, `Invalid`."""
    wanted: dict[str, Any] = {"draft": True, "company": fields.get("company", "").strip(), **numbers_of(fields)}
    for name in ("package", "check"):
        if fields.get(name):
            wanted[name] = fields[name]
    for name in ("lease", "valid"):
        if fields.get(name):
            wanted[f"{name}_s"] = _seconds(fields[name])
    return convert_untrusted(wanted, cv.ContractRequest, strict=False)


def numbers_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """Slots, time, memory, price as people write them; empty fields are left out. Raises `UsageError`."""
    wanted: dict[str, Any] = {"slots": fields["slots"]} if fields.get("slots") else {}
    for name, to in (("time_frame", "time_frame_s"), ("fragment_time", "fragment_s")):
        if fields.get(name):
            wanted[to] = _seconds(fields[name])
    for name, to in (("memory", "memory_mib"), ("disk", "disk_mib")):
        if fields.get(name):
            wanted[to] = max(1, parse_size_bytes(fields[name]) // MIB)
    if fields.get("price"):
        wanted["price_milli"] = _milli(fields["price"])
    return wanted


def _seconds(text: str) -> int:
    return int(min(parse_duration_s(text), 1 << 31))


def _milli(text: str) -> int:
    try:
        return round(min(max(float(text), 0.0), 1e9) * 1000)
    except ValueError:
        raise UsageError("bad-price", f"{text[:40]!r} is no number of favours", hint="write 1 or 0.5") from None


# ---- what each button does -------------------------------------------------------------------------------------------------------
async def _accept(port: Any, ref: str, fields: Mapping[str, str]) -> None:
    slots = {"slots": fields["slots"]} if fields.get("slots") else {}
    await port.accept(ref, convert_untrusted({"digest": fields.get("digest", "")} | slots, cv.ContractAccept, strict=False))


async def _reject(port: Any, ref: str, fields: Mapping[str, str]) -> None:
    later_s = _seconds(fields["retry_after"]) if fields.get("retry_after") else 0
    await port.reject(ref, cv.ContractReject(reason=fields.get("reason", ""), retry_after_s=min(later_s, 1 << 31)))


async def _counter(port: Any, ref: str, fields: Mapping[str, str]) -> None:
    wanted = numbers_of(fields) | {"reason": fields.get("reason", "")}
    await port.counter(ref, convert_untrusted(wanted, cv.ContractCounter, strict=False))


async def _renew(port: Any, ref: str, fields: Mapping[str, str]) -> None:
    await port.renew(ref, cv.ContractRenew(more_s=_seconds(fields.get("more", ""))))


async def _revoke(port: Any, ref: str, fields: Mapping[str, str]) -> None:
    await port.revoke(ref, cv.ContractRevoke(notice_s=0 if fields.get("now") else None, text=fields.get("reason", "")))


async def _send(port: Any, ref: str, fields: Mapping[str, str]) -> None:
    if not fields.get("digest"):
        raise Conflict("terms-changed", "The form does not say which text was read.")
    await port.send(ref, fields["digest"])


async def _discard(port: Any, ref: str, fields: Mapping[str, str]) -> None:
    await port.discard(ref)


async def _later(port: Any, ref: str, fields: Mapping[str, str]) -> None:
    await port.look_later(ref)


async def _block(port: Any, ref: str, fields: Mapping[str, str]) -> None:
    await port.block(ref)


async def _unblock(port: Any, ref: str, fields: Mapping[str, str]) -> None:
    await port.unblock(ref)


_ACTS: Final[dict[str, Callable[[Any, str, Mapping[str, str]], Any]]] = {
    "accept": _accept, "reject": _reject, "withdraw": _reject, "counter": _counter, "renew": _renew, "revoke": _revoke, "send": _send,
    "discard": _discard, "later": _later, "block": _block, "unblock": _unblock,
}  # fmt: skip
