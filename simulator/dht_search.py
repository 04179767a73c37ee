"""Look-ups as the product does them, a hundred thousand at a time: sliding window, dead contacts, loss, time-outs, hedging (pure).

Each call of numpy lets the next thing happen in every look-up: an answer, a time-out, or a query that is so late that it no longer counts
against the window. A look-up's list of contacts is one row of 64-bit words: 56 bits of distance, 2 of state, 6 of depth; sorting the row
sorts by distance and puts what is known before its duplicates.

Near the key a node is taken to know everybody: its buckets there are not full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from simulator.chance import Floats, Words, seed_word, uniform, words
from simulator.dht_hops import pairs
from simulator.dht_tables import LOW, NONE, Ints, Tables, shared_bits
from simulator.network import coordinates

_ANSWERED, _FLYING, _FAILED, _FRESH = (np.uint64(s << 6) for s in range(4))
_STATE: Final = np.uint64(3 << 6)
_DEPTH: Final = np.uint64(63)
_INF: Final = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How look-ups go. ``resiliency``: how many of the closest must have answered before a look-up for a key ends."""

    alpha: int
    resiliency: int
    target: Literal["node", "key"] = "key"
    dead: float = 0.0  # share of contacts that do not answer
    loss: float = 0.0  # share of packets lost, each way
    timeout_s: float = 1.0
    retransmits: int = 1
    hedge_s: float = 0.5  # a query older than this frees its place in the window; its answer still counts
    reply: int = 0  # contacts per answer; 0 = k


@dataclass(slots=True)
class Found:
    """What look-ups came to, one entry each."""

    is_success: npt.NDArray[np.bool_]
    hops: Ints
    messages: Ints
    latency_s: Floats
    recall: Floats


