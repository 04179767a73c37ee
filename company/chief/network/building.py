"""Makes the parts of a chief's network and hands each the others (I/O: measures the speed of this machine)."""

from __future__ import annotations

import platform
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import SystemRandom

import trio

from company import views
from company.chief.addresses import Addresses
from company.chief.network.advertising import Advertising, minute_of_week
from company.chief.network.asking import Asking
from company.chief.network.dialling import REGISTRY, PeerDialler
from company.chief.network.finding import Finding
from company.chief.network.ground import Ground, is_only_here
from company.chief.network.idleness import Owners
from company.chief.network.known import Known
from company.chief.network.lending import Facts, Policy
from company.chief.network.outreach import Outreach
from company.chief.network.peer_door import DIALS_BURST, DIALS_PER_S, PER_PEER_BURST, PER_PEER_PER_S, PeerDoor
from company.chief.network.relay import RelayDesk
from company.chief.network.service import NetworkService
from company.chief.network.speed import measure_speed
from company.chief.network.trackers import TrackerState, check_tracker_url
from company.chief.store.store import Store
from company.machine_use import Machine
from p2p.base.keys import Identity
from p2p.base.record import record
from p2p.dht.directory import Directory
from p2p.dht.limits import Buckets
from p2p.dht.tracker import TrackerBook
from p2p.net.clock import read_unix
from p2p.net.rpc import RpcLimits, RpcServer

PARTIES_KEPT = 4096
# never in the public DNS: RFC 6762, RFC 8375, RFC 6761, and what ICANN has set aside for private use
LOCAL_NAMES = (".local", ".home.arpa", ".localhost", ".internal", ".lan", ".localdomain")
BY_RELAY = RpcLimits(connections=64, per_address=32)
Workers = Callable[[], list[views.WorkerView]]


@record(kw_only=True)
class Options:
    """As `company start` has them."""

    bootstrap: tuple[str, ...] = ()
    trackers: tuple[str, ...] = ()
    relay: bool = True
    allow_private: bool = False


async def build_network(
    *, identity: Identity, name: str, network_id: bytes, directory: Directory, addresses: Addresses, store: Store, workers: Workers,
    rung: str, options: Options, probe_udp: Callable[[str, int], Awaitable[bool]],
) -> NetworkService:  # fmt: skip
    """A network service, loaded and not yet running."""
    ground = Ground(
        identity=identity, name=name, network_id=network_id, directory=directory, addresses=addresses, allow_private=options.allow_private,
        known=Known(identity.public), unix_time=read_unix,
    )  # fmt: skip
    speed = await trio.to_thread.run_sync(measure_speed)
    dialler = PeerDialler(identity, options.allow_private)
    finding = Finding(ground, store, options.bootstrap, [TrackerState(check_tracker_url(url)) for url in options.trackers])
    owners = Owners()

    def facts() -> Facts:
        policy, here = advertising.policy, workers()
        if policy is None:
            advertising.busy, advertising.silent = {}, frozenset()
            return facts_of(ground, here, rung, speed)
        busy = busy_workers(owners, policy, here, trio.current_time())
        advertising.busy, advertising.silent = busy, silent_workers(policy, here)
        left = facts_of(ground, [w for w in here if w.id not in busy and w.id not in advertising.silent], rung, speed)
        return left if left.slots or advertising.silent or not busy else replace(left, owner_busy=next(iter(busy.values())))

    advertising = Advertising(ground, store, facts, options.relay)
    relays = RelayDesk(is_on=options.relay)
    door = PeerDoor(
        identity=identity, network_id=network_id, directory=directory, relays=relays, allow_private=options.allow_private,
        answer=advertising.answer, probe_udp=probe_udp, messages=Buckets(PER_PEER_PER_S, PER_PEER_BURST, PARTIES_KEPT),
        dials=Buckets(DIALS_PER_S, DIALS_BURST, PARTIES_KEPT),
    )  # fmt: skip
    server = RpcServer(identity, REGISTRY, door.on_channel, limits=BY_RELAY)
    service = NetworkService(
        ground=ground, finding=finding, advertising=advertising, asking=Asking(ground, dialler, finding),
        outreach=Outreach(ground, dialler, server, advertising.wake), door=door, relays=relays,
        tracker=TrackerBook(network_id, SystemRandom()), machines=lambda: len(_here(workers())),
    )  # fmt: skip
    await service.load()
    return service


def busy_workers(owners: Owners, policy: Policy, here: list[views.WorkerView], now: float) -> dict[str, str]:
    """Workers whose owner uses their machine now, and how."""
    machines = {w.id: Machine(w.owner_load, w.on_mains) for w in _here(here) if w.owner_load is not None}
    max_load = policy.max_load_permille / 1000 if policy.max_load_permille else None
    found = owners.busy(machines, max_load=max_load, needs_mains=policy.needs_mains, now=now)
    names = {w.id: w.name for w in here}
    return {worker: f"{names[worker]}: {why}" for worker, why in found.items()}


def silent_workers(policy: Policy, here: list[views.WorkerView]) -> frozenset[str]:
    """Workers that have not said yet how their machine is used, where the policy asks: they are not guessed at, and lend nothing new."""
    asks = bool(policy.max_load_permille) or policy.needs_mains
    return frozenset(w.id for w in here if w.owner_load is None) if asks else frozenset()


def facts_of(ground: Ground, workers: list[views.WorkerView], rung: str, speed: int) -> Facts:
    """What could be lent at this moment: slots of workers that are here and confine strangers' code."""
    here = _here(workers)
    pythons = sorted({".".join(w.python.split(".")[:2]) for w in here if w.python})
    now = read_unix()
    slots = sum(w.slots for w in here)
    promised = ground.promised()
    idle = min(sum(w.slots - w.slots_busy for w in here), slots - promised)
    return Facts(
        arch=platform.machine().lower(), pythons=tuple(pythons), rung=here[0].isolation if here else rung, slots=slots,
        idle=max(0, idle), machines=len(here), cores=sum(w.cores for w in here),
        memory_mib=min((w.memory_bytes // max(1, w.slots) >> 20 for w in here), default=0), speed=speed, endpoints=ground.endpoints(),
        relays=ground.relays, minute_of_week=minute_of_week(float(now)), now=now, promised=promised, supply=ground.supply(),
    )  # fmt: skip


def _here(workers: list[views.WorkerView]) -> list[views.WorkerView]:
    """Who could be lent: a worker that speaks REST opens no channel to a borrower."""
    found = [w for w in workers if w.state in ("idle", "busy") and w.transport == "rpc"]
    return [w for w in found if w.isolation == "bubblewrap"] or found


def is_private_network(hosts: tuple[str, ...], named: tuple[str, ...]) -> bool:
    """Whether private addresses may be dialled although nobody said so: this machine has no public one, and neither has what was named.

    ``hosts``: this machine's addresses; ``named``: hosts of bootstrap nodes and trackers. A name that public DNS may hold counts as public.
    """
    return all(is_only_here(host) for host in hosts) and all(_is_private_name(host) for host in named)


def _is_private_name(host: str) -> bool:
    if host.replace(".", "").isdigit() or ":" in host:
        return is_only_here(host)
    return "." not in host.rstrip(".") or host.rstrip(".").lower().endswith(LOCAL_NAMES)
