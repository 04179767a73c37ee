"""Every message between a chief and its workers, with its bounds (pure). docs/protocol.md is generated from here.

One frame a message: the header is `Message.as_array()`, the byte strings are said in each docstring. Times are
milliseconds or microseconds as the name says; ``job`` is the job's id as text; tokens are fencing tokens.
"""

from __future__ import annotations

from typing import Annotated

from company.second_messages import Second as Second
from company.second_messages import Seconded as Seconded
from company.second_messages import SecondedHeard as SecondedHeard
from company.second_messages import Unsecond as Unsecond
from p2p.base.record import record
from p2p.base.schema import U16, U32, U64, Digest, Key, Length, Line, Message, Range, Signature, Text, Word, registry
from p2p.net.hello import PROTOCOL as PROTOCOL
from p2p.net.hello import Challenge as Challenge
from p2p.net.hello import Hello as Hello
from p2p.net.hello import Nonce as Nonce
from p2p.net.hello import Prove as Prove
from p2p.net.hello import Refused as Refused
from p2p.net.hello import Welcome as Welcome

Flag = bool
Count = Annotated[int, Range(0, 1 << 20, "fragments")]
JobId = Annotated[str, Length(1, 40)]
Name = Annotated[str, Length(1, 100)]
Blob = tuple[U32, Annotated[int, Range(0, 2**32 - 1, "bytes")], Digest]  # (offset in this batch, size, BLAKE2b-256)
Blobs = Annotated[tuple[Blob, ...], Length(0, 256)]


# ---- joining ----------------------------------------------------------------------------------------------------------------
@record
class Machine(Message, code=9):
    """What a worker's machine offers; part of Join and Resume."""

    name: Name
    slots: Annotated[int, Range(1, 1024, "slots")]
    cores: Annotated[int, Range(1, 4096, "cores")]
    memory_bytes: U64
    python: Word
    platform: Word
    isolation: Word
    requirements_allowed: bool
    http: Annotated[str, Length(0, 200)] | None
    rpc: Annotated[str, Length(0, 200)] | None
    version: Word


@record
class Join(Message, code=10):
    """Ask to become a worker; the machine follows in the same frame as item 0 (msgpack array of Machine)."""

    token_id: Word
    secret: Annotated[bytes, Length(16, 64)]
    via: Annotated[str, Length(0, 100)] | None


@record
class Joined(Message, code=11):
    """Join accepted; supervisor: the chief's company id."""

    worker: Word
    supervisor: Word
    heartbeat_ms: U32
    server_time: U64


Held = tuple[U64, JobId, U64, Count, Word]  # token, job, first, count, "running" | "done" | "queued"


@record
class Resume(Message, code=12):
    """A known worker is back; item 0: msgpack array of Machine. ``at``: its clock, Unix seconds; 0: not said."""

    worker: Word
    held: Annotated[tuple[Held, ...], Length(0, 4096)]
    at: U64 = 0


@record
class Resumed(Message, code=13):
    """Which of the held leases still count."""

    keep: Annotated[tuple[U64, ...], Length(0, 4096)]
    drop: Annotated[tuple[tuple[U64, Word], ...], Length(0, 4096)]
    heartbeat_ms: U32
    server_time: U64


@record
class Guest(Message, code=14):
    """A worker that another company lends comes with its chief's ticket (`company.ticket`); item 0: msgpack array of Machine."""

    lender: Key
    ticket: Annotated[bytes, Length(1, 4096)]
    signature: Signature
    held: Annotated[tuple[Held, ...], Length(0, 4096)]
    at: U64 = 0


# ---- jobs and packages --------------------------------------------------------------------------------------------------------
@record
class JobIs(Message, code=20):
    """What a worker must know of a job before its first Run. Item 0: params (codec)."""

    job: JobId
    processor: Digest
    time_limit_ms: U64
    memory_bytes: U64
    requirements: Annotated[str, Length(0, 4096)]


@record
class JobOver(Message, code=21):
    """The job ended or was cancelled: kill what runs of it, forget it."""

    job: JobId
    reason: Word


@record
class NeedProcessor(Message, code=22):
    """Worker to chief: send me this processor."""

    processor: Digest


@record
class ProcessorIs(Message, code=23):
    """Item 0: the processor archive (zip, at most 16 MiB). The signature is over the envelope of the package manifest."""

    processor: Digest
    package: Digest
    name: Annotated[str, Length(0, 100)]
    signed_for: Annotated[str, Length(0, 100)]
    signer: Key
    signature: Signature


@record
class JobBlocked(Message, code=24):
    """Worker to chief: I cannot run this job (package refused, requirement missing …)."""

    job: JobId
    code_word: Word
    text: Line


# ---- the fragment path --------------------------------------------------------------------------------------------------------
@record
class Run(Message, code=30):
    """Lock ``slot`` for one batch. Items: the fragments (codec); those in ``blobs`` are empty and fetched by BlobGet."""

    token: U64
    slot: U16
    job: JobId
    first: U64
    count: Count
    attempt: U16
    blobs: Blobs


