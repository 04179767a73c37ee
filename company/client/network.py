"""The network of companies as a chief sees it (I/O through `Transport`)."""

from __future__ import annotations

from typing import Any

from company.client.transport import Transport, path_of

SLOW_S = 60.0  # calls that ask other companies


class NetworkClient:
    """What `company.client.Client.network` gives; plain maps as in `company.network_views`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def status(self) -> dict[str, Any]:
        """This chief among other companies."""
        return dict(self._transport.json("GET", "/api/v1/network"))

    def list(self, what: str) -> dict[str, Any]:
        """``peers``, ``companies``, ``offers`` or ``bootstrap``."""
        return dict(self._transport.json("GET", path_of("network", what), timeout_s=SLOW_S))

    def ping(self, company: str) -> dict[str, Any]:
        """Whether a company's chief answers."""
        return dict(self._transport.json("POST", "/api/v1/network/ping", {"company": company}, timeout_s=SLOW_S))

    def add_bootstrap(self, address: str) -> dict[str, Any]:
        """Ask this node for the network from now on."""
        return dict(self._transport.json("POST", "/api/v1/network/bootstrap", {"address": address}))

    def remove_bootstrap(self, address: str) -> None:
        """Ask it no more."""
        self._transport.request("DELETE", path_of("network", "bootstrap", address))

    def test_bootstrap(self, address: str | None = None) -> dict[str, Any]:
        """Whether one node, or each that is kept, answers."""
        body = {"address": address} if address is not None else {}
        return dict(self._transport.json("POST", "/api/v1/network/bootstrap/test", body, timeout_s=SLOW_S))

    def search(self, **request: Any) -> dict[str, Any]:
        """Offers that fit; the fields are those of `company.network_views.SearchRequest`."""
        body = {k: v for k, v in request.items() if v is not None}
        return dict(self._transport.json("POST", "/api/v1/borrow/search", body, timeout_s=SLOW_S))

    def lending(self) -> dict[str, Any]:
        """What is lent."""
        return dict(self._transport.json("GET", "/api/v1/lending"))

    def lend(self, max_workers: int, **terms: Any) -> dict[str, Any]:
        """Lend; the terms are those of `company.network_views.LendRequest`."""
        body = {"max_workers": max_workers, **{k: v for k, v in terms.items() if v is not None}}
        return dict(self._transport.json("PUT", "/api/v1/lending", body, timeout_s=SLOW_S))

    def stop_lending(self, *, now: bool = False) -> dict[str, Any]:
        """Withdraw every offer; with ``now`` also end what runs for others, at once."""
        return dict(self._transport.json("DELETE", f"/api/v1/lending{'?now=1' if now else ''}", timeout_s=SLOW_S))
