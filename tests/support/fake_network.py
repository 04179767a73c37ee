"""A chief's network for tests of the page: companies with names that would like to be markup, and what was asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from company import network_views as nv
from company.views import ReasonView
from company.web.network import LEND_KEPT
from p2p.base.errors import UsageError

OTHER = "co-bbbbbbbbbbbbbbbb"


@dataclass
class FakeNetwork:
    """Keeps `company.chief.network.port.NetworkPort`. ``text``: stands wherever a stranger could put words."""

    text: str = "Lab"
    done: list[object] = field(default_factory=list)
    added: list[str] = field(default_factory=lambda: ["dht.example:8468"])
    lent: nv.LendingView = field(default_factory=lambda: nv.LendingView(state="not-lending", text="Nothing is lent."))

    def status(self) -> nv.NetworkView:
        actions = [{"label": self.text, "cli": self.text, "href": "javascript:alert(1)"}]
        return nv.NetworkView(
            state="outbound-only", reason=ReasonView(code="outbound-only", text=self.text, actions=actions), company="co-aaaaaaaaaaaaaaaa",
            network="00" * 16, address="0.0.0.0:8468", seen_as="192.0.2.1", peers=1, companies=1, estimated_size=41.4, records_held=7,
            skew_s=-3.2, relay=nv.RelayView(serves=True, kept_for=2, carried_bytes=5 << 20, used=["198.51.100.7:8468"]),
            ports=[
                nv.PortView(
                    port="udp", address="0.0.0.0:8468", verdict="closed", witnesses=2, consequence=self.text, fix="forward port 8468"
                ),
                nv.PortView(port="rpc", address="0.0.0.0:8468", verdict="open", witnesses=1, consequence="Others connect."),
            ],
            buckets=[nv.BucketView(shared_bits=3, contacts=14, replacements=5)],
            rpc=[nv.TrafficView(method="find node", sent=1234, answered=1200, failed=34, served=9, sent_per_s=2.5, served_per_s=0.1)],
            drops={"no valid token": 3, self.text: 1},
            trackers=[{"url": "http://t.example:8471", "ok": False, "text": self.text, "at": 0.0}],
        )  # fmt: skip

    def peers(self) -> list[nv.PeerView]:
        return []

    def companies(self) -> list[nv.KnownCompanyView]:
        one = nv.KnownCompanyView(
            company=OTHER, key="bb" * 32, name=self.text, endpoints=[self.text], relays=["198.51.100.7:8468"], seen_ago_s=75.0,
            source="contact", round_trip_s=0.0421,
        )  # fmt: skip
        return [one]

    async def offers(self) -> list[nv.OfferView]:
        return [
            nv.OfferView(
                company=OTHER, key="bb" * 32, name=self.text, capability="spare/v1/x86_64/py3.11/bubblewrap", slots=8, idle_slots=5,
                memory_bytes=2 << 30, pythons=[self.text], isolation="bubblewrap", speed=900, price_milli=1500, min_trust=0.2, trust=0.05,
                schedule=self.text, round_trip_s=0.03, expires=1.8e9, answer=self.text, outlier="speed",
            )
        ]  # fmt: skip

    async def ping(self, company: str) -> nv.PingView:
        self.done.append(("ping", company))
        return nv.PingView(company=company, answered=False, text=self.text)

    def bootstraps(self) -> list[nv.BootstrapView]:
        return [nv.BootstrapView(address="192.0.2.9:8468", source="option")] + [
            nv.BootstrapView(address=a, source="added") for a in self.added
        ]

    async def add_bootstrap(self, address: str) -> None:
        if ":" not in address:
            raise UsageError("bad-address", f"{address} is no address")
        self.added.append(address)

    async def remove_bootstrap(self, address: str) -> None:
        self.added.remove(address)

    async def test_bootstraps(self, address: str | None) -> list[nv.BootstrapView]:
        return [nv.BootstrapView(address=a, source="added", answered=False, text="no answer by UDP") for a in self.added]

    async def search(self, request: nv.SearchRequest) -> nv.SearchView:
        self.done.append(request)
        spread = nv.SpreadView(quantity="idle_slots", count=3, mean=5.0, spread=1.5, dropped=1)
        return nv.SearchView(capability="c", offers=await self.offers(), found=4, asked=3, spreads=[spread], took_s=0.25)

    def lending(self) -> nv.LendingView:
        return self.lent

    async def lend(self, request: nv.LendRequest) -> nv.LendingView:
        self.done.append(request)
        view = nv.LendingView(
            state="lending", text=f"{request.max_workers} slots on 1 machine are offered.", max_workers=request.max_workers,
            schedule=request.schedule, min_trust=request.min_trust, only_to=request.only_to, capabilities=["spare/v1/x"], published=["x"],
            stored_on=3, preview=request.preview, auto_accept=request.auto_accept, max_load=request.max_load, who=self.text,
            gives=self.text,
            never=[self.text], **{k: getattr(request, k) for k in LEND_KEPT},
        )  # fmt: skip
        if not request.preview:
            self.lent = view
        return view

    async def stop_lending(self, *, now: bool = False) -> nv.LendingView:
        self.done.append("stop now" if now else "stop")
        self.lent = nv.LendingView(state="not-lending", text="Nothing is lent.")
        return self.lent

    def tracker_peers(self) -> bytes:
        return b"{}"

    def tracker_announce(self, data: bytes, remote: str) -> None:
        self.done.append(("announce", data, remote))