@record
class Outcome(Message, code=31):
    """Results of part or all of a batch. Items: status u8[count], duration_us u32[count], logs, then ``count`` results.

    status 0 = ok, 1 = raised (the item is then codec({"type","message","traceback","preview"})). ``last``: the lease is over.
    """

    token: U64
    job: JobId
    first: U64
    count: Count
    last: Flag
    run_us: U64
    cpu_us: U64
    peak_bytes: U64
    log_dropped: U64
    blobs: Blobs
    input_digest: Annotated[bytes, Length(0, 16)] = b""  # xxh3-128 over the sizes (u32le) and bytes of these fragments as they came


@record
class Failed(Message, code=32):
    """The child died or was killed while at ``index``; the lease is over. Items: log tail, input preview.

    cause: crashed, exited, time-limit, memory-limit, disk-limit, output-flood, load-failed, sandbox-failed, cancelled
    """

    token: U64
    job: JobId
    index: U64
    cause: Word
    exc_type: Line
    message: Line
    traceback: Text
    signal: U16
    exit_code: U16


@record
class Ack(Message, code=33):
    """These outcomes are on disk: (token, first). The worker may forget them."""

    parts: Annotated[tuple[tuple[U64, U64], ...], Length(0, 4096)]


@record
class Stale(Message, code=34):
    """This token holds no lease; its results were refused."""

    token: U64
    reason: Word


@record
class Recall(Message, code=35):
    """Give a batch back if it has not begun."""

    token: U64


@record
class Recalled(Message, code=36):
    """The answer to Recall: whether the batch was still untouched."""

    token: U64
    given_back: bool


@record
class Cancel(Message, code=37):
    """Kill this batch now, whether running or queued; no answer is wanted."""

    token: U64
    reason: Word


@record
class SlotState(Message, code=38):
    """What a slot is doing, for the pages: idle, starting, busy, paused, broken."""

    slot: U16
    state: Word
    reason: Line


@record
class Status(Message, code=39):
    """task.status(...) of a fragment, at most 2 a second per slot. permille: 0..1000 or nil."""

    token: U64
    job: JobId
    index: U64
    text: Line
    permille: Annotated[int, Range(0, 1000)] | None


@record
class Artifact(Message, code=40):
    """One piece of task.artifact(...). Item 0: the next bytes, at most 1 MiB."""

    token: U64
    job: JobId
    index: U64
    name: Annotated[str, Length(1, 200)]
    offset: U64
    last: bool


# ---- living together -----------------------------------------------------------------------------------------------------------
@record
class Ping(Message, code=50):
    """Heartbeat; ``at``: the sender's monotonic microseconds, returned in Pong. The rest is said to the own chief."""

    at: U64
    owner_permille: Annotated[int, Range(0, 1000)] | None = None  # of the machine's cores, at normal priority and in the kernel
    on_mains: bool | None = None  # nil where there is no battery


@record
class Pong(Message, code=51):
    """The answer to Ping."""

    at: U64


@record
class Drain(Message, code=52):
    """Chief to worker: finish what you hold, then leave. ``pause``: keep the channel and wait for Undrain."""

    pause: bool


@record
class Undrain(Message, code=53):
    """Take work again."""


@record
class Bye(Message, code=54):
    """The last message of a side that leaves on purpose."""

    reason: Word


# ---- bulk connection (purpose "bulk"): one request at a time ----------------------------------------------------------------------
@record
class BlobGet(Message, code=60):
    """Ask for the bytes of a fragment too large to inline."""

    token: U64
    job: JobId
    index: U64


@record
class BlobPart(Message, code=61):
    """Item 0: at most 1 MiB. Sent by either side of a bulk connection until ``last``."""

    last: bool


@record
class BlobPut(Message, code=62):
    """Announce the bytes of a result too large to inline; BlobParts follow, then BlobKept comes back."""

    token: U64
    job: JobId
    index: U64
    size: Annotated[int, Range(0, 2**32 - 1, "bytes")]


@record
class BlobKept(Message, code=63):
    """The result is spooled; the Outcome names it by this digest."""

    digest: Digest


@record
class WheelsGet(Message, code=64):
    """Ask which wheels a job's requirements need."""

    job: JobId


@record
class WheelsAre(Message, code=65):
    """Item 0: the body of the list, an envelope "wheels" that the chief has signed (`company.wheel_list`)."""

    signature: Signature


@record
class WheelGet(Message, code=66):
    """Ask for one wheel of a job's list; BlobParts come back."""

    job: JobId
    sha256: Digest


MESSAGES = registry(
    Hello, Challenge, Prove, Welcome, Refused, Machine, Join, Joined, Resume, Resumed, Guest, JobIs, JobOver, NeedProcessor, ProcessorIs,
    JobBlocked, Run, Outcome, Failed, Ack, Stale, Recall, Recalled, Cancel, SlotState, Status, Artifact, Ping, Pong, Drain, Undrain,
    Bye, Second, Unsecond, Seconded, SecondedHeard, BlobGet, BlobPart, BlobPut, BlobKept, WheelsGet, WheelsAre, WheelGet,
)  # fmt: skip
