"""Which foreign results are believed: checks among the work, provisional answers, re-opening (pure).

One `Checker` per job. What a company returns is provisional, and merge does not see it, until it is credible: because its company passed
enough checks, or because companies that are no company's copy agree. Checks are fragments whose answer own slots have given; they
travel among the others under handles that say nothing. A failed check re-opens everything of that company in this job, also what was
accepted: the bound on the error assumes just that. The design's "since its last passed check" would keep wrong results of a company
that cheats seldom.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random

from p2p.base.errors import InvariantBroken
from p2p.contracts.terms import PPM, Terms
from p2p.reputation.credibility import (
    checks_needed,
    company_credibility,
    group_credibility,
    spot_check_bound,
    votes_needed,
    voting_cost,
)

LEAST_CHECKED = 0.02  # of a trusted company's work, for ever: trust is capped
MOST_PASSED = 50.0  # 1 / LEAST_CHECKED: more passed checks say no more
HALF_LIFE_S = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Policy:
    """How much is checked."""

    kind: str = "spot"  # none | spot | vote
    epsilon: float = 0.01
    assumed_bad: float = 0.2
    spot: float = 0.1

    @classmethod
    def of(cls, terms: Terms) -> Policy:
        return cls(terms.check, terms.error_ppm / PPM, terms.assumed_bad_ppm / PPM, terms.spot_ppm / PPM)

    def check_rate(self, passed: float) -> float:
        """Share of checks among what a company gets: all of the rate until it is credible, then less, never under the least."""
        needed = checks_needed(self.assumed_bad, self.epsilon)
        if passed <= needed or passed <= 0:
            return self.spot
        return max(LEAST_CHECKED, self.spot * needed / passed)


@dataclass(frozen=True, slots=True)
class Statement:
    """What the contract's page says before anybody signs."""

    text: str
    error_bound: float
    extra_work: float  # per fragment of result


def statement(policy: Policy, fragments_per_company: int) -> Statement:
    """Bound and expected cost of a policy."""
    f, eps = policy.assumed_bad, policy.epsilon
    if policy.kind == "none":
        return Statement("Nothing is checked: if the lender lies, its results are wrong and nobody notices.", 1.0, 0.0)
    if policy.kind == "vote":
        m = votes_needed(f, eps)
        cost = voting_cost(m, f) - 1
        return Statement(f"{m} equal answers of different companies are needed; about {1 + cost:.2f} runs per fragment.", eps, cost)
    needed = checks_needed(f, eps)
    n = max(1, fragments_per_company)
    text = (
        f"{policy.spot:.1%} of what a company gets are checks; its results count after {needed} passed ones. "
        f"With {f:.0%} of companies bad, at most {eps:.2%} of accepted results are wrong."
    )
    return Statement(text, min(eps, spot_check_bound(f, policy.spot, n)) if policy.spot > 0 else eps, policy.spot)


@dataclass(slots=True)
class Record:
    """One company within one job."""

    passed: float = 0.0
    is_caught: bool = False
    given: dict[int, tuple[int, bool]] = field(default_factory=dict)  # handle -> fragment, whether it is a check
    seen: set[int] = field(default_factory=set)  # fragments it ever got: never one twice


