"""What every surface shows: the JSON objects of REST, CLI, web page and Python (pure; decoded and documented by msgspec).

Sizes in bytes, times in Unix seconds (float) or seconds; ``reason`` is `p2p.base.errors.Reason` as a map.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

JobState = Literal["queued", "splitting", "running", "merging", "done", "failed", "cancelled"]
Where = Literal["own", "trusted", "any"]
Role = Literal["viewer", "submitter", "operator", "owner", "worker"]


class ReasonView(msgspec.Struct, kw_only=True):
    """Why: a code, a sentence, the facts behind it, and what can be done."""

    code: str
    text: str
    facts: dict[str, Any] = {}
    actions: list[dict[str, str]] = []


class EtaView(msgspec.Struct, kw_only=True):
    """Seconds until the job is done, as a range (25th to 75th percentile)."""

    low_s: float
    high_s: float
    basis: str  # in words: "from 812 fragments"


class CountsView(msgspec.Struct, kw_only=True):
    """Fragments by state. ``total`` is nil until split has ended; ``at_least`` is what has been seen so far."""

    total: int | None = None
    at_least: int = 0
    done: int = 0
    failed: int = 0
    leased: int = 0
    waiting: int = 0


class BorrowedView(msgspec.Struct, kw_only=True):
    """What another company's slots do for one job now, or did, once it is over."""

    company: str
    contract: str  # hex
    slots: int = 0  # that run something of the job
    results: int = 0
    provisional: int = 0  # of them, not believed yet: hidden from merge and readers
    run_s: float | None = None  # what its slots spent on results that count; once the job is over
    ends_in_s: float | None = None  # the contract's time frame
    lease_left_s: float | None = None  # until silence ends it


class JobView(msgspec.Struct, kw_only=True):
    """One job."""

    id: str
    name: str
    state: JobState
    paused: bool = False
    reason: ReasonView | None = None  # every state but done has one
    package: str  # hex digest
    package_name: str = ""
    dataset: str  # hex digest
    dataset_name: str = ""
    owner: str = ""
    priority: int = 0
    params: dict[str, Any] = {}
    where: Where = "own"
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    first_result: float | None = None
    fragments: CountsView = msgspec.field(default_factory=CountsView)
    eta: EtaView | None = None
    fraction: float | None = None
    rate_per_s: float | None = None
    max_fails: str = "0"
    time_limit_s: float = 600.0
    memory_bytes: int = 0
    result_bytes: int | None = None
    result_digest: str | None = None  # hex SHA-256 of what final-result serves
    result_name: str | None = None
    merge_attempt: int = 0
    cpu_s: float = 0.0
    slots_own: int = 0  # own slots that run something of it
    results_own: int = 0  # results of own workers
    borrowed: list[BorrowedView] = []
    status: list[dict[str, Any]] = []  # newest task.status lines: {"fragment", "text", "fraction"}


class FailureView(msgspec.Struct, kw_only=True):
    """One fragment that failed at least once."""

    job: str
    fragment: int
    tries: int
    infra_tries: int
    final: bool
    cause: str
    exc_type: str = ""
    message: str = ""
    traceback: str = ""
    signal: int = 0
    exit_code: int = 0
    log_tail: str = ""
    preview: str = ""
    worker: str = ""
    at: float = 0.0
    reproducible: bool = False  # whether its input was kept


class WorkerView(msgspec.Struct, kw_only=True):
    """One worker of the company."""

    id: str
    name: str
    state: Literal["joining", "idle", "busy", "paused", "draining", "offline", "quarantined"]
    reason: ReasonView | None = None
    slots: int = 0
    slots_busy: int = 0
    cores: int = 0
    memory_bytes: int = 0
    python: str = ""
    platform: str = ""
    isolation: str = ""
    rate: float | None = None  # fragments or cost per second, exponentially weighted
    last_seen: float = 0.0
    joined: float = 0.0
    address: str = ""
    via: str | None = None
    transport: str = "rpc"
    version: str = ""
    jobs: list[str] = []
    clock_skew_s: float | None = None
    owner_load: float | None = None  # the share of its machine's cores that its owner uses, without guests
    on_mains: bool | None = None  # null where it has no battery
    requirements_allowed: bool | None = None  # whether its owner lets distributions of packages in


class PackageView(msgspec.Struct, kw_only=True):
    """One module package."""

    digest: str
    name: str
    version: str = ""
    size: int = 0
    files: list[dict[str, Any]] = []
    signer: str = ""
    signed_for: str = ""
    python: str = ""
    requirements: list[str] = []
    memory_bytes: int = 0
    time_limit_s: float = 600.0
    functions: list[str] = []
    warnings: list[str] = []
    uploaded: float = 0.0


class DatasetView(msgspec.Struct, kw_only=True):
    """One dataset."""

    digest: str
    name: str
    kind: Literal["file", "tree"]
    size: int = 0
    files: int = 1
    uploaded: float = 0.0
    jobs: int = 0
    private: bool = False


class TokenView(msgspec.Struct, kw_only=True):
    """One token, without its secret."""

    id: str
    kind: Literal["join", "access"]
    role: Role
    label: str = ""
    created: float = 0.0
    expires: float | None = None
    uses_left: int | None = None
    revoked: bool = False
    last_used: float | None = None


class TokenCreated(msgspec.Struct, kw_only=True):
    """A new token with its secret, shown once, and the lines to copy."""

    token: str
    info: TokenView
    install_line: str | None = None
    join_line: str | None = None
    note: str | None = None  # why the lines may not work from where they are wanted


class ArtifactView(msgspec.Struct, kw_only=True):
    """One file that a fragment left with task.artifact()."""

    job: str
    fragment: int
    name: str
    size: int
    digest: str


class LogLine(msgspec.Struct, kw_only=True):
    """One piece of what a module printed, or one event of the job's story (stream "event", fragment nil)."""

    fragment: int | None
    stream: Literal["stdout", "stderr", "event"]
    text: str
    at: float | None = None
    worker: str = ""


class CompanyView(msgspec.Struct, kw_only=True):
    """The company itself, for status and the home page."""

    id: str
    name: str
    version: str
    started: float
    home: str
    http: str
    rpc: str
    dht: str | None
    python: str
    jobs: dict[str, int] = {}
    workers: dict[str, int] = {}
    slots: int = 0
    slots_busy: int = 0
    disk_free_bytes: int = 0
    isolation: str = ""
    quota_bytes: int | None = None  # of packages, datasets and open uploads, for each user but owners
    kept_bytes: dict[str, int] = {}  # the users who keep most of these
    needs_you: list[ReasonView] = []


class JobSubmit(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /api/v1/jobs."""

    package: str  # digest (a unique prefix will do) or name
    dataset: str
    name: str | None = None
    params: dict[str, Any] = {}
    where: Where = "own"
    priority: int = 0
    max_fails: str = "0"  # "0", "5" or "10%"
    time_limit_s: float | None = None
    memory_bytes: int | None = None
    batching: Literal["adaptive", "sqrt-window", "none"] = "adaptive"
    matching: Literal["stable", "seed"] = "stable"
    failure: Literal["log-z", "seed-z4"] = "log-z"
    retries: int = 3
    notify: str | None = None
    yes_foreign: bool = False  # with where other than own: who will see fragments, processor and parameters was read and confirmed
    borrow: Literal["never", "ask", "automatically"] | None = None  # more careful for this job than the company's policy; never less
    stream: bool = False  # its fragments are calls that the client goes on sending; split and merge of the package are not run


class TokenRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /api/v1/tokens."""

    role: Role
    label: str = ""
    ttl_s: float = 86400.0
    uses: int = 1
