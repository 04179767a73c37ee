"""What the chief's machine wants done (pure). One frozen dataclass each; `company.chief.engine` carries them out."""

from __future__ import annotations

from company.chief.long_leases import LongLease
from company.chief.specs import Range
from p2p.base.errors import Reason
from p2p.base.record import record


@record(kw_only=True)
class StartSplit:
    """Run split from its beginning."""

    job: str


@record(kw_only=True)
class StopSplit:
    """Kill the split child, forget the window."""

    job: str


@record(kw_only=True)
class SendRun:
    """Lock the slot: the batch is ``first .. first+count`` of the window."""

    worker: str
    slot: int
    token: int
    job: str
    first: int
    count: int
    attempt: int


@record(kw_only=True)
class SendCancel:
    """Kill this batch on the worker."""

    worker: str
    token: int
    reason: str


@record(kw_only=True)
class SendRecall:
    """Ask an unbegun batch back."""

    worker: str
    token: int


@record(kw_only=True)
class SendStale:
    """Tell a worker that its token holds nothing any more."""

    worker: str
    token: int
    reason: str


@record(kw_only=True)
class SendResumed:
    """Answer a returning worker."""

    worker: str
    keep: tuple[int, ...]
    drop: tuple[tuple[int, str], ...]


@record(kw_only=True)
class SendDrain:
    """Pause or drain a worker, or let it work again (pause None)."""

    worker: str
    pause: bool | None


@record(kw_only=True)
class Accept:
    """Write these ranges of the outcome that is being handled; acknowledge when they are on disk."""

    job: str
    token: int
    worker: str
    attempt: int
    ranges: tuple[Range, ...]


@record(kw_only=True)
class Refuse:
    """Nothing of the outcome that is being handled is wanted; acknowledge it, so that the worker forgets it."""

    token: int
    worker: str


@record(kw_only=True)
class KeepFailure:
    """Write what is known of this failed fragment. ``final``: it will not be tried again."""

    job: str
    index: int
    tries: int
    infra_tries: int
    final: bool
    worker: str
    cause: str


@record(kw_only=True)
class FreeWindow:
    """These fragments have results on disk: their bytes are not needed any more."""

    job: str
    ranges: tuple[Range, ...]


@record(kw_only=True)
class SaveJob:
    """Write the job's row: state, paused, reason."""

    job: str


@record(kw_only=True)
class DropResults:
    """Forget every result of the job, on disk too; answered by nothing."""

    job: str


@record(kw_only=True)
class PrepareMerge:
    """The end is near: start the merge child so that it is warm."""

    job: str


@record(kw_only=True)
class StartMerge:
    """All results are on disk: merge them."""

    job: str


@record(kw_only=True)
class JobOver:
    """The job reached an end: write its row, tell the workers, stop what runs for it, free its window."""

    job: str
    phase: str
    reason: Reason | None
    total: int | None
    done: int
    failed: int


@record(kw_only=True)
class Tell:
    """One line of the job's story."""

    job: str
    kind: str
    text: str


@record(kw_only=True)
class KeepLeases:
    """Rows for leases that last, and the tokens whose rows are to go."""

    long: tuple[LongLease, ...]
    gone: tuple[int, ...]


Effect = (
    StartSplit | StopSplit | SendRun | SendCancel | SendRecall | SendStale | SendResumed | SendDrain | Accept | Refuse | KeepFailure
    | FreeWindow | SaveJob | DropResults | PrepareMerge | StartMerge | JobOver | Tell | KeepLeases
)  # fmt: skip
