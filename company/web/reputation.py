"""The page Reputation: what receipts say of other companies, why, and a picture of who computed for whom (I/O: through the chief)."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, unquote

from company.chief.api.gate import Call, Endpoint
from company.web.pages import Pages, read_form, redirect
from company.web.trust_graph import WIDTH, graph_of
from p2p.base.errors import UsageError
from p2p.base.keys import company_id_text
from p2p.net.http_types import Response

AT: Final = "/reputation"
MAX_SHOWN: Final = 200  # companies of the table, receipts of one company


class ReputationPages:
    """What a browser sees of trust."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def index(self, call: Call) -> Response:
        """Everybody that a receipt names, the one to ask first before all others."""
        found = call.chief.contracts.reputation()
        return self._pages.show(call, "reputation.html", companies=found, graph=graph_of(found), width=WIDTH, max_shown=MAX_SHOWN)

    async def show(self, call: Call) -> Response:
        """One, with everything that its score follows from."""
        found = await call.chief.contracts.explain(unquote(call.arg("company")), ask=False)
        return self._pages.show(
            call, "reputation_company.html", one=found.view, inputs=found.inputs, max_shown=MAX_SHOWN, id_of=_id_of,
        )  # fmt: skip

    async def ask(self, call: Call) -> Response:
        """Ask it for its chain of receipts, then show the same."""
        await read_form(call)
        found = await call.chief.contracts.explain(unquote(call.arg("company")), ask=True)
        return redirect(f"{AT}/{quote(found.view.company, safe='')}")

    def endpoints(self) -> list[Endpoint]:
        """The routes."""

        def get(path: str, handler: Any) -> Endpoint:
            return Endpoint(method="GET", pattern=f"{AT}{path}", handler=handler, need="viewer", summary="Reputation", is_hidden=True)

        ask = Endpoint(
            method="POST", pattern=f"{AT}/{{company}}/ask", handler=self.ask, need="operator", summary="Ask", is_hidden=True, csrf="later"
        )  # fmt: skip
        return [get("", self.index), get("/{company}", self.show), ask]


def _id_of(key_hex: str) -> str:
    """How a company is called whose key an explanation names."""
    try:
        return company_id_text(bytes.fromhex(key_hex))
    except (ValueError, UsageError):
        return key_hex
