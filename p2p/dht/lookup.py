"""Which node to ask next: an iterative look-up over disjoint paths, without rounds (pure).

Every path begins at its own contacts and learns only from answers to its own questions; a node is asked once, by the path that came to it
first. So one liar on one path leads that path astray, not the others. At most ``alpha`` requests count as in flight; one that is past its
retransmission time no longer counts (hedging), so dead nodes cost no waiting. The look-up ends when every path, and then the union of all,
has answers from its nearest ``width`` (a read: from its nearest ``resiliency``, once something was found).

Source: Maymounkov, Mazieres 2002; disjoint paths: Baumgart, Mies 2007, section 4.4.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable

NEW, ASKED, SLOW, ANSWERED, FAILED = range(5)
LEARNT_PER_PATH = 160  # candidates kept per path, the nearest


class Lookup:
    """State of one look-up. Nodes are named by their distance to the target."""

    __slots__ = ("_alpha", "_at", "_flying", "_left", "_own", "_path_of", "_paths", "_state", "_turn", "resiliency", "target", "width")

    def __init__(
        self,
        target: int,
        own_id: int,
        seeds: Iterable[tuple[int, bytes]],
        *,
        width: int,
        alpha: int,
        paths: int,
        resiliency: int,
        queries: int,
    ) -> None:
        self.target = target
        self.width = width
        self.resiliency = resiliency
        self._own = own_id ^ target
        self._alpha = alpha
        self._left = queries
        self._state: dict[int, int] = {}
        self._at: dict[int, bytes] = {}
        self._path_of: dict[int, int] = {}
        self._flying = 0
        self._turn = 0
        self._paths: list[list[int]] = [[] for _ in range(paths)]
        for n, (id_, at) in enumerate(seeds):
            self._learn(id_ ^ target, at, n % paths)

    def _learn(self, distance: int, at: bytes, path: int) -> None:
        if distance == self._own:
            return
        known = self._paths[path]
        if distance not in self._state:
            self._state[distance] = NEW
            self._at[distance] = at
        elif distance in known:
            return
        insort(known, distance)
        if len(known) > LEARNT_PER_PATH:
            dropped = known.pop()
            if self._state.get(dropped) == NEW and not any(dropped in p for p in self._paths):
                del self._state[dropped], self._at[dropped]

    def next_queries(self) -> list[tuple[int, bytes]]:
        """(node id, packed address) of those to ask now; they count as asked."""
        asked: list[tuple[int, bytes]] = []
        idle = 0
        paths = len(self._paths)
        while self._flying < self._alpha and self._left > 0 and idle < paths:
            path = self._turn % paths
            self._turn += 1
            distance = self._next_of(self._paths[path])
            if distance is None:
                idle += 1
                continue
            idle = 0
            self._ask(distance, path, asked)
        if idle >= paths:
            for distance in self._nearest(sorted(self._state), self.width):  # the paths are through: what is left of the union
                if self._state[distance] == NEW and self._flying < self._alpha and self._left > 0:
                    self._ask(distance, 0, asked)
        return asked

    def _ask(self, distance: int, path: int, asked: list[tuple[int, bytes]]) -> None:
        self._state[distance] = ASKED
        self._path_of[distance] = path
        self._flying += 1
        self._left -= 1
        asked.append((distance ^ self.target, self._at[distance]))

    def _next_of(self, path: list[int]) -> int | None:
        """The nearest of a path not yet asked, among those that decide whether it is through."""
        state = self._state
        decisive = 0
        for distance in path:
            now = state[distance]
            if now == NEW:
                return distance
            if now in (ASKED, ANSWERED):
                decisive += 1
                if decisive >= self.width:
                    return None
        return None

    def _nearest(self, distances: Iterable[int], count: int) -> list[int]:
        found: list[int] = []
        for distance in distances:
            if self._state[distance] != FAILED:
                found.append(distance)
                if len(found) == count:
                    break
        return found

    def on_answer(self, id_: int, contacts: Iterable[tuple[int, bytes]]) -> None:
        """A node answered; ``contacts`` is what it knows."""
        distance = id_ ^ self.target
        was = self._state.get(distance)
        if was not in (ASKED, SLOW):
            return
        self._flying -= was == ASKED
        self._state[distance] = ANSWERED
        path = self._path_of[distance]
        for other, at in contacts:
            self._learn(other ^ self.target, at, path)

    def on_slow(self, id_: int) -> None:
        """A node's answer is late."""
        if self._state.get(id_ ^ self.target) == ASKED:
            self._state[id_ ^ self.target] = SLOW
            self._flying -= 1

    def on_failure(self, id_: int) -> None:
        """A node did not answer."""
        distance = id_ ^ self.target
        was = self._state.get(distance)
        if was in (ASKED, SLOW):
            self._flying -= was == ASKED
            self._state[distance] = FAILED

    def is_through(self, *, has_found: bool = False) -> bool:
        """Whether nothing that could change the outcome is left to ask or to wait for."""
        if self._left <= 0 and not self._flying:
            return True
        state = self._state
        count = self.resiliency if has_found else self.width
        if has_found:
            for path in self._paths:
                if any(state[d] != ANSWERED for d in self._nearest(path, count)):
                    return False
        return all(state[d] == ANSWERED for d in self._nearest(sorted(state), count))

    def is_near(self, id_: int) -> bool:
        """Whether a node is among the nearest that have not failed."""
        return id_ ^ self.target in self._nearest(sorted(self._state), self.width)

    def answered(self, count: int) -> list[int]:
        """Ids of the nearest that answered."""
        return [d ^ self.target for d in sorted(self._state) if self._state[d] == ANSWERED][:count]

    def count(self, *states: int) -> int:
        """How many nodes are in these states."""
        return sum(s in states for s in self._state.values())
