"""Whom a company of the exact market asks, and whom it lends to: shipped scores, limits, order and favours (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2p.contracts import book as b
from p2p.contracts import events as e
from p2p.contracts.table import HOLDING, LIVE, State
from p2p.contracts.terms import Cause, Role, Terms
from p2p.reputation.favours import Ask, Supply
from p2p.reputation.graph import hops, limit_of
from p2p.reputation.score import score
from p2p.reputation.trust import observations
from simulator.chance import word

if TYPE_CHECKING:
    from simulator.market_company import Company

NOBODY = score(()).value
ACTIVATION_S = 30
SELFISH = ("free-rider", "sybil")


def terms_of(slots: int, frame_s: int, epoch_s: int, lease_s: int) -> Terms:
    """What everybody asks for."""
    return Terms(
        package=b"p" * 32, processor=b"q" * 32, slots=slots, memory_mib=512, disk_mib=0, fragment_s=600, runtime="python-3.11",
        not_before_s=0, time_frame_s=frame_s, epoch_s=epoch_s, lease_s=lease_s, grace_s=60, notice_s=0, network="none", retention="none",
        check="spot", error_ppm=10_000, spot_ppm=100_000, assumed_bad_ppm=200_000, price_milli=0, endpoints=(),
    )  # fmt: skip


def idle_slots(company: Company) -> int:
    """Slots that may be promised now: none while own work waits, and no more than the control of supply allows."""
    world = company.world
    if company.kind in SELFISH or world.is_scamming(company) or company.jobs:
        return 0
    company.book.slots.capacity = company.supply.slots(world.rules.workers)
    return company.book.slots.free


def look(company: Company) -> None:
    """Now and then: let go of what is not needed, ask for what is."""
    world, rules = company.world, company.world.rules
    company.advance()
    mine = [(k, c) for k, c in company.book.contracts.items() if c.a.role is Role.BORROWER]
    backlog = company.backlog_ms
    if not backlog:
        for key, machine in mine:
            if machine.state in LIVE:
                company.order(key, e.Revoking(Cause.DONE, company.wall))
        return
    asked = sum(c.state in (State.OFFERED, State.ACCEPTED) for _, c in mine)
    borrowed = sum(c.a.slots for _, c in mine if c.state in HOLDING)
    free = max(1, rules.workers - company.book.slots.promised)
    wanted = int(backlog / 1000 / rules.patience_s) - free - borrowed
    if wanted <= 0 or asked >= rules.most_asked:
        return
    since = world.engine.now - rules.again_s
    busy = {k.peer for k, c in mine if not c.a.is_over or c.phase_at > since}
    for lender in best_lenders(company, busy)[: rules.most_asked - asked]:
        company.serial += 1
        nonce = world.nonce(company, company.serial)
        slots = min(wanted, rules.workers)
        terms = terms_of(slots, rules.frame_s, rules.epoch_s, rules.lease_s)
        company.order(b.Key(lender.key.public, nonce), e.Propose(terms, rules.valid_s, company.wall))


def best_lenders(company: Company, busy: set[bytes]) -> list[Company]:
    """Those who advertise, the nearest and best first, as `p2p.reputation.graph.order` has it."""
    world = company.world
    ranked = []
    for lender in world.find_lenders(company):
        key = lender.key.public
        if lender is company or key in busy or key in company.evidence.forked:
            continue
        seen = company.seen.get(key)
        if seen is not None and seen.is_caught:
            continue
        known = observations(company.evidence, key, company.wall)
        limit = limit_of(company.evidence, key)
        value = score(known).value if known else NOBODY
        if known and value < world.rules.min_trust:
            continue
        tie = word(world.tie_key, company.number, lender.number)
        ranked.append((hops(limit), -value, -(limit.computed_for_me + limit.cut), tie, lender))
    ranked.sort(key=lambda row: row[:4])
    return [row[4] for row in ranked]


def decide(company: Company) -> None:
    """Answer the offers that wait: idle slots by favours, each within the limit of who asks."""
    world, rules = company.world, company.world.rules
    company.advance()
    waiting = [k for k in company.book.inbox() if k in company.book.contracts]
    idle = idle_slots(company)
    asks, credit = [], {k.peer: limit_of(company.evidence, k.peer).left - world.open_ms(company, k.peer) for k in waiting}
    for key in waiting:
        terms, frame_ms = company.book.contracts[key].a.terms, rules.frame_s * 1000
        slots = min(terms.slots, max(0, credit[key.peer]) // frame_ms) if terms is not None else 0
        credit[key.peer] -= slots * frame_ms
        asks.append(Ask(key.peer, slots))
    held = held_by(company) if rules.strict_newcomers else None
    for key, slots in zip(waiting, company.favours.grant(asks, idle, held), strict=True):
        if slots > 0 and company.order(key, e.Agreeing(slots, ACTIVATION_S, company.wall)):
            world.lent_to_forked += key.peer in company.evidence.forked
            continue
        company.order(key, e.Refusing("no-free-slots" if idle <= 0 else "credit-spent", company.wall, retry_after_s=600))


def held_by(company: Company) -> dict[bytes, int]:
    """Slots that are promised, by borrower."""
    held: dict[bytes, int] = {}
    for key, machine in company.book.contracts.items():
        if machine.state in HOLDING and machine.a.role is Role.LENDER:
            held[key.peer] = held.get(key.peer, 0) + machine.a.slots
    return held


def review(company: Company) -> None:
    """Now and then: offer less where favours are not returned."""
    given, received = company.period
    company.supply = company.supply.next(given, received) if company.world.rules.control else Supply()
    company.period = [0.0, 0.0]
