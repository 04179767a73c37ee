"""A chief that was started with ``--dht off``: it has no network, and says so (pure)."""

from __future__ import annotations

from typing import NoReturn

from company import network_views as nv
from company.views import ReasonView
from p2p.base.errors import Unavailable

HINT = "start it without --dht off"
TEXT = "This chief was started with --dht off: it knows no other company."


class NetworkOff:
    """Keeps `NetworkPort`: the state is "off", lists are empty, and everything else is refused."""

    def __init__(self, company: str) -> None:
        self._company = company

    def status(self) -> nv.NetworkView:
        """That there is none."""
        reason = ReasonView(code="network-off", text=TEXT, actions=[{"label": HINT, "cli": "company start"}])
        return nv.NetworkView(state="off", reason=reason, company=self._company, network="", relay=nv.RelayView(serves=False))

    def peers(self) -> list[nv.PeerView]:
        """None."""
        return []

    def companies(self) -> list[nv.KnownCompanyView]:
        """None."""
        return []

    async def offers(self) -> list[nv.OfferView]:
        """None."""
        return []

    def bootstraps(self) -> list[nv.BootstrapView]:
        """None."""
        return []

    def lending(self) -> nv.LendingView:
        """Nothing."""
        return nv.LendingView(state="network-off", text=TEXT)

    async def ping(self, company: str) -> nv.PingView:
        """Refused."""
        self._refuse()

    async def add_bootstrap(self, address: str) -> None:
        """Refused."""
        self._refuse()

    async def remove_bootstrap(self, address: str) -> None:
        """Refused."""
        self._refuse()

    async def test_bootstraps(self, address: str | None) -> list[nv.BootstrapView]:
        """Refused."""
        self._refuse()

    async def search(self, request: nv.SearchRequest) -> nv.SearchView:
        """Refused."""
        self._refuse()

    async def lend(self, request: nv.LendRequest) -> nv.LendingView:
        """Refused."""
        self._refuse()

    async def stop_lending(self, *, now: bool = False) -> nv.LendingView:
        """Nothing is lent."""
        return self.lending()

    def tracker_peers(self) -> bytes:
        """Refused."""
        self._refuse()

    def tracker_announce(self, data: bytes, remote: str) -> None:
        """Refused."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise Unavailable("network-off", TEXT, hint=HINT)
