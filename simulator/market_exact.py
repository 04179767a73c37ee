"""The exact market: thousands of companies with shipped contracts, ledgers and reputation, in virtual time (pure).

Messages travel over the simulated network; journals are real bytes, and a company that was away is restored from them. Lenders are found
by a sample of those that advertise (`find_lenders`; scenario ``overlay`` asks the DHT instead).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack
import numpy as np

from p2p.contracts import book as b
from p2p.contracts import events as e
from p2p.contracts.agreement import Kind, Record
from p2p.contracts.signing import Signed
from p2p.contracts.table import ENDING, HOLDING
from p2p.contracts.terms import Role
from p2p.reputation.checking import Policy
from p2p.reputation.graph import limit_of
from simulator.chance import exponential_one, seed_word, unit, word
from simulator.churn import Sessions
from simulator.engine import Engine, seldom_collected
from simulator.market_cheats import WITHHELD, vouch
from simulator.market_choices import idle_slots, look, review
from simulator.market_company import Company, Work
from simulator.network import LinkFaults, Network
from simulator.stand_in import Pool

LEARN_MOST: Final = 24  # companies whose chains are read at one time
CHANNEL_BYTES: Final = 60  # around a message: frame, record of the cipher, headers


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketRules:
    """Everything that a market is made of."""

    companies: int
    workers: int = 10
    hours: float = 24.0
    kinds: dict[str, float] = field(default_factory=dict)  # share of companies that are not honest, by kind
    sabotage_rate: float = 0.2
    overclaim: float = 1.5
    whitewash: bool = False
    load: float = 0.6  # wanted work, as a share of what all workers could do
    loads: dict[str, float] = field(default_factory=dict)  # … of single kinds; of exit scams once they only take
    job_hours: float = 40.0  # core-hours of a job, exponential
    fragment_s: float = 60.0
    frame_s: int = 3600
    epoch_s: int = 600
    lease_s: int = 1800
    settle_s: float = 3600.0
    valid_s: int = 60
    decide_s: float = 2.0
    patience_s: float = 1800.0  # a job is to end within about that
    most_asked: int = 3
    looked_at: int = 12
    look_s: float = 600.0
    again_s: float = 3600.0  # after a contract or a refusal nothing more is asked of that lender for so long
    review_s: float = 3600.0
    control: bool = True
    strict_newcomers: bool = False  # what newcomers hold counts against their tenth
    min_trust: float = 0.0
    churn: Sessions | None = None
    away_s: float = 1800.0
    loss: float = 0.0
    journal_s: float = 0.0  # a record is on disk after so long; 0: at once
    lost_records: int = 0  # of the journal's end, at every crash: the disk had lied
    validate_every: int = 0


class MarketWorld:
    """All companies."""

    def __init__(self, rules: MarketRules, seed: int) -> None:
        self.rules, self.seed = rules, seed
        self.engine = Engine()
        self.ends: Counter[str] = Counter()  # last states of contracts, each side
        self.broken: Counter[str] = Counter()  # causes, as the side that ended it names them
        self.network = Network(self.engine, seed, LinkFaults(loss=rules.loss))
        self.policy = Policy(kind="spot", epsilon=0.01, assumed_bad=0.2, spot=0.1)
        self.memo: dict[bytes, Signed] = {}
        self.receipts = Pool()
        self.work: dict[bytes, Work] = {}
        self.by_key: dict[bytes, Company] = {}
        self.check_key, self.tie_key, self._pick = (seed_word(seed, name) for name in ("checks", "ties", "pick"))
        self._jobs_key, self._away_key, self._key = seed_word(seed, "jobs"), seed_word(seed, "away"), seed_word(seed, "company keys")
        self.draws = self.machine_events = self.contracts = self.forks = self.crashes = self._picked = 0
        self.unheard = 0  # packets that came where nobody was
        self.lent_to_forked = 0  # contracts that were accepted in spite of a proof
        self.caught: Counter[str] = Counter()
        self.first_caught: dict[int, float] = {}
        self.over_credit_ms = 0.0  # beyond credit and one contract, at worst
        self.companies = [Company(self, number, self._kind(number)) for number in range(rules.companies)]
        for company in self.companies:
            self._begin(company)

    def _kind(self, number: int) -> str:
        drawn, edge = unit(seed_word(self.seed, "kinds"), number), 0.0
        for kind, share in self.rules.kinds.items():
            edge += share
            if drawn < edge:
                return kind
        return "honest"

    def public_key(self, number: int, identity: int) -> bytes:
        """32 bytes that name a company."""
        return b"".join(word(self._key, number, identity * 4 + part).to_bytes(8, "big") for part in range(4))

    def nonce(self, company: Company, serial: int) -> bytes:
        """Of an offer."""
        return company.key.public[:24] + serial.to_bytes(8, "big")

    def run(self, progress: Any = lambda share: None) -> None:
        """All hours."""
        end = self.rules.hours * 3600
        with seldom_collected():
            for step in range(1, 97):
                self.engine.run(until=end * step / 96)
                progress(step / 96)
        for company in self.companies:
            company.advance()

    # ---- what happens by itself ----------------------------------------------------------------------------------------
    def _begin(self, company: Company) -> None:
        number, rules = company.number, self.rules
        at = self.engine.now
        self.engine.after(self._job_gap(company, 0), self._job, (company, 0))
        self.engine.at(at + rules.look_s * unit(self._pick, number, 1), self._look, company)
        self.engine.at(at + rules.review_s * unit(self._pick, number, 2), self._review, company)
        if rules.churn is not None:
            self.engine.after(self._session(number, 0) * unit(self._away_key, number), self._leave, (company, 0))

    def _job_gap(self, company: Company, serial: int) -> float:
        is_itself = company.kind != "exit-scam" or self.is_scamming(company)
        load = self.rules.loads.get(company.kind, self.rules.load) if is_itself else self.rules.load
        per_s = load * self.rules.workers / (self.rules.job_hours * 3600)
        return exponential_one(self._jobs_key, company.number, 2 * serial) / per_s

    def _job(self, task: tuple[Company, int]) -> None:
        company, serial = task
        size = exponential_one(self._jobs_key, company.number, 2 * serial + 1) * self.rules.job_hours * 3_600_000
        company.advance()
        company.jobs.append([self.engine.now, size, size])
        company.tally.wanted += size
        self.engine.after(self._job_gap(company, serial + 1), self._job, (company, serial + 1))
        if company.is_here:
            look(company)

    def _look(self, company: Company) -> float:
        if company.is_here and self.engine.now >= company.frozen_until:
            look(company)
        return float(self.rules.look_s)  # the engine takes a float for "again"

    def _review(self, company: Company) -> float:
        if company.is_here:
            review(company)
            self._learn(company)
            if company.kind == "front":
                vouch(self, company)
            mark = f"#{company.number}"
            if self.rules.whitewash and (company.kind == "free-rider" or (company.kind == "saboteur" and self.caught[mark])):
                self.caught[mark] = 0
                company.leave()
                self.by_key.pop(company.key.public, None)
                company.new_identity()
                company.is_here = True
        return float(self.rules.review_s)

    def _learn(self, company: Company) -> None:
        """Read the chains of those who computed for this company, as `company.chief.contracts.trust` does."""
        evidence = company.evidence
        helpers = sorted(evidence.computed_for(evidence.me) - {evidence.me})
        following = bisect_right(helpers, company.learned_to)
        for key in (helpers[following:] + helpers[:following])[:LEARN_MOST]:
            company.learned_to = key
            other = self.by_key.get(key)
            if other is None or not other.is_here or key in evidence.forked:
                continue
            halves = other.book.chain.halves
            evidence.add_all(halves[company.read_halves.get(key, 0) :])
            company.read_halves[key] = len(halves)

    def _session(self, number: int, session: int) -> float:
        assert self.rules.churn is not None
        return round(float(self.rules.churn.draw(self.seed, np.array([number]), session)[0]), 6)

    def _leave(self, task: tuple[Company, int]) -> None:
        company, session = task
        self.crash(company, self.rules.away_s * exponential_one(self._away_key, company.number, session + 1))
        self.engine.after(max(60.0, self._session(company.number, session + 1)), self._leave, (company, session + 1))

    def crash(self, company: Company, away_s: float) -> None:
        """Kill -9, and a start from the journals after a while."""
        if not company.is_here:
            return
        self.crashes += 1
        company.leave()
        self.engine.after(away_s, self._back, company)

    def _back(self, company: Company) -> None:
        if not company.is_here:
            company.come_back(self.rules.lost_records)

    # ---- what companies ask of the world -------------------------------------------------------------------------------
    def send(self, sender: Company, peer: bytes, wire: bytes) -> None:
        """Carry a message."""
        receiver = self.by_key.get(peer)
        if receiver is not None and not (sender.kind == "withholder" and wire[1] in WITHHELD):
            packet = (sender.key.public, wire, receiver.life)
            self.network.send(sender.number, receiver.number, len(wire) + CHANNEL_BYTES, receiver.receive, packet)

    def persist(self, company: Company, key: b.Key, ordinal: int) -> None:
        """The journal's answer."""
        if self.rules.journal_s <= 0:
            company.order(key, e.Persisted(ordinal))
        else:
            self.engine.after(self.rules.journal_s, self._persisted, (company, company.life, key, ordinal))

    def _persisted(self, task: tuple[Company, int, b.Key, int]) -> None:
        company, life, key, ordinal = task
        if company.is_here and company.life == life:
            company.order(key, e.Persisted(ordinal))

    def memo_of(self, wire: bytes) -> Signed | None:
        """The message of a wire form that was signed a moment ago."""
        return self.memo.get(msgpack.unpackb(wire)[1])

    @staticmethod
    def role_of(first_record: bytes, me: bytes) -> Role:
        """Who wrote this journal: its first record is the offer."""
        return Role.BORROWER if Record.unpack(first_record).kind is Kind.OUT else Role.LENDER

    def validate(self, company: Company) -> None:
        """Check the book's invariants; asked at every ``validate_every``-th event."""
        company.book.validate()

    def find_lenders(self, company: Company) -> Iterable[Company]:
        """A sample of those that advertise, and the last ones that helped."""
        found: dict[int, Company] = {}
        for key in list(company.seen)[-4:]:
            known = self.by_key.get(key)
            if known is not None:
                found[known.number] = known
        for _ in range(3 * self.rules.looked_at):
            if len(found) >= self.rules.looked_at:
                break
            self._picked += 1
            other = self.companies[word(self._pick, self._picked) % len(self.companies)]
            found[other.number] = other
        return (c for c in found.values() if c.is_here and idle_slots(c) > 0)

    def cheats(self, company: Company) -> bool:
        """Whether it returns wrong results now."""
        return company.kind == "saboteur"

    def is_scamming(self, company: Company) -> bool:
        """Whether it has stopped to give, after it had earned credit."""
        return company.kind == "exit-scam" and self.engine.now > self.rules.hours * 1800

    def noticed(self, company: Company) -> None:
        """A check of its results has failed."""
        self.caught[company.kind] += 1
        self.caught[f"#{company.number}"] += 1
        self.first_caught.setdefault(company.number, self.engine.now)

    def open_ms(self, lender: Company, peer: bytes) -> int:
        """What is promised to a company and not in any receipt yet."""
        frame_ms = self.rules.frame_s * 1000
        mine = (c for k, c in lender.book.contracts.items() if k.peer == peer and c.a.role is Role.LENDER)
        return sum(
            c.a.slots * frame_ms if c.state in HOLDING else c.a.claimed.core_ms if c.state in ENDING and c.a.role not in c.a.halves else 0
            for c in mine
        )

    def over_credit(self, lender: Company, peer: bytes, core_ms: int) -> None:
        """How far a borrower is beyond its credit with this lender, at worst. A proof of a fork takes all credit."""
        if peer in lender.evidence.forked:
            return
        limit = limit_of(lender.evidence, peer)
        self.over_credit_ms = max(self.over_credit_ms, float(limit.owed - limit.credit))
