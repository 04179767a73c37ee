"""What cheats of the exact market have taken: what was truly computed, and receipts; not the sums that trust keeps (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2p.contracts.messages import Half
from p2p.contracts.terms import LENDER
from p2p.reputation.graph import limit_of

if TYPE_CHECKING:
    from simulator.market_company import Company
    from simulator.market_exact import MarketWorld


def computed(lender: Company, borrower: bytes) -> int:
    """Core-milliseconds that a lender gave and the borrower accepted."""
    halves = (half.message for half in lender.book.chain.halves)
    return sum(h.accepted[1] for h in halves if isinstance(h, Half) and h.role == LENDER and h.peer == borrower)


def had(world: MarketWorld, lender: Company, name: bytes) -> float:
    """Core-milliseconds that a lender truly computed for a company's name, whatever was signed for."""
    return sum(work.core_ms for nonce, work in world.work.items() if work.lender is lender and nonce[:24] == name[:24])


def most_taken(world: MarketWorld, kind: str) -> float:
    """What a company of a kind has had of one lender beyond what it gave it, half of that again and half of what others vouch for.

    At worst, over all lenders; the rule says that it is a newcomer's floor at most.
    """
    beyond = 0.0
    for cheat in (c for c in world.companies if c.kind == kind):
        names = [world.public_key(cheat.number, identity) for identity in range(cheat.identity)]
        for lender in (c for c in world.companies if c is not cheat):
            for name in names:
                given, got = had(world, lender, name), computed(cheat, lender.key.public) if name == cheat.key.public else 0
                beyond = max(beyond, given - got - (got + limit_of(lender.evidence, name).cut) // 2)
    return beyond
