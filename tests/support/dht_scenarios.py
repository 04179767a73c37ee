"""What the network of companies must hold, as scenarios in virtual time.

Tests run them small, ``python -m tests.support.dht_scenarios`` whole. Every scenario returns figures; tests and readers of the program
compare them with the bounds of the issue.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import statistics
import time
from dataclasses import dataclass
from random import Random

import psutil

from p2p.base.clock import UnixTime
from p2p.base.keys import Identity, node_id
from p2p.dht.advertisement import Advertisement, Listing, level_for, levels_used, shard_key, shard_of, sign_advertisement
from p2p.dht.agent import DhtAgent
from p2p.dht.core import DhtCore, Send
from p2p.dht.packets import Sealer
from p2p.dht.parameters import Parameters
from tests.support.dht_network import NETWORK_ID, UNIX, CheapKey, Colluder, Node, VirtualNetwork

CAPABILITY = "spare/v1/x86_64/py3.11/bubblewrap"
OFFER = Advertisement(capability=CAPABILITY, endpoints=(("23.0.0.7", 8468),), slots=4)


@dataclass(frozen=True)
class Lookups:
    median_s: float
    recall: float
    queries: float


def lookups(network: VirtualNetwork, count: int, rng: Random) -> Lookups:
    """Full look-ups of random ids by random live nodes, one after the other; recall of the true 20 nearest live ones."""
    took, recall, queries = [], [], []
    live = [n for n in network.nodes if n.is_alive]
    for _ in range(count):
        node, target = rng.choice(live), rng.randbytes(20)
        began, sent = network.now, node.core.sent[2]
        outcome = network.wait(node, node.agent.lookup(network.now, target))
        took.append(network.now - began)
        queries.append(node.core.sent[2] - sent)
        near = {n.core.id for n in network.true_nearest(target, 20, of=[n for n in live if n is not node])}
        recall.append(len(near & {id_ for id_, _ in outcome}) / len(near))
    return Lookups(statistics.median(took), statistics.mean(recall), statistics.mean(queries))


def with_dead(dead: float, loss: float, *, nodes: int = 300, seed: int = 1) -> VirtualNetwork:
    """A network whose tables are full, of which a share has died since."""
    network = VirtualNetwork(seed, loss=loss)
    network.add(nodes)
    network.fill_tables()
    for node in Random(f"dead {seed}").sample(network.nodes, int(dead * nodes)):
        node.is_alive = False
    return network


def refresh_all(network: VirtualNetwork, seconds: float = 60.0) -> None:
    """One refresh by every live node."""
    for node in network.nodes:
        if node.is_alive:
            node.agent.refresh(network.now)
            node.perform()
    network.run(seconds)


def adversaries(share: float, paths: int, *, nodes: int = 300, records: int = 50, reads: int = 4, seed: int = 1) -> float:
    """The share of reads that find a record, where so many nodes answer only with one another and drop records."""
    network = VirtualNetwork(seed, parameters=Parameters(paths=paths))
    network.add(nodes - int(share * nodes))
    honest = list(network.nodes)
    network.add(int(share * nodes), Colluder)
    network.fill_tables()
    rng = Random(f"adversaries {seed}")
    found = 0
    for n in range(records):
        writer, key = rng.choice(honest), rng.randbytes(20)
        network.wait(writer, writer.agent.put(network.now, "test", key, b"%d" % n, 1800, is_kept=False))
        for reader in rng.sample(honest, reads):
            records_found = network.wait(reader, reader.agent.get(network.now, key, 1, 15.0))
            found += any(r.owner == writer.core.signer.public for r in records_found)
    return found / (records * reads)


def near_keys(key: bytes, count: int, bits: int) -> list[bytes]:
    """Public keys whose node ids share so many bits with a key: 2^bits hashes each."""
    goal = int.from_bytes(key, "big") >> (160 - bits)
    found: list[bytes] = []
    n = 0
    while len(found) < count:
        public = hashlib.blake2b(b"%d" % n, digest_size=32).digest()
        n += 1
        if int.from_bytes(node_id(public), "big") >> (160 - bits) == goal:
            found.append(public)
    return found


@dataclass(frozen=True)
class Eclipse:
    stored: int
    by_key: float  # share of reads of the eclipsed key itself that find the record
    by_find: float  # share of finds that see the offer


def eclipse(*, nodes: int = 300, bits: int = 12, readers: int = 20, seed: int = 1) -> Eclipse:
    """20 nodes lie nearest to one of a company's shard keys, answer only with one another and drop what they are given."""
    network = VirtualNetwork(seed)
    network.add(nodes)
    writer = network.nodes[0]
    key = shard_key(CAPABILITY, 1, shard_of(writer.core.signer.public, 1))
    for public in near_keys(key, 20, bits):
        network.add(1, Colluder, public=public)
    network.fill_tables()
    published = network.wait(writer, writer.agent.publish(network.now, OFFER))
    rng = Random(f"eclipse {seed}")
    by_key = by_find = 0
    for reader in rng.sample(network.nodes[1:nodes], readers):
        by_key += bool(network.wait(reader, reader.agent.get(network.now, key, 5, 15.0)))
        found: tuple[Listing, ...] = network.wait(reader, reader.agent.find(network.now, CAPABILITY, 5, 30.0))
        by_find += any(listing.owner == writer.core.signer.public for listing in found)
    return Eclipse(published.stored, by_key / readers, by_find / readers)