@dataclass(frozen=True, slots=True)
class Given:
    """What a company is to compute: handles, which say nothing, and the fragments behind them, for the sender only."""

    handles: tuple[int, ...]
    fragments: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows from an answer."""

    accepted: tuple[tuple[int, bytes], ...] = ()
    reopened: tuple[int, ...] = ()
    wrong_after_delivery: tuple[int, ...] = ()  # to be named to the user
    caught: bytes | None = None  # a company: revoke its contract with BAD_RESULT, once
    evidence: int | None = None  # the fragment that shows it


class Checker:
    """Everything foreign of one job. ``passed``: what is known of companies from before."""

    def __init__(self, policy: Policy, rng: Random, *, passed: dict[bytes, float] | None = None) -> None:
        self.policy = policy
        self._rng = rng
        self._before = passed or {}
        self.companies: dict[bytes, Record] = {}
        self._open: set[int] = set()  # fragments that nobody has
        self._queue: deque[int] = deque()  # the same in order, with some that are gone
        self._provisional: dict[int, None] = {}
        self._own: dict[int, bytes] = {}  # answers of own slots
        self._answers: dict[int, dict[bytes, bytes]] = {}  # provisional and accepted: fragment -> company -> digest
        self._accepted: dict[int, bytes] = {}
        self._delivered: set[int] = set()
        self._abroad: bool | None = True if policy.kind == "none" else None

    def add(self, fragments: list[int]) -> None:
        """Fragments that may go abroad."""
        for fragment in fragments:
            if fragment not in self._accepted and fragment not in self._open:
                self._open.add(fragment)
                self._queue.append(fragment)

    def own_pair(self, first: bytes, second: bytes, *, is_same: bool | None = None) -> bool:
        """Two own runs of one fragment. Unless they agree, or the package's ``same`` says so, nothing goes abroad."""
        self._abroad = self.policy.kind == "none" or is_same is True or (is_same is None and first == second)
        return self._abroad

    @property
    def may_go_abroad(self) -> bool | None:
        """None until own runs were compared."""
        return self._abroad

    def own(self, fragment: int, digest: bytes) -> Outcome:
        """Own slots have answered: accepted at once, and a check from now on."""
        self._open.discard(fragment)
        self._own[fragment] = digest
        self._accepted[fragment] = digest
        self._provisional.pop(fragment, None)
        self._answers.pop(fragment, None)  # or a company that is caught later would take the own answer with it
        return Outcome(accepted=((fragment, digest),))

    def give(self, company: bytes, count: int) -> Given:
        """Choose what a company gets. Nothing before own runs agreed, nor after it was caught."""
        record = self._record(company)
        if not self._abroad or record.is_caught:
            return Given((), ())
        chosen: list[tuple[int, bool]] = []
        for _ in range(count):
            is_check = self.policy.kind != "none" and self._rng.random() < self.policy.check_rate(record.passed)
            found = self._check_for(record) if is_check else None
            if found is None:
                is_check, found = False, self._work_for(record)
            if found is None:
                break
            record.seen.add(found)
            self._open.discard(found)
            chosen.append((found, is_check))
        self._rng.shuffle(chosen)
        handles = []
        for fragment, is_check in chosen:
            handle = self._rng.getrandbits(63)
            record.given[handle] = (fragment, is_check)
            handles.append(handle)
        return Given(tuple(handles), tuple(fragment for fragment, _ in chosen))

    def lacks_checks(self, company: bytes) -> bool:
        """Whether no answer is left that this company has not seen: own slots, or the chief's check slot, must compute some."""
        return self.policy.kind == "spot" and self._check_for(self._record(company)) is None

    def lost(self, company: bytes) -> tuple[int, ...]:
        """The company is gone: what it had not answered is open again."""
        record = self._record(company)
        back = tuple(fragment for fragment, is_check in record.given.values() if not is_check and not self._answers.get(fragment))
        record.given.clear()
        self.add(list(back))
        return back

    def returned(self, company: bytes, handle: int, digest: bytes) -> Outcome:
        """An answer. A handle that was never given, or is answered twice, changes nothing."""
        record = self._record(company)
        found = record.given.pop(handle, None)
        if found is None or record.is_caught:
            return Outcome()
        fragment, is_check = found
        if fragment in self._own:  # a check, or own slots were faster: both tell the truth about it
            if digest != self._own[fragment]:
                return self._caught(company, fragment)
            if is_check:
                record.passed = min(MOST_PASSED, record.passed + 1)
                return Outcome(accepted=self._believe([f for f in self._provisional if company in self._answers[f]]))
            return Outcome()
        self._answers.setdefault(fragment, {})[company] = digest
        if fragment not in self._accepted:
            self._provisional[fragment] = None
        return Outcome(accepted=self._believe([fragment]))

    def delivered(self, fragments: list[int]) -> None:
        """These are in the user's hands and cannot be opened again."""
        self._delivered.update(fragments)

    def provisional(self) -> list[int]:
        """Answered, and not believed yet."""
        return list(self._provisional)

    def passed(self) -> dict[bytes, float]:
        """What the next job may know of these companies."""
        return {c: 0.0 if r.is_caught else r.passed for c, r in self.companies.items()}

    def _record(self, company: bytes) -> Record:
        if company not in self.companies:
            self.companies[company] = Record(min(MOST_PASSED, self._before.get(company, 0.0)))
        return self.companies[company]

    def _check_for(self, record: Record) -> int | None:
        unseen = [f for f in self._own if f not in record.seen]
        return unseen[self._rng.randrange(len(unseen))] if unseen else None

    def _work_for(self, record: Record) -> int | None:
        while self._queue and self._queue[0] not in self._open:
            self._queue.popleft()
        fresh = next((f for f in self._queue if f in self._open and f not in record.seen), None)
        if fresh is not None:
            return fresh
        return next((f for f in self._provisional if f not in record.seen), None)  # a second opinion, of another company

    def _believe(self, fragments: list[int]) -> tuple[tuple[int, bytes], ...]:
        new = []
        for fragment in fragments:
            digest = self._credible(fragment) if fragment not in self._accepted else None
            if digest is not None:
                self._accepted[fragment] = digest
                self._provisional.pop(fragment, None)
                new.append((fragment, digest))
        return tuple(new)

    def _credible(self, fragment: int) -> bytes | None:
        """The answer that may be believed, if there is one."""
        groups: dict[bytes, list[float]] = {}
        for company, digest in self._answers.get(fragment, {}).items():
            groups.setdefault(digest, []).append(company_credibility(self.policy.assumed_bad, self.companies[company].passed))
        if not groups:
            return None
        if self.policy.kind == "none":
            return next(iter(groups))
        if self.policy.kind == "vote":
            needed = votes_needed(self.policy.assumed_bad, self.policy.epsilon)
            return next((d for d, members in groups.items() if len(members) >= needed), None)
        best, credibility = max(group_credibility(groups).items(), key=lambda item: (item[1], item[0]))
        return best if credibility >= 1 - self.policy.epsilon - 1e-12 else None

    def _caught(self, company: bytes, evidence: int) -> Outcome:
        record = self.companies[company]
        record.is_caught, record.passed = True, 0.0
        tainted = [f for f, who in self._answers.items() if company in who]
        late = tuple(f for f in tainted if f in self._delivered)
        reopened: list[int] = []
        now_believed: list[tuple[int, bytes]] = []
        for fragment in tainted:
            del self._answers[fragment][company]
            if fragment in self._delivered:
                continue
            self._accepted.pop(fragment, None)
            self._provisional.pop(fragment, None)
            others = self._believe([fragment])
            now_believed += others
            if not others:
                reopened.append(fragment)
                if self._answers[fragment]:
                    self._provisional[fragment] = None
        unanswered = [f for f, is_check in record.given.values() if not is_check and f not in self._own and not self._answers.get(f)]
        record.given.clear()
        back = [f for f in (*reopened, *unanswered) if not self._answers.get(f)]
        self.add(back)
        again = tuple(dict.fromkeys((*reopened, *unanswered)))
        return Outcome(tuple(now_believed), again, late, company, evidence)

    def validate(self) -> None:
        """Check every invariant. Raises `InvariantBroken`."""
        for fragment, digest in self._accepted.items():
            if fragment in self._open:
                raise InvariantBroken(f"fragment {fragment} is accepted and open")
            known = {*self._answers.get(fragment, {}).values(), self._own.get(fragment)}
            if digest not in known and fragment not in self._delivered:
                raise InvariantBroken(f"fragment {fragment} is accepted with an answer of nobody")
        for company, record in self.companies.items():
            if record.is_caught and any(company in who for who in self._answers.values()):
                raise InvariantBroken("an answer of a company that was caught still counts")


def decayed(passed: float, age_s: float) -> float:
    """Passed checks of an earlier time: half after 30 days."""
    return min(MOST_PASSED, passed) * float(0.5 ** (max(0.0, age_s) / HALF_LIFE_S))
