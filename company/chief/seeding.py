"""Fragment path 4/9 - one job matched as the papers say: `--matching seed` (pure).

`SeedRound` keeps the papers' books; here it is asked by one slot at a time, and holds the batches themselves. The queues lie on
the chief: a slot is sent the next batch of its own queue when it has room. Measured: 2.5-3.2 × the lower bound with one slow worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from company.chief.again import Batch
from company.chief.leases import SlotKey
from company.chief.matcher import SeedRound


class Seeding:
    """The rounds of one job."""

    def __init__(self) -> None:
        self._round: SeedRound[SlotKey, int] = SeedRound()
        self._batches: dict[int, Batch] = {}  # queued or cached
        self._slots: set[SlotKey] = set()
        self._number = 0

    @property
    def held(self) -> int:
        """Batches that were cut and not yet sent."""
        return len(self._batches)

    def batches(self) -> Iterator[Batch]:
        """All of them."""
        return iter(tuple(self._batches.values()))

    def keep_only(self, slots: set[SlotKey]) -> None:
        """Slots that left: what they had in their queues is matched again."""
        for slot in sorted(self._slots - slots):
            self._round.remove_slot(slot)
        self._slots &= slots

    def next_for(
        self, slot: SlotKey, *, is_idle: bool, make: Callable[[], Batch | None], speeds: Callable[[], Mapping[SlotKey, float]]
    ) -> tuple[Batch | None, frozenset[SlotKey]]:
        """The batch to send to this slot, and other slots whose queues a round has just filled."""
        self._slots.add(slot)
        self._round.add_slot(slot)
        if slot in self._round.starting:
            first = make()
            self._round.on_started(slot)
            if first is not None:
                return first, frozenset()
            # nothing fresh: it takes part in the rounds that empty the cache, as if it had answered
        number = self._round.pop(slot)
        filled: frozenset[SlotKey] = frozenset()
        if number is None and is_idle:
            wanted = self._round.on_answer(slot)
            if wanted is not None:
                filled = self._begin_round(wanted, make, speeds())
                number = self._round.pop(slot)
        return (None if number is None else self._batches.pop(number)), filled - {slot}

    def _begin_round(self, wanted: int, make: Callable[[], Batch | None], speeds: Mapping[SlotKey, float]) -> frozenset[SlotKey]:
        fresh: list[tuple[int, float]] = []
        while len(fresh) < wanted and (batch := make()) is not None:
            self._number += 1
            self._batches[self._number] = batch
            fresh.append((self._number, float(batch.size_bytes)))
        return frozenset(self._round.match(speeds, fresh))