class _Batch:
    """Look-ups in progress, one row each."""

    def __init__(self, tables: Tables, search: Search, seed: int, first: int, count: int) -> None:
        self.tables, self.search, self.seed = tables, search, seed
        self.requester, self.target = pairs(tables, count, seed, first=first)
        self.number = np.arange(first, first + count)
        if search.target == "key":
            self.target = words(seed_word(seed, "key"), self.number) & ~LOW
        self.reply = search.reply or tables.k
        self.length = 3 * tables.k
        self.window = 3 * search.alpha
        self.row = np.arange(count)
        self.now = np.zeros(count)
        self.sent = np.zeros(count, dtype=np.int64)
        self.place = coordinates(seed, self.requester)
        self.flying = np.full((count, self.window), NONE)
        self.due = np.full((count, self.window), _INF)
        self.hedge = np.full((count, self.window), _INF)
        self.fails = np.zeros((count, self.window), dtype=bool)  # whether the query in flight will never be answered
        self.list = np.full((count, self.length), NONE)
        own = neighbours(tables, self.requester ^ self.target, self.target, tables.k)
        self._merge(self.row, own, np.zeros(count, dtype=np.uint64))

    def keep(self, which: npt.NDArray[np.bool_]) -> None:
        """Forget look-ups that have ended."""
        for name in ("requester", "target", "number", "now", "sent", "flying", "due", "hedge", "fails", "list"):
            setattr(self, name, getattr(self, name)[which])
        self.place = tuple(part[which] for part in self.place)  # type: ignore[assignment]
        self.row = np.arange(len(self.now))

    def _merge(self, rows: Ints, distances: Words, depth: Words) -> None:
        """Put new contacts (already closest first, `NONE` where none) into lists."""
        marked = np.where(distances == NONE, NONE, distances | _FRESH | depth[:, None])
        both = np.concatenate((self.list[rows], marked), axis=1)
        both.sort(axis=1)
        again = np.zeros(both.shape, dtype=bool)
        again[:, 1:] = ((both[:, 1:] ^ both[:, :-1]) & ~LOW) == 0
        both[again] = NONE
        both.sort(axis=1)
        self.list[rows] = both[:, : self.length]

    def fill(self) -> None:
        """Send queries while the window has room and there is somebody to ask."""
        search = self.search
        while True:
            in_window = (self.hedge < _INF).sum(axis=1)
            is_fresh = ((self.list & _STATE) == _FRESH) & (self.list != NONE)
            if search.target == "key":  # only the closest few decide when a look-up is through: nobody beyond them is asked
                is_alive = ((self.list & _STATE) != _FAILED) & (self.list != NONE)
                is_fresh &= np.cumsum(is_alive, axis=1) <= search.resiliency
            best = is_fresh.argmax(axis=1)
            free = (self.due == _INF).argmax(axis=1)
            rows = np.flatnonzero((in_window < search.alpha) & is_fresh[self.row, best] & (self.due[self.row, free] == _INF))
            if not len(rows):
                return
            slot, entry = free[rows], best[rows]
            contact = self.list[rows, entry]
            self.list[rows, entry] = (contact & ~_STATE) | _FLYING
            self.flying[rows, slot] = contact & ~_STATE
            takes, self.fails[rows, slot], packets = self._takes(rows, contact)
            self.due[rows, slot] = self.now[rows] + takes
            self.hedge[rows, slot] = self.now[rows] + search.hedge_s
            self.sent[rows] += packets

    def _takes(self, rows: Ints, contact: Words) -> tuple[Floats, npt.NDArray[np.bool_], Ints]:
        """Of each query: seconds until it is answered or given up, whether it is given up, and requests sent for it."""
        search = self.search
        node = (contact & ~LOW) ^ self.target[rows]
        ax, ay, ah = (part[rows] for part in self.place)
        bx, by, bh = coordinates(self.seed, node)
        trip = np.hypot(ax - bx, ay - by) + ah + bh
        patience = search.timeout_s * (search.retransmits + 1)
        lost = self._lost_tries(rows, node)
        takes = trip + lost * search.timeout_s
        fails = self.is_dead(node) | (takes > patience)
        packets = np.minimum(search.retransmits, lost + np.floor(trip / search.timeout_s).astype(np.int64)) + 1
        packets[fails] = search.retransmits + 1
        return np.where(fails, patience, takes), fails, packets

    def _lost_tries(self, rows: Ints, node: Words) -> Ints:
        if not self.search.loss:
            return np.zeros(len(rows), dtype=np.int64)
        arrives = (1 - self.search.loss) ** 2
        draw = uniform(seed_word(self.seed, "loss"), node, self.number[rows])
        return np.asarray(np.floor(np.log1p(-draw) / np.log1p(-arrives)), dtype=np.int64)

    def is_dead(self, node: Words) -> npt.NDArray[np.bool_]:
        """Whether a node is away: a function of the node alone."""
        return uniform(seed_word(self.seed, "dead"), node) < self.search.dead

    def pop(self) -> None:
        """Let the next thing happen in every look-up."""
        nearest = np.minimum(self.due, self.hedge)
        slot = nearest.argmin(axis=1)
        when = nearest[self.row, slot]
        rows = np.flatnonzero(when < _INF)
        slot = slot[rows]
        self.now[rows] = when[rows]
        is_hedge = self.due[rows, slot] > self.hedge[rows, slot]
        self.hedge[rows, slot] = _INF
        rows, slot = rows[~is_hedge], slot[~is_hedge]
        contact = self.flying[rows, slot]
        self.due[rows, slot] = _INF
        failed = self.fails[rows, slot]
        hit = ((self.list[rows] ^ contact[:, None]) & ~LOW) == 0
        at = hit.argmax(axis=1)
        known = hit[np.arange(len(rows)), at]
        state = np.where(failed, _FAILED, _ANSWERED)
        entry = self.list[rows[known], at[known]]
        self.list[rows[known], at[known]] = (entry & ~_STATE) | state[known]
        rows, contact = rows[~failed], contact[~failed]
        if len(rows):
            answers = neighbours(self.tables, contact & ~LOW, self.target[rows], self.reply)
            self._merge(rows, answers, np.minimum((contact & _DEPTH) + np.uint64(1), _DEPTH))

    def ended(self) -> npt.NDArray[np.bool_]:
        """Which look-ups are over: found, enough of the closest answered, or nobody is left to ask."""
        states = self.list & _STATE
        if self.search.target == "node":
            over = (self.list[:, 0] & ~LOW) == 0
        else:
            alive = (states != _FAILED) & (self.list != NONE)
            rank = np.cumsum(alive, axis=1)
            closest = alive & (rank <= self.search.resiliency)
            over = (closest & (states != _ANSWERED)).sum(axis=1) == 0
        idle = ~((self.due < _INF).any(axis=1) | (((states == _FRESH) & (self.list != NONE)).any(axis=1)))
        return np.asarray(over | idle)


