"""What a worker's machine hears and what it decides: its events and effects (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from p2p.base.record import record
from p2p.base.schema import Message


# ---- events ---------------------------------------------------------------------------------------------------------------------
@record
class RunCame:
    token: int
    slot: int
    job: str
    first: int
    count: int


@record
class JobCame:
    job: str


@record
class JobReady:
    """Processor cached and verified, requirements there."""

    job: str


@record
class JobRefused:
    job: str
    code: str
    text: str


@record
class JobEnded:
    job: str


@record
class BatchBegan:
    """The child has reached this batch: it can no longer be given back."""

    token: int


@record
class PartMade:
    """A piece of an outcome is in the results store; ``last`` ends the run."""

    token: int
    first: int
    last: bool


@record
class Acked:
    parts: tuple[tuple[int, int], ...]


@record
class LeaseGone:
    """Stale or Cancel: the chief wants nothing more of this token."""

    token: int
    reason: str


@record
class RecallCame:
    token: int


@record
class GiveBack:
    """The slot cannot run this batch for reasons that are not the batch's."""

    token: int


@record
class SlotChanged:
    slot: int
    state: str
    reason: str


@record
class LinkUp:
    """The chief took us back. ``keep``: tokens that still count; nil after a first join."""

    keep: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The chief cannot be reached; until the next LinkUp nothing can be delivered."""


@record
class DrainCame:
    pause: bool


@dataclass(frozen=True, slots=True)
class UndrainCame:
    pass


@record
class StopAsked:
    """The owner of this machine wants the worker to end; what runs may take ``grace_s`` more."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    pass


Event = (
    RunCame | JobCame | JobReady | JobRefused | JobEnded | BatchBegan | PartMade | Acked | LeaseGone | RecallCame | GiveBack
    | SlotChanged | LinkUp | LinkDown | DrainCame | UndrainCame | StopAsked | Tick
)  # fmt: skip


# ---- effects --------------------------------------------------------------------------------------------------------------------
@record
class PrepareJob:
    """Get the processor, verify it, look for requirements; answer with JobReady or JobRefused."""

    job: str


@record
class Dispatch:
    """Give this batch to its slot, behind what the slot has."""

    slot: int
    token: int


@record
class Withdraw:
    """The slot must not run this batch, and kill its child if it does."""

    slot: int
    token: int
    reason: str


@record
class ForgetPart:
    token: int
    first: int


@record
class ForgetLease:
    """Drop the payload and every held part of this token."""

    token: int


@record
class CloseJob:
    """End the warm children of this job and drop its parameters."""

    job: str


@record
class Tell:
    """A control message to the chief."""

    message: Message


@record
class Leave:
    """Nothing is held any more: say Bye and end."""

    reason: str


Effect = PrepareJob | Dispatch | Withdraw | ForgetPart | ForgetLease | CloseJob | Tell | Leave
