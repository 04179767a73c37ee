"""Fragment path 3/9 - cut the array of pending sizes into batches (pure).

A batcher is asked for the length of the next batch, taken from the front of what is pending, and is told what finished
batches took. Work is done per batch, or in numpy on size arrays, never in Python per fragment.

Source: the √n window is from the Parallel papers (P12). Adaptive: Polychronopoulos, Kuck 1987 (guided self-scheduling:
remaining work over the processors); Hummel, Schonberg, Flynn 1992 (factoring: a part of that at a time). Constants measured, see below.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from p2p.base.frames import Sizes

Costs = npt.NDArray[np.floating[Any]]  # declared cost of each pending fragment, any unit, >= 0
Kind = Literal["adaptive", "sqrt-window", "none"]

MAX_BATCH_BYTES = 4 << 20  # what is inlined in the channel; a larger fragment goes alone, its payload by itself
MAX_BATCH_COUNT = 200_000  # below frames.MAX_COUNT; 20,000 reached 1.9 million fragments/s, more brings nothing
START_OVERHEAD_US = 700.0  # c before it is measured: the middle of 0.4-1.1 ms (research/feasibility.md)
OVERHEAD_SHARE = 0.005  # c may be half a per cent of a batch's run time; at 2 % only 0.95 of ideal was reached
MIN_FULL_US = 200_000.0  # batches of 100-250 ms reached 0.964-0.975 of ideal, 20 ms ones 0.92
MIN_BATCH_US = 5_000.0  # shorter ones at a job's end cost more than the wait of the other slots that they spare
TAIL_PARTS = 4  # a batch is at most a quarter of one slot's share of what remains
GROWTH = 8  # a batch is at most this many times the longest one seen to finish: the first fragments may not be typical
GAIN = 1 / 8  # weight of the newest batch; Jacobson 1988's gain for a smoothed round trip
CORRELATED = 0.5  # above it, time is predicted per byte
MIN_FOR_CORRELATION = 8  # batches; fewer give correlations by luck


class Batcher(Protocol):
    """Decides how many pending fragments make the next batch."""

    def next_batch(self, sizes: Sizes, costs: Costs | None, remaining: int | None, slots: int, rate_scale: float = 1.0) -> int:
        """Return the length of the next batch; the caller takes exactly that many from the front of ``sizes``.

        ``sizes``: uint32, shape (n,), all pending fragments from the first not yet in a batch, bytes. ``costs``: same shape, or None.
        ``remaining``: fragments not yet in a batch, produced or not; None while ``split`` may go on. ``rate_scale``: speed of the
        slot this is for, 1 = average. 0 means: wait until more is pending; never when ``len(sizes) == remaining > 0``.
        """

    def observe(self, count: int, size_bytes: int, cost: float | None, run_us: float) -> None:
        """Learn what a finished batch, or part of one, took."""


class RateModel:
    """How long fragments of one job take: per declared cost, else per byte where size and time correlate, else per fragment."""

    def __init__(self) -> None:
        self._batches = 0
        self._run_us = self._count = self._bytes = 0.0
        self._cost = self._cost_run_us = 0.0
        # Weighted mean, variance and covariance of a batch's (bytes per fragment, time per fragment), Welford 1962 with a fixed gain.
        self._mean_x = self._mean_y = self._var_x = self._var_y = self._cov = 0.0

    @property
    def batches(self) -> int:
        """How many observations there were."""
        return self._batches

    def observe(self, count: int, size_bytes: int, cost: float | None, run_us: float) -> None:
        """Learn one finished batch. Nonsense (no fragments, negative or infinite numbers) is ignored: it comes from a worker."""
        if count < 1 or not (0 <= run_us < math.inf) or not (0 <= size_bytes < math.inf):
            return
        keep = 1 - GAIN
        self._run_us = keep * self._run_us + run_us
        self._count = keep * self._count + count
        self._bytes = keep * self._bytes + size_bytes
        if cost is not None and 0 < cost < math.inf:
            self._cost = keep * self._cost + cost
            self._cost_run_us = keep * self._cost_run_us + run_us
        self._batches += 1
        gain = max(GAIN, 1 / self._batches)
        dx, dy = size_bytes / count - self._mean_x, run_us / count - self._mean_y
        self._mean_x += gain * dx
        self._mean_y += gain * dy
        self._var_x = (1 - gain) * (self._var_x + gain * dx * dx)
        self._var_y = (1 - gain) * (self._var_y + gain * dy * dy)
        self._cov = (1 - gain) * (self._cov + gain * dx * dy)

    @property
    def correlation(self) -> float:
        """Pearson's correlation of size and time over recent batches; 0 when one of them does not vary or data are few."""
        spread = self._var_x * self._var_y
        return self._cov / math.sqrt(spread) if self._batches >= MIN_FOR_CORRELATION and spread > 0 else 0.0

    @property
    def us_per_fragment(self) -> float | None:
        """Mean run time of one fragment; None before the first result."""
        return self._run_us / self._count if self._batches else None

    @property
    def us_per_byte(self) -> float | None:
        """Mean run time per byte where sizes explain times, else None."""
        return self._run_us / self._bytes if self._bytes > 0 and self.correlation > CORRELATED else None

    @property
    def us_per_cost(self) -> float | None:
        """Mean run time per unit of declared cost; None when none was declared yet."""
        return self._cost_run_us / self._cost if self._cost > 0 else None

    def predict_us(self, count: int, size_bytes: int, cost: float | None = None) -> float | None:
        """Expected run time of a batch on an average slot; None before the first result."""
        if cost is not None and self.us_per_cost is not None:
            return cost * self.us_per_cost
        if self.us_per_byte is not None:
            return size_bytes * self.us_per_byte
        return None if self.us_per_fragment is None else count * self.us_per_fragment


