"""Everything together: companies whose lenders are found in the shipped DHT, with contracts, reputation and faults (pure).

Each company has a shipped node (`p2p.dht.agent`): it joins over three others, publishes what is idle, looks for lenders, refreshes its
table and republishes, all as datagrams over the simulated network. Contracts and reputation are those of the exact market.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from company.chief.network.lending import is_due
from p2p.dht.advertisement import Advertisement, Listing
from p2p.dht.agent import DhtAgent
from p2p.dht.core import DhtCore, Done, Send
from p2p.dht.directory import Address
from p2p.dht.parameters import Parameters
from simulator.chance import seed_word, unit, word
from simulator.dht_exact import NETWORK_ID, UNIX, stand_in_verify
from simulator.market_choices import idle_slots, look
from simulator.market_company import Company
from simulator.market_exact import MarketRules, MarketWorld

CAPABILITY: Final = "spare/v1/x86_64/py3.11/bubblewrap"
JOIN_APART_S: Final = 0.5
FIND_S: Final = 8.0
FRESH_S: Final = 120.0  # listings are used for so long before the DHT is asked again


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong at one moment. Shares of companies."""

    at_s: float = 0.0
    for_s: float = 600.0
    crashed: float = 0.0  # kill -9, back after ``for_s``
    frozen: float = 0.0  # neither answers nor acts for so long, then goes on
    cut_off: float = 0.0  # on an island of their own
    skewed: float = 0.0
    skew_s: float = 0.0  # of their calendars


class OverlayNode:
    """One company's node of the DHT."""

    def __init__(self, world: OverlayWorld, company: Company) -> None:
        self.world, self.company = world, company
        number = company.number
        # one /24 each, so that limits per address group do not shape the tables
        self.address: Address = (f"{23 + number // 65536}.{number // 256 % 256}.{number % 256}.7", 8468)
        self._known: list[tuple[bytes, Address]] = []
        self.listings: tuple[Listing, ...] = ()
        self.listed_at = float("-inf")
        self._find: int | None = None
        self.advertised: tuple[Advertisement | None, float] = (None, 0.0)
        self.start(())

    def start(self, over: Iterable[Address]) -> None:
        """A process begins; it knows whom the one before knew."""
        world, company = self.world, self.company
        self.life = company.life
        rng = Random(f"{world.seed}/{company.number}/{company.life}")
        core = DhtCore(company.key, NETWORK_ID, rng, world.parameters, unix_offset=UNIX + company.skew_s, verify=stand_in_verify)
        self.agent = DhtAgent(core, world.engine.now)
        self.agent.remembered = list(self._known)
        self._wake_at = float("inf")
        self.advertised, self._find = (None, 0.0), None
        if over or self._known:
            self.agent.join(world.engine.now, list(over))
            self.perform(core.take_effects())

    def stop(self) -> None:
        """The process ends; the nearest contacts are on disk."""
        core = self.agent.core
        self._known = [(c.id.to_bytes(20, "big"), c.address) for c in core.table.nearest(core.id, 20)]

    def receive(self, packet: tuple[bytes, Address, int]) -> None:
        """A datagram came."""
        data, sender, life = packet
        company, now = self.company, self.world.engine.now
        if not company.is_here or life != self.life:
            return
        if now < company.frozen_until:
            self.world.engine.at(company.frozen_until, self.receive, packet)
            return
        self.perform(self.agent.on_datagram(now, data, sender))

    def perform(self, effects: list[Any]) -> None:
        """Do what the agent wants done, and set its alarm."""
        world = self.world
        for effect in effects:
            if isinstance(effect, Send):
                world.carry(self, effect)
            elif isinstance(effect, Done) and effect.operation == self._find:
                self._find = None
                self.listings, self.listed_at = tuple(effect.outcome), world.engine.now
                world.note_find(self)
                if self.company.is_here:
                    look(self.company)
        due = self.agent.next_deadline()
        if due < self._wake_at:
            self._wake_at = due
            world.engine.at(due, self._wake, (due, self.life))

    def _wake(self, alarm: tuple[float, int]) -> None:
        due, life = alarm
        if due != self._wake_at or life != self.life or not self.company.is_here:
            return
        now = self.world.engine.now
        if now < self.company.frozen_until:
            self.world.engine.at(self.company.frozen_until, self._wake, alarm)
            return
        self._wake_at = float("inf")
        self.world.machine_events += 1
        self.perform(self.agent.tick(now))

    def find(self) -> None:
        """Look for lenders, unless that goes on already."""
        if self._find is None:
            now = self.world.engine.now
            self.find_began = now
            self._find = self.agent.find(now, CAPABILITY, self.world.rules.looked_at, FIND_S)
            self.perform(self.agent.core.take_effects())

    def advertise(self) -> None:
        """Publish what is idle, withdraw what is not, as the shipped rule has it."""
        now, (old, since) = self.world.engine.now, self.advertised
        idle = idle_slots(self.company)
        new = Advertisement(
            capability=CAPABILITY,
            endpoints=(self.address,),
            slots=idle,
            cores=idle,
            memory_mib=512,
            pythons=("3.11",),
            runtimes=("python",),
        )
        if idle and is_due(new, old, now - since):
            self.agent.publish(now, new)
            self.advertised = (new, now)
        elif not idle and old is not None:
            self.agent.withdraw(now, CAPABILITY)
            self.advertised = (None, now)
        self.perform(self.agent.core.take_effects())


