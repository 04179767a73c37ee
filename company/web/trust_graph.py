"""Who computed for whom, as circles around this company: near, known through others, new (pure).

The table above the picture says the same in words; the picture only makes the distances plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, log10, pi, sin
from typing import Final

from company import contract_views as cv
from p2p.base.record import record

WIDTH: Final = 640
RINGS: Final = (0.0, 110.0, 190.0, 260.0)  # distance 1, 2, 3 from the middle
MAX_NODES: Final = 60
LABEL_CHARS: Final = 14


@record
class Node:
    """One company."""

    company: str
    label: str
    x: float
    y: float
    radius: float
    kind: str  # us | known | forked


@record
class Edge:
    """Work: solid where it was computed for us or vouches, dashed where we computed."""

    x1: float
    y1: float
    x2: float
    y2: float
    width: float
    kind: str  # for-us | for-them | vouches


@record
class Graph:
    """What is drawn, and how many companies are left out."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    left_out: int


def graph_of(found: Sequence[cv.ReputationView]) -> Graph:
    """The picture of a ranking; those ranked first are drawn."""
    shown, middle = list(found[:MAX_NODES]), WIDTH / 2
    nodes = [Node("", "this company", middle, middle, 14.0, "us")]
    at: dict[str, Node] = {}
    for hops in (1, 2, 3):
        ring = [v for v in shown if min(max(v.hops, 1), 3) == hops]
        for place, view in enumerate(ring):
            angle = 2 * pi * (place + 0.35 * (hops - 1)) / len(ring) - pi / 2
            x, y = middle + RINGS[hops] * cos(angle), middle + RINGS[hops] * sin(angle)
            label = (view.name or view.company)[:LABEL_CHARS]
            at[view.company] = Node(view.company, label, x, y, 6 + 12 * view.score, "forked" if view.is_forked else "known")
    edges = []
    for view in shown:
        here = at[view.company]
        if view.computed_for_us_core_ms:
            edges.append(_edge(here, nodes[0], view.computed_for_us_core_ms, "for-us", -3))
        if view.given_core_ms:
            edges.append(_edge(nodes[0], here, view.given_core_ms, "for-them", -3))
        edges += [_edge(here, at[over], flow, "vouches") for over, flow in view.over.items() if over in at]
    return Graph((*nodes, *at.values()), tuple(edges), len(found) - len(shown))


def _edge(one: Node, other: Node, core_ms: int, kind: str, aside: float = 0.0) -> Edge:
    """A line, ``aside`` from the middle so that both directions are seen; a tenth of the work is a step thinner."""
    length = max(1.0, ((other.x - one.x) ** 2 + (other.y - one.y) ** 2) ** 0.5)
    dx, dy = -(other.y - one.y) / length * aside, (other.x - one.x) / length * aside
    width = min(6.0, max(1.0, log10(max(1, core_ms)) - 2))
    return Edge(one.x + dx, one.y + dy, other.x + dx, other.y + dy, width, kind)
