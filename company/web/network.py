"""The page Network: whether others reach this chief, who they are, what they offer, and what is lent to them (I/O: through the chief)."""

from __future__ import annotations

import time
from typing import Any, Final

from company import network_views as nv
from company.chief.api.bodies import convert_untrusted
from company.chief.api.gate import Call, Endpoint
from company.config import parse_duration_s, parse_size_bytes
from company.web.pages import Pages, read_form, redirect
from p2p.net.http_types import Response

AT: Final = "/network"
MAX_SHOWN: Final = 200  # rows of a table; what is left out is said
LEND_FIELDS: Final = ("max_workers", "schedule", "min_trust", "auto_accept", "max_load")
LEND_KEPT: Final = (  # what the form does not have: as the command line said it
    "price_milli", "max_frame_s", "only_on_mains", "max_memory_bytes", "max_disk_bytes", "max_bandwidth_bytes"
)  # fmt: skip
SEARCH_FIELDS: Final = ("slots", "python")


class NetworkPages:
    """What a browser sees of other companies."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def _page(self, call: Call, bootstraps: list[nv.BootstrapView] | None = None, **said: Any) -> Response:
        network = call.chief.network
        context = {"ping": None, "preview": None} | said
        return self._pages.show(
            call, "network.html", net=network.status(), companies=network.companies(), lending=network.lending(), max_shown=MAX_SHOWN,
            bootstraps=network.bootstraps() if bootstraps is None else bootstraps, **context,
        )  # fmt: skip

    async def index(self, call: Call) -> Response:
        """Everything that is known without asking anybody."""
        return self._page(call)

    async def offers(self, call: Call) -> Response:
        """Offers as advertised: looked up now, which takes a moment, so the page fetches it after itself."""
        offers = await call.chief.network.offers()
        return self._pages.show(call, "network_offers.html", offers=offers, search=None, asked={}, max_shown=MAX_SHOWN)

    async def search(self, call: Call) -> Response:
        """Offers that fit, asked what is idle now."""
        fields = await read_form(call)
        wanted = {k: fields[k] for k in SEARCH_FIELDS if fields.get(k)}
        if fields.get("memory"):
            wanted["memory_bytes"] = str(parse_size_bytes(fields["memory"]))
        found = await call.chief.network.search(convert_untrusted(wanted, nv.SearchRequest, strict=False))
        return self._pages.show(call, "network_offers.html", offers=found.offers, search=found, asked=fields, max_shown=MAX_SHOWN)

    async def ping(self, call: Call) -> Response:
        """Reach one company's chief, and say how that went."""
        fields = await read_form(call)
        return self._page(call, ping=await call.chief.network.ping(fields.get("company", "")))

    async def add(self, call: Call) -> Response:
        """One more node to ask at a start."""
        fields = await read_form(call)
        await call.chief.network.add_bootstrap(fields.get("address", "").strip())
        return redirect(f"{AT}#bootstrap")

    async def remove(self, call: Call) -> Response:
        """One fewer."""
        fields = await read_form(call)
        await call.chief.network.remove_bootstrap(fields.get("address", ""))
        return redirect(f"{AT}#bootstrap")

    async def test(self, call: Call) -> Response:
        """Ask all of them, and show who answered."""
        await read_form(call)
        return self._page(call, await call.chief.network.test_bootstraps(None))

    async def lend(self, call: Call) -> Response:
        """Lend from now on, or only say what would be offered."""
        fields = await read_form(call)
        now = call.chief.network.lending()
        wanted: dict[str, Any] = {k: getattr(now, k) for k in LEND_KEPT} | {k: fields[k] for k in LEND_FIELDS if fields.get(k)}
        if fields.get("duration"):
            wanted["until"] = time.time() + parse_duration_s(fields["duration"])
        wanted["only_to"] = fields.get("only_to", "").replace(",", " ").split()
        wanted["preview"] = fields.get("do") == "preview"
        request = convert_untrusted(wanted, nv.LendRequest, strict=False)
        view = await call.chief.network.lend(request)
        return self._page(call, preview=view) if request.preview else redirect(f"{AT}#lend")

    async def stop(self, call: Call) -> Response:
        """Withdraw every offer."""
        fields = await read_form(call)
        await call.chief.network.stop_lending(now=fields.get("now") == "1")
        return redirect(f"{AT}#lend")

    def endpoints(self) -> list[Endpoint]:
        """The routes."""

        def form(path: str, handler: Any, need: Any = "operator") -> Endpoint:
            return Endpoint(
                method="POST", pattern=f"{AT}/{path}", handler=handler, need=need, summary="Change", is_hidden=True, csrf="later"
            )  # fmt: skip

        return [
            Endpoint(method="GET", pattern=AT, handler=self.index, need="viewer", summary="Network", is_hidden=True),
            Endpoint(method="GET", pattern=f"{AT}/offers", handler=self.offers, need="viewer", summary="Offers", is_hidden=True),
            form("offers", self.search, "submitter"),
            form("ping", self.ping),
            form("bootstrap/add", self.add),
            form("bootstrap/rm", self.remove),
            form("bootstrap/test", self.test),
            form("lend", self.lend),
            form("lend/stop", self.stop),
        ]
