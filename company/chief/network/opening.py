"""Opens the network of one chief: the DHT node, and what stands on it (I/O)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import trio

from company import views
from company.chief.addresses import Addresses
from company.chief.network.building import Options, build_network, is_private_network
from company.chief.network.service import NetworkService
from company.chief.network.trackers import check_tracker_url
from company.chief.network.udp_probe import UdpProbe
from company.chief.store.store import Store
from p2p.base.keys import Identity
from p2p.dht.node import open_dht
from p2p.dht.packets import find_work
from p2p.dht.parameters import DEFAULTS, PUBLIC_NETWORK, make_network_id
from p2p.net.addresses import join_address, split_address

CACHE_S = 2.0  # a person who looks again wants to see what has changed


@asynccontextmanager
async def open_network(
    *, identity: Identity, name: str, addresses: Addresses, store: Store, workers: Callable[[], list[views.WorkerView]], rung: str,
    listen: tuple[str, int], folder: Path, options: Options, network: str | None = None,
) -> AsyncIterator[NetworkService]:  # fmt: skip
    """A network service on a DHT node of its own, not yet running. ``network``: the name of a private network, else the public one.

    Raises `Unavailable` where the UDP port is taken.
    """
    named = [split_address(address)[0] for address in options.bootstrap]
    named += [urlsplit(check_tracker_url(url)).hostname or "" for url in options.trackers]
    allow_private = options.allow_private or is_private_network(addresses.public_hosts, tuple(named))
    network_id = make_network_id(network) if network else PUBLIC_NETWORK
    work = await trio.to_thread.run_sync(find_work, identity.public, min(network_id[-1], 32))
    async with open_dht(
        identity, network_id=network_id, host=listen[0] or "0.0.0.0", port=listen[1],
        parameters=replace(DEFAULTS, allow_private=allow_private, cache_s=CACHE_S), contacts_file=folder / "dht-contacts",
    ) as node:  # fmt: skip
        addresses.dht = join_address(*node.address) if node.address is not None else None
        yield await build_network(
            identity=identity, name=name, network_id=network_id, directory=node, addresses=addresses, store=store, workers=workers,
            rung=rung, options=replace(options, allow_private=allow_private), probe_udp=UdpProbe(identity, network_id, work),
        )  # fmt: skip