@dataclass(frozen=True)
class Crowd:
    found: int
    datagrams: int  # sent and received by the reader
    most_held: int


def crowd(*, nodes: int = 300, advertisers: int = 1000, wanted: int = 100, seed: int = 1) -> list[Crowd]:
    """Many companies offer the same: what one reader gets, and what it costs. Records are put where their owners would put them."""
    network = VirtualNetwork(seed)
    network.add(nodes)
    network.fill_tables()
    rng = Random(f"crowd {seed}")
    for n in range(advertisers):
        signer = CheapKey(rng.randbytes(32))
        group = (n + 1000).to_bytes(3, "big")
        for level in levels_used(level_for(nodes)):
            key = shard_key(CAPABILITY, level, shard_of(signer.public, level))
            expires = UnixTime(int(network.now + UNIX) + 1800)
            record = sign_advertisement(signer, NETWORK_ID, OFFER, key=key, sequence=1, expires=expires)
            for holder in network.true_nearest(key, 20):
                holder.core.store.put(record, group, network.now + UNIX)
    outcomes = []
    for reader in rng.sample(network.nodes, 5):
        before = network.datagrams
        found: tuple[Listing, ...] = network.wait(reader, reader.agent.find(network.now, CAPABILITY, wanted, 30.0))
        distinct = {listing.owner for listing in found if listing.expires > network.now + UNIX}
        outcomes.append(Crowd(len(distinct), network.datagrams - before, max(n.core.store.most_under_one_key() for n in network.nodes)))
        network.run(30.0)
    for node in network.nodes:
        node.core.validate()
    return outcomes


@dataclass(frozen=True)
class Churn:
    finds: int
    found: float  # of advertisements whose owner had been up for a minute
    expired_shown: int
    departures: int
    datagrams: int


def churn(
    *, nodes: int = 500, hours: float = 6.0, advertisers: int = 50, every_s: float = 120.0, seed: int = 1, progress: bool = False
) -> Churn:
    """Sessions are Weibull with shape .38 and a median of 24 minutes; who leaves says nothing, and another comes in its place."""
    network = VirtualNetwork(seed)
    network.add(nodes)
    network.fill_tables()
    rng = Random(f"churn {seed}")
    scale_s = 24 * 60 / math.log(2) ** (1 / 0.38)
    up_since: dict[bytes, float] = {}
    departures = [0]

    def live() -> list[Node]:
        return [n for n in network.nodes if n.is_alive]

    def arrive(node: Node, is_advertiser: bool) -> None:
        if is_advertiser:
            node.agent.publish(network.now, OFFER)
            up_since[node.core.signer.public] = network.now
        node.perform()
        network.at(network.now + rng.weibullvariate(scale_s, 0.38), lambda: leave(node, is_advertiser))

    def leave(node: Node, is_advertiser: bool) -> None:
        departures[0] += 1
        node.is_alive = False
        up_since.pop(node.core.signer.public, None)
        network.by_address.pop(node.address)
        others = rng.sample(live(), 3)
        (new,) = network.add(1)
        network.nodes.remove(node)
        new.agent.join(network.now, [other.address for other in others])
        new.perform()
        network.at(network.now + 5.0, lambda: arrive(new, is_advertiser))

    for n, node in enumerate(list(network.nodes)):
        arrive(node, n < advertisers)
    finds = expected = seen = expired = 0
    end = network.now + hours * 3600
    while network.now < end:
        network.run(every_s)
        reader = rng.choice(live())
        stable = {owner for owner, since in up_since.items() if since < network.now - 60}
        found: tuple[Listing, ...] = network.wait(reader, reader.agent.find(network.now, CAPABILITY, 10_000, 60.0))
        stable &= set(up_since)  # those that left meanwhile are no one's fault
        finds += 1
        expected += len(stable)
        seen += len(stable & ({listing.owner for listing in found} | {reader.core.signer.public}))
        expired += sum(listing.expires <= network.now + UNIX for listing in found)
        if progress and finds % 15 == 0:
            hour = (network.now - 1000) / 3600
            print(f"  {hour:.1f} h: {Churn(finds, seen / expected, expired, departures[0], network.datagrams)}", flush=True)
    return Churn(finds, seen / expected, expired, departures[0], network.datagrams)


@dataclass(frozen=True)
class Noise:
    datagrams: int
    asked: int  # honest requests between them
    answered: int
    rate: float  # honest requests per second of CPU with one noise datagram beside each, against without
    us_each: float  # CPU microseconds per noise datagram
    most_remembered: int  # entries in everything that grows with strangers
    growth_bytes: int  # of the process's memory in the second half of the noise


