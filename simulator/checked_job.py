"""One job computed by strangers, some of whom agree on the same wrong answers, under the shipped checks (pure).

Answers have contents here: right ones agree, a cheat's wrong answer is the colluders' common one with probability c and otherwise its own.
Cheats know neither which answers are checked nor who else has a fragment. Two ways of checking: ``trial``, what ships
(`company.chief.secondment.trial`, some of a company's answers computed again at home, by so many check slots), and the machine that also
believes companies that agree, or only those (`p2p.reputation.checking.Checker`: ``agreement`` and ``vote``; no daemon drives it).
Own slots compute fragments too, and at the end what strangers' answers leave undecided. Nothing is delivered before that.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol

from company.chief.secondment.trial import Answer, Trial
from p2p.base.errors import InvariantBroken
from p2p.reputation.checking import Checker, Outcome, Policy
from simulator.chance import exponential_one, seed_word, unit
from simulator.engine import Engine

FRAGMENT_S: Final = 60.0
AHEAD: Final = 4  # fragments abroad that nobody is believed about, per slot there
RIGHT: Final = b"right"
COMMON: Final = b"common lie"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRules:
    """One job and those who compute it."""

    way: str  # trial | agreement | vote | none
    policy: Policy
    companies: int
    slots: int
    own_slots: int
    check_slots: int
    fragments: int
    cheats: float
    rate: float
    collusion: float
    new_names: bool = False  # who is caught is back at once, as somebody else
    validate_every: int = 0


@dataclass(slots=True)
class Stranger:
    """One company under its present name."""

    number: int
    name: bytes
    is_cheat: bool
    results: int = 0


@dataclass(frozen=True, slots=True)
class Given:
    """One fragment that a company computes."""

    stranger: Stranger
    name: bytes
    fragment: int
    handle: int
    is_check: bool


class Way(Protocol):
    """How answers come to be believed."""

    def give(self, stranger: Stranger) -> Given | None: ...
    def answered(self, given: Given, digest: bytes) -> None: ...
    def own(self, fragment: int) -> None: ...
    def undecided(self) -> list[int]: ...
    def validate(self) -> None: ...


class CheckedJob:
    """Runs the job to its end."""

    def __init__(self, rules: JobRules, seed: int) -> None:
        self.rules, self.engine = rules, Engine()
        self._times, self._lies, self._agrees = (seed_word(seed, name) for name in ("times", "lies", "collusion"))
        kinds = seed_word(seed, "kinds")
        order = sorted(range(rules.companies), key=lambda n: unit(kinds, n))
        bad = set(order[: round(rules.cheats * rules.companies)])
        self.strangers = [Stranger(n, f"{n}".encode(), n in bad) for n in range(rules.companies)]
        self.waiting = deque(range(rules.fragments))
        self.final: dict[int, bytes] = {}
        self.own: set[int] = set()  # nobody else was asked
        self.rescued: set[int] = set()
        self.caught: list[int] = []  # results that each had returned
        self.drawn = self.answers = self.checks = self.undone = self.events = 0
        rng = Random(f"{seed}/checks")
        self.way: Way = ByTrial(self, rng) if rules.way == "trial" else ByAgreement(self, rng)

    def run(self) -> None:
        """All fragments, until each has an answer that is believed."""
        rules = self.rules
        for _ in range(rules.own_slots):
            self._own_next(None)
        for stranger in self.strangers:
            for _ in range(rules.slots):
                self.engine.after(0.0, self._ask, stranger)
        self.engine.run_while(
            lambda: len(self.final) < rules.fragments,
            max_events=400 * rules.fragments + 20_000,
            why=lambda: f"{len(self.final)} of {rules.fragments} fragments are believed",
        )

    def takes(self) -> float:
        """How long a fragment runs."""
        self.drawn += 1
        return FRAGMENT_S * exponential_one(self._times, self.drawn)

    def accept(self, fragment: int, digest: bytes) -> None:
        """It is believed."""
        self.final[fragment] = digest

    def take_back(self, fragment: int) -> None:
        """It is to be computed again."""
        self.undone += self.final.pop(fragment, None) is not None

    # ---- own slots -----------------------------------------------------------------------------------------------------
    def _own_next(self, _: None) -> None:
        """The last waiting fragment (strangers get the first), or what nobody could decide; looks again later if there is nothing."""
        if self.waiting:
            fragment = self.waiting.pop()
            self.own.add(fragment)
        else:
            left = [f for f in self.way.undecided() if f not in self.rescued]
            if not left:
                self.engine.after(FRAGMENT_S, self._own_next)
                return
            fragment = left[0]
            self.rescued.add(fragment)
        self.engine.after(self.takes(), self._own_done, fragment)

    def _own_done(self, fragment: int) -> None:
        self.way.own(fragment)
        self._check_invariants()
        self._own_next(None)

    # ---- strangers -----------------------------------------------------------------------------------------------------
    def _ask(self, stranger: Stranger) -> float | None:
        """A free slot of a company: something to compute, or a while later."""
        given = self.way.give(stranger)
        if given is None:
            return FRAGMENT_S
        self.checks += given.is_check
        self.engine.after(self.takes(), self._answer, given)
        return None

    def _answer(self, given: Given) -> None:
        stranger = given.stranger
        self.answers += 1
        stranger.results += given.name == stranger.name
        self.way.answered(given, self._digest(stranger, given.fragment))
        self._check_invariants()
        self.engine.after(0.0, self._ask, stranger)

    def _digest(self, stranger: Stranger, fragment: int) -> bytes:
        if not stranger.is_cheat or unit(self._lies, stranger.number, fragment) >= self.rules.rate:
            return RIGHT
        return COMMON if unit(self._agrees, stranger.number, fragment) < self.rules.collusion else stranger.name

    def is_caught(self, name: bytes) -> None:
        """A check of its answers has failed."""
        stranger = next(s for s in self.strangers if s.name == name)
        self.caught.append(stranger.results)
        if self.rules.new_names:
            stranger.name, stranger.results = name + b"'", 0

    def _check_invariants(self) -> None:
        self.events += 1
        if self.rules.validate_every and self.events % self.rules.validate_every == 0:
            self.way.validate()

    def measures(self) -> dict[str, Any]:
        """What it came to; errors and answers per fragment that strangers were asked for."""
        rules = self.rules
        foreign = [answer for fragment, answer in self.final.items() if fragment not in self.own]
        wrong = sum(answer != RIGHT for answer in foreign)
        cheats = sum(s.is_cheat for s in self.strangers)
        slots = rules.own_slots + rules.slots * rules.companies
        return {
            "error_rate": wrong / max(1, len(foreign)),
            "redundancy": (self.answers + len(self.rescued)) / max(1, len(foreign)),
            "slowdown": self.engine.now / (rules.fragments * FRAGMENT_S / slots),
            "own_share": len(self.own) / rules.fragments,
            "rescued_share": len(self.rescued) / rules.fragments,
            "check_share": self.checks / max(1, self.answers),
            "undone": self.undone,
            "cheats": cheats,
            "caught": len(self.caught),
            "detected": min(1.0, len(self.caught) / cheats) if cheats else None,
            "detection_results": sum(self.caught) / len(self.caught) if self.caught else None,
            "events": self.engine.events,
        }


@dataclass(slots=True)
class ByAgreement:
    """`Checker`: checks whose answer is known among the work, and companies that agree."""

    job: CheckedJob
    rng: Random
    checker: Checker = field(init=False)
    abroad: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.checker = Checker(self.job.rules.policy, self.rng)
        self.checker.own_pair(RIGHT, RIGHT)

    def give(self, stranger: Stranger) -> Given | None:
        """Work, a check, or a second opinion."""
        job = self.job
        room = AHEAD * job.rules.companies * job.rules.slots
        while job.waiting and len(self.abroad) < room:
            fragment = job.waiting.popleft()
            self.abroad.add(fragment)
            self.checker.add([fragment])
        given = self.checker.give(stranger.name, 1)
        if not given.handles:
            return None
        return Given(stranger, stranger.name, given.fragments[0], given.handles[0], given.fragments[0] in job.own)

    def answered(self, given: Given, digest: bytes) -> None:
        """It came."""
        self._note(self.checker.returned(given.name, given.handle, digest))

    def own(self, fragment: int) -> None:
        """Own slots have computed it."""
        self._note(self.checker.own(fragment, RIGHT))

    def undecided(self) -> list[int]:
        """Oldest first."""
        return self.checker.provisional()

    def _note(self, outcome: Outcome) -> None:
        for fragment in outcome.reopened:
            self.job.take_back(fragment)
            self.abroad.add(fragment)
        for fragment, digest in outcome.accepted:
            self.job.accept(fragment, digest)
            self.abroad.discard(fragment)
        if outcome.caught is not None:
            self.job.is_caught(outcome.caught)

    def validate(self) -> None:
        """Of the machine."""
        self.checker.validate()


@dataclass(slots=True)
class ByTrial:
    """What ships: one `Trial` per company, and check slots at home that compute chosen answers again, oldest company first."""

    job: CheckedJob
    rng: Random
    trials: dict[bytes, Trial] = field(default_factory=dict)
    answers: dict[bytes, dict[int, bytes]] = field(default_factory=dict)  # company: fragment: digest, believed or not
    waits: dict[int, bytes] = field(default_factory=dict)  # provisional: fragment: company
    idle: int = 0

    def __post_init__(self) -> None:
        self.idle = self.job.rules.check_slots

    def give(self, stranger: Stranger) -> Given | None:
        """The next fragment, unless too many checks of this company wait."""
        trial, job = self.trials.get(stranger.name), self.job
        if not job.waiting or (trial is not None and (trial.is_caught or trial.is_behind)):
            return None
        return Given(stranger, stranger.name, job.waiting.popleft(), 0, False)

    def answered(self, given: Given, digest: bytes) -> None:
        """Choose whether it is checked; it is believed with its company."""
        trial = self.trials.get(given.name)
        if trial is None:
            trial = self.trials[given.name] = Trial(self.job.rules.policy, self.rng)
        if trial.is_caught:
            self.job.waiting.append(given.fragment)
            return
        self.answers.setdefault(given.name, {})[given.fragment] = digest
        self.waits[given.fragment] = given.name
        answer = Answer(given.fragment, b"", digest)
        checks, spare = trial.choose(1)
        trial.add([answer] * len(checks), [answer] * len(spare))
        self._settle(given.name)
        self._check_next()

    def _settle(self, name: bytes) -> None:
        if self.trials[name].is_clear:
            for fragment in [f for f, who in self.waits.items() if who == name]:
                del self.waits[fragment]
                self.job.accept(fragment, self.answers[name][fragment])

    def _check_next(self) -> None:
        for name, trial in self.trials.items():
            while self.idle and (answer := trial.next_check()) is not None:
                self.idle -= 1
                self.job.checks += 1
                self.job.engine.after(self.job.takes(), self._checked, (name, answer))

    def _checked(self, task: tuple[bytes, Answer]) -> None:
        name, answer = task
        trial = self.trials[name]
        self.idle += 1
        if trial.is_caught:
            pass
        elif answer.result == RIGHT:
            trial.is_passed()
            self._settle(name)
        else:
            trial.is_failed()
            for fragment in self.answers.pop(name):
                self.waits.pop(fragment, None)
                self.job.take_back(fragment)
                self.job.waiting.append(fragment)
            self.job.is_caught(name)
        self._check_next()

    def own(self, fragment: int) -> None:
        """Own slots have computed it."""
        self.waits.pop(fragment, None)
        self.job.accept(fragment, RIGHT)

    def undecided(self) -> list[int]:
        """None: every company's trial ends by itself."""
        return []

    def validate(self) -> None:
        """What waits is not believed, and of somebody who was not caught."""
        for fragment, name in self.waits.items():
            if fragment in self.job.final or self.trials[name].is_caught:
                raise InvariantBroken(f"fragment {fragment} of {name!r} waits wrongly")
