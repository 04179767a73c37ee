"""The network of companies over REST: what is known, lending, searching, and the tracker (I/O: through the chief)."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote

from company import network_views as nv
from company.chief.api.bodies import flag, read_object, read_struct
from company.chief.api.gate import Call, Endpoint
from company.chief.api.problem import BadRequest
from company.chief.api.replies import json_reply, list_reply
from p2p.dht.tracker import MAX_ANNOUNCE_BYTES
from p2p.net.http_types import Response

_JSON: Final = "application/json"


async def status(call: Call) -> Response:
    """Everything at a glance."""
    return json_reply(call.chief.network.status())


async def peers(call: Call) -> Response:
    """Nodes of the DHT."""
    return list_reply(call.chief.network.peers())


async def companies(call: Call) -> Response:
    """Companies heard of."""
    return list_reply(call.chief.network.companies())


async def offers(call: Call) -> Response:
    """Offers as advertised."""
    return list_reply(await call.chief.network.offers())


async def ping(call: Call) -> Response:
    """Whether a company's chief answers."""
    wanted = await read_struct(call.request, nv.PingRequest, call.raw)
    return json_reply(await call.chief.network.ping(wanted.company))


async def bootstraps(call: Call) -> Response:
    """Nodes asked at every start."""
    return list_reply(call.chief.network.bootstraps())


async def add_bootstrap(call: Call) -> Response:
    """One more."""
    wanted = await read_struct(call.request, nv.BootstrapRequest, call.raw)
    await call.chief.network.add_bootstrap(wanted.address)
    return list_reply(call.chief.network.bootstraps())


async def remove_bootstrap(call: Call) -> Response:
    """One fewer."""
    await call.chief.network.remove_bootstrap(unquote(call.arg("address")))
    return Response(204)


async def test_bootstraps(call: Call) -> Response:
    """Ask them, or the one in the body."""
    address = (await read_object(call.request)).get("address")
    if address is not None and not isinstance(address, str):
        raise BadRequest("malformed-body", 'Send {"address": "host:port"}, or nothing.')
    return list_reply(await call.chief.network.test_bootstraps(address))


async def search(call: Call) -> Response:
    """Offers that fit, asked and ranked."""
    return json_reply(await call.chief.network.search(await read_struct(call.request, nv.SearchRequest, call.raw)))


async def lending(call: Call) -> Response:
    """What is lent."""
    return json_reply(call.chief.network.lending())


async def lend(call: Call) -> Response:
    """Lend from now on."""
    return json_reply(await call.chief.network.lend(await read_struct(call.request, nv.LendRequest, call.raw)))


async def stop_lending(call: Call) -> Response:
    """Lend no more."""
    return json_reply(await call.chief.network.stop_lending(now=flag(call.request, "now")))


async def tracker_peers(call: Call) -> Response:
    """What the tracker knows."""
    return Response(200, {"Cache-Control": "no-store"}, call.chief.network.tracker_peers())


async def tracker_announce(call: Call) -> Response:
    """One company says where it is."""
    call.chief.network.tracker_announce(await call.request.body(MAX_ANNOUNCE_BYTES), call.request.remote)
    return Response(204)


def network_endpoints() -> list[Endpoint]:
    """The calls of this part."""

    def make(method: str, pattern: str, handler: Any, need: Any, summary: str, **more: Any) -> Endpoint:
        return Endpoint(method=method, pattern=pattern, handler=handler, need=need, summary=summary, tag="network", **more)

    api = "/api/v1"
    return [
        make("GET", f"{api}/network", status, "viewer", "This chief among other companies", answer=nv.NetworkView),
        make("GET", f"{api}/network/peers", peers, "viewer", "Nodes in the table of the DHT", answer=nv.PeerView, is_list=True),
        make("GET", f"{api}/network/companies", companies, "viewer", "Companies heard of", answer=nv.KnownCompanyView, is_list=True),
        make("GET", f"{api}/network/offers", offers, "viewer", "Offers as advertised", answer=nv.OfferView, is_list=True),
        make("POST", f"{api}/network/ping", ping, "operator", "Reach a company's chief", body=nv.PingRequest, answer=nv.PingView),
        make("GET", f"{api}/network/bootstrap", bootstraps, "viewer", "Nodes asked at a start", answer=nv.BootstrapView, is_list=True),
        make(
            "POST", f"{api}/network/bootstrap", add_bootstrap, "operator", "Add such a node", body=nv.BootstrapRequest,
            answer=nv.BootstrapView, is_list=True,
        ),
        make("DELETE", f"{api}/network/bootstrap/{{address}}", remove_bootstrap, "operator", "Forget an added node", status=204),
        make(
            "POST", f"{api}/network/bootstrap/test", test_bootstraps, "operator", "Whether they answer", body=_JSON,
            answer=nv.BootstrapView, is_list=True,
        ),
        make(
            "POST", f"{api}/borrow/search", search, "submitter", "Offers that fit, asked and ranked", body=nv.SearchRequest,
            answer=nv.SearchView,
        ),
        make("GET", f"{api}/lending", lending, "viewer", "What is lent", answer=nv.LendingView),
        make("PUT", f"{api}/lending", lend, "operator", "Lend, or preview it", body=nv.LendRequest, answer=nv.LendingView),
        make("DELETE", f"{api}/lending", stop_lending, "operator", "Withdraw every offer", query=("now",), answer=nv.LendingView),
        # open: a tracker is for strangers; entries are signed and bounded
        make("GET", "/tracker/peers", tracker_peers, "open", "A sample of companies, signed by themselves", answer=_JSON),
        make(
            "POST", "/tracker/announce", tracker_announce, "open", "Announce a company", body="application/octet-stream", status=204
        ),
    ]  # fmt: skip