class Adaptive:
    """The default: batches long enough that messages cost nothing, short enough that the tail stays short."""

    def __init__(self) -> None:
        self.model = RateModel()
        self.overhead_us = START_OVERHEAD_US
        self._probes = 0
        self._longest = 0

    def observe(self, count: int, size_bytes: int, cost: float | None, run_us: float) -> None:
        """Learn what a finished batch, or part of one, took."""
        self.model.observe(count, size_bytes, cost, run_us)
        self._longest = max(self._longest, count)

    def observe_overhead(self, overhead_us: float) -> None:
        """Learn c: what a batch cost besides its run time (round trip + child wake-up), microseconds."""
        if 0 <= overhead_us < math.inf:
            self.overhead_us += GAIN * (overhead_us - self.overhead_us)

    def next_batch(self, sizes: Sizes, costs: Costs | None, remaining: int | None, slots: int, rate_scale: float = 1.0) -> int:
        """Return the length of the next batch (see `Batcher`)."""
        if len(sizes) == 0:
            return 0
        at_most = min(len(sizes), MAX_BATCH_COUNT)
        per_fragment = self.model.us_per_fragment
        if per_fragment is None:
            # One round of single fragments, then 2 each, 4 each …: a slot holds two batches, so results come before this grows.
            probe = 1 << min(20, self._probes // max(1, slots))
            self._probes += 1
            share = probe if remaining is None else min(probe, remaining // (TAIL_PARTS * max(1, slots)))
            return within(sizes, MAX_BATCH_BYTES, min(at_most, max(1, share)))
        left_us = None if remaining is None else remaining * per_fragment
        target_us = duration_us(self.overhead_us, left_us, slots) * max(0.01, rate_scale)
        at_most = min(at_most, max(1, GROWTH * self._longest))
        if costs is not None and self.model.us_per_cost:
            at_most = within(costs, target_us / self.model.us_per_cost, at_most)
        elif self.model.us_per_byte:
            at_most = within(sizes, target_us / self.model.us_per_byte, at_most)
        elif per_fragment > 0:
            at_most = int(max(1, min(at_most, target_us / per_fragment)))
        return within(sizes, MAX_BATCH_BYTES, at_most)


def duration_us(overhead_us: float, left_us: float | None, slots: int) -> float:
    """How long the next batch should run: max(2c, 5 ms, min(max(c/0.005, 200 ms), left/(4·slots))); left None = unknown.

    Source: algorithms page, Batching; guided self-scheduling divides by the processors, factoring halves that again.
    """
    full = max(overhead_us / OVERHEAD_SHARE, MIN_FULL_US)
    return max(2 * overhead_us, MIN_BATCH_US, full if left_us is None else min(full, left_us / (TAIL_PARTS * max(1, slots))))


class SqrtWindow:
    """The papers' rule: a batch closes when its total reaches the largest of the last ⌊√n⌋ sizes before the current fragment.

    n counts the fragments before the current one, so the first closes its own batch. The papers claim n/e batches for any input; that holds
    for uniform sizes (0.376 of n at n = 20,000, against 0.368), not for exponential (0.174), lognormal (0.131) or constant ones (1.0).
    Not in the papers: a batch also closes before it passes `MAX_BATCH_BYTES` or `MAX_BATCH_COUNT`.
    """

    def __init__(self) -> None:
        self._seen = 0  # fragments cut into batches, handed out or in _cuts
        self._history: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)  # the last ⌊√seen⌋ of them
        self._cuts: deque[int] = deque()  # lengths of batches found and not yet handed out

    def observe(self, count: int, size_bytes: int, cost: float | None, run_us: float) -> None:
        """Do nothing: this rule looks at sizes alone."""

    def next_batch(self, sizes: Sizes, costs: Costs | None, remaining: int | None, slots: int, rate_scale: float = 1.0) -> int:
        """Return the length of the next batch, 0 while the open one may still grow (see `Batcher`)."""
        look = 1024  # fragments to look ahead; doubled while no batch closes, so that each is looked at about twice at most
        while not self._cuts and len(sizes):
            self._cut(sizes[:look])
            if look >= len(sizes):
                break
            look *= 2
        if not self._cuts and len(sizes) and remaining is not None and len(sizes) >= remaining:
            self._take(sizes.astype(np.int64), [len(sizes)])  # the last batch of the job closes with what there is
        return self._cuts.popleft() if self._cuts else 0

    def _cut(self, sizes: Sizes) -> None:
        new = sizes.astype(np.int64)
        together = np.concatenate((self._history, new))
        total = np.cumsum(new)
        reach = total - window_maxima(together, len(self._history), self._seen)
        start, base, lengths = 0, 0, []
        while start < len(new):
            fits = max(1, int(np.searchsorted(total, base + MAX_BATCH_BYTES, side="right")) - start)
            end = start + min(fits, MAX_BATCH_COUNT)
            closes = _first_at_least(reach, base, start, end)
            if closes is None and end >= len(new):
                break  # still open: it is looked at again when more has come
            stop = end if closes is None else closes + 1
            lengths.append(stop - start)
            start, base = stop, int(total[stop - 1])
        self._take(new, lengths)

    def _take(self, sizes: npt.NDArray[np.int64], lengths: list[int]) -> None:
        taken = sum(lengths)
        self._cuts.extend(lengths)
        self._seen += taken
        together = np.concatenate((self._history, sizes[:taken]))
        self._history = together[len(together) - math.isqrt(self._seen) :]


class OneByOne:
    """`--batching none`: every fragment travels alone."""

    def observe(self, count: int, size_bytes: int, cost: float | None, run_us: float) -> None:
        """Do nothing."""

    def next_batch(self, sizes: Sizes, costs: Costs | None, remaining: int | None, slots: int, rate_scale: float = 1.0) -> int:
        """Return 1 while anything is pending."""
        return min(1, len(sizes))


def new_batcher(kind: Kind) -> Batcher:
    """The batcher of a job's ``--batching`` option."""
    if kind == "sqrt-window":
        return SqrtWindow()
    return OneByOne() if kind == "none" else Adaptive()


def within(weights: npt.NDArray[Any], limit: float, at_most: int) -> int:
    """Return the largest k <= at_most whose first k weights add up to at most ``limit``, but at least 1.

    Looks at pieces that double, so that a short answer from a long array costs little.
    """
    position, total, look = 0, 0.0, 1024
    while position < at_most:
        piece = weights[position : min(at_most, position + look)]
        piece_total = float(piece.sum(dtype=np.float64))
        if not total + piece_total <= limit:
            return max(1, position + _fitting(piece, limit - total))
        position, total, look = position + len(piece), total + piece_total, look * 2
    return max(1, at_most)


def _fitting(weights: npt.NDArray[Any], room: float) -> int:
    """How many of these fit into ``room``: block by block, then inside one block (a running sum is 15 times slower than a sum)."""
    block = 512
    if len(weights) > block:
        sums = np.cumsum(np.add.reduceat(weights, np.arange(0, len(weights), block), dtype=np.float64))
        full = min(int(np.searchsorted(sums, room, side="right")), len(sums) - 1)
        room -= float(sums[full - 1]) if full else 0.0
        return full * block + _fitting(weights[full * block : (full + 1) * block], room)
    return int(np.searchsorted(np.cumsum(weights, dtype=np.float64), room, side="right"))


def window_maxima(sizes: npt.NDArray[np.int64], start: int, seen: int) -> npt.NDArray[np.int64]:
    """Return for each of ``sizes[start:]`` the largest of the ⌊√n⌋ sizes before it, n = ``seen`` + its place; 0 for n = 0.

    ``sizes[:start]`` are the last fragments seen, at least ⌊√seen⌋ of them. A maximum over any window is the larger of two
    overlapping windows whose width is a power of two (sparse table; Bender, Farach-Colton 2000), so this is log(√n) vector steps.
    """
    new = len(sizes) - start
    result = np.zeros(new, dtype=np.int64)
    width = np.sqrt(np.arange(seen, seen + new, dtype=np.float64)).astype(np.int64)
    place = np.arange(start, start + new)
    table, power = sizes, 1  # table[i] = max(sizes[i : i + power])
    while new and power <= width[-1]:
        low, high = np.searchsorted(width, (power, 2 * power))
        left, right = place[low:high] - width[low:high], place[low:high] - power
        result[low:high] = np.maximum(table[left], table[right])
        table = np.maximum(table[:-power], table[power:]) if 2 * power <= width[-1] else table
        power *= 2
    return result


def _first_at_least(values: npt.NDArray[np.int64], bound: int, start: int, end: int) -> int | None:
    """The first place in ``start..end`` whose value is at least ``bound``; looks at pieces that double."""
    look = 32
    while start < end:
        hits = values[start : min(end, start + look)] >= bound
        at = int(hits.argmax())
        if hits[at]:
            return start + at
        start, look = start + look, look * 4
    return None
