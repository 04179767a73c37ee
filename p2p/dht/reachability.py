"""Whether others can reach this chief: two peers dial back, and their words become a state per port (pure).

A chief cannot see itself from outside, so it asks peers of different networks to dial its UDP, RPC and HTTP ports. A port is open when
two say so, closed when two say so; while they differ a further one is asked. One peer alone gives a verdict with one witness, which is
all there is in a network of two. Peers may lie: the worst is a wrong sentence here, and a relay that is not needed, or missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from p2p.base.clock import Monotonic
from p2p.base.errors import InvariantBroken
from p2p.base.record import record
from p2p.dht.tracker import group_of_host

Port = Literal["udp", "rpc", "http"]
Seen = Literal["open", "closed", "not-asked"]
State = Literal["unknown", "public", "outbound-only", "offline"]
PORTS: tuple[Port, ...] = ("udp", "rpc", "http")
WITNESSES = 2
ASK_DEADLINE_S = 15.0
AGAIN_S = 600.0  # while public
AGAIN_SOON_S = 60.0  # while not
OFFLINE_AFTER_S = 30.0  # without one peer that answers
MAX_PEERS = 64


@record
class Helper:
    """A peer that can be asked: its key and where its RPC port is."""

    key: bytes
    host: str
    port: int


@record
class PeersKnown:
    """These peers exist; replaces what was known."""

    helpers: tuple[Helper, ...]


@record
class Told:
    """What one peer saw."""

    helper: Helper
    seen: Mapping[Port, Seen]
    seen_as: str = ""  # the address from which we came to it


@record
class Failed:
    """A peer did not answer."""

    helper: Helper


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@record
class AskToDial:
    """Ask this peer to dial back."""

    helper: Helper


@record
class Changed:
    """The state is another."""

    report: Report


@record
class Report:
    """What is known now. ``ports``: the verdict per port, with how many peers said so."""

    state: State = "unknown"
    ports: Mapping[Port, tuple[Seen | Literal["unknown"], int]] = field(default_factory=dict)
    seen_as: str = ""

    def is_open(self, port: Port) -> bool:
        """Whether others reach it."""
        return self.ports.get(port, ("unknown", 0))[0] == "open"


Event = PeersKnown | Told | Failed | Tick
Effect = AskToDial | Changed


class Reachability:
    """Decides whom to ask and what their answers mean."""

    def __init__(self, now: Monotonic) -> None:
        self.report = Report()
        self._helpers: tuple[Helper, ...] = ()
        self._asked: dict[Helper, Monotonic] = {}  # waiting for an answer -> its deadline
        self._round: dict[bytes, Told] = {}  # of this round, by key
        self._spent: set[bytes] = set()  # asked in this round, whatever came of it
        self._began: Monotonic | None = None  # of the round
        self._heard = now  # when a peer answered last, or when we began

    def handle(self, event: Event, now: Monotonic) -> tuple[Effect, ...]:
        """Apply one event."""
        match event:
            case PeersKnown(helpers):
                is_first = not self._helpers
                self._helpers = helpers[:MAX_PEERS]
                if is_first and helpers and self.report.state in ("unknown", "offline"):
                    self._began = None
            case Told(helper):
                if self._asked.pop(helper, None) is not None:
                    self._round[helper.key] = event
                    self._heard = now
            case Failed(helper):
                self._asked.pop(helper, None)
            case Tick():
                for late in [h for h, deadline in self._asked.items() if deadline <= now]:
                    del self._asked[late]
            case _:
                assert_never(event)
        if not self._asked and (self._began is None or now >= self._next_round()):
            self._round, self._spent = {}, set()
            self._began = now
        effects: list[Effect] = [AskToDial(helper) for helper in self._choose(now)]
        report = self._judge(now)
        if report != self.report:
            self.report = report
            effects.append(Changed(report))
        return tuple(effects)

    def next_deadline(self) -> Monotonic | None:
        """When to be woken."""
        times = [*self._asked.values()] or [self._next_round()]
        if self.report.state != "offline":
            times.append(Monotonic(self._heard + OFFLINE_AFTER_S + (AGAIN_S if self.report.state == "public" else 0)))
        return min(times)

    def _next_round(self) -> Monotonic:
        wait_s = AGAIN_S if self.report.state == "public" else AGAIN_SOON_S
        return Monotonic((self._began if self._began is not None else self._heard) + wait_s)

    def validate(self) -> None:
        """Check invariants."""
        if len(self._asked) > WITNESSES or len(self._helpers) > MAX_PEERS:
            raise InvariantBroken("more peers are asked than witnesses are needed", asked=len(self._asked))

    def _choose(self, now: Monotonic) -> list[Helper]:
        """Further witnesses, each of another network while there are such."""
        wanted = (WITNESSES if not self._differ() else WITNESSES + 1) - len(self._round) - len(self._asked)
        taken = {group_of_host(told.helper.host) for told in self._round.values()} | {group_of_host(h.host) for h in self._asked}
        chosen: list[Helper] = []
        fresh = [helper for helper in self._helpers if helper.key not in self._spent]
        for is_strict in (True, False):
            for helper in fresh:
                if len(chosen) >= wanted:
                    return chosen
                group = group_of_host(helper.host)
                if helper.key in self._spent or (is_strict and group in taken):
                    continue
                chosen.append(helper)
                taken.add(group)
                self._spent.add(helper.key)
                self._asked[helper] = Monotonic(now + ASK_DEADLINE_S)
        return chosen

    def _differ(self) -> bool:
        answers = list(self._round.values())
        return any(len({told.seen.get(port) for told in answers if told.seen.get(port) in ("open", "closed")}) > 1 for port in PORTS)

    def _judge(self, now: Monotonic) -> Report:
        if not self._round:
            silent_s = now - self._heard
            patience_s = OFFLINE_AFTER_S + (AGAIN_S if self.report.state == "public" else 0)
            return replace(self.report, state="offline", ports={}) if silent_s >= patience_s else self.report
        ports = {port: verdict_of([told.seen.get(port, "not-asked") for told in self._round.values()]) for port in PORTS}
        is_public = all(ports[port][0] == "open" or (port == "udp" and ports[port][0] == "not-asked") for port in ("udp", "rpc"))
        latest = next(reversed(self._round.values()))
        return Report("public" if is_public else "outbound-only", ports, latest.seen_as)


def verdict_of(seen: Sequence[Seen]) -> tuple[Seen | Literal["unknown"], int]:
    """The majority of what peers saw, with its size; where they are equal, "closed": what others cannot rely on is not open."""
    opened, closed = seen.count("open"), seen.count("closed")
    if not opened and not closed:
        return ("not-asked", 0) if seen else ("unknown", 0)
    return ("open", opened) if opened > closed else ("closed", closed)
