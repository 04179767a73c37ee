"""Every transition of a contract, for both sides, and the diagram drawn from it (pure).

A contract changes its state here or not at all. Docs show `mermaid()`, and a test compares.
"""

from __future__ import annotations

from enum import StrEnum

from p2p.base.errors import InvariantBroken


class State(StrEnum):
    """Where a contract stands, in the same words on both sides."""

    DRAFT = "draft"
    OFFERED = "offered"
    ACCEPTED = "accepted"
    ACTIVE = "active"
    AMENDING = "amending"
    SUSPECT = "suspect"
    REVOKING = "revoking"
    EXPIRED = "expired"
    BROKEN = "broken"
    CLOSING = "closing"
    SETTLED = "settled"
    RATED = "rated"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"


class Trigger(StrEnum):
    """What moves a contract."""

    OFFER = "offer"
    COUNTER = "counter-proposal"
    REFUSE = "refuse"
    WITHDRAW = "withdraw"
    LAPSE = "time is over"
    ACCEPT = "accept"
    COMMIT = "commit"
    VOID = "commit came too late"
    AMEND = "amend"
    AMENDED = "in force, void or refused"
    MISS = "two epochs missed"
    HEAR = "heard again"
    HEAR_AMENDING = "heard again, amendment open"
    REVOKE = "revoke"
    EXPIRE = "time frame over"
    BREAK = "lease over, or a breach"
    CLOSE = "drained, or notice over"
    SETTLE = "countersettled"
    RATE = "both halves"
    ALONE = "half alone"


S, T = State, Trigger
TABLE: tuple[tuple[tuple[State, ...], Trigger, State], ...] = (
    ((S.DRAFT, S.OFFERED), T.OFFER, S.OFFERED),
    ((S.OFFERED,), T.COUNTER, S.OFFERED),
    ((S.OFFERED,), T.REFUSE, S.REJECTED),
    ((S.OFFERED,), T.WITHDRAW, S.WITHDRAWN),
    ((S.OFFERED,), T.LAPSE, S.LAPSED),
    ((S.OFFERED,), T.ACCEPT, S.ACCEPTED),
    ((S.ACCEPTED,), T.LAPSE, S.LAPSED),
    ((S.ACCEPTED,), T.WITHDRAW, S.LAPSED),
    ((S.ACCEPTED,), T.COMMIT, S.ACTIVE),
    ((S.ACTIVE, S.SUSPECT, S.REVOKING, S.EXPIRED, S.BROKEN, S.CLOSING), T.VOID, S.LAPSED),
    ((S.ACTIVE,), T.AMEND, S.AMENDING),
    ((S.AMENDING,), T.AMENDED, S.ACTIVE),
    ((S.ACTIVE, S.AMENDING), T.MISS, S.SUSPECT),
    ((S.SUSPECT,), T.HEAR, S.ACTIVE),
    ((S.SUSPECT,), T.HEAR_AMENDING, S.AMENDING),
    ((S.ACTIVE, S.AMENDING, S.SUSPECT), T.REVOKE, S.REVOKING),
    ((S.ACTIVE, S.AMENDING, S.SUSPECT), T.EXPIRE, S.EXPIRED),
    ((S.ACTIVE, S.AMENDING, S.SUSPECT, S.REVOKING, S.EXPIRED), T.BREAK, S.BROKEN),
    ((S.REVOKING, S.EXPIRED, S.BROKEN), T.CLOSE, S.CLOSING),
    ((S.CLOSING,), T.SETTLE, S.SETTLED),
    ((S.SETTLED,), T.RATE, S.RATED),
    ((S.CLOSING, S.SETTLED), T.ALONE, S.RATED),
)
_NEXT = {(state, trigger): to for states, trigger, to in TABLE for state in states}

LIVE = frozenset({S.ACTIVE, S.AMENDING, S.SUSPECT})  # work may flow
HOLDING = LIVE | {S.ACCEPTED, S.REVOKING, S.EXPIRED}  # the lender's slots are taken
ENDING = frozenset({S.REVOKING, S.EXPIRED, S.BROKEN, S.CLOSING, S.SETTLED})
FINAL = frozenset({S.RATED, S.REJECTED, S.WITHDRAWN, S.LAPSED})


def next_state(state: State, trigger: Trigger) -> State:
    """Where ``trigger`` leads. Raises `InvariantBroken` when the table has no such way: callers ask `can` first."""
    found = _NEXT.get((state, trigger))
    if found is None:
        raise InvariantBroken(f"a contract that is {state} cannot {trigger.value!r}", state=str(state), trigger=str(trigger))
    return found


def can(state: State, trigger: Trigger) -> bool:
    """Whether the table has a way from ``state`` by ``trigger``."""
    return (state, trigger) in _NEXT


def mermaid() -> str:
    """The table as a state diagram, for docs/contracts.md."""
    lines = ["stateDiagram-v2", f"    [*] --> {S.DRAFT}"]
    lines += [f"    {state} --> {to}: {trigger.value}" for states, trigger, to in TABLE for state in states]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL]
    return "\n".join(lines)
