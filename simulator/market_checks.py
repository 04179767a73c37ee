"""What a borrower of the exact market believes of what strangers computed, by the shipped formulas (pure).

Of what comes in, the shipped policy's share are checks. A cheat's checks fail at its rate. Results are provisional until the company is
credible alone (`checks_needed`); a failed check undoes what is provisional and what this contract brought, and the work is done again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2p.reputation.checking import MOST_PASSED
from p2p.reputation.credibility import company_credibility
from simulator.chance import unit
from simulator.market_company import Seen

if TYPE_CHECKING:
    from simulator.market_company import Company, Work


def take_in(borrower: Company, lender: bytes, work: Work) -> bool:
    """Count new results. Returns whether a check has failed."""
    world = borrower.world
    work.advance(world.engine.now)
    new_ms = work.core_ms - work.taken_ms
    if new_ms <= 0:
        return False
    work.taken_ms = work.core_ms
    seen = borrower.seen.setdefault(lender, Seen())
    if seen.is_caught:
        return False
    fragment_ms = world.rules.fragment_s * 1000
    work.fraction += new_ms / fragment_ms * world.policy.check_rate(seen.passed)
    checks = int(work.fraction)
    work.fraction -= checks
    wrong_ms = 0.0
    if world.cheats(work.lender):
        rate = world.rules.sabotage_rate
        wrong_ms = (new_ms - checks * fragment_ms) * rate if new_ms > checks * fragment_ms else 0.0
        for _ in range(checks):
            world.draws += 1
            if unit(world.check_key, world.draws) < rate:
                return _caught(borrower, seen, work, new_ms)
    work.checks += checks
    useful_ms = max(0.0, new_ms - checks * fragment_ms)
    borrower.tally.checked += min(new_ms, checks * fragment_ms)
    borrower.tally.received += new_ms
    if borrower.first_help is None:
        borrower.first_help = world.engine.now - borrower.born
    work.wrong_ms += wrong_ms
    seen.passed = min(MOST_PASSED, seen.passed + checks)
    borrower.advance()
    borrower.do(useful_ms)
    seen.provisional.append((useful_ms - wrong_ms, wrong_ms))
    if company_credibility(world.policy.assumed_bad, seen.passed) >= 1 - world.policy.epsilon - 1e-12:
        for right, wrong in seen.provisional:
            borrower.tally.accepted += right + wrong
            borrower.tally.wrong += wrong
        seen.provisional.clear()
    return False


def _caught(borrower: Company, seen: Seen, work: Work, new_ms: float) -> bool:
    """Undo what is provisional; it becomes a job again."""
    seen.is_caught = True
    undone = new_ms + sum(right + wrong for right, wrong in seen.provisional)
    again = sum(right + wrong for right, wrong in seen.provisional)
    seen.provisional.clear()
    borrower.tally.undone += undone
    borrower.tally.received += new_ms
    if again > 0:
        borrower.jobs.append([borrower.world.engine.now, again, again])
    borrower.world.noticed(work.lender)
    return True
