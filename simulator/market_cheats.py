"""What some cheats of the exact market do beyond choosing: rings that vouch for their own, borrowers that sign nothing (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from p2p.contracts import messages as m
from p2p.contracts.terms import BORROWER, Cause

if TYPE_CHECKING:
    from simulator.market_company import Company, Work
    from simulator.market_exact import MarketWorld

WITHHELD: Final = (m.Ack.code, m.Countersettle.code, m.Receipt.code)  # second byte of a wire form: what a borrower co-signs
VOUCHED_CORE_MS: Final = 1000 * 3_600_000  # in every false receipt


def vouch(world: MarketWorld, front: Company) -> None:
    """Sign a receipt of a thousand core-hours for every sybil of the ring that has none of this company yet. Nothing was computed."""
    chain = front.book.chain
    vouched = {half.message.peer for half in chain.halves if half.message.accepted[1] == VOUCHED_CORE_MS}  # type: ignore[attr-defined]
    for sybil in (c for c in world.companies if c.kind == "sybil" and c.key.public not in vouched):
        facts = (VOUCHED_CORE_MS // 60_000, VOUCHED_CORE_MS, VOUCHED_CORE_MS)
        contract = world.nonce(front, (1 << 40) + sybil.number * 1000 + sybil.identity)
        previous = chain.halves[-1].hash if chain.halves else m.ZERO
        none = int(Cause.NONE)
        half = m.Half(
            1, front.key.public, sybil.key.public, contract, int(BORROWER), len(chain.halves) + 1, previous, facts, facts, 0, 0, none, none,
            front.wall, front.wall, m.ZERO,
        )  # fmt: skip
        chain.halves.append(front.signer.sign(half))


def slanders(world: MarketWorld, work: Work) -> bool:
    """Whether a slanderer calls the results wrong now: once it has had half of what was promised."""
    return work.taken_ms >= work.slots * world.rules.frame_s * 500
