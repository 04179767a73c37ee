"""What the chief's machine hears and what it wants done (pure). One frozen dataclass each; see `company.chief.state`."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from company.chief.long_leases import LongLease
from company.chief.secondment.events import AbroadJudged as AbroadJudged
from company.chief.secondment.events import Believed as Believed
from company.chief.secondment.events import JobSetAside as JobSetAside
from company.chief.secondment.events import WorkerLent as WorkerLent
from company.chief.specs import Guest as Guest
from company.chief.specs import JobSpec as JobSpec
from company.chief.specs import Range as Range
from company.chief.specs import WorkerSpec as WorkerSpec
from p2p.base.errors import Reason
from p2p.base.frames import Sizes
from p2p.base.record import record


# ---- events ---------------------------------------------------------------------------------------------------------------
@record(kw_only=True)
class JobAdded:
    """A job is on disk, new or found there at start. ``done``, ``dead``: what earlier runs left."""

    spec: JobSpec
    done: tuple[Range, ...] = ()
    dead: tuple[int, ...] = ()
    tries: tuple[tuple[int, int, int], ...] = ()  # fragment, tries, infra tries
    paused: bool = False
    restarts: int = 0  # how often split turned out not to be deterministic
    total: int | None = None
    waited_s: float = 0.0  # since it was submitted, before this run of the chief
    believed: tuple[tuple[str, int, int], ...] = ()  # of ``done``, what other companies computed: (company, first, count)


@record(kw_only=True)
class JobChanged:
    """A user's wish. action: pause, resume, cancel, edit."""

    job: str
    action: str
    args: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


@record(kw_only=True)
class SplitCounted:
    """count(data) said so."""

    job: str
    total: int


@record(kw_only=True)
class SplitProduced:
    """More fragments are in the window."""

    job: str
    first: int
    sizes: Sizes
    costs: list[float] | None = None


@record(kw_only=True)
class SplitEnded:
    """Split yielded its last fragment."""

    job: str
    total: int


@record(kw_only=True)
class SplitFailed:
    """Split raised, died or yielded something else than before (code split-not-deterministic)."""

    job: str
    reason: Reason


@record(kw_only=True)
class SplitDiffers:
    """A split that ran again yielded other fragments than those whose results are on disk."""

    job: str


@record(kw_only=True)
class WorkerHere:
    """A worker's channel is open. ``held``: (token, job, first, count) it still has."""

    spec: WorkerSpec
    held: tuple[tuple[int, str, int, int], ...] = ()
    paused: bool = False
    quarantined: bool = False


@record(kw_only=True)
class WorkerGone:
    """The channel closed. ``said_bye``: it left on purpose."""

    worker: str
    said_bye: bool = False


@record(kw_only=True)
class WorkerChanged:
    """action: pause, resume, drain, quarantine, release, rm."""

    worker: str
    action: str


@record(kw_only=True)
class WorkerBlocked:
    """A worker cannot run a job at all."""

    worker: str
    job: str
    reason: Reason


@record(kw_only=True)
class Heartbeat:
    """Anything came from this worker."""

    worker: str


@record(kw_only=True)
class FragmentError:
    """One fragment that raised, as far as the machine cares."""

    index: int
    cause: str


@record(kw_only=True)
class OutcomeArrived:
    """Results of part of a batch. ``ok``: maximal runs of fragments without error. ``is_whole_only``: it can be checked only as a
    whole (split has not come this far again since a restart); take all of it or nothing."""

    worker: str
    token: int
    job: str
    first: int
    count: int
    last: bool
    ok: tuple[Range, ...]
    raised: tuple[int, ...]
    run_us: int
    result_bytes: int = 0
    is_whole_only: bool = False


@record(kw_only=True)
class FragmentDied:
    """A child died or was killed at ``index``; the lease is over. ``infra``: not the fragment's fault."""

    worker: str
    token: int
    job: str
    index: int
    cause: str
    infra: bool = False


@record(kw_only=True)
class Recalled:
    """The answer to SendRecall."""

    worker: str
    token: int
    given_back: bool


@record(kw_only=True)
class Committed:
    """These results are on disk."""

    job: str
    ranges: tuple[Range, ...]


@record(kw_only=True)
class MergeEnded:
    """The final result is on disk."""

    job: str


@record(kw_only=True)
class MergeFailed:
    """Merge raised or died."""

    job: str
    reason: Reason


@record(kw_only=True)
class DiskState:
    """Whether results can be written."""

    full: bool


@record(kw_only=True)
class OwnWorker:
    """The chief's own worker was started, or has ended with this status and is started again."""

    slots: int
    ended: int | None = None


@record(kw_only=True)
class Tick:
    """A deadline passed."""


Event = (
    JobAdded | JobChanged | SplitCounted | SplitProduced | SplitEnded | SplitFailed | SplitDiffers | WorkerHere | WorkerGone
    | WorkerChanged | WorkerBlocked | Heartbeat | OutcomeArrived | FragmentDied | Recalled | Committed | MergeEnded | MergeFailed
    | DiskState | OwnWorker | WorkerLent | AbroadJudged | Believed | JobSetAside | Tick
)  # fmt: skip


# ---- effects --------------------------------------------------------------------------------------------------------------
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
