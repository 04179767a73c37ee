"""The simulated internet: round-trip times fitted to King, loss, duplication, reordering, partitions and address translation (pure).

Every node has a place in a plane and a height (its access line); a round trip takes the distance in the plane and both heights. Two numbers
of the King data set are public, median 156 ms and mean 178 ms over 1,740 servers; the two scales here reproduce both.

Source: Gummadi, Saroiu, Gribble 2002 (King); Dabek, Cox, Kaashoek, Morris 2004 (Vivaldi: 2-D and height); figures via Li et al. 2005.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from simulator.chance import Floats, normal, seed_word, unit
from simulator.engine import Engine

PLANE_S: Final = 0.0407717  # standard deviation of each coordinate, as seconds of round trip
HEIGHT_S: Final = 0.0320446  # median height; lognormal with sigma 1, because a few access lines are very slow

NatClass = Literal["public", "full-cone", "restricted", "symmetric"]
# who can be reached by a packet it did not ask for; shares of peers vary by study, so they are a parameter, not a constant
UNASKED: Final[dict[NatClass, bool]] = {"public": True, "full-cone": True, "restricted": False, "symmetric": False}


def coordinates(seed: int, nodes: npt.NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """Plane and height of nodes (any 64-bit names), seconds."""
    key = seed_word(seed, "place")
    return PLANE_S * normal(key, nodes, 0), PLANE_S * normal(key, nodes, 1), HEIGHT_S * np.exp(normal(key, nodes, 2))


def round_trips(seed: int, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """Round-trip times between nodes, pair by pair, seconds."""
    ax, ay, ah = coordinates(seed, a)
    bx, by, bh = coordinates(seed, b)
    return np.asarray(np.hypot(ax - bx, ay - by) + ah + bh)


@dataclass(frozen=True, slots=True)
class LinkFaults:
    """What happens to packets. Shares of packets, 0..1; ``jitter``: a packet takes up to so much longer (share of its time)."""

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0  # share that is held back by one more latency, so that later ones overtake it
    jitter: float = 0.1


@dataclass(slots=True)
class Network:
    """Carries messages between nodes named by integers, in virtual time. What happens to packet i of a pair is a function of the seed."""

    engine: Engine
    seed: int
    faults: LinkFaults = field(default_factory=LinkFaults)
    nat: dict[int, NatClass] = field(default_factory=dict)  # not named = public
    sent: int = 0
    lost: int = 0
    sent_bytes: int = 0
    _places: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    _islands: dict[int, int] = field(default_factory=dict)
    _asked: set[tuple[int, int]] = field(default_factory=set)
    _key: int = field(init=False)

    def __post_init__(self) -> None:
        self._key = seed_word(self.seed, "packets")

    def round_trip_s(self, a: int, b: int) -> float:
        """The undisturbed round-trip time of two nodes."""
        places = self._places
        ax, ay, ah = places.get(a) or self._place(a)
        bx, by, bh = places.get(b) or self._place(b)
        return math.hypot(ax - bx, ay - by) + ah + bh

    def partition(self, islands: dict[int, int]) -> None:
        """Nodes on different islands cannot reach each other; not named = island 0; an empty map heals."""
        self._islands = dict(islands)

    def send(self, sender: int, receiver: int, size_bytes: int, deliver: Callable[[Any], object], message: Any) -> None:
        """Carry one packet: ``deliver(message)`` happens once, twice or never."""
        number = self.sent
        self.sent += 1
        self.sent_bytes += size_bytes
        if self.nat:
            self._asked.add((sender, receiver))
        islands = self._islands
        if (islands and islands.get(sender, 0) != islands.get(receiver, 0)) or (self.nat and not self._is_open(sender, receiver)):
            self.lost += 1
            return
        key, faults = self._key, self.faults
        if faults.loss and unit(key, number, 0) < faults.loss:
            self.lost += 1
            return
        delay = self.round_trip_s(sender, receiver) / 2 * (1 + faults.jitter * unit(key, number, 1))
        if faults.reordering and unit(key, number, 2) < faults.reordering:
            delay *= 2
        self.engine.after(delay, deliver, message)
        if faults.duplication and unit(key, number, 3) < faults.duplication:
            self.engine.after(delay * 1.5, deliver, message)

    def _is_open(self, sender: int, receiver: int) -> bool:
        return UNASKED[self.nat.get(receiver, "public")] or (receiver, sender) in self._asked

    def _place(self, node: int) -> tuple[float, float, float]:
        x, y, height = coordinates(self.seed, np.array([node & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))
        place = self._places[node] = (round(float(x[0]), 9), round(float(y[0]), 9), round(float(height[0]), 9))  # see `exponential_one`
        return place