def neighbours(tables: Tables, distance: Words, target: Words, count: int) -> Words:
    """What a node answers: the ``count`` contacts it knows closest to the target, shape (queries, count), closest first."""
    size = tables.bucket(distance, target)[1]
    out = np.full((len(distance), count), NONE)
    far = size >= count
    if far.any():
        found = tables.contacts(distance[far], target[far]).T
        if found.shape[1] > count:
            found = np.partition(found, count - 1, axis=1)[:, :count]
        out[far, : found.shape[1]] = np.sort(found, axis=1)
    if not far.all():
        near = np.flatnonzero(~far)
        out[near] = closest(tables, target[near], count, at_most_bits=shared_bits(distance[near]))
    return out


def closest(tables: Tables, target: Words, count: int, *, at_most_bits: Ints | None = None) -> Words:
    """The nodes closest to each target, as distances, shape (targets, count), closest first."""
    bits = np.minimum(np.full(len(target), tables.bits), tables.bits if at_most_bits is None else at_most_bits)
    while True:
        low = (target >> (np.uint64(64) - bits.astype(np.uint64) - (bits == 0))).astype(np.int64)
        low = np.where(bits == 0, 0, low) << (tables.bits - bits)
        first = tables.index[low].astype(np.int64)
        size = tables.index[low + (np.int64(1) << (tables.bits - bits))] - first
        few = (size < count) & (bits > 0)
        if not few.any():
            break
        bits = bits - few
    span = int(size.max(initial=0))
    place = first[:, None] + np.arange(span)
    found = np.where(np.arange(span) < size[:, None], tables.ids[np.minimum(place, len(tables.ids) - 1)] ^ target[:, None], NONE)
    found.sort(axis=1)
    if span < count:
        found = np.concatenate((found, np.full((len(target), count - span), NONE)), axis=1)
    return found[:, :count]


def search(tables: Tables, how: Search, *, lookups: int, seed: int, batch: int = 2048) -> Found:
    """Run look-ups from random nodes."""
    out = Found(
        np.zeros(lookups, dtype=bool),
        np.zeros(lookups, dtype=np.int64),
        np.zeros(lookups, dtype=np.int64),
        np.zeros(lookups),
        np.zeros(lookups),
    )
    for first in range(0, lookups, batch):
        work = _Batch(tables, how, seed, first, min(batch, lookups - first))
        while len(work.now):
            over = work.ended()
            if over.any():
                _note(out, work, over)
                work.keep(~over)
                continue
            work.fill()
            work.pop()
    return out


def _note(out: Found, work: _Batch, over: npt.NDArray[np.bool_]) -> None:
    at, rows, k = work.number[over], work.list[over], work.tables.k
    alive = ((rows & _STATE) != _FAILED) & (rows != NONE)
    out.messages[at] = work.sent[over]
    out.latency_s[at] = work.now[over]
    first = alive.argmax(axis=1)
    out.hops[at] = (rows[np.arange(len(rows)), first] & _DEPTH).astype(np.int64) + 1
    if work.search.target == "node":
        out.is_success[at] = (rows[:, 0] & ~LOW) == 0
        out.recall[at] = out.is_success[at]
        return
    target = work.target[over]
    truth = closest(work.tables, target, k if not work.search.dead else min(len(work.tables.ids), int(k / (1 - work.search.dead) * 2) + 8))
    truth[(truth == NONE) | work.is_dead(truth ^ target[:, None])] = NONE
    truth.sort(axis=1)
    truth = truth[:, :k]
    answered = np.where((rows & _STATE) == _ANSWERED, rows & ~LOW, NONE)
    usable = np.where(alive, rows & ~LOW, NONE)
    usable.sort(axis=1)
    out.recall[at] = _shared(truth, usable[:, :k]) / np.maximum(1, (truth != NONE).sum(axis=1))
    out.is_success[at] = _shared(truth, answered) > 0


def _shared(a: Words, b: Words) -> Ints:
    """How many values of each row of ``a`` stand in that row of ``b``."""
    both = np.sort(np.concatenate((a, b), axis=1), axis=1)
    return np.asarray(((both[:, 1:] == both[:, :-1]) & (both[:, 1:] != NONE)).sum(axis=1))
