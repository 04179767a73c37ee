"""Contract path 5/8 - which own workers give how many slots to a contract (pure).

The ledger has promised a number of slots; here they become slots of machines. A worker gives its last slots, idle ones first; one that
leaves is replaced by others that have some to spare. Own work is never killed for a guest: what runs on a slot finishes.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2p.base.record import record

ISOLATED = "bubblewrap"  # a stranger's code runs on no other rung


@record
class Spare:
    """One own worker. ``free``: slots that are not lent; ``idle``: of those, how many run nothing."""

    worker: str
    isolation: str
    free: int
    idle: int


@record
class Place:
    """So many slots of this worker."""

    worker: str
    slots: int


def places_for(wanted: int, workers: Iterable[Spare]) -> list[Place]:
    """Where ``wanted`` more slots come from: as few workers as will do, the idlest first; fewer when there are no more."""
    able = [w for w in workers if w.isolation == ISOLATED and w.free > 0]
    places: list[Place] = []
    for spare in sorted(able, key=lambda w: (-w.idle, -w.free, w.worker)):
        if wanted <= 0:
            break
        count = min(wanted, spare.free)
        places.append(Place(spare.worker, count))
        wanted -= count
    return places
