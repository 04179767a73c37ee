"""The chief's place among other companies, put together (I/O). The port `company.chief.network.port.NetworkPort` ends here."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from company import network_views as nv
from company.chief.network.advertising import Advertising
from company.chief.network.asking import Asking, capability_of
from company.chief.network.contacts import company_of_node
from company.chief.network.finding import Finding
from company.chief.network.ground import Ground
from company.chief.network.lending import NEVER_REACHED, Policy, Standing, checked, what_they_get, who_may_ask
from company.chief.network.outreach import Outreach
from company.chief.network.peer_door import PeerDoor
from company.chief.network.relay import RelayDesk
from company.chief.network.words import port_views, state_of, state_reason
from p2p.base.clock import UnixTime
from p2p.base.errors import ParallelError
from p2p.base.keys import company_id_text
from p2p.dht.tracker import TrackerBook, peers_json
from p2p.net.addresses import join_address


@dataclass(slots=True)
class NetworkService:
    """Keeps `NetworkPort`."""

    ground: Ground
    finding: Finding
    advertising: Advertising
    asking: Asking
    outreach: Outreach
    door: PeerDoor
    relays: RelayDesk
    tracker: TrackerBook
    machines: Callable[[], int]
    reclaim: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint  # ends all contracts under which slots are lent
    also: list[Callable[[], Awaitable[None]]] = field(default_factory=list)  # what else runs as long as the network does

    async def load(self) -> None:
        """What was added and lent before."""
        await self.finding.load()
        await self.advertising.load()

    async def run(self) -> None:
        """Until cancelled; then offers are withdrawn."""
        try:
            async with trio.open_nursery() as nursery:
                for part in (
                    self.finding.join,
                    self.finding.track,
                    self.finding.learn,
                    self.advertising.run,
                    self.outreach.run,
                    self._tend,
                    *self.also,
                ):
                    nursery.start_soon(part)
        finally:
            with trio.move_on_after(2.0, shield=True):
                await self.advertising.withdraw_all()

    def poke(self, kind: str, _: str) -> None:
        """Something of the chief changed (a listener of its feed): what is lent may be more or less now."""
        if kind in ("worker", "contract"):
            self.advertising.wake()

    async def _tend(self) -> None:
        """Hand on between the parts what one knows and another needs."""
        while True:
            self.finding.offer(self.advertising.published[:4])
            closed = self.ground.report.ports.get("udp", ("unknown", 0))[0] == "closed"
            set_read_only = getattr(self.ground.directory, "set_read_only", None)
            if set_read_only is not None:
                set_read_only(closed)
            await trio.sleep(2.0)

    # ---- what is known -----------------------------------------------------------------------------------------------------
    def status(self) -> nv.NetworkView:
        """Everything at a glance."""
        g, d = self.ground, self.ground.directory.status()
        http = g.addresses.http.partition("://")[2]
        return nv.NetworkView(
            state=state_of(g), reason=state_reason(g), company=company_id_text(g.identity.public), network=g.network_id.hex(),
            address=join_address(*d.address) if d.address is not None else None, seen_as=g.report.seen_as, allow_private=g.allow_private,
            peers=len(d.peers), companies=len(g.known), estimated_size=max(d.network_size, 1.0 + len(d.peers)), records_held=d.records_held,
            published=list(d.published), skew_s=d.skew_s, equivocations=d.equivocations,
            ports=port_views(g, {"udp": join_address(*d.address) if d.address is not None else "", "rpc": g.addresses.rpc, "http": http}),
            buckets=[nv.BucketView(shared_bits=b.shared_bits, contacts=b.contacts, replacements=b.replacements) for b in d.buckets],
            rpc=[
                nv.TrafficView(
                    method=method, sent=t.sent, answered=t.answered, failed=t.failed, served=t.served, sent_per_s=round(t.sent_per_s, 2),
                    served_per_s=round(t.served_per_s, 2),
                )
                for method, t in sorted(d.rpc.items())
            ],
            drops=dict(sorted(d.drops.items())),
            relay=nv.RelayView(
                serves=self.relays.is_on, kept_for=len(self.relays.kept), streams=self.relays.streams,
                carried_bytes=self.relays.carried_bytes, used=[join_address(r.host, r.port) for r in g.relays],
            ),
            trackers=[{"url": t.url, "ok": t.ok, "text": t.text, "at": t.at} for t in self.finding.trackers],
            tracker_entries=len(self.tracker),
        )  # fmt: skip

    def peers(self) -> list[nv.PeerView]:
        """Nodes in the table."""
        return [
            nv.PeerView(
                company=company_of_node(p.node_id), address=join_address(*p.address), answered_ago_s=round(p.answered_ago_s, 1),
                round_trip_s=p.round_trip_s, failures=p.failures,
            )
            for p in self.ground.directory.status().peers
        ]  # fmt: skip

    def companies(self) -> list[nv.KnownCompanyView]:
        """Companies heard of, the last heard first."""
        now = trio.current_time()
        return [
            nv.KnownCompanyView(
                company=c.id, key=c.contact.key.hex(), name=c.name, endpoints=[join_address(*e) for e in c.contact.endpoints],
                relays=[join_address(r.host, r.port) for r in c.contact.relays], seen_ago_s=round(now - c.seen_at, 1), source=c.source,
                round_trip_s=c.round_trip_s,
            )
            for c in sorted(self.ground.known, key=lambda c: -c.seen_at)
        ]  # fmt: skip

    async def offers(self) -> list[nv.OfferView]:
        """Offers for this machine's own kind, as advertised; nobody is asked."""
        return (await self.asking.search(nv.SearchRequest(ask=False))).offers

    async def ping(self, company: str) -> nv.PingView:
        """Open a channel to a company's chief, by the way that works."""
        try:
            found = self.ground.known.find(company)
        except ParallelError:
            if not company.startswith("co-") or not await self.finding.look_up(company):
                raise
            found = self.ground.known.find(company)
        began = trio.current_time()
        try:
            channel = await self.asking.dialler.open(found.contact)
        except ParallelError as error:
            return nv.PingView(company=found.id, answered=False, text=error.text + (f"; {error.hint}" if error.hint else ""))
        took_s = trio.current_time() - began
        await channel.aclose()
        self.ground.known.measured(found.contact.key, took_s)
        return nv.PingView(company=found.id, answered=True, round_trip_s=took_s, way=channel.peer_address, text="connected, its key proved")

    # ---- bootstrap ---------------------------------------------------------------------------------------------------------
    def bootstraps(self) -> list[nv.BootstrapView]:
        """Nodes asked at every start."""
        given = [nv.BootstrapView(address=a, source="option") for a in self.finding.options]
        return given + [nv.BootstrapView(address=a, source="added") for a in self.finding.added if a not in self.finding.options]

    async def add_bootstrap(self, address: str) -> None:
        """Ask it from now on."""
        await self.finding.add(address)

    async def remove_bootstrap(self, address: str) -> None:
        """Ask it no more."""
        await self.finding.remove(address)

    async def test_bootstraps(self, address: str | None) -> list[nv.BootstrapView]:
        """Whether they answer by UDP."""
        views = [nv.BootstrapView(address=address, source="given")] if address is not None else self.bootstraps()

        async def test(view: nv.BootstrapView) -> None:
            view.round_trip_s, view.text = await self.finding.test(view.address)
            view.answered = view.round_trip_s is not None

        async with trio.open_nursery() as nursery:
            for view in views:
                nursery.start_soon(test, view)
        return views

    # ---- lending and borrowing -----------------------------------------------------------------------------------------------
    async def search(self, request: nv.SearchRequest) -> nv.SearchView:
        """Offers that fit."""
        capability_of(request)
        return await self.asking.search(request)

    def lending(self) -> nv.LendingView:
        """What is lent now."""
        return self._lending_view(self.advertising.policy, self.advertising.standing)

    async def lend(self, request: nv.LendRequest) -> nv.LendingView:
        """Lend from now on, or only say what would be offered."""
        policy = checked(
            Policy(
                max_slots=request.max_workers, until=UnixTime(math.ceil(request.until)) if request.until is not None else None,
                schedule=request.schedule, min_trust_permille=round(request.min_trust * 1000), only_to=tuple(request.only_to),
                price_milli=request.price_milli, max_frame_s=request.max_frame_s, auto_accept=request.auto_accept,
                max_load_permille=round(request.max_load * 1000), needs_mains=request.only_on_mains,
                memory_cap_mib=request.max_memory_bytes >> 20, disk_cap_mib=request.max_disk_bytes >> 20,
                bandwidth_cap=request.max_bandwidth_bytes,
            ),
            self.ground.unix_time(),
        )  # fmt: skip
        if request.preview:
            view = self._lending_view(policy, self.advertising.preview(policy))
            view.preview = True
            return view
        return self._lending_view(policy, await self.advertising.set_policy(policy))

    async def stop_lending(self, *, now: bool = False) -> nv.LendingView:
        """Withdraw every offer; with ``now`` also end what runs for others, at once."""
        standing = await self.advertising.set_policy(None)
        if now:
            await self.reclaim()
        return self._lending_view(None, standing)

    def _lending_view(self, policy: Policy | None, standing: Standing) -> nv.LendingView:
        view = nv.LendingView(state=standing.code, text=standing.text, machines=self.machines())
        if policy is not None:
            view.max_workers, view.until, view.schedule = policy.max_slots, policy.until, policy.schedule
            view.min_trust, view.only_to = policy.min_trust_permille / 1000, list(policy.only_to)
            view.max_load, view.only_on_mains = policy.max_load_permille / 1000, policy.needs_mains
            view.max_memory_bytes, view.max_disk_bytes = policy.memory_cap_mib << 20, policy.disk_cap_mib << 20
            view.max_bandwidth_bytes = policy.bandwidth_cap
            view.price_milli, view.max_frame_s = policy.price_milli, policy.max_frame_s
            view.auto_accept, view.never = policy.auto_accept, list(NEVER_REACHED)
            view.who, view.gives = who_may_ask(policy), what_they_get(policy, standing)
        view.promised, view.supply, view.supply_why = self.ground.promised(), self.ground.supply().offered, self.ground.supply_why()
        view.slots = max((a.slots for a in standing.advertisements), default=0)
        view.capabilities = [a.capability for a in standing.advertisements]
        view.published = list(self.ground.directory.status().published)
        view.stored_on = self.advertising.stored_on
        return view

    # ---- tracker -----------------------------------------------------------------------------------------------------------
    def tracker_peers(self) -> bytes:
        """What `GET /tracker/peers` answers."""
        return peers_json(self.tracker, self.ground.unix_time())

    def tracker_announce(self, data: bytes, remote: str) -> None:
        """Take an announcement."""
        self.tracker.announce(data, remote, self.ground.unix_time())