def noise(count: int, *, seed: int = 1) -> Noise:
    """Random, mutated, replayed and signed nonsense from thousands of addresses against one node that checks real signatures."""
    rng = Random(f"noise {seed}")
    node = DhtAgent(DhtCore(Identity(b"n" * 32), NETWORK_ID, rng, unix_offset=UNIX), 0.0)
    strangers = [Sealer(Identity(rng.randbytes(32)), NETWORK_ID) for _ in range(20)]
    friend = Sealer(Identity(rng.randbytes(32)), NETWORK_ID)
    home = ("23.200.0.1", 8468)
    token = bytes(8)
    now = 1000.0
    asked = answered = 0

    def sample(sealer: Sealer, method: int, arguments: list[object], proof: bytes = bytes(8)) -> bytes:
        unix = int(now + UNIX)
        return sealer.request(rng.randbytes(20), proof, unix=unix, to=b"", flags=1, work=b"", method=method, arguments=arguments, size=400)

    def honest() -> float:
        nonlocal token, asked, answered
        began = time.process_time()
        data = sample(friend, 2, [rng.randbytes(20)], token)
        built = time.process_time()
        asked += 1
        replies = [e for e in node.on_datagram(now, data, home) if isinstance(e, Send) and e.address == home]
        took = time.process_time() - built
        answered += len(replies)
        if replies:
            token = replies[0].data[21:29]
        assert built >= began
        return took

    honest()  # the first brings the token
    samples = [
        sample(s, 1 + n % 4, [[], [rng.randbytes(20)], [rng.randbytes(20)] * 2 + [bytes(8), 3], [b"r" * 300]][n % 4])
        for n, s in enumerate(strangers)
    ]
    noise_s, served = 0.0, []
    half = 0
    for n in range(count):
        now += 0.001
        data = rng.choice(samples)
        match rng.randrange(4):
            case 0:
                data = rng.randbytes(rng.randrange(1400))
            case 1:
                at = rng.randrange(len(data))
                data = data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at + rng.randrange(5) :]
            case 2:
                fresh = rng.choice(strangers)
                data = fresh._seal(rng.randrange(3), rng.randbytes(20), bytes(8), rng.randbytes(rng.randrange(60)))
        sender = (f"23.{rng.randrange(40)}.{rng.randrange(256)}.{rng.randrange(256)}", 1 + rng.randrange(65535))
        began = time.process_time()
        node.on_datagram(now, data, sender)
        noise_s += time.process_time() - began
        if n % 50 == 0:
            served.append(honest())
            node.tick(now)
        if n == count // 2:
            half = psutil.Process().memory_info().rss
    growth = psutil.Process().memory_info().rss - half
    core = node.core
    core.validate()
    kept = (core._addresses, core._identities, core._replays, core._tokens, core.flying, core.table, core.seen_as, core.drops)
    us_each = 1e6 * noise_s / count
    cost = statistics.median(served)
    rate = cost / (cost + noise_s / count)  # the clock's drift on a busy machine is in both
    return Noise(count, asked, answered, rate, us_each, sum(len(part) for part in kept), growth)


def main() -> None:
    """Run what is named, print figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="lookups, adversaries, eclipse, crowd, noise, churn; all without")
    parser.add_argument("--nodes", type=int, default=500, help="of the churn")
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()

    def say(name: str, make: object) -> None:
        began = time.monotonic()
        print(f"{name}: {make()}  ({time.monotonic() - began:.0f} s)", flush=True)  # type: ignore[operator]

    def two_rounds(dead: float, loss: float) -> tuple[Lookups, Lookups]:
        network, rng = with_dead(dead, loss, seed=wanted.seed), Random(wanted.seed)
        stale = lookups(network, 200, rng)
        refresh_all(network)
        return stale, lookups(network, 200, rng)

    only = set(wanted.only or ("lookups", "adversaries", "eclipse", "crowd", "noise", "churn"))
    if "lookups" in only:
        for dead, loss in ((0.0, 0.0), (0.1, 0.0), (0.3, 0.0), (0.0, 0.05)):
            say(f"look-ups, {dead:.0%} dead, {loss:.0%} loss: stale, after a refresh", lambda d=dead, x=loss: two_rounds(d, x))  # type: ignore[misc]
    if "adversaries" in only:
        for share in (0.10, 0.25):
            for paths in (4, 8):
                say(f"adversaries {share:.0%}, {paths} paths", lambda s=share, p=paths: adversaries(s, p, seed=wanted.seed))  # type: ignore[misc]
    if "eclipse" in only:
        say("eclipse", lambda: eclipse(seed=wanted.seed))
    if "crowd" in only:
        say("crowd", lambda: crowd(seed=wanted.seed))
    if "noise" in only:
        say("noise", lambda: noise(1_000_000, seed=wanted.seed))
    if "churn" in only:
        say("churn", lambda: churn(nodes=wanted.nodes, hours=wanted.hours, seed=wanted.seed, progress=True))


if __name__ == "__main__":
    main()
