"""What a company lends, to whom and when, and the advertisement that says so now (pure).

The policy is the owner's and lies in the database; the advertisement is made from it and from the facts of this moment. Nothing is
advertised that the policy does not allow: outside the schedule, after ``until``, or without a slot, it is withdrawn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from company.chief.network.schedule import Schedule, parse_schedule
from p2p.base.clock import UnixTime
from p2p.base.errors import UsageError
from p2p.base.record import record
from p2p.dht.advertisement import Advertisement, Relay
from p2p.reputation.favours import Supply
from p2p.reputation.score import score

MAX_SLOTS = 100_000
MAX_NAMED = 100
LEAST_BANDWIDTH, MAX_BANDWIDTH = 64 << 10, 1 << 30  # bytes a second; with less a guest could not even be told of its work in time
NEVER_REACHED = (  # by a guest, whatever the terms say
    "the network, other than by its results",
    "files and other processes of this machine",
    "other guests and this company's own work",
    "more memory, scratch, time or slots than the contract names",
    "anything after it ends: scratch is wiped",
)
RECLAIMED = frozenset({"lending-off-schedule", "lending-not-idle", "lending-over"})  # standings in which slots under contract go back too
QUIET_S = 30.0  # between two advertisements that differ in the number of slots only
NEWCOMER_TRUST = score(()).value  # 0.05: what the formula gives without any contract
ALL = Supply()
ISOLATED = ("bubblewrap",)  # a stranger's code runs on no other rung


@record(kw_only=True)
class Policy:
    """What `company lend` was told."""

    max_slots: int
    until: UnixTime | None = None
    schedule: str = ""
    min_trust_permille: int = 0
    only_to: tuple[str, ...] = ()  # company ids; empty: whoever is trusted enough
    price_milli: int = 0
    max_frame_s: int = 0
    max_load_permille: int = 0  # of the owner's own use of each worker's machine; 0: not looked at
    needs_mains: bool = False  # not on battery
    memory_cap_mib: int = 0  # for all guests together; 0: as much as slots have
    disk_cap_mib: int = 0
    bandwidth_cap: int = 0  # bytes a second of all guests together, both directions; 0: no bound
    auto_accept: str = "never"  # offers that fit are signed without a person: never | trusted | any


@record(kw_only=True)
class Facts:
    """This company at this moment."""

    arch: str
    pythons: tuple[str, ...]
    rung: str
    slots: int
    idle: int
    machines: int
    cores: int
    memory_mib: int  # per slot
    speed: int
    endpoints: tuple[tuple[str, int], ...]
    relays: tuple[Relay, ...]
    minute_of_week: int
    now: UnixTime
    promised: int = 0  # slots under contracts
    supply: Supply = ALL  # the share of what may be lent that is offered: less where favours are not returned
    owner_busy: str = ""  # why the owner's own use of the machine stands against lending now


@record
class Standing:
    """Whether it lends now, why not, and what is said to others."""

    code: str  # lending | not-lending | …
    text: str
    advertisements: tuple[Advertisement, ...] = ()


def checked(policy: Policy, now: UnixTime) -> Policy:
    """The policy itself. Raises `UsageError` where it cannot be meant."""
    if not 1 <= policy.max_slots <= MAX_SLOTS:
        raise UsageError("bad-lending", f"--max-workers lies in 1..{MAX_SLOTS}, got {policy.max_slots}")
    if policy.until is not None and policy.until <= now:
        raise UsageError("bad-lending", "--until lies in the past")
    if policy.auto_accept not in ("never", "trusted", "any"):
        raise UsageError("bad-lending", f"--auto-accept is never, trusted or any, got {policy.auto_accept[:20]!r}")
    if not 0 <= policy.min_trust_permille <= 1000:
        raise UsageError("bad-lending", "--min-trust lies in 0..1")
    if not 0 <= policy.max_load_permille <= 1000 or min(policy.memory_cap_mib, policy.disk_cap_mib) < 0:
        raise UsageError("bad-lending", "--max-load lies in 0..1, --max-memory and --max-disk are 0 or more")
    if policy.bandwidth_cap and not LEAST_BANDWIDTH <= policy.bandwidth_cap <= MAX_BANDWIDTH:
        raise UsageError("bad-lending", f"--max-bandwidth is {LEAST_BANDWIDTH >> 10}KiB to {MAX_BANDWIDTH >> 30}GiB a second")
    if len(policy.only_to) > MAX_NAMED or any(not name.startswith("co-") or len(name) != 19 for name in policy.only_to):
        raise UsageError(
            "bad-lending", f"--to names at most {MAX_NAMED} companies by their id", hint="company network companies lists them"
        )
    parse_schedule(policy.schedule)
    return policy


def standing(policy: Policy | None, facts: Facts) -> Standing:
    """What follows from policy and facts."""
    if policy is None:
        return Standing("not-lending", "Nothing is lent.")
    if policy.until is not None and policy.until <= facts.now:
        return Standing("lending-over", "The time given with --until is over.")
    schedule: Schedule = parse_schedule(policy.schedule)
    if not schedule.is_on(facts.minute_of_week):
        wait = schedule.minutes_until_change(facts.minute_of_week)
        return Standing("lending-off-schedule", f"Nothing is lent outside {schedule.text}; it begins again in {wait} min.")
    if facts.owner_busy:
        return Standing("lending-not-idle", f"Nothing is lent now: {facts.owner_busy}.")
    if facts.rung not in ISOLATED:
        return Standing("lending-unsafe", f"Strangers' work needs the isolation bubblewrap; here it is {facts.rung}. See: company doctor")
    slots = lendable(policy, facts)
    if slots < 1 or not facts.pythons:
        return Standing("lending-no-slots", "No worker is here that could be lent; those that speak REST never are.")
    if not facts.endpoints and not facts.relays:
        return Standing("lending-unreachable", "No other company can reach this one, directly or by a relay. See: company network status")
    offered = tuple(_advertisement(policy, facts, python) for python in facts.pythons[:4])
    machines = f"{facts.machines} machine{'s' if facts.machines != 1 else ''}"
    return Standing("lending", f"{slots} slot{'s' if slots != 1 else ''} on {machines} {'is' if slots == 1 else 'are'} offered.", offered)


def lendable(policy: Policy, facts: Facts) -> int:
    """How many slots may be under contracts at a time: what the owner allows of what is here, as far as favours are returned."""
    return facts.supply.slots(min(policy.max_slots, facts.slots))


def idle_of(policy: Policy, facts: Facts) -> int:
    """How many of them could be promised now."""
    return max(0, min(lendable(policy, facts) - facts.promised, facts.idle))


def _advertisement(policy: Policy, facts: Facts, python: str) -> Advertisement:
    return Advertisement(
        capability=f"spare/v1/{facts.arch}/py{python}/{facts.rung}", endpoints=facts.endpoints[:4], relays=facts.relays[:2],
        slots=idle_of(policy, facts), cores=facts.cores, memory_mib=facts.memory_mib, pythons=facts.pythons[:8], runtimes=("python",),
        speed=facts.speed, max_frame_s=policy.max_frame_s, min_trust_permille=policy.min_trust_permille, price_milli=policy.price_milli,
        schedule=policy.schedule,
    )  # fmt: skip


def who_may_ask(policy: Policy) -> str:
    """In words, for the owner."""
    if policy.only_to:
        return "only the companies that are named"
    if policy.min_trust_permille > 1000 * NEWCOMER_TRUST:
        return f"companies trusted at least {policy.min_trust_permille / 1000:g}; one of which nothing is known has {NEWCOMER_TRUST:.2g}"
    return "any company of the network, also one of which nothing is known"


def what_they_get(policy: Policy, standing: Standing) -> str:
    """The same for what a company has of a contract."""
    memory = max((a.memory_mib for a in standing.advertisements), default=0)
    most = f" up to {memory} MiB of memory each," if memory else ""
    price = f"{policy.price_milli / 1000:g} favours per core-second at least" if policy.price_milli else "no favours asked"
    return f"slots for the time of a contract,{most} that run the one processor it names, sandboxed and at the lowest priority; {price}"


def most_slots(policy: Policy, memory_mib: int, disk_mib: int, promised: tuple[int, int]) -> int:
    """How many slots of this size the caps leave. ``promised``: MiB of memory and of scratch under other contracts."""
    found = MAX_SLOTS
    for cap, each, taken in ((policy.memory_cap_mib, memory_mib, promised[0]), (policy.disk_cap_mib, disk_mib, promised[1])):
        if cap and each:
            found = min(found, max(0, cap - taken) // each)
    return found


def bandwidth_of(policy: Policy | None, slots: int) -> int:
    """Bytes a second for so many of the lent slots, as a share of the cap by slots; 0: no bound."""
    return max(1, policy.bandwidth_cap * min(slots, policy.max_slots) // policy.max_slots) if policy and policy.bandwidth_cap else 0


def is_due(new: Advertisement, old: Advertisement | None, since_s: float) -> bool:
    """Whether ``new`` is to be published in place of ``old``, ``since_s`` after that was. What only counts slots waits a little."""
    if old is None or _but_slots(new) != _but_slots(old):
        return True
    return new.slots != old.slots and (since_s >= QUIET_S or not old.slots or not new.slots)


def _but_slots(advertisement: Advertisement) -> dict[str, Any]:
    return {k: v for k, v in asdict(advertisement).items() if k != "slots"}


def may_borrow(policy: Policy | None, company: str) -> bool:
    """Whether this company is one of those that are meant; `is_trusted` judges trust."""
    return policy is not None and (not policy.only_to or company in policy.only_to)


def is_trusted(policy: Policy, trust: float | None) -> bool:
    """Whether a company is trusted enough. ``trust``: its score; one of which nothing is known has a newcomer's."""
    return round(1000 * (NEWCOMER_TRUST if trust is None else trust)) >= policy.min_trust_permille


def policy_as_json(policy: Policy) -> bytes:
    """For the database."""
    return json.dumps(asdict(policy)).encode()


def policy_of_json(data: bytes) -> Policy:
    """Out of the database."""
    values: Mapping[str, Any] = json.loads(data)
    return Policy(**{**values, "only_to": tuple(values.get("only_to", ()))})
