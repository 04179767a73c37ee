"""Contract path 5/8 - how many checks one company must pass in one job before its results are believed (pure).

A check is one of the company's own answers, chosen at random after it came and computed again at home: nothing that a company is sent
tells it which fragments those will be. A share ``spot`` of all answers is checked; until enough checks are passed, idle time of the
check slot goes to more of them, out of a random reserve, so that a short job needs no more checks than it has fragments. One wrong
answer ends the trial: everything of that company in this job is computed again.
Source: Sarmenta 2002, section 4 (credibility of spot-checked workers); the numbers are `p2p.reputation.credibility`'s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import log, log1p
from pathlib import Path
from random import Random

from p2p.base.record import record
from p2p.reputation.checking import MOST_PASSED, Policy
from p2p.reputation.credibility import checks_needed

MAX_DUE, MAX_DUE_BYTES = 256, 32 << 20  # checks that wait for the check slot; with more its company waits too


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Spooled:
    """An input too large for memory, under a name of its own; whoever made the file removes it when nobody has this any more."""

    path: Path
    size: int


@record
class Answer:
    """One foreign answer with what it was computed from. ``large``: (size, digest) of a result that lies in a file."""

    fragment: int
    given: bytes | Spooled
    result: bytes
    large: tuple[int, bytes] | None = None

    @property
    def size_bytes(self) -> int:
        """In memory: what lies in files is bounded by the number of checks."""
        return (0 if isinstance(self.given, Spooled) else len(self.given)) + len(self.result)


def _skip(rng: Random, chance: float) -> int:
    """How many are passed over until one with this chance is drawn."""
    return 0 if chance >= 1 else int(log(1.0 - rng.random()) / log1p(-chance))


class Trial:
    """One company in one job. ``passed``: what it passed before, decayed."""

    def __init__(self, policy: Policy, rng: Random, *, passed: float = 0.0) -> None:
        self.policy = policy
        self.needed = checks_needed(policy.assumed_bad, policy.epsilon)
        self.passed = min(MOST_PASSED, passed)
        self.checked = 0  # in this job
        self.came = 0
        self.is_caught = False
        self._rng = rng
        self._due: deque[Answer] = deque()
        self._reserve: list[Answer] = []
        self._offered = 0  # answers that the reserve was drawn from
        self._weight = 1.0  # of the reserve's next replacement, and at which answer that is
        self._next = self.needed - 1
        self._running = 0
        self._due_bytes = 0

    def choose(self, fragments: int) -> tuple[list[int], list[int]]:
        """Which of the next ``fragments`` answers are checks, and which of them replace something in the reserve, by offset."""
        self.came += fragments
        rate, rng = self.policy.check_rate(self.passed), self._rng
        checks: list[int] = []
        at = _skip(rng, rate) if rate > 0 else fragments
        while at < fragments:
            checks.append(at)
            at += 1 + _skip(rng, rate)
        if self.passed >= self.needed:
            return checks, []
        before = [check - number for number, check in enumerate(checks)]  # how many that are no checks lie before each
        return checks, [place + bisect_right(before, place) for place in self._draw(fragments - len(checks))]

    def _draw(self, answers: int) -> list[int]:
        """Which of the next ``answers`` enter the reserve; work for those that do, not for each.

        Source: Li 1994, Reservoir-Sampling Algorithms of Time Complexity O(n(1 + log(N/n))), algorithm L.
        """
        first, self._offered = self._offered, self._offered + answers
        drawn = list(range(min(answers, max(0, self.needed - len(self._reserve)))))  # what checks have used up is filled again
        start = first + len(drawn)
        while self._next < self._offered:
            if self._next >= start:
                drawn.append(self._next - first)
            self._weight *= (1.0 - self._rng.random()) ** (1 / self.needed)
            self._next += 1 + _skip(self._rng, self._weight)
        return drawn

    def add(self, checks: Iterable[Answer], spare: Iterable[Answer]) -> None:
        """Take what was chosen."""
        for answer in checks:
            self._due.append(answer)
            self._due_bytes += answer.size_bytes
        for answer in spare:
            if len(self._reserve) < self.needed:
                self._reserve.append(answer)
            else:
                self._reserve[self._rng.randrange(len(self._reserve))] = answer

    def next_check(self) -> Answer | None:
        """What to compute again now."""
        if self.is_caught:
            return None
        if self._due:
            self._running += 1
            answer = self._due.popleft()
            self._due_bytes -= answer.size_bytes
            return answer
        if self.passed < self.needed and self._reserve:
            self._running += 1
            return self._reserve.pop(self._rng.randrange(len(self._reserve)))
        return None

    def is_passed(self) -> bool:
        """A check was passed; returns whether everything that came may be believed now."""
        self._running -= 1
        self.checked += 1
        self.passed = min(MOST_PASSED, self.passed + 1)
        return self.is_clear

    def put_back(self, answer: Answer) -> None:
        """It could not be computed here now."""
        self._running -= 1
        self._due.append(answer)
        self._due_bytes += answer.size_bytes

    def is_failed(self) -> None:
        """An answer was wrong."""
        self._running -= 1
        self.is_caught, self.passed = True, 0.0
        self._due.clear()
        self._due_bytes = 0
        self._reserve.clear()

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for the check slot that its company is to get nothing new."""
        return len(self._due) > MAX_DUE or self._due_bytes > MAX_DUE_BYTES

    @property
    def is_clear(self) -> bool:
        """Enough checks were passed, or there is nothing left that was not checked; and none is open."""
        if self.is_caught or self._due or self._running:
            return False
        if self.passed >= self.needed:
            self._reserve.clear()
            return True
        return self.checked >= self.came > 0
