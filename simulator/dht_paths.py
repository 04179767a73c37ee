"""Look-ups over d disjoint paths among adversaries (pure).

Each path asks one node at a time, the closest to the target that it knows and that no path has asked. An adversary returns only its
colluders, so a path that asks one is lost; the look-up succeeds when one path reaches the target. Where paths meet nobody twice, their
fates are independent: P(success) = 1 − Π_j (1 − (1−m)^i_j) for paths that ask i_j nodes, m the share of adversaries.

Source: Baumgart, Mies 2007, "S/Kademlia", sections 4.4 and 5 (the closed form over one distribution of path lengths).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from simulator.chance import Words, seed_word, uniform
from simulator.dht_hops import BATCH, pairs
from simulator.dht_search import neighbours
from simulator.dht_tables import LOW, NONE, Ints, Tables

MAX_ROUNDS: Final = 24
UNFINISHED: Final = -1


@dataclass(frozen=True, slots=True)
class Paths:
    """What came of look-ups: success, and how many nodes each path asked, shape (lookups, d); -1 = it never arrived."""

    is_success: npt.NDArray[np.bool_]
    lengths: Ints
    messages: Ints


def disjoint_lookups(tables: Tables, *, paths: int, adversaries: float, lookups: int, seed: int, batch: int = BATCH // 2) -> Paths:
    """Run look-ups for nodes over ``paths`` disjoint paths; with no adversaries this measures the lengths."""
    parts = [
        _advance(tables, paths, adversaries, seed, *pairs(tables, min(batch, lookups - first), seed, first=first))
        for first in range(0, lookups, batch)
    ]
    return Paths(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("is_success", "lengths", "messages")))


def _advance(tables: Tables, paths: int, adversaries: float, seed: int, requester: Words, target: Words) -> Paths:
    count, bad_key = len(target), seed_word(seed, "adversaries")
    own = neighbours(tables, requester ^ target, target, tables.k)
    lists = [np.full((count, tables.k), NONE) for _ in range(paths)]
    for path in range(paths):
        lists[path][:, : len(own[0, path::paths])] = own[:, path::paths]
    used = np.full((count, paths * MAX_ROUNDS), NONE)
    asked = np.zeros((count, paths), dtype=np.int64)
    lengths = np.full((count, paths), UNFINISHED)
    is_open = np.ones((count, paths), dtype=bool)
    lengths[own[:, 0] == 0] = 0  # in the requester's own table: nobody is asked
    is_open[own[:, 0] == 0] = False
    for turn in range(MAX_ROUNDS):
        for path in range(paths):
            rows = np.flatnonzero(is_open[:, path])
            if not len(rows):
                continue
            row, contact = _next(lists[path], used, rows)
            is_open[np.setdiff1d(rows, row, assume_unique=True), path] = False  # a dead end
            used[row, turn * paths + path] = contact
            asked[row, path] += 1
            is_bad = uniform(bad_key, contact ^ target[row]) < adversaries
            is_open[row[is_bad], path] = False
            row, contact = row[~is_bad], contact[~is_bad]
            answers = neighbours(tables, contact, target[row], tables.k)
            arrived = answers[:, 0] == 0
            lengths[row[arrived], path] = asked[row[arrived], path]
            is_open[row[arrived], path] = False
            lists[path][row] = _merged(lists[path][row], answers)
        if not is_open.any():
            break
    return Paths((lengths != UNFINISHED).any(axis=1), lengths, asked.sum(axis=1))


def _next(known: Words, used: Words, rows: Ints) -> tuple[Ints, Words]:
    """For each row the closest contact that no path has asked; rows without one are left out."""
    chosen = np.full(len(rows), NONE)
    todo = np.arange(len(rows))
    for place in range(known.shape[1]):
        candidate = known[rows[todo], place]
        is_new = (used[rows[todo]] != candidate[:, None]).all(axis=1) & (candidate != NONE)
        chosen[todo[is_new]] = candidate[is_new]
        todo = todo[~is_new]
        if not len(todo):
            break
    found = chosen != NONE
    return rows[found], chosen[found]


def _merged(known: Words, answers: Words) -> Words:
    both = np.sort(np.concatenate((known, answers), axis=1), axis=1)
    again = np.zeros(both.shape, dtype=bool)
    again[:, 1:] = ((both[:, 1:] ^ both[:, :-1]) & ~LOW) == 0
    both[again] = NONE
    both.sort(axis=1)
    return both[:, : known.shape[1]]


def predicted_success(lengths: Ints, adversaries: float) -> float:
    """The closed form over measured lengths: the mean of 1 − Π_j (1 − (1−m)^i_j); a path that never arrives does not help."""
    arrives = np.where(lengths == UNFINISHED, 0.0, (1.0 - adversaries) ** np.maximum(lengths, 0))
    return float(np.mean(1.0 - np.prod(1.0 - arrives, axis=1)))


def published_success(lengths: Ints, adversaries: float, paths: int) -> float:
    """The published form: Σ_i h_i (1 − (1 − (1−m)^i)^d) with h from single paths."""
    arrives = (1.0 - adversaries) ** lengths[lengths != UNFINISHED]
    return float(np.mean(1.0 - (1.0 - arrives) ** paths))
