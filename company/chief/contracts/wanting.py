"""Contract path 2/8 - what a chief borrows by itself, for which jobs, of whom, and within which limits (pure).

A job with --where any or trusted wants as many slots as fragments wait beyond what works on it already, own slots first: what is done at
home within `WORTH_S` is not borrowed for. What may be asked for is bounded three times: slots at a time, contracts a day, core-hours a
day, each counted when a contract is offered, so that no answer can pass them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from p2p.base.errors import UsageError
from p2p.base.record import record

DAY_S = 86_400
WORTH_S = 60.0  # at home in this time: nobody is asked
TRUSTED = 0.5  # a company's score, for --where trusted
MAX_HISTORY = 1000
MODES = ("never", "ask", "automatically")  # the most careful first


@record(kw_only=True)
class BorrowPolicy:
    """What `company borrow policy` was told. ``mode``: never, ask (say what could be borrowed), automatically (sign it)."""

    mode: str = "ask"
    max_slots: int = 16
    contracts_per_day: int = 20
    core_hours_per_day: float = 100.0
    max_price_milli: int = 1000
    time_frame_s: int = 3600


@record(kw_only=True)
class Need:
    """One job that other companies may compute. ``home_s``: how long the own slots need for the rest; None where nothing says so."""

    job: str
    name: str
    package: bytes
    processor: bytes
    where: str
    waiting: int
    own_slots: int
    home_s: float | None
    memory_bytes: int
    mode: str = ""  # the job's own; empty: as the policy says


@record
class Want:
    """So many slots for this job."""

    need: Need
    slots: int


@record
class Found:
    """One company's answer, as ranked."""

    company: str
    name: str
    idle: int
    price_milli: int
    trust: float | None
    max_frame_s: int


@record
class Pick:
    """Ask this company for so many slots."""

    found: Found
    slots: int
    time_frame_s: int


Spent = Sequence[tuple[float, int]]  # (when, core-seconds that the contract can cost), of what was offered


def checked(policy: BorrowPolicy) -> BorrowPolicy:
    """The policy itself. Raises `UsageError` where it cannot be meant."""
    if policy.mode not in MODES:
        raise UsageError("bad-borrow-policy", f"the mode is never, ask or automatically, got {policy.mode[:20]!r}")
    bounds = (("max_slots", 1, 1024), ("contracts_per_day", 0, MAX_HISTORY), ("core_hours_per_day", 0, 1e6),
              ("max_price_milli", 0, 1_000_000), ("time_frame_s", 60, 30 * DAY_S))  # fmt: skip
    for name, low, high in bounds:
        if not low <= getattr(policy, name) <= high:
            raise UsageError("bad-borrow-policy", f"{name} lies in {low}..{high:g}, got {getattr(policy, name)}")
    return policy


def wanted(needs: Iterable[Need], policy: BorrowPolicy, borrowed: Mapping[bytes, int], spent: Spent, now: float) -> list[Want]:
    """What to look for now, the oldest job first. ``borrowed``: slots under contract or asked for, by processor."""
    free = policy.max_slots - sum(borrowed.values())
    hours_left, contracts_left = left(policy, spent, now)
    free = min(free, int(hours_left * 3600 / policy.time_frame_s)) if contracts_left > 0 else 0
    have, found = dict(borrowed), []
    for need in needs:
        is_soon = need.own_slots > 0 and need.home_s is not None and need.home_s <= WORTH_S
        is_unknown = need.own_slots > 0 and need.home_s is None  # it has just begun: see first how fast it is here
        lack = need.waiting - need.own_slots - have.get(need.processor, 0)
        slots = min(lack, free)
        if slots < 1 or is_soon or is_unknown or mode_of(need, policy) == "never":
            continue
        found.append(Want(need, slots))
        free -= slots
        have[need.processor] = have.get(need.processor, 0) + slots
    return found


def mode_of(need: Need, policy: BorrowPolicy) -> str:
    """The more careful of the job's mode and the company's: who may submit a job may not lift what the owner said."""
    return min(need.mode or policy.mode, policy.mode, key=MODES.index)


def left(policy: BorrowPolicy, spent: Spent, now: float) -> tuple[float, int]:
    """Core-hours and contracts that may be offered yet today."""
    today = [core_s for at, core_s in spent if now - at < DAY_S]
    return max(0.0, policy.core_hours_per_day - sum(today) / 3600), policy.contracts_per_day - len(today)


def choose(want: Want, offers: Iterable[Found], policy: BorrowPolicy, *, resting: Collection[str], contracts_left: int) -> list[Pick]:
    """Whom to ask, in the order in which they were ranked. ``resting``: companies that refused lately."""
    picks: list[Pick] = []
    slots = want.slots
    for found in offers:
        if slots < 1 or len(picks) >= contracts_left:
            break
        is_known = want.need.where == "any" or (found.trust is not None and found.trust >= TRUSTED)
        frame_s = min(policy.time_frame_s, found.max_frame_s or policy.time_frame_s)
        if found.company in resting or not is_known or found.price_milli > policy.max_price_milli or found.idle < 1:
            continue
        picks.append(Pick(found, min(slots, found.idle), frame_s))
        slots -= picks[-1].slots
    return picks


def policy_as_json(policy: BorrowPolicy) -> dict[str, Any]:
    """For the database and the surfaces."""
    return asdict(policy)


def state_as_json(policy: BorrowPolicy, spent: Spent, signed: Mapping[str, str]) -> bytes:
    """What a restart needs: policy, what was offered lately, and which contracts were signed for which job."""
    return json.dumps({"policy": asdict(policy), "spent": list(spent)[-MAX_HISTORY:], "signed": dict(signed)}).encode()


def state_of_json(data: bytes) -> tuple[BorrowPolicy, list[tuple[float, int]], dict[str, str]]:
    """Out of the database."""
    said = json.loads(data)
    return BorrowPolicy(**said["policy"]), [(float(at), int(core_s)) for at, core_s in said["spent"]], dict(said["signed"])
