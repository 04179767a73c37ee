"""The same look-ups by both engines: the shipped core in virtual time beside numpy, network by network (pure).

Each engine makes networks of its own from seeds; what is compared are means over networks, by Student's interval of their difference
(99.9 %, as many networks on each side). Time-outs are those of the vectorised engine: fixed, and long enough never to pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from p2p.dht.parameters import Parameters
from simulator.dht_exact import ExactNetwork
from simulator.dht_search import Search, search
from simulator.dht_tables import Tables

K: Final = 20
ALPHA: Final = 3
RESILIENCY: Final = 3
TIMEOUT_S: Final = 2.0
MEASURES: Final = ("is_success", "hops", "messages", "latency_s")
STUDENT: Final = {2: 31.599, 3: 12.924, 4: 8.610, 5: 6.869, 6: 5.959, 8: 5.041, 10: 4.587}  # 99.9 %, by degrees of freedom


@dataclass(frozen=True, slots=True)
class Agreement:
    """One measure of both engines, averaged over networks."""

    measure: str
    exact: float
    vector: float
    slack: float  # half the interval of their difference

    @property
    def holds(self) -> bool:
        return abs(self.exact - self.vector) <= self.slack + 1e-12


def both_engines(nodes: int, *, networks: int, exact_lookups: int, vector_lookups: int, validate_every: int = 0) -> list[Agreement]:
    """Look for random keys from random nodes, in so many networks of each engine."""
    shipped = Parameters(k=K, alpha=ALPHA, resiliency=RESILIENCY, paths=1, first_rto_s=TIMEOUT_S, min_rto_s=TIMEOUT_S, max_rto_s=TIMEOUT_S)
    how = Search(alpha=ALPHA, resiliency=RESILIENCY, target="key", timeout_s=TIMEOUT_S, hedge_s=TIMEOUT_S)
    exact, vector = [], []
    for seed in range(1, networks + 1):
        world = ExactNetwork(nodes, seed=seed, parameters=shipped, dead=0.0, loss=0.0, validate_every=validate_every)
        found = world.found(world.look_up(exact_lookups, width=RESILIENCY))
        exact.append([float(getattr(found, name).mean()) for name in MEASURES])
        found = search(Tables(nodes, K, seed), how, lookups=vector_lookups, seed=seed)
        vector.append([float(getattr(found, name).mean()) for name in MEASURES])
    a, b = np.array(exact), np.array(vector)
    slack = STUDENT[2 * networks - 2] * np.sqrt((a.var(axis=0, ddof=1) + b.var(axis=0, ddof=1)) / networks)
    return [
        Agreement(name, float(a[:, i].mean()), float(b[:, i].mean()), float(slack[i])) for i, name in enumerate(MEASURES)
    ]  # fmt: skip
