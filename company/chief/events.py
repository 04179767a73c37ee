"""What the chief's machine hears (pure). One frozen dataclass each; see `company.chief.state`. What it wants done: `effects`."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from company.chief.effects import Accept as Accept
from company.chief.effects import DropResults as DropResults
from company.chief.effects import Effect as Effect
from company.chief.effects import FreeWindow as FreeWindow
from company.chief.effects import JobOver as JobOver
from company.chief.effects import KeepFailure as KeepFailure
from company.chief.effects import KeepLeases as KeepLeases
from company.chief.effects import PrepareMerge as PrepareMerge
from company.chief.effects import Refuse as Refuse
from company.chief.effects import SaveJob as SaveJob
from company.chief.effects import SendCancel as SendCancel
from company.chief.effects import SendDrain as SendDrain
from company.chief.effects import SendRecall as SendRecall
from company.chief.effects import SendResumed as SendResumed
from company.chief.effects import SendRun as SendRun
from company.chief.effects import SendStale as SendStale
from company.chief.effects import StartMerge as StartMerge
from company.chief.effects import StartSplit as StartSplit
from company.chief.effects import StopSplit as StopSplit
from company.chief.effects import Tell as Tell
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
