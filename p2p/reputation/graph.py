"""Who vouches for whom: two hops of receipts bound what a company may be lent and order whom to ask first (pure).

A flow from me over i to j is worth what i computed for me and j computed for i, whichever is less. However many identities j makes, all
of it passes the edges into i and from me, so what it can gain is bounded by what honest companies gave for work that was really done.
Nothing symmetric is sybil-proof, so this is computed from one's own place. Sources: Nisan et al., Algorithmic Game Theory, ch. 27;
Meulpolder et al. 2009 (BarterCast, two-hop maximum flow); the limit and order here are ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from p2p.base.record import record
from p2p.reputation.evidence import Evidence

NEWCOMER_FLOOR_CORE_MS = 3_600_000  # one core-hour per identity
NEWCOMER_SHARE = 10  # all newcomers together: one idle slot in so many
CREDIT_SHARE = 2  # credit is one half of what was computed for me and of the cut


@record
class Path:
    """One way of trust, over one company."""

    over: bytes
    computed_for_me: int  # core-ms by the company in the middle
    computed_for_it: int  # core-ms by the far one, accepted by the one in the middle

    @property
    def flow(self) -> int:
        return min(self.computed_for_me, self.computed_for_it)


@record
class Limit:
    """How much more work a company may be lent, and from what that follows. All in core-milliseconds."""

    floor: int
    computed_for_me: int
    paths: tuple[Path, ...]
    given: int  # what I computed for it, also where it has signed for less

    @property
    def cut(self) -> int:
        return sum(path.flow for path in self.paths)

    @property
    def credit(self) -> int:
        return self.floor + (self.computed_for_me + self.cut) // CREDIT_SHARE

    @property
    def owed(self) -> int:
        """What it has had of me beyond what it gave."""
        return max(0, self.given - self.computed_for_me)

    @property
    def left(self) -> int:
        return max(0, self.credit - self.owed)


def limit_of(evidence: Evidence, company: bytes) -> Limit:
    """The limit of one company, from my own place."""
    me = evidence.me
    if company in evidence.forked:
        return Limit(0, 0, (), evidence.given(company))
    middle = sorted(i for i in evidence.lenders_to(me) - {me, company} - evidence.forked if evidence.earned(company, i) > 0)
    paths = tuple(Path(i, evidence.earned(i, me), evidence.earned(company, i)) for i in middle)
    return Limit(NEWCOMER_FLOOR_CORE_MS, evidence.earned(company, me), paths, evidence.given(company))


def hops(limit: Limit) -> int:
    """1: it computed for me; 2: for somebody who did; 3: a newcomer."""
    return 1 if limit.computed_for_me > 0 else 2 if limit.paths else 3


def order(evidence: Evidence, scores: Mapping[bytes, float]) -> list[bytes]:
    """Whom to ask first: the nearest, among them the best score, then the larger flow; ties by key. Forked companies are not asked."""
    limits = {company: limit_of(evidence, company) for company in scores if company not in evidence.forked}
    return sorted(limits, key=lambda c: (hops(limits[c]), -scores[c], -(limits[c].computed_for_me + limits[c].cut), c))


def newcomer_slots(idle_slots: int) -> int:
    """Slots for all newcomers together: a tenth of the idle ones, and one where there are few, or nobody could ever begin."""
    return min(idle_slots, max(1, idle_slots // NEWCOMER_SHARE)) if idle_slots > 0 else 0
