"""Hop counts in the setting of the literature: static network, the target is a node, rounds of alpha queries for beta contacts (pure).

All lookups advance one round per numpy call. Hop 1 = the requester's own table has the target; each round asks the alpha closest contacts
that the last round brought, each answers with its beta closest to the target.

Source: Roos, Salah, Strufe 2015, "Determining the hop count in Kademlia-type systems" (ICCCN), whose Markov model the numbers are held to.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from simulator.chance import Words, seed_word, words
from simulator.dht_tables import NONE, Ints, Tables

MAX_HOPS: Final = 64
BATCH: Final = 4096  # lookups advanced together: what fits into the processor's second cache; results do not depend on it


def pairs(tables: Tables, lookups: int, seed: int, *, first: int = 0) -> tuple[Words, Words]:
    """Requester and target of lookups ``first …``: two different nodes, by counter."""
    numbers = np.arange(first, first + lookups)
    n = np.uint64(len(tables.ids))
    who = words(seed_word(seed, "requester"), numbers) % n
    other = (who + np.uint64(1) + words(seed_word(seed, "target"), numbers) % (n - np.uint64(1))) % n
    return tables.ids[who.astype(np.int64)], tables.ids[other.astype(np.int64)]


def closest_distinct(candidates: Words, count: int) -> Words:
    """The ``count`` smallest different values of each column, ascending, `NONE` where there are fewer."""
    rows = candidates if len(candidates) <= 4 * count else np.partition(candidates, 4 * count - 1, axis=0)[: 4 * count]
    rows = np.sort(rows, axis=0)
    again = np.zeros(rows.shape, dtype=bool)
    again[1:] = rows[1:] == rows[:-1]
    if again.any():
        rows[again] = NONE
        rows.sort(axis=0)
    return rows[:count]


def hop_counts(tables: Tables, *, alpha: int, beta: int, lookups: int, seed: int, batch: int = BATCH) -> tuple[Ints, Ints]:
    """Hops and messages of each lookup; hops 0 = it never got there (a dead end, all answers known)."""
    hops, messages = np.zeros(lookups, dtype=np.int64), np.zeros(lookups, dtype=np.int64)
    for first in range(0, lookups, batch):
        count = min(batch, lookups - first)
        requester, target = pairs(tables, count, seed, first=first)
        hops[first : first + count], messages[first : first + count] = _advance(tables, requester, target, alpha, beta)
    return hops, messages


def _advance(tables: Tables, requester: Words, target: Words, alpha: int, beta: int) -> tuple[Ints, Ints]:
    hops, messages = np.zeros(len(target), dtype=np.int64), np.zeros(len(target), dtype=np.int64)
    active = np.arange(len(target))
    front = closest_distinct(tables.contacts(requester ^ target, target), alpha)
    for hop in range(1, MAX_HOPS):
        done = front[0] == 0
        hops[active[done]] = hop
        keep = ~done & (front[0] != NONE)
        active, front = active[keep], front[:, keep]
        if not len(active):
            break
        row, column = np.nonzero(front != NONE)
        messages[active] += np.bincount(column, minlength=len(active))
        answers = tables.contacts(front[row, column], target[active[column]])
        best = answers.min(axis=0, keepdims=True) if beta == 1 else np.sort(np.partition(answers, beta - 1, axis=0)[:beta], axis=0)
        received = np.full((alpha * beta, len(active)), NONE)
        for b in range(len(best)):
            received[row * beta + b, column] = best[b]
        front = closest_distinct(received, alpha)
    return hops, messages