class OverlayWorld(MarketWorld):
    """All companies, found over the DHT."""

    def __init__(self, rules: MarketRules, seed: int, faults: Faults) -> None:
        self.parameters = Parameters()
        self.faults = faults
        self.datagrams = self.dht_bytes = self.dht_events = 0
        self.finds: Counter[str] = Counter()
        self.find_s: list[float] = []
        super().__init__(rules, seed)
        self.nodes = [OverlayNode(self, company) for company in self.companies]
        self._at = {node.address: node for node in self.nodes}
        for node in self.nodes[1:]:
            self.engine.after(node.company.number * JOIN_APART_S, self._join, node)
        self.engine.after(faults.at_s, self._break)

    def _join(self, node: OverlayNode) -> None:
        number = node.company.number
        earlier = [self.nodes[word(self._pick, number, 7 + i) % number].address for i in range(3)]
        node.start(earlier)

    def carry(self, sender: OverlayNode, effect: Send) -> None:
        """Put a datagram on the wire."""
        receiver = self._at.get(effect.address)
        if receiver is not None:
            self.datagrams += 1
            self.dht_bytes += len(effect.data) + 28  # IPv4 and UDP
            packet = (effect.data, sender.address, receiver.life)
            self.network.send(sender.company.number, receiver.company.number, len(effect.data) + 28, receiver.receive, packet)

    def note_find(self, node: OverlayNode) -> None:
        """A look-up of lenders is over."""
        self.finds["all"] += 1
        self.finds["found" if node.listings else "empty"] += 1
        self.finds["listings"] += len(node.listings)
        self.find_s.append(self.engine.now - node.find_began)

    def find_lenders(self, company: Company) -> Iterable[Company]:
        """Those of the last look-up; asks the DHT again where that is old."""
        node = self.nodes[company.number]
        if self.engine.now - node.listed_at > FRESH_S:
            node.find()
            return ()
        found = (self.by_key.get(listing.owner) for listing in node.listings if listing.advertisement.slots > 0)
        return [c for c in found if c is not None]

    def _look(self, company: Company) -> float:
        if company.is_here and self.engine.now >= company.frozen_until:
            self.nodes[company.number].advertise()
        return super()._look(company)

    def crash(self, company: Company, away_s: float) -> None:
        """The node goes with its company."""
        if company.is_here:
            self.nodes[company.number].stop()
        super().crash(company, away_s)

    def _back(self, company: Company) -> None:
        was_away = not company.is_here
        super()._back(company)
        if was_away:
            self.nodes[company.number].start(())

    def _break(self, _: None) -> None:
        """The faults' moment."""
        faults, edge = self.faults, 0.0
        key, islands = seed_word(self.seed, "faults"), {}
        for company in self.companies:
            drawn = unit(key, company.number)
            kind, edge = "", 0.0
            for name in ("crashed", "frozen", "cut_off", "skewed"):
                edge += getattr(faults, name)
                if drawn < edge:
                    kind = name
                    break
            if kind == "crashed":
                self.crash(company, faults.for_s)
            elif kind == "frozen":
                company.frozen_until = self.engine.now + faults.for_s
            elif kind == "cut_off":
                islands[company.number] = 1
            elif kind == "skewed":
                company.skew_s = faults.skew_s
                self.nodes[company.number].agent.core.unix_offset = UNIX + faults.skew_s
        if islands:
            self.network.partition(islands)
            self.engine.after(faults.for_s, lambda _: self.network.partition({}))
