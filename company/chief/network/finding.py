"""Finds the network and the companies in it: bootstrap nodes, trackers, contact records (I/O)."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Never

import trio

from company.chief.network.contact import Contact
from company.chief.network.contacts import LIFETIME_S, company_of_node, contact_key, contact_of_untrusted
from company.chief.network.ground import Ground
from company.chief.network.trackers import TrackerState, ask_tracker
from company.chief.store import meta
from company.chief.store.store import Store
from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage, UsageError
from p2p.dht.advertisement import Advertisement, shard_key, sign_advertisement
from p2p.dht.directory import Address
from p2p.dht.tracker import make_announcement
from p2p.net.addresses import split_address
from p2p.net.http_client import open_http_client

BOOTSTRAP = "network-bootstrap"  # the row of `meta`
MAX_BOOTSTRAP = 32
ALONE_S, TOGETHER_S = 3.0, 120.0  # between two attempts to join
TRACKER_ALONE_S, TRACKER_S = 15.0, 300.0
TRACKER_GAP_S = 3.0  # between two announcements, whatever there is to say
LEARN_S = 2.0
LEARN_AT_A_TIME = 8
ENOUGH_COMPANIES = 64  # whose contacts are asked for without a need
GET_S = 4.0
_log = logging.getLogger("company.chief.network")


@dataclass(slots=True)
class Finding:
    """Joins, announces and learns until cancelled."""

    ground: Ground
    store: Store
    options: tuple[str, ...]  # --bootstrap
    trackers: list[TrackerState]
    offered: list[Advertisement] = field(default_factory=list)  # what announcements carry
    added: list[str] = field(default_factory=list)
    _tried: dict[bytes, float] = field(default_factory=dict)  # node id -> when its contact was asked for
    _wake: trio.Event = field(default_factory=trio.Event)
    _has_news: trio.Event = field(default_factory=trio.Event)  # for trackers

    async def load(self) -> None:
        """Nodes that were added with `network bootstrap add`."""
        found = await self.store.read(lambda conn: meta.get(conn, BOOTSTRAP))
        self.added = list(json.loads(found)) if found else []

    async def add(self, address: str) -> None:
        """One more, kept. Raises `UsageError`."""
        split_address(address)
        if address not in self.added:
            if len(self.added) >= MAX_BOOTSTRAP:
                raise UsageError(
                    "too-many-bootstraps", f"at most {MAX_BOOTSTRAP} nodes are kept", hint="company network bootstrap rm ADDRESS"
                )
            self.added.append(address)
            await self._save()
        self._wake.set()

    async def remove(self, address: str) -> None:
        """Forget one. Raises `UsageError` for one that was never added."""
        if address not in self.added:
            raise UsageError("bootstrap-unknown", f"{address[:100]} was not added here", hint="company network bootstrap list")
        self.added.remove(address)
        await self._save()

    async def _save(self) -> None:
        kept = json.dumps(self.added).encode()
        await self.store.write(lambda conn: meta.put(conn, BOOTSTRAP, kept))

    # ---- joining ------------------------------------------------------------------------------------------------------------
    async def join(self) -> Never:
        """Ask bootstrap nodes and what trackers know, often while alone."""
        while True:
            addresses = [a for text in dict.fromkeys((*self.options, *self.added)) for a in await resolve(text)]
            own = self.ground.identity.public
            addresses += [place for tracker in self.trackers for entry in tracker.entries if entry.owner != own for place in entry.dht]
            known = await self.ground.directory.join(addresses)
            self._wake = trio.Event()
            with trio.move_on_after(TOGETHER_S if known else ALONE_S):
                await self._wake.wait()
        raise AssertionError("unreachable")

    async def test(self, address: str) -> tuple[float | None, str]:
        """Round trip to a bootstrap node, and a sentence."""
        addresses = await resolve(address)
        if not addresses:
            return None, "this name does not lead to an address"
        for found in addresses[:4]:
            took = await self.ground.directory.ping(found)
            if took is not None:
                return took, f"answered from {found[0]}"
        return None, "no answer by UDP: a wrong address, another network, or a firewall"

    # ---- trackers -----------------------------------------------------------------------------------------------------------
    async def track(self) -> Never:
        """Announce to every tracker, take what it knows."""
        async with open_http_client(connections=4) as http:
            while self.trackers:
                announcement = self._announcement()
                for state in self.trackers:
                    await ask_tracker(http, state, announcement, self.ground.network_id, self.ground.unix_time())
                    if not state.ok:
                        _log.warning("tracker %s: %s", state.url, state.text)
                    for entry in state.entries:
                        self.ground.known.heard(Contact(key=entry.owner, endpoints=entry.rpc), "tracker", trio.current_time())
                self._wake.set()
                self._has_news = trio.Event()
                await trio.sleep(TRACKER_GAP_S)
                with trio.move_on_after(TRACKER_S if len(self.ground.known) else TRACKER_ALONE_S):
                    await self._has_news.wait()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    def offer(self, advertisements: Sequence[Advertisement]) -> None:
        """What is lent now, or no more: trackers hear of it soon, not at their next turn."""
        if self.offered != list(advertisements):
            self.offered[:] = advertisements
            self._has_news.set()

    def _announcement(self) -> bytes:
        now = self.ground.unix_time()
        expires = UnixTime(now + LIFETIME_S)
        offers = [
            sign_advertisement(
                self.ground.identity,
                self.ground.network_id,
                offer,
                key=shard_key(offer.capability, 0, 0),
                sequence=now * 1000,
                expires=expires,
            ).raw
            for offer in self.offered
        ]
        return make_announcement(
            self.ground.identity, self.ground.network_id, dht=self.ground.dht_endpoints(), rpc=self.ground.endpoints(),
            offers=tuple(offers), sequence=now * 1000, expires=expires,
        )  # fmt: skip

    # ---- who is there -------------------------------------------------------------------------------------------------------
    async def learn(self) -> Never:
        """Ask for the contact records of nodes in our table, the nearest first, some at a time."""
        while True:
            now = trio.current_time()
            fresh = [p.node_id for p in self.ground.directory.status().peers if now - self._tried.get(p.node_id, -1e9) > LIFETIME_S / 2]
            if len(self.ground.known) < ENOUGH_COMPANIES:
                for node in fresh[:LEARN_AT_A_TIME]:
                    if await self.look_up(company_of_node(node)):
                        self._tried[node] = now
                    else:
                        self._tried[node] = now - LIFETIME_S / 2 + 5 * LEARN_S  # it may just have started
            for node in sorted(self._tried, key=self._tried.__getitem__)[: max(0, len(self._tried) - 4096)]:
                del self._tried[node]
            await trio.sleep(LEARN_S)
        raise AssertionError("unreachable")

    async def look_up(self, company: str) -> bool:
        """Ask the DHT for one company's contact; whether it was there."""
        key = contact_key(company)
        for record in await self.ground.directory.get(key, 4, GET_S):
            try:
                found = contact_of_untrusted(record)
            except MalformedMessage:
                continue  # anybody may store what they like under a key
            self.ground.known.heard(
                found.contact, "contact", trio.current_time(), name=found.name, relays_for_others=found.relays_for_others
            )
            return True
        return False


async def resolve(text: str) -> list[Address]:
    """The addresses behind host:port; none where the name leads nowhere."""
    host, port = split_address(text)
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_DGRAM)
    except OSError as error:
        _log.warning("bootstrap %s: %s", text, error)
        return []
    return list(dict.fromkeys((str(info[4][0]), int(info[4][1])) for info in found))
